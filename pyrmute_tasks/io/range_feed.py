"""Ranges that workers read and wrote themselves, settled in a job's log as they come."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.job import JobExecutor
from pyrmute_tasks.engine.pipeline import ChunkResult
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.io.job_output import JobOutput
from pyrmute_tasks.io.logged_rejects import Restored, encode_rejects
from pyrmute_tasks.io.range_source import RangeSource
from pyrmute_tasks.jobs import entries
from pyrmute_tasks.jobs.entries import Settled
from pyrmute_tasks.jobs.folder import PARTS
from pyrmute_tasks.jobs.output import Output
from pyrmute_tasks.ranges.frames import Piece, read_pieces
from pyrmute_tasks.wire.frames import Frame

__all__ = ["RangeFeed"]


class RangeFeed:
    """An executor that logs each range when it is settled, in any order.

    What earlier runs of the job have settled is not sent: its outcome comes from the log. So
    records are counted, and failures judged, as in a run without the interruption.

    Args:
        output: The job's output, entered.
        source: Where the ranges come from.
        skips: Whether records that fail are skipped; if not, their range is not settled.
    """

    _executor: JobExecutor[bytes, Frame]

    def __init__(self, output: JobOutput, source: RangeSource, *, skips: bool) -> None:
        self._output = output
        self._source = source
        self._skips = skips
        self._underway: dict[int, Chunk[bytes]] = {}
        self._ready: list[Outcome[Sequence[Piece]]] = []
        self._restored: set[int] = set()

    def over(self, executor: JobExecutor[bytes, Frame]) -> Self:
        """Return the feed, whose ranges an executor runs."""
        self._executor = executor
        return self

    @property
    def slots(self) -> int:
        """Number of chunks that run at a time, as last seen."""
        return self._executor.slots

    @property
    def jobs(self) -> int:
        """Number of jobs that share the slots, this one included, as last seen."""
        return self._executor.jobs

    def __enter__(self) -> Self:
        """Register the job."""
        self._executor.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Remove all traces of the job but its log."""
        self._executor.__exit__(kind, error, traceback)

    def submit(self, chunk: Chunk[bytes], /) -> None:
        """Send a range, unless it is settled."""
        restored = self._source.restored.pop(chunk.index, None)
        if restored is not None:
            self._ready.append(_outcome_of(chunk, restored))
            self._restored.add(chunk.index)
            return
        self._underway[chunk.index] = chunk
        self._executor.submit(chunk)

    def collect(self, *, wait: bool) -> Iterable[Outcome[Sequence[Piece]]]:
        """Return the outcomes that arrived, which are logged."""
        found, self._ready = self._ready, []
        if not found:
            found = list(map(self._logged, self._executor.collect(wait=wait)))
        self._output.commit_if_due()
        return found

    def cancel(self, first: int) -> None:
        """Forget the chunks from index `first` on."""
        self._executor.cancel(first)

    def is_restored(self, result: ChunkResult[Sequence[Piece]]) -> bool:
        """Return whether an earlier run has settled a chunk; call this once."""
        is_so = result.index in self._restored
        self._restored.discard(result.index)
        return is_so

    def deliver(self, result: ChunkResult[Sequence[Piece]]) -> None:
        """Join a chunk's outputs to those before them.

        Raises:
            ConfigurationError: If they are not what their worker told, or cannot be joined.
        """
        if result.failure is not None:
            self._output.ends_at(self._source.range_of(result.index))
        for piece in result.outputs:
            put = _put(piece, piece.size_bytes) if piece.attempt else None
            if put is None and result.failure is not None and piece.records_out:
                settled = self._source.range_of(result.index)  # by an earlier run
                put = Output(self._output.folder).put_of(settled)
            if put is not None:
                self._output.join(put, lines=piece.records_out if piece.is_cut else None)

    def _logged(self, outcome: Outcome[Frame]) -> Outcome[Sequence[Piece]]:
        pieces = read_pieces(outcome.outputs)
        chunk = self._underway.pop(outcome.index, None)
        is_whole = chunk is not None and not outcome.ends_early(chunk)
        if is_whole and (self._skips or not outcome.failures):
            self._settle(outcome, pieces)
        return Outcome(
            outcome.index,
            outcome.count,
            pieces,
            outcome.failures,
            outcome.seconds,
            outcome.worker,
            outcome.counts,
            size_bytes=outcome.size_bytes,
            is_final=outcome.is_final,
        )

    def _settle(self, outcome: Outcome[Frame], pieces: Sequence[Piece]) -> None:
        """Log the pieces of a chunk, each with its failures."""
        file = self._source.range_of(outcome.index).file
        for piece, failures in _with_failures(pieces, outcome.failures):
            self._output.settle(
                Settled(
                    file,
                    piece.start,
                    piece.stop,
                    piece.records_in,
                    piece.records_out,
                    len(failures),
                    _put(piece, piece.size_bytes) if piece.attempt else None,
                    piece.digest,
                    worker=outcome.worker,
                    seconds=outcome.seconds,
                    lines=piece.lines,
                ),
                encode_rejects(failures, piece.places),
            )


def _put(piece: Piece, size_bytes: int) -> entries.Piece:
    return entries.Piece(f"{PARTS}/{piece.attempt}", 0, size_bytes)


def _with_failures(
    pieces: Iterable[Piece], failures: Sequence[RecordFailure]
) -> Iterator[tuple[Piece, list[RecordFailure]]]:
    """Yield pieces with their failures, which are counted from the first one's first record."""
    before = at = 0
    for piece in pieces:
        own = failures[at : at + len(piece.places)]
        yield piece, [replace(each, index=each.index - before) for each in own]
        before += piece.records_in
        at += len(own)


def _outcome_of(chunk: Chunk[bytes], restored: Restored) -> Outcome[Sequence[Piece]]:
    """Return the outcome of a range that an earlier run has settled; its files stay unnamed."""
    span = restored.span
    piece = Piece(
        span.range.start,
        span.range.end,
        records_in=span.records,
        records_out=span.outputs,
        lines=span.lines,
        places=tuple(restored.places),
    )
    failures = tuple(restored.failures)
    return Outcome(chunk.index, span.outputs, [piece], failures)
