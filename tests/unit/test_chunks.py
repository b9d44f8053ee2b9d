import math
from collections.abc import Iterator
from typing import Any

import ormsgpack
import pytest
from pydantic import ValidationError, create_model

from pyrmute_tasks.engine.chunk_parts import join_frames
from pyrmute_tasks.engine.chunks import (
    Origin,
    Outcome,
    cut_records,
    decode_outcome,
    decode_readable,
    decode_records,
    encode_outcome,
    encode_packed,
    pack_each,
)
from pyrmute_tasks.errors import ConfigurationError, FrameError, UnsupportedValueError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.wire.frames import (
    Compression,
    Frame,
    FrameKind,
    decode_frame,
    encode_frame,
    join_packed,
    pack,
)
from pyrmute_tasks.wire.objects import Kind


@pytest.mark.parametrize("total", [0, 1, 4, 5, 6, 10])
def test_cutting_keeps_every_record_in_place(total: int) -> None:
    chunks = list(cut_records(range(total), 5))
    assert [record for chunk in chunks for record in chunk.payload] == list(range(total))
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.start == chunk.payload[0] for chunk in chunks)
    assert all(chunk.count == len(chunk.payload) <= 5 for chunk in chunks)


def test_cutting_reads_no_further_than_asked_and_closes_the_source() -> None:
    read: list[int] = []
    closed = False

    def source() -> Iterator[int]:
        nonlocal closed
        try:
            for number in range(100):
                read.append(number)
                yield number
        finally:
            closed = True

    chunks = cut_records(source(), 3)
    next(chunks)
    assert read == [0, 1, 2]
    chunks.close()
    assert closed


def test_records_before_a_source_error_are_delivered() -> None:
    def source() -> Iterator[int]:
        yield from range(4)
        raise OSError("gone")

    chunks = cut_records(source(), 3)
    assert next(chunks).payload == [0, 1, 2]
    assert next(chunks).payload == [3]
    with pytest.raises(OSError, match="gone"):
        next(chunks)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "3"])
def test_invalid_chunk_size_is_refused(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="positive integer"):
        next(cut_records([1], size))


def test_line_numbers_count_blank_lines() -> None:
    # Lines 10 to 16, of which 10, 12, 13 and 16 are blank.
    origin = Origin("x", 10, (0, 2, 3, 6))
    assert [origin.line_of(position) for position in range(3)] == [11, 14, 15]
    assert [Origin("x", 1).line_of(position) for position in range(3)] == [1, 2, 3]


def test_records_travel_as_a_frame() -> None:
    chunk = next(cut_records(pack_each([{"a": 1}, {"a": (2,)}]), 5))
    framed = encode_packed(chunk, Compression.ZSTD)
    assert framed.size_bytes == len(framed.payload)
    assert decode_records(decode_frame(framed.payload)) == [{"a": 1}, {"a": (2,)}]


def test_a_record_that_cannot_travel_is_named() -> None:
    records = [{"a": 1}, {"a": 1}, {"a": 1}, {"a": {"b": object()}}]
    chunks = cut_records(pack_each(records), 2)
    assert [next(chunks).count, next(chunks).count] == [2, 1]
    with pytest.raises(UnsupportedValueError) as caught:
        next(chunks)
    assert caught.value.record_index == 3
    assert caught.value.path == "a.b"


def test_frame_with_wrong_count_is_refused() -> None:
    chunk = encode_packed(next(cut_records(pack_each([{}, {}]), 5)), Compression.NONE)
    payload = bytes(decode_frame(chunk.payload).payload)
    with pytest.raises(FrameError):
        decode_records(decode_frame(encode_frame(FrameKind.OBJECTS, 3, payload)))


def test_an_outcome_travels_with_its_failure() -> None:
    failure = RecordFailure.of(41, Stage.STEP, "1.0.0 → 2.0.0", KeyError("name"))
    frame = encode_frame(FrameKind.LINES, 1, b"{}\n")
    back = decode_outcome(encode_outcome(Outcome(4, 1, frame, (failure,), 0.5, "w1")))
    assert (back.index, back.count, back.seconds, back.worker) == (4, 1, 0.5, "w1")
    assert bytes(back.outputs.payload) == b"{}\n"
    assert back.failure is not None
    assert (back.failure.index, back.failure.step) == (41, "1.0.0 → 2.0.0")
    assert isinstance(back.failure.error, KeyError)


def test_an_outcome_with_many_failures_is_bounded() -> None:
    wide = create_model("Wide", **{f"field_{n}": (int, ...) for n in range(50)})  # type: ignore[call-overload]  # fields by name
    record = {f"other_{n}": "x" * 90 for n in range(50)}
    failures = []
    for index in range(200):
        with pytest.raises(ValidationError) as caught:
            wide.model_validate({**record, "index": index})
        failures.append(RecordFailure.of(index, Stage.VALIDATE, "", caught.value))
    frame = encode_frame(FrameKind.LINES, 0, b"")
    data = encode_outcome(Outcome(0, 0, frame, tuple(failures), is_final=True))
    assert len(data) < 6_000_000  # of 1,100,000 bytes, which each error has fifty times
    back = decode_outcome(data)
    assert back.is_final
    assert [failure.index for failure in back.failures] == list(range(200))
    for sent, arrived in zip(failures, back.failures, strict=True):
        assert isinstance(arrived.error, ValidationError)
        assert isinstance(sent.error, ValidationError)
        assert arrived.error.errors() == sent.error.errors()
    assert [bool(failure.traceback) for failure in back.failures] == [True] * 20 + [False] * 180


@pytest.mark.parametrize("cut", [0, 3, 20, -1])
def test_a_damaged_outcome_is_refused(cut: int) -> None:
    data = encode_outcome(Outcome(0, 0, encode_frame(FrameKind.LINES, 0, b"")))
    with pytest.raises(FrameError):
        decode_outcome(data[:cut])


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_outcome_with_an_impossible_duration_is_refused(seconds: float) -> None:
    frame = encode_frame(FrameKind.LINES, 0, b"")
    with pytest.raises(FrameError, match="contradict"):
        decode_outcome(encode_outcome(Outcome(0, 0, frame, seconds=seconds)))


def test_outcome_of_another_version_is_refused_before_decoding() -> None:
    data = encode_outcome(Outcome(0, 0, encode_frame(FrameKind.OBJECTS, 0, b"\x90")))
    start = data.index(b"PMT")
    older = b"\x00\x00\x00\x01\xc1" + data[start : start + 3] + b"\x01" + data[start + 4 :]
    with pytest.raises(FrameError, match="frame version 1 is not supported here, only 2"):
        decode_outcome(older)


def test_empty_frame_joins_others() -> None:
    lines = Frame(FrameKind.LINES, 1, b"{}\n")
    nothing = Frame(FrameKind.OBJECTS, 0, pack([]))
    assert join_frames(FrameKind.LINES, [lines, nothing]) == lines


def test_records_before_one_that_cannot_be_read_are_kept() -> None:
    unknown = ormsgpack.packb({"a": ormsgpack.Ext(Kind.NAMED_TUPLE, pack(["gone:Row", 0, 1]))})
    packed = [*(pack({"a": number}) for number in range(20)), unknown, pack({}), unknown]
    records, error = decode_readable(Frame(FrameKind.OBJECTS, 23, join_packed(packed)))
    assert records == [{"a": number} for number in range(20)]
    assert "'gone:Row' is not loaded" in str(error)
    with pytest.raises(FrameError, match="announces"):
        decode_readable(Frame(FrameKind.OBJECTS, 21, join_packed(packed[:20])))
    records, error = decode_readable(Frame(FrameKind.OBJECTS, 20, join_packed(packed[:20])[:-1]))
    assert (len(records), type(error)) == (19, FrameError)
