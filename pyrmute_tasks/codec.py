"""Values and lines as bytes, lossless and framed.

Two layers. `pack` and `unpack` turn the Python values a record may hold into msgpack and
back without loss: beside JSON's types these are datetime, date, time, timedelta, Decimal,
UUID, bytes, tuple, set, frozenset, integers of any size, dicts with any of these as keys,
and enums, which travel as their value. `encode_frame` and `decode_frame` put a payload
behind a header that says what it is, so that a truncated, oversized, foreign or
decompression-bombing message is refused before any of it is used.

A frame is ``magic "PMT" · version · kind · compression · count · raw size · payload``,
big-endian. Nothing in it can execute: there is no pickle and no type name to import.
"""

import enum
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

import ormsgpack
import zstandard
from pydantic_core import TzInfo

from pyrmute_tasks.errors import FrameError, UnsupportedValueError
from pyrmute_tasks.msgpack_depth import nests_deeper

__all__ = [
    "MAX_FRAME_BYTES",
    "Compression",
    "Frame",
    "FrameKind",
    "decode_frame",
    "encode_frame",
    "join_packed",
    "pack",
    "pack_record",
    "unpack",
]

MAX_FRAME_BYTES: Final = 512 * 1024 * 1024
"""Largest payload accepted, before and after decompression: Redis's own limit per value."""


class FrameKind(enum.IntEnum):
    """What a frame's payload is."""

    OBJECTS = 1  # msgpack of a list of records
    LINES = 2  # JSON lines, each ended by a newline


class Compression(enum.IntEnum):
    """How a frame's payload is compressed."""

    NONE = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame.

    Attributes:
        kind: What the payload is.
        count: How many records it holds.
        payload: The bytes, decompressed.
    """

    kind: FrameKind
    count: int
    payload: bytes | memoryview


_HEADER: Final = struct.Struct(">3sBBBIQ")
_MAGIC: Final = b"PMT"
_VERSION: Final = 1
_ZSTD_LEVEL: Final = 1  # 660 MB/s a core here; higher levels cost more than a LAN saves


def encode_frame(
    kind: FrameKind,
    count: int,
    payload: bytes,
    compression: Compression = Compression.NONE,
) -> bytes:
    """Put `payload`, which holds `count` records, behind a header.

    Raises:
        FrameError: If the payload is larger than `MAX_FRAME_BYTES`.
    """
    raw_size = len(payload)
    if raw_size > MAX_FRAME_BYTES:
        raise FrameError(
            f"a chunk of {count} records is {raw_size} bytes and the limit is "
            f"{MAX_FRAME_BYTES}; choose a smaller chunk_size"
        )
    if compression is Compression.ZSTD:
        payload = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(payload)
    return _HEADER.pack(_MAGIC, _VERSION, kind, compression, count, raw_size) + payload


def decode_frame(frame: bytes | memoryview, max_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """Check a frame and return what it holds.

    Args:
        frame: The bytes as they came.
        max_bytes: Refuse payloads that are, or claim to become, larger than this.

    Raises:
        FrameError: If the bytes are not a whole frame of this version within the limit.
    """
    view = memoryview(frame)
    if len(view) < _HEADER.size:
        raise FrameError(f"a frame of {len(view)} bytes is shorter than its header")
    magic, version, kind, compression, count, raw_size = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        raise FrameError("these bytes are not a frame of pyrmute-tasks")
    if version != _VERSION:
        raise FrameError(f"frame version {version} is not the version {_VERSION} spoken here")
    if raw_size > max_bytes:
        raise FrameError(f"a frame claims {raw_size} bytes and the limit is {max_bytes}")
    try:
        frame_kind, how = FrameKind(kind), Compression(compression)
    except ValueError as error:
        raise FrameError(f"a frame has an unknown kind or compression: {error}") from None
    payload: bytes | memoryview = view[_HEADER.size :]
    if how is Compression.ZSTD:
        payload = _decompress(payload, raw_size)
    if len(payload) != raw_size:
        raise FrameError(f"a frame announces {raw_size} bytes and holds {len(payload)}")
    return Frame(frame_kind, count, payload)


def _decompress(payload: bytes | memoryview, raw_size: int) -> bytes:
    # Reading one byte beyond the announced size bounds the memory a bomb can take.
    try:
        with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
            return reader.read(raw_size + 1)
    except zstandard.ZstdError as error:
        raise FrameError(f"a frame's payload cannot be decompressed: {error}") from None


# --- values ---------------------------------------------------------------------------


class _Ext(enum.IntEnum):
    """The msgpack extension types; part of the wire, never renumbered."""

    DATETIME = 1
    DATE = 2
    TIME = 3
    TIMEDELTA = 4
    DECIMAL = 5
    UUID = 6
    TUPLE = 7
    SET = 8
    FROZENSET = 9
    BIG_INT = 10
    PAIRS = 11  # a dict whose keys are not all strings
    TEXT = 12  # a string with lone surrogates, which UTF-8 cannot carry


@dataclass(frozen=True, slots=True)
class _Pairs:
    items: list[tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class _Text:
    data: bytes


_OPTIONS: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


def pack(value: object, *, lossy: bool = False) -> bytes:
    """Return `value` as msgpack.

    Args:
        value: Anything made of the types named at the head of this module.
        lossy: Replace what cannot be carried by its type's name instead of raising; for
            reports, never for records.

    Raises:
        UnsupportedValueError: If something in `value` cannot be carried without loss. Its
            ``path`` says where, the first index being the record's.
    """
    try:
        return ormsgpack.packb(value, default=_to_ext, option=_OPTIONS)
    except TypeError:
        # Rare shapes (keys that are no strings, lone surrogates) are rewritten, and what
        # cannot be carried is found and named, in a second and slower pass.
        return ormsgpack.packb(_adapt(value, "", lossy), default=_to_ext, option=_OPTIONS)


def pack_record(record: object) -> bytes:
    """Return one record as msgpack, to be put beside others by `join_packed`.

    Raises:
        UnsupportedValueError: If something in it cannot be carried without loss; its
            ``path`` begins within the record.
    """
    return pack(record)


def join_packed(records: Sequence[bytes]) -> bytes:
    """Return what `unpack` makes a list of these packed records of."""
    count = len(records)
    if count < _FEW:
        header = bytes([0x90 | count])
    elif count < _MANY:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return header + b"".join(records)


_FEW: Final = 1 << 4  # arrays of fewer items have a header of one byte, and
_MANY: Final = 1 << 16  # those of fewer than this of three


def unpack(data: bytes | memoryview) -> Any:
    """Return the value that `pack` packed.

    Raises:
        FrameError: If the bytes are not what `pack` writes.
    """
    try:
        return _unpack(data, 0)
    except _UNREADABLE as error:
        raise FrameError(f"a payload cannot be decoded ({type(error).__name__})") from None


# OSError is what the name of a time zone raises that is a directory.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    OSError,
    RecursionError,
    struct.error,
)


def _unpack(data: bytes | memoryview, depth: int) -> Any:
    # The library bounds the nesting of one payload to 1,024, but not of payloads within
    # extension types within payloads: some ten of those would overflow the C stack.
    if depth > _TRUSTED_DEPTH and (depth > _MAX_DEPTH or nests_deeper(data, _DEEP_WITHIN)):
        raise ValueError("nested too deep")
    return ormsgpack.unpackb(data, ext_hook=partial(_from_ext, depth + 1))


def _to_ext(value: object) -> object:
    packer = _PACKERS.get(type(value))
    if packer is not None:
        return packer(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError


def _nested(tag: _Ext, items: list[Any]) -> ormsgpack.Ext:
    return ormsgpack.Ext(tag, ormsgpack.packb(items, default=_to_ext, option=_OPTIONS))


_MOMENT: Final = struct.Struct(">HBBBBBIB")
_CLOCK: Final = struct.Struct(">BBBIB")
_DAY: Final = struct.Struct(">HBB")
_SPAN: Final = struct.Struct(">iiI")
_OFFSET: Final = struct.Struct(">q")


def _pack_datetime(value: datetime) -> ormsgpack.Ext:
    moment = _MOMENT.pack(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.fold,
    )
    return ormsgpack.Ext(_Ext.DATETIME, moment + _pack_zone(value.tzinfo))


def _pack_time(value: time) -> ormsgpack.Ext:
    clock = _CLOCK.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ormsgpack.Ext(_Ext.TIME, clock + _pack_zone(value.tzinfo))


def _pack_zone(zone: tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if zone is UTC:
        return b"U"
    kind = type(zone)
    if kind is ZoneInfo and zone.key:  # type: ignore[attr-defined]  # narrowed by `is` above
        return b"Z" + str(zone).encode()
    if kind is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # as above
        return b"O" + _OFFSET.pack(offset // _MICROSECOND) + "".join(name).encode()
    if kind is TzInfo:
        return b"P" + _OFFSET.pack(zone.utcoffset(None) // _MICROSECOND)  # type: ignore[operator]  # a fixed offset
    raise TypeError


_MICROSECOND: Final = timedelta(microseconds=1)


def _unpack_zone(data: bytes) -> tzinfo | None:
    if not data:
        return None
    tag, rest = data[:1], data[1:]
    if tag == b"U":
        return UTC
    if tag == b"Z":
        return ZoneInfo(rest.decode())
    offset = timedelta(microseconds=_OFFSET.unpack_from(rest)[0])
    if tag == b"P":
        return TzInfo(offset.total_seconds())
    name = rest[_OFFSET.size :].decode()
    return timezone(offset, name) if name else timezone(offset)


def _unpack_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, micro, fold = _MOMENT.unpack_from(data)
    zone = _unpack_zone(data[_MOMENT.size :])
    return datetime(year, month, day, hour, minute, second, micro, zone, fold=fold)


def _unpack_time(data: bytes) -> time:
    hour, minute, second, micro, fold = _CLOCK.unpack_from(data)
    return time(hour, minute, second, micro, _unpack_zone(data[_CLOCK.size :]), fold=fold)


def _pack_int(value: int) -> ormsgpack.Ext:
    size = value.bit_length() // 8 + 1
    return ormsgpack.Ext(_Ext.BIG_INT, value.to_bytes(size, "big", signed=True))


_PACKERS: Final[dict[type, Callable[[Any], object]]] = {
    datetime: _pack_datetime,
    date: lambda v: ormsgpack.Ext(_Ext.DATE, _DAY.pack(v.year, v.month, v.day)),
    time: _pack_time,
    timedelta: lambda v: ormsgpack.Ext(
        _Ext.TIMEDELTA, _SPAN.pack(v.days, v.seconds, v.microseconds)
    ),
    Decimal: lambda v: ormsgpack.Ext(_Ext.DECIMAL, str(v).encode()),
    uuid.UUID: lambda v: ormsgpack.Ext(_Ext.UUID, v.bytes),
    tuple: lambda v: _nested(_Ext.TUPLE, list(v)),
    set: lambda v: _nested(_Ext.SET, list(v)),
    frozenset: lambda v: _nested(_Ext.FROZENSET, list(v)),
    int: _pack_int,
    _Pairs: lambda v: _nested(_Ext.PAIRS, [part for item in v.items for part in item]),
    _Text: lambda v: ormsgpack.Ext(_Ext.TEXT, v.data),
}


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


_UNPACKERS: Final[dict[int, Callable[[bytes], object]]] = {
    _Ext.DATETIME: _unpack_datetime,
    _Ext.DATE: lambda data: date(*_DAY.unpack(data)),
    _Ext.TIME: _unpack_time,
    _Ext.TIMEDELTA: lambda data: timedelta(*_SPAN.unpack(data)),
    _Ext.DECIMAL: lambda data: Decimal(data.decode()),
    _Ext.UUID: lambda data: uuid.UUID(bytes=data),
    _Ext.BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    _Ext.TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
}


_CONTAINERS: Final[dict[int, Callable[[list[Any]], object]]] = {
    _Ext.TUPLE: tuple,
    _Ext.SET: set,
    _Ext.FROZENSET: frozenset,
    _Ext.PAIRS: _pairs,
}


def _from_ext(depth: int, tag: int, data: bytes) -> object:
    container = _CONTAINERS.get(tag)
    if container is not None:
        return container(_unpack(data, depth))
    return _UNPACKERS[tag](data)


_SCALARS: Final = (bool, float, bytes, bytearray, type(None))
_MAX_DEPTH: Final = 200  # ormsgpack refuses deeper nesting with the same TypeError
_TRUSTED_DEPTH: Final = 8  # of extension types; 8 x 1,024 levels fit on any stack
_DEEP_WITHIN: Final = 16  # levels in each of those further in


def _adapt(value: Any, path: str, lossy: bool, depth: int = 0) -> Any:
    """Rewrite rare shapes so that msgpack can carry them; name what it cannot."""
    kind = type(value)
    if depth > _MAX_DEPTH:
        return _refuse(f"nesting deeper than {_MAX_DEPTH} levels", path, lossy)
    if kind is dict:
        return _adapt_dict(value, path, lossy, depth + 1)
    if kind in (list, tuple, set, frozenset):
        items = [_adapt(item, f"{path}[{n}]", lossy, depth + 1) for n, item in enumerate(value)]
        return items if kind is list else _Sequence(kind, items)
    if kind is str:
        return _adapt_text(value)
    if isinstance(value, enum.Enum):
        return _adapt(value.value, path, lossy, depth + 1)
    if kind not in _SCALARS:
        try:
            _to_ext(value)
        except TypeError:
            return _refuse(f"{kind.__module__}.{kind.__qualname__}", path, lossy)
    return value


def _adapt_dict(value: dict[Any, Any], path: str, lossy: bool, depth: int) -> Any:
    items = [
        (
            _adapt(key, f"{path}.<key>", lossy, depth),
            _adapt(item, f"{path}.{_shown(key)}", lossy, depth),
        )
        for key, item in value.items()
    ]
    return dict(items) if all(type(key) is str for key, _ in items) else _Pairs(items)


def _shown(key: object) -> str:
    # A key that is no plain name may be data (a dict by customer, say): keep it out.
    return key if isinstance(key, str) and key.isidentifier() else "<key>"


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A tuple or set whose adapted items need not be hashable."""

    kind: type
    items: list[Any]


_SEQUENCES: Final = {tuple: _Ext.TUPLE, set: _Ext.SET, frozenset: _Ext.FROZENSET}
_PACKERS[_Sequence] = lambda v: _nested(_SEQUENCES[v.kind], v.items)


def _adapt_text(value: str) -> str | _Text:
    try:
        value.encode()
    except UnicodeEncodeError:
        return _Text(value.encode("utf-8", "surrogatepass"))
    return value


def _refuse(type_name: str, path: str, lossy: bool) -> str:
    if lossy:
        return f"<{type_name}>"
    raise UnsupportedValueError(type_name, path.lstrip(".") or "the top level")
