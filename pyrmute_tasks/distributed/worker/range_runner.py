"""A range by reference: read its lines, migrate them, write an attempt."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Final

from pyrmute_tasks.distributed.worker.outcomes import ran_out_of_memory
from pyrmute_tasks.errors import InvalidRecordError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.ranges.attempts import Attempt, read_nonce
from pyrmute_tasks.ranges.frames import Piece, Place, Range, to_frame
from pyrmute_tasks.ranges.lines import (
    FileChangedError,
    LineBlock,
    LongLine,
    drop_blank_lines,
    line_of,
    read_lines,
)
from pyrmute_tasks.ranges.roots import OutsideRootsError, Roots
from pyrmute_tasks.wire.frames import Frame, encode_frame

__all__ = ["RangeRunner", "UnreachableError"]

_PROOF_S: Final = 60.0  # network file systems cache for as long what is there and what is not
_LOOK_EVERY_S: Final = 0.1
_MOST_PROVEN: Final = 64


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
        self, plan: MigrationPlan, part: str, inputs: Frame
    ) -> tuple[bytes, int, RecordFailure | None]:
        """Run a plan over a range and write an attempt of its outputs.

        Args:
            plan: The plan.
            part: The part's key.
            inputs: The range.

        Returns:
            What was written, as a frame; how many outputs; and the failure of the record that
            stopped it, counted from the range's first one.

        Raises:
            FrameError: If the frame holds no range.
            UnreachableError: If this worker cannot read or write it.
            MemoryError: If a record ran out of memory that is not the range's only one.
        """
        wanted = Range.from_frame(inputs)
        with (
            _told(wanted.folder, "cannot write in"),
            self._proven_folder(wanted) as folder,
            self._source(wanted) as file,
        ):
            attempt = Attempt(folder, part)
            work = _Work(plan, wanted, attempt)
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
            work.failure,
        )

    @contextmanager
    def _proven_folder(self, wanted: Range) -> Iterator[int]:
        """Open the job's folder, once the worker has found the coordinator's nonce in it."""
        key = (wanted.folder, wanted.nonce)
        deadline = time.monotonic() + _PROOF_S
        while key not in self._proven:
            try:
                with self._roots.open_folder(wanted.folder) as folder:
                    is_seen = read_nonce(folder) == wanted.nonce
            except OutsideRootsError:
                raise _outside(wanted.folder) from None
            except PermissionError as error:
                raise UnreachableError(
                    f"it cannot enter {os.fsdecode(wanted.folder)}: {error.strerror}; does it run "
                    "as another user?",
                    is_lasting=True,
                ) from None
            except OSError:
                is_seen = False
            if is_seen:
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
        with self._roots.open_folder(wanted.folder) as folder:
            yield folder

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
        failure: Of the record that stopped it.
    """

    plan: MigrationPlan
    wanted: Range
    attempt: Attempt
    failure: RecordFailure | None = None
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
        """Run it, up to the first failure."""
        wanted = self.wanted
        size, longest = wanted.source.size_bytes, wanted.max_line_bytes
        for block in read_lines(file, wanted.start, wanted.stop, size, longest):
            match block:
                case LineBlock():
                    self._migrate(block)
                case LongLine(offset, length):
                    self._fail(_too_long(self._in, length, longest), 0, offset, length)
            if self.failure is not None:
                return

    def _migrate(self, block: LineBlock) -> None:
        lines, blank = drop_blank_lines(block.text)
        if not lines:
            self._lines += len(blank)
            return
        outputs, count, failure = self.plan.migrate_lines(lines, self._in)
        with _told(self.wanted.folder, "cannot write in"):
            self.attempt.write(outputs)
        self._in += count
        self._out += count
        if failure is None:
            self._lines += count + len(blank)
            return
        line = line_of(count, [at for at, _ in blank])
        begin = _begin_of(block.text, line)
        length = block.text.find(b"\n", begin) + 1 - begin
        self._fail(failure, line, block.offset + begin, length)

    def _fail(self, failure: RecordFailure, line: int, offset: int, length: int) -> None:
        is_alone = not self._in and offset + length >= self.wanted.stop
        if ran_out_of_memory(failure.error) and not is_alone:
            raise MemoryError  # the record is found by halving; its own it may keep
        self.failure = failure
        self._places.append(Place(self._in, self._lines + line, offset, length))
        self._in += 1
        self._lines += line + 1


def _begin_of(text: bytes, line: int) -> int:
    begin = 0
    for _ in range(line):
        begin = text.find(b"\n", begin) + 1
    return begin


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


def _outside(path: bytes) -> UnreachableError:
    return UnreachableError(f"none of its roots holds {os.fsdecode(path)}", is_lasting=True)


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
