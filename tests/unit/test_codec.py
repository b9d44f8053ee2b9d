import contextlib
import enum
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from backports import zstd
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import TzInfo

from pyrmute_tasks.errors import FrameError, UnsupportedValueError
from pyrmute_tasks.wire.frames import (
    Compression,
    FrameKind,
    decode_frame,
    encode_frame,
    join_packed,
    pack,
    pack_record,
    unpack,
)
from pyrmute_tasks.wire.msgpack_depth import items_of, nests_deeper

ZONES = st.sampled_from(
    [
        None,
        UTC,
        timezone(timedelta(hours=-3, minutes=30)),
        timezone(timedelta(hours=2), "CEST"),
        ZoneInfo("America/New_York"),
        ZoneInfo("UTC"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(st.characters(), max_size=3)  # lone surrogates among them
    | st.binary(max_size=20)
    | st.datetimes(timezones=ZONES, allow_imaginary=False)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
HASHABLE = st.recursive(
    SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
    ),
    max_leaves=12,
)


def exact(value: Any) -> Any:
    """Return a value with its types, so that 1, 1.0 and True, or a tuple and a list, differ."""
    if isinstance(value, dict):
        return (dict, [(exact(key), exact(item)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return (type(value), sorted(repr(exact(item)) for item in value))
    if isinstance(value, (list, tuple)):
        return (type(value), [exact(item) for item in value])
    if isinstance(value, datetime):
        return (datetime, value.replace(tzinfo=None), value.fold, repr(value.tzinfo))
    return (type(value), repr(value))


@given(VALUES)
@settings(deadline=None, max_examples=120)
def test_supported_values_round_trip(value: Any) -> None:
    assert exact(unpack(pack(value))) == exact(value)


@pytest.mark.parametrize(
    "value",
    [
        Decimal("NaN"),
        Decimal("-0.00"),
        Decimal("1E+400"),
        math.inf,
        -0.0,
        time(1, 2, 3, 4, UTC, fold=1),
        datetime(2013, 11, 3, 1, 30, tzinfo=ZoneInfo("America/New_York"), fold=1),
        datetime(2013, 1, 1, tzinfo=TzInfo(-18000)),
        date.max,
        timedelta.min,
        timedelta.max,
        uuid.UUID(int=2**128 - 1),
        -(2**63) - 1,
        2**64,
    ],
)
def test_edge_values_round_trip(value: object) -> None:
    assert exact(unpack(pack([value]))) == exact([value])


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_enums_round_trip_also_as_keys() -> None:
    value = [Colour.RED, Level.HIGH, {Colour.RED: 1, "red": 2}]
    assert exact(unpack(pack(value))) == exact(value)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [object(), Text("x"), memoryview(b"x"), iter(""), Exception("x")])
def test_unsupported_value_is_refused_with_type_and_path(value: object) -> None:
    records = [{"a": 1}, {"a": {"tags": ["x", value], "key with data": value}}]
    with pytest.raises(UnsupportedValueError) as caught:
        pack(records)
    assert caught.value.path == "[1].a.tags[1]"
    assert type(value).__qualname__ in caught.value.type_name
    with pytest.raises(UnsupportedValueError, match="<key>"):
        pack({"secret name": value})


def test_endless_nesting_is_refused() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(UnsupportedValueError, match="nesting"):
        pack(value)


def test_lossy_packing_replaces_unsupported_values() -> None:
    assert unpack(pack({"error": object(), "n": 1}, lossy=True)) == {
        "error": "<builtins.object>",
        "n": 1,
    }


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_records_packed_one_by_one_are_a_list(count: int) -> None:
    records = [{"n": n, "day": date.max} for n in range(count)]
    assert unpack(join_packed(list(map(pack_record, records)))) == records


@given(st.binary(max_size=200))
@example(b"\xdd\xff\xff\xff\xff\xc0")  # announces billions of items: ormsgpack 1.13.0 and older
@example(b"\xdf\xff\xff\xff\xff\xc0\xc0")  # ended the process here
@settings(deadline=None)
def test_foreign_bytes_are_refused_as_values_and_as_frames(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        unpack(data)
    with pytest.raises(FrameError):
        decode_frame(data)


@given(st.binary(), st.sampled_from(Compression), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_frame_round_trips(payload: bytes, how: Compression, count: int) -> None:
    frame = decode_frame(encode_frame(FrameKind.LINES, count, payload, how))
    assert (frame.kind, frame.count, bytes(frame.payload)) == (FrameKind.LINES, count, payload)


@given(st.binary(min_size=1), st.sampled_from(Compression), st.data())
@settings(deadline=None)
def test_a_truncated_frame_is_refused(
    payload: bytes, how: Compression, data: st.DataObject
) -> None:
    whole = encode_frame(FrameKind.OBJECTS, 1, payload, how)
    with pytest.raises(FrameError):
        decode_frame(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_frame_of_another_version_or_kind_is_refused() -> None:
    whole = encode_frame(FrameKind.OBJECTS, 1, b"x")
    with pytest.raises(FrameError, match="version 9"):
        decode_frame(whole[:3] + b"\x09" + whole[4:])
    with pytest.raises(FrameError, match="unknown kind"):
        decode_frame(whole[:4] + b"\x09" + whole[5:])
    with pytest.raises(FrameError, match="not a frame"):
        decode_frame(b"{}" + whole[2:])


def test_an_oversized_frame_is_refused_before_it_is_unpacked() -> None:
    whole = encode_frame(FrameKind.OBJECTS, 1, b"x" * 1000, Compression.ZSTD)
    with pytest.raises(FrameError, match="claims 1000 bytes and the limit is 999"):
        decode_frame(whole, max_bytes=999)


def test_a_decompression_bomb_is_refused_within_the_announced_size() -> None:
    honest = encode_frame(FrameKind.OBJECTS, 1, b"x" * 10, Compression.ZSTD)
    bomb = zstd.compress(b"\0" * 50_000_000)
    lying = honest[: len(honest) - len(decode_payload(honest))] + bomb
    with pytest.raises(FrameError, match="announces 10 bytes and holds 11"):
        decode_frame(lying)


def test_large_payload_is_decompressed_in_blocks() -> None:
    payload = bytes(range(256)) * 100_000
    whole = encode_frame(FrameKind.LINES, 1, payload, Compression.ZSTD)
    assert bytes(decode_frame(whole).payload) == payload
    for lie in (len(payload) - 1, len(payload) + 1):
        lying = whole[:10] + lie.to_bytes(8, "big") + whole[18:]
        with pytest.raises(FrameError, match=f"announces {lie} bytes and holds"):
            decode_frame(lying)
    with pytest.raises(FrameError, match="holds"):
        decode_frame(whole[:-10])


def decode_payload(frame: bytes) -> bytes:
    return zstd.compress(bytes(decode_frame(frame).payload), level=1)


def nested_in_extensions(levels: int, arrays: int) -> bytes:
    """Return tuples in lists in tuples, as no packer of ours nests them."""
    data = b"\x90"
    for _ in range(levels):
        data = b"\x91" * arrays + b"\xc9" + len(data).to_bytes(4, "big") + b"\x06" + data
    return data


@pytest.mark.parametrize(("levels", "arrays"), [(50, 1000), (200, 200), (900, 1), (11, 1020)])
def test_nesting_that_would_overflow_the_stack_is_refused(levels: int, arrays: int) -> None:
    with pytest.raises(FrameError):
        unpack(nested_in_extensions(levels, arrays))


def test_deep_tuples_survive() -> None:
    value: object = "the middle"
    for _ in range(60):
        value = ([value], {"a": [value]} if _ < 3 else 1)
    assert unpack(pack(value)) == value


PLAIN = st.recursive(
    st.none() | st.integers() | st.text() | st.binary() | st.decimals() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


@given(PLAIN.filter(lambda value: not has_surrogates(value)))
def test_depth_is_found_without_decoding(value: object) -> None:
    data = pack(value)
    depth = depth_of(value)
    assert not nests_deeper(data, depth)
    assert depth == 0 or nests_deeper(data, depth - 1)


def has_surrogates(value: object) -> bool:
    try:
        repr(value).encode()
    except UnicodeEncodeError:
        return True
    return False


def depth_of(value: object) -> int:
    """Return how deep arrays and maps nest in the payload itself; empty ones do not count."""
    if isinstance(value, list) and value:
        return 1 + max(map(depth_of, value))
    if isinstance(value, dict) and value:
        return 1 + max(map(depth_of, value.values()))
    return 0  # a tuple is an extension type


@given(st.binary(), st.integers(0, 3))
def test_any_bytes_have_a_depth(data: bytes, limit: int) -> None:
    assert nests_deeper(data, limit) in {True, False}


@given(st.lists(VALUES, max_size=40))
def test_items_of_a_packed_list_are_found(items: list[Any]) -> None:
    packed = [pack(item) for item in items]
    assert [bytes(item) for item in items_of(join_packed(packed))] == packed


@given(st.binary(max_size=60))
def test_items_of_any_bytes_are_found_or_none(data: bytes) -> None:
    assert len(list(items_of(data))) <= len(data)
