"""Lines that came through the producer, written into a job's folder or to a plain output."""

from dataclasses import replace

from pyrmute_tasks.engine.pipeline import ChunkResult
from pyrmute_tasks.errors import JobLogError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.io.job_output import JobOutput
from pyrmute_tasks.io.jsonl import JsonlSource, Position
from pyrmute_tasks.io.logged_rejects import encode_rejects
from pyrmute_tasks.io.output_file import Output
from pyrmute_tasks.jobs.entries import Range, Settled
from pyrmute_tasks.jobs.output import digest_of
from pyrmute_tasks.ranges.frames import Place
from pyrmute_tasks.wire.frames import Frame

__all__ = ["LineFeed", "LineWriter"]


class LineWriter:
    """Writes chunks to an output without a log.

    Args:
        output: The output, entered.
    """

    def __init__(self, output: Output) -> None:
        self._output = output

    def deliver(self, result: ChunkResult[Frame]) -> None:
        """Write a chunk's outputs.

        Raises:
            ConfigurationError: If they cannot be written.
        """
        if result.count:  # an empty frame may hold no lines
            self._output.write(result.outputs.payload)

    def finish(self) -> None:
        """Do nothing: all is written."""


class LineFeed:
    """Writes the chunks of a file, which are delivered in order, and settles their ranges.

    Args:
        output: The job's output, entered.
        source: What reads the file; it is set to where earlier runs came.

    Raises:
        JobLogError: If an earlier run has settled something behind a gap.
    """

    def __init__(self, output: JobOutput, source: JsonlSource) -> None:
        self._output = output
        self._source = source
        self._size_bytes = sum(each.end for each in output.folder.spec.wanted)
        self._at = _end_of_beginning(output)
        source.begin_at(self._at)

    def deliver(self, result: ChunkResult[Frame]) -> None:
        """Write a chunk's outputs and rejects, and log that it is settled.

        The chunk in which the job ends is written, but not settled.

        Raises:
            ConfigurationError: If they cannot be written, or another run has taken the output over.
        """
        output, origin = self._output, result.chunk.origin
        assert origin is not None
        with output.writing():
            data = result.outputs.payload if result.count else b""
            put = output.log.put(data) if result.count else None
        if result.failure is not None:
            output.ends_at(Range(0, self._at.byte, self._size_bytes), [put] if put else [])
            return
        end = Position.behind(result.chunk, origin)
        if end.byte > self._size_bytes:
            output.check_sources()  # it grows, perhaps for ever
        at, digest = self._at, digest_of(data) if put else ""
        rejects = [replace(each, index=each.index - at.record) for each in result.rejects]
        counts = (result.chunk.count, result.count, len(rejects))
        lines = end.line - at.line
        output.settle(
            Settled(0, at.byte, end.byte, *counts, put, digest, lines=lines),
            encode_rejects(rejects, map(self._place, result.rejects)),
        )
        self._at = end
        output.commit_if_due()

    def finish(self) -> None:
        """Settle blank lines at the end of the file.

        Raises:
            ConfigurationError: If that cannot be written.
        """
        at, size = self._at, self._size_bytes
        if at.byte < size:
            lines = self._source.position.line - at.line
            self._output.settle(Settled(0, at.byte, size, 0, 0, lines=lines), b"")

    def _place(self, failure: RecordFailure) -> Place:
        found, at = failure.place, self._at
        assert found is not None
        digest = found.digest.removeprefix("sha256:")
        number, line = failure.index - at.record, found.line - at.line
        return Place(number, line, found.offset, found.length, digest)


def _end_of_beginning(output: JobOutput) -> Position:
    """Return up to where the source is settled."""
    wanted = output.folder.spec.wanted
    gaps = list(output.fold.gaps(wanted))
    if len(gaps) > 1 or (gaps and gaps[0].end != wanted[-1].end):
        raise JobLogError(
            "the earlier run went by reference and has gaps in the middle, which a run through the "
            "producer cannot fill: let this run go by reference, too, or begin again with --restart"
        )
    byte = gaps[0].start if gaps else sum(each.end for each in wanted)
    lines = sum(span.lines for span in output.fold.spans())
    return Position(byte, output.fold.records, 1 + lines)
