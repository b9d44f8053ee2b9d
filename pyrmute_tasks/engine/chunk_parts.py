"""Parts of a chunk: splitting it, joining its parts' outcomes, giving up a single record."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_records
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.ranges.frames import Range, read_pieces, to_frame
from pyrmute_tasks.ranges.halving import given_up, halves_of
from pyrmute_tasks.wire.frames import (
    Frame,
    FrameKind,
    decode_frame,
    encode_frame,
    join_packed,
    pack_record,
)

__all__ = ["given_up_outcome", "join_failures", "join_frames", "split_chunk"]


def split_chunk(chunk: Chunk[bytes]) -> list[Chunk[bytes]]:
    """Split a chunk into two with half of the records each; none if it holds only one.

    Raises:
        ConfigurationError: If it is a range of a file that cannot be read any more.
    """
    frame = decode_frame(chunk.payload)
    if frame.kind is FrameKind.RANGES:
        ranges = halves_of(Range.from_frame(frame))
        halves = [(half.to_frame(), half.stop - half.start) for half in ranges]
    else:
        halves = _split_frame(frame) if frame.count > 1 else []
    chunks = []
    start = chunk.start
    for payload, count in halves:
        size = count if chunk.is_range else len(payload)
        chunks.append(replace(chunk, start=start, count=count, payload=payload, size_bytes=size))
        start += count
    return chunks


def _split_frame(frame: Frame) -> list[tuple[bytes, int]]:
    middle = frame.count // 2
    if frame.kind is FrameKind.LINES:
        lines = [line + b"\n" for line in bytes(frame.payload).split(b"\n")[:-1]]
        halves = [b"".join(half) for half in (lines[:middle], lines[middle:])]
    else:
        records = decode_records(frame)
        halves = [_packed(half) for half in (records[:middle], records[middle:])]
    counts = (middle, frame.count - middle)
    return [
        (encode_frame(frame.kind, count, half), count)
        for half, count in zip(halves, counts, strict=True)
    ]


def join_frames(kind: FrameKind, frames: list[Frame]) -> Frame:
    """Join the outputs of consecutive parts."""
    if kind is FrameKind.RANGES:
        return to_frame(piece for frame in frames for piece in read_pieces(frame))
    frames = [frame for frame in frames if frame.count]  # an empty one may be of any kind
    count = sum(frame.count for frame in frames)
    if kind is FrameKind.LINES:
        return Frame(kind, count, b"".join(frame.payload for frame in frames))
    records = [record for frame in frames for record in decode_records(frame)]
    return Frame(kind, count, _packed(records))


def given_up_outcome(chunk: Chunk[bytes], error: BaseException) -> Outcome[Frame]:
    """Return the outcome of a chunk of one record that failed with `error` and has no output."""
    frame = decode_frame(chunk.payload)
    if frame.kind is FrameKind.RANGES:
        outputs, index = given_up(Range.from_frame(frame)), 0
    else:
        outputs, index = join_frames(frame.kind, []), chunk.start
    return Outcome(chunk.index, 0, outputs, (RecordFailure(index, Stage.STEP, "", error),))


def join_failures(outcomes: Iterable[Outcome[Frame]]) -> tuple[RecordFailure, ...]:
    """Return the failures of consecutive parts of a chunk.

    Those of ranges tell records from their part's first on, and are counted from the chunk's.
    """
    failures: list[RecordFailure] = []
    before = 0
    for outcome in outcomes:
        failures += [replace(each, index=before + each.index) for each in outcome.failures]
        if outcome.outputs.kind is FrameKind.RANGES:
            before += sum(piece.records_in for piece in read_pieces(outcome.outputs))
    return tuple(failures)


def _packed(records: list[Any]) -> bytes:
    return join_packed(list(map(pack_record, records)))
