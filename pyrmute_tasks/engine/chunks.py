"""Chunks of records, their outcomes, and cutting a source into chunks lazily."""

import math
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import Any, Final, Generic, TypeVar

from pyrmute_tasks.engine.batch_arguments import check_chunk_size
from pyrmute_tasks.errors import (
    FrameError,
    FrameTooLargeError,
    InvalidRecordError,
    UnsupportedValueError,
)
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.hooks import HookCounts
from pyrmute_tasks.ranges.lines import line_of
from pyrmute_tasks.records import as_record
from pyrmute_tasks.wire.frames import (
    MAX_FRAME_BYTES,
    Compression,
    Frame,
    FrameKind,
    decode_frame,
    encode_frame,
    join_packed,
    pack,
    pack_record,
    unpack,
)
from pyrmute_tasks.wire.msgpack_depth import items_of
from pyrmute_tasks.wire.remote_failures import failure_from_wire, failure_to_wire

__all__ = [
    "Chunk",
    "Origin",
    "Outcome",
    "check_outcome",
    "cut_records",
    "decode_outcome",
    "decode_readable",
    "decode_records",
    "encode_outcome",
    "encode_packed",
    "pack_each",
]

Payload = TypeVar("Payload")
Sent = TypeVar("Sent")


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a chunk's records in their file.

    Attributes:
        path: The file, as the user named it.
        first_line: Line number of the chunk's first line, counted from 1.
        blank_lines: Offsets of blank lines from `first_line`.
        first_byte: The byte at which that line begins, counted from 0.
        blank_bytes: Sizes of the blank lines, with their newlines.
        end_byte: The byte behind its last line.
    """

    path: str
    first_line: int
    blank_lines: tuple[int, ...] = ()
    first_byte: int = 0
    blank_bytes: tuple[int, ...] = ()
    end_byte: int = 0

    def line_of(self, position: int) -> int:
        """Return the line number of the chunk's record at `position`."""
        return self.first_line + line_of(position, self.blank_lines)

    def byte_of(self, position: int, before: int) -> int:
        """Return the byte at which the line of the chunk's record at `position` begins.

        Args:
            position: The record's position.
            before: Bytes of the records before it, with their newlines.
        """
        blank_before = self.line_of(position) - self.first_line - position
        return self.first_byte + before + sum(self.blank_bytes[:blank_before])


@dataclass(frozen=True, slots=True)
class Chunk(Generic[Payload]):
    """Consecutive records of a job; the unit of work.

    Attributes:
        index: Position among the job's chunks, counted from 0.
        start: Index of its first record in the whole input; of its first byte, if it is a range.
        count: How many records it holds; how many bytes, if it is a range.
        payload: The records: a list of them, or the bytes of a frame.
        size_bytes: Size of the payload, for the window; of a range's records, for progress; 0 if
            unknown.
        origin: The place of the records in their file, for messages.
        is_range: Its records stay where they are: it takes no memory, and of the window only
            a slot until it has settled.
    """

    index: int
    start: int
    count: int
    payload: Payload
    size_bytes: int = 0
    origin: Origin | None = None
    is_range: bool = False

    def without_payload(self) -> "Chunk[None]":
        """Return the chunk without its records."""
        return Chunk(
            self.index, self.start, self.count, None, self.size_bytes, self.origin, self.is_range
        )


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Payload]):
    """The result of a chunk.

    Attributes:
        index: The chunk's position among the job's chunks.
        count: How many outputs there are.
        outputs: The outputs, in order, without those of records that failed.
        failures: The failing records, in order. The pipeline decides whether they end the job.
        is_final: Whether the last failure ends the job under any policy: nothing was run behind
            it, or it is not the fault of its record.
        seconds: Time the work took, without waiting.
        worker: The worker; empty for this process.
        counts: Counts for hooks; None if not requested.
        size_bytes: Size in memory or on the wire; 0 if unknown.
        start: Index of its first record in the whole input, if its chunk does not tell: of a
            range, once it is received.
    """

    index: int
    count: int
    outputs: Payload
    failures: tuple[RecordFailure, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    worker: str = field(default="", compare=False)
    counts: HookCounts | None = field(default=None, compare=False)
    size_bytes: int = field(default=0, compare=False)
    is_final: bool = False
    start: int | None = None

    def ends_early(self, chunk: "Chunk[Any]") -> bool:
        """Return whether the last failure ended the run of the chunk."""
        if chunk.is_range:  # whose records nobody has counted
            return self.is_final
        return self.is_final or self.count + len(self.failures) < chunk.count

    @property
    def failure(self) -> RecordFailure | None:
        """The failing record with the lowest index, or None."""
        return self.failures[0] if self.failures else None


def cut_records(
    records: Iterable[Any], chunk_size: int | Callable[[], int]
) -> Generator[Chunk[list[Any]], None, None]:
    """Cut `records` into chunks of `chunk_size`, reading no further than requested.

    Args:
        records: The source.
        chunk_size: Records a chunk, or a function that returns it for each chunk.

    If the source raises, its records up to then leave as a last, shorter chunk before the
    exception, as in a loop over the records. The source is closed with this generator.

    Raises:
        ConfigurationError: If `chunk_size` is not a positive integer.
    """
    next_size = chunk_size if callable(chunk_size) else partial(check_chunk_size, chunk_size)
    source = iter(records)
    start = index = 0
    try:
        while True:
            size = next_size()
            batch, error = _take(source, size)
            if batch:
                yield Chunk(index, start, len(batch), batch)
                start += len(batch)
                index += 1
            if error is not None:
                raise error
            if len(batch) < size:
                return
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def _take(source: Iterator[Any], size: int) -> tuple[list[Any], Exception | None]:
    """Return up to `size` records, and the exception that ended the source if one did."""
    batch: list[Any] = []
    try:
        batch.extend(islice(source, min(size, sys.maxsize)))  # keeps those before an exception
    except Exception as error:
        return batch, error
    return batch, None


# --- on the wire --------------------------------------------------------------------------

_LENGTH_BYTES: Final = 4


def pack_each(
    records: Iterable[Any], pack: Callable[[Any], bytes] = pack_record
) -> Generator[bytes, None, None]:
    """Pack records one by one, each before the next one is read.

    The source is closed with this generator.

    Raises:
        UnsupportedValueError: If a record cannot be carried; has the record's index.
        InvalidRecordError: If it cannot be made a dict; the same.
    """
    source = iter(records)
    try:
        for index, record in enumerate(source):
            try:
                packed = pack(record if type(record) is dict else as_record(record))
            except (UnsupportedValueError, InvalidRecordError) as error:
                error.record_index = index
                error.add_note(f"record {index}")
                raise
            yield packed
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def encode_packed(chunk: Chunk[list[bytes]], compression: Compression) -> Chunk[bytes]:
    """Encode a chunk of packed records as a frame.

    Raises:
        FrameTooLargeError: If it is too large; has the record's index if it is a single one.
    """
    packed = join_packed(chunk.payload)
    try:
        frame = encode_frame(FrameKind.OBJECTS, chunk.count, packed, compression)
    except FrameTooLargeError as error:
        if chunk.count == 1:
            error.record_index = chunk.start
            error.add_note(f"record {chunk.start}")
        raise
    return Chunk(chunk.index, chunk.start, chunk.count, frame, len(frame), chunk.origin)


def decode_records(frame: Frame) -> list[Any]:
    """Return the records of an objects frame.

    Raises:
        FrameError: If the frame does not hold the records it announces.
    """
    records = unpack(frame.payload)
    if not isinstance(records, list) or len(records) != frame.count:
        raise FrameError("a frame does not hold the records it announces")
    return records


def decode_readable(frame: Frame) -> tuple[list[Any], FrameError | None]:
    """Return the records of an objects frame up to one that cannot be read here.

    Returns:
        The records, and the error of the one behind them; None if these are all.

    Raises:
        FrameError: If the frame does not hold the records it announces.
    """
    try:
        return decode_records(frame), None
    except FrameError as error:
        records: list[Any] = []
        for packed in islice(items_of(frame.payload), frame.count):
            try:
                records.append(unpack(packed))
            except FrameError as unreadable:
                return records, unreadable
        raise error from None


def encode_outcome(outcome: Outcome[bytes]) -> bytes:
    """Return an outcome with a frame as outputs, as bytes for the store.

    Raises:
        FrameTooLargeError: If the outputs exceed the store's limit.
    """
    report = pack(
        {
            "index": outcome.index,
            "count": outcome.count,
            "failures": list(map(failure_to_wire, outcome.failures, count())),
            "is_final": outcome.is_final,
            "seconds": outcome.seconds,
            "worker": outcome.worker,
            "counts": outcome.counts.to_wire() if outcome.counts else None,
        },
        lossy=True,
    )
    size_bytes = _LENGTH_BYTES + len(report) + len(outcome.outputs)
    if size_bytes > MAX_FRAME_BYTES:
        raise FrameTooLargeError(max(outcome.count, 1), size_bytes, MAX_FRAME_BYTES)
    return len(report).to_bytes(_LENGTH_BYTES, "big") + report + outcome.outputs


def decode_outcome(data: bytes | memoryview) -> Outcome[Frame]:
    """Decode an outcome from `encode_outcome`; checks the outputs without decoding them.

    Raises:
        FrameError: If it is damaged.
    """
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    outputs = decode_frame(memoryview(data)[end:])  # checks the version of both
    report = unpack(data[_LENGTH_BYTES:end])
    try:
        outcome = Outcome(
            report["index"],
            report["count"],
            outputs,
            tuple(map(failure_from_wire, report["failures"])),
            report["seconds"],
            report["worker"],
            HookCounts.from_wire(report["counts"]) if report["counts"] else None,
            size_bytes=max(len(data), len(outputs.payload)),
            is_final=report["is_final"],
        )
    except Exception as error:  # exceptions are rebuilt from names: anything may happen
        raise FrameError(f"an outcome's report is damaged ({type(error).__name__})") from None
    if not _is_sound(outcome):
        raise FrameError("an outcome's report is damaged: its values contradict each other")
    return outcome


def check_outcome(outcome: Outcome[Frame], chunk: Chunk[Any]) -> Outcome[Frame]:
    """Return `outcome` if it matches `chunk`.

    Raises:
        FrameError: If it does not.
    """
    if chunk.is_range:
        return _check_pieces(outcome, chunk)
    failed = [failure.index for failure in outcome.failures]
    end = chunk.start + chunk.count
    fits = outcome.index == chunk.index and outcome.count == outcome.outputs.count
    # A reader takes each record that is not among the failures for one that has an output.
    covered = chunk.start + outcome.count + len(failed)
    fits = fits and covered <= end and failed == sorted(set(failed))
    if failed:
        fits = fits and chunk.start <= failed[0] and failed[-1] < covered
    if outcome.ends_early(chunk):
        fits = fits and failed[-1:] == [covered - 1]
    if not fits:
        raise _not_about_it(chunk)
    return outcome


def _check_pieces(outcome: Outcome[Frame], chunk: Chunk[bytes]) -> Outcome[Frame]:
    from pyrmute_tasks.ranges.frames import Range, read_pieces  # most jobs have no ranges

    pieces = read_pieces(outcome.outputs)
    failed = [failure.index for failure in outcome.failures]
    fits = outcome.index == chunk.index and outcome.count == outcome.outputs.count
    if pieces:
        wanted = Range.from_frame(chunk.payload)
        fits = fits and [(wanted.start, wanted.stop)] == [(one.start, one.stop) for one in pieces]
        fits = fits and failed == [place.record for place in pieces[0].places]
        if outcome.is_final:
            fits = fits and failed[-1:] == [pieces[0].records_in - 1]
    else:
        fits = fits and failed == [0]  # what could not be run at all
    if not fits:
        raise _not_about_it(chunk)
    return outcome


def _not_about_it(chunk: Chunk[Any]) -> FrameError:
    return FrameError(f"an outcome of chunk {chunk.index} is damaged: it is not about its records")


def _is_sound(outcome: Outcome[Frame]) -> bool:
    values: list[tuple[object, type]] = [
        (outcome.index, int),
        (outcome.count, int),
        (outcome.seconds, float),
        (outcome.is_final, bool),
        (outcome.worker, str),
        *((failure.index, int) for failure in outcome.failures),
    ]
    is_typed = all(type(value) is kind for value, kind in values)
    return is_typed and 0 <= outcome.seconds < math.inf  # and not NaN: it sizes the next chunks
