"""A range by reference: read its lines, migrate them, write an attempt."""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import BufferedReader
from typing import Final

from pyrmute_tasks.distributed.worker.outcomes import ran_out_of_memory
from pyrmute_tasks.engine.error_policy import ChunkFailures
from pyrmute_tasks.errors import FrameTooLargeError, InvalidRecordError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.ranges.attempts import Attempt, read_nonce, write_probe
from pyrmute_tasks.ranges.frames import Piece, Place, Range, to_frame
from pyrmute_tasks.ranges.lines import (
    FileChangedError,
    Line,
    LineBlock,
    drop_blank_lines,
    read_lines,
)
from pyrmute_tasks.ranges.roots import OutsideRootsError, Roots
from pyrmute_tasks.wire.frames import Frame, encode_frame
from pyrmute_tasks.wire.remote_failures import capture_failure

__all__ = ["RangeRunner", "UnreachableError"]

_PROOF_S: Final = 60.0  # network file systems cache for as long what is there and what is not
_LOOK_EVERY_S: Final = 0.1
_LASTING: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_MOST_PROVEN: Final = 64
_MOST_FAILURES: Final = 20_000  # some kilobytes each, here and at the coordinator


class UnreachableError(Exception):
    """A range is out of this worker's reach; another worker may be able to run it.

    Args:
        reason: What is wrong.
        is_lasting: It is so for the whole job.
    """

    def __init__(self, reason: str, *, is_lasting: bool) -> None:
        self.reason = reason
        self.is_lasting = is_lasting
        super().__init__(reason)


class RangeRunner:
    """Runs ranges of the files in its roots.

    Args:
        roots: Where it may read and write.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._proven: set[tuple[bytes, str]] = set()

    def run(
        self, plan: MigrationPlan, part: str, inputs: Frame, *, skips: bool = False
    ) -> tuple[bytes, int, ChunkFailures]:
        """Run a plan over a range and write an attempt of its outputs.

        Args:
            plan: The plan.
            part: The part's key.
            inputs: The range.
            skips: Whether to go on behind a record that fails.

        Returns:
            What was written, as a frame; how many outputs; and the failures of records, which
            are counted from the range's first one.

        Raises:
            FrameError: If the frame holds no range.
            UnreachableError: If this worker cannot read or write it.
            MemoryError: If a record ran out of memory that is not the range's only one.
            FrameTooLargeError: If so many records failed that the range is to be halved.
        """
        wanted = Range.from_frame(inputs)
        with (
            _told(wanted.folder, "cannot write in"),
            self._proven_folder(wanted) as folder,
            self._source(wanted) as file,
        ):
            attempt = Attempt(folder, part)
            work = _Work(plan, wanted, attempt, ChunkFailures(skips, capture_failure))
            try:
                work.run(file)
                _check_unchanged(file, wanted)
                with _told(wanted.folder, "cannot write in"):
                    attempt.finish()
            except BaseException:  # also if interrupted: nobody knows of it yet
                attempt.discard()
                raise
        frame = to_frame([work.piece])
        return (
            encode_frame(frame.kind, frame.count, bytes(frame.payload)),
            frame.count,
            work.failures,
        )

    @contextmanager
    def _proven_folder(self, wanted: Range) -> Iterator[int]:
        """Open the job's folder, once the worker has found the nonce in it, and can write."""
        key = (wanted.folder, wanted.nonce)
        deadline = time.monotonic() + _PROOF_S
        while key not in self._proven:
            if self._sees(wanted):
                if len(self._proven) >= _MOST_PROVEN:
                    self._proven.clear()
                self._proven.add(key)
            elif time.monotonic() > deadline:
                raise UnreachableError(
                    f"it does not see what the producer wrote to {os.fsdecode(wanted.folder)}: "
                    "is that another file system?",
                    is_lasting=True,
                )
            else:
                time.sleep(_LOOK_EVERY_S)
        try:
            with self._roots.open_folder(wanted.folder) as folder:
                if read_nonce(folder) != wanted.nonce:  # something else got its name
                    self._proven.discard(key)
                    raise _replaced(wanted.folder)
                yield folder
        except OutsideRootsError:
            raise _outside(wanted.folder) from None

    def _sees(self, wanted: Range) -> bool:
        """Return whether the nonce is in the job's folder; if so, prove that it can be written."""
        try:
            with self._roots.open_folder(wanted.folder) as folder:
                is_seen = read_nonce(folder) == wanted.nonce
                if is_seen:
                    _check_writable(folder, wanted.folder)
                return is_seen
        except OutsideRootsError:
            raise _outside(wanted.folder) from None
        except PermissionError as error:
            raise UnreachableError(
                f"it cannot enter {os.fsdecode(wanted.folder)}: {error.strerror}; does it run "
                "as another user?",
                is_lasting=True,
            ) from None
        except OSError:
            return False

    @contextmanager
    def _source(self, wanted: Range) -> Iterator[BufferedReader]:
        with _told(wanted.source.path, "cannot read"):
            try:
                descriptor = self._roots.open_file(wanted.source.path)
            except OutsideRootsError:
                raise _outside(wanted.source.path) from None
            with open(descriptor, "rb") as file:
                deadline = time.monotonic() + _PROOF_S
                while _may_be_cached(file, wanted) and time.monotonic() < deadline:
                    time.sleep(_LOOK_EVERY_S)
                _check_unchanged(file, wanted)
                yield file


@dataclass(slots=True)
class _Work:
    """One range under way.

    Attributes:
        plan: What is run.
        wanted: The range.
        attempt: Where outputs go.
        failures: Of its records; the last one may have ended it.
    """

    plan: MigrationPlan
    wanted: Range
    attempt: Attempt
    failures: ChunkFailures
    _in: int = 0
    _out: int = 0
    _lines: int = 0
    _places: list[Place] = field(default_factory=list)

    @property
    def piece(self) -> Piece:
        """The piece that the run yields."""
        return Piece(
            self.wanted.start,
            self.wanted.stop,
            self.attempt.name,
            self.attempt.size_bytes,
            self._in,
            self._out,
            self._lines,
            self.attempt.digest,
            tuple(self._places),
        )

    def run(self, file: BufferedReader) -> None:
        """Run it, up to a failure that ends it."""
        wanted = self.wanted
        size, longest = wanted.source.size_bytes, wanted.max_line_bytes
        for block in read_lines(file, wanted.start, wanted.stop, size, longest):
            match block:
                case LineBlock():
                    self._migrate(block)
                case Line():
                    self._leave_out(block)
            if self.failures.ended:
                return
            if len(self.failures.found) > _MOST_FAILURES:
                raise FrameTooLargeError(self._in, self.attempt.size_bytes, 0)  # so it is halved

    def _migrate(self, block: LineBlock) -> None:
        lines, blank = drop_blank_lines(block.text)
        if not lines:
            self._lines += len(blank)
            return
        known = len(self.failures.found)
        outputs, count, _ = self.plan.migrate_lines(lines, self._in, self.failures)
        with _told(self.wanted.folder, "cannot write in"):
            self.attempt.write(outputs)
        found = self.failures.found[known:]
        if found:
            self._add_places(block, [at for at, _ in blank], found)
        self._in += count + len(found)
        self._out += count
        if self.failures.ended:
            self._lines = self._places[-1].line + 1
        else:
            self._lines += count + len(found) + len(blank)

    def _add_places(
        self, block: LineBlock, blank: Sequence[int], found: Sequence[RecordFailure]
    ) -> None:
        """Note where the records stand that failed, in one pass over the block's lines."""
        lines = block.text.split(b"\n")
        line, offset, blank_before = 0, block.offset, 0
        for failure in found:
            position = failure.index - self._in
            while blank_before < len(blank) and blank[blank_before] <= position + blank_before:
                blank_before += 1
            begun, line = line, position + blank_before
            offset += sum(map(len, lines[begun:line])) + line - begun
            text = lines[line]
            self._check_memory(failure, offset + len(text) + 1)
            digest = sha256(text).hexdigest()
            self._places.append(Place(failure.index, self._lines + line, offset, len(text), digest))

    def _leave_out(self, line: Line) -> None:
        """Note a line that is too long as a record that fails."""
        longest = self.wanted.max_line_bytes
        self.failures(_too_long(self._in, line.stop - line.offset, longest))
        self._places.append(Place(self._in, self._lines, line.offset, line.length, line.digest))
        self._in += 1
        self._lines += 1

    def _check_memory(self, failure: RecordFailure, stop: int) -> None:
        """Leave it to halving to find a record that ran out of memory; alone it may fail."""
        is_alone = failure.index == 0 and stop >= self.wanted.stop
        if ran_out_of_memory(failure.error) and not is_alone:
            raise MemoryError


def _too_long(index: int, length: int, longest: int) -> RecordFailure:
    error = InvalidRecordError(
        f"its line is {length} bytes and the limit is {longest} (max_line_bytes)"
    )
    return RecordFailure.of(index, Stage.DECODE, "", error)


@contextmanager
def _told(path: bytes, what: str) -> Iterator[None]:
    """Convert faults of storage into the reason with which the worker declines."""
    try:
        yield
    except FileChangedError:
        raise _changed(path) from None
    except OSError as error:
        raise UnreachableError(
            f"it {what} {os.fsdecode(path)}: {error.strerror or error}", is_lasting=False
        ) from None


def _check_writable(folder: int, path: bytes) -> None:
    """Prove that attempts can be written, before the job's first range is read."""
    try:
        write_probe(folder)
    except OSError as error:
        is_lasting = error.errno in _LASTING
        raise UnreachableError(
            f"it cannot write in {os.fsdecode(path)}: {error.strerror or error}"
            + ("; does it run as another user?" if is_lasting else ""),
            is_lasting=is_lasting,
        ) from None


def _outside(path: bytes) -> UnreachableError:
    return UnreachableError(f"none of its roots holds {os.fsdecode(path)}", is_lasting=True)


def _replaced(folder: bytes) -> UnreachableError:
    return UnreachableError(
        f"{os.fsdecode(folder)} is not the folder that it saw there before", is_lasting=False
    )


def _changed(path: bytes) -> UnreachableError:
    return UnreachableError(
        f"{os.fsdecode(path)} is not as the producer saw it: its size or time of modification "
        "differs",
        is_lasting=False,
    )


def _check_unchanged(file: BufferedReader, wanted: Range) -> None:
    if not _is_as_planned(file, wanted):
        raise _changed(wanted.source.path)


def _may_be_cached(file: BufferedReader, wanted: Range) -> bool:
    """Return whether the file's attributes may be cached from before the producer looked at it."""
    is_older = os.fstat(file.fileno()).st_mtime_ns <= wanted.source.mtime_ns
    return is_older and not _is_as_planned(file, wanted)


def _is_as_planned(file: BufferedReader, wanted: Range) -> bool:
    found = os.fstat(file.fileno())
    planned = (wanted.source.size_bytes, wanted.source.mtime_ns)
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == planned
