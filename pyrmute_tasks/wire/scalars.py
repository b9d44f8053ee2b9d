"""Values without parts as bytes: dates and times, numbers, addresses, paths, secrets.

Each type has a number, which is part of the wire, a packer and an unpacker. Types are matched
exactly: a subclass may hold more than its base.
"""

import enum
import ipaddress
import pathlib
import re
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

import pydantic
import pydantic.networks
import pydantic_core
from pydantic_core import TzInfo

from pyrmute_tasks.pydantic_internals import url_bases

__all__ = ["SCALAR_TYPES", "Scalar", "scalar_from_bytes", "scalar_to_bytes"]


class Scalar(enum.IntEnum):
    """The msgpack extension types of scalars; part of the wire, never renumbered."""

    DATETIME = 1
    DATE = 2
    TIME = 3
    TIMEDELTA = 4
    DECIMAL = 5
    UUID = 6
    BIG_INT = 10
    BYTEARRAY = 15
    ZONE = 16
    COMPLEX = 17
    RANGE = 18
    FRACTION = 19
    NAMED_TEXT = 20  # a value made from a string: its type's name, a NUL, the string
    PATTERN = 21
    SECRET_BYTES = 22
    BYTE_SIZE = 23


def scalar_to_bytes(value: object) -> tuple[Scalar, bytes] | None:
    """Return a value's extension type and bytes; None if it cannot be carried."""
    packer = _PACKERS.get(type(value))
    return None if packer is None else packer(value)


def scalar_from_bytes(tag: int, data: bytes) -> object:
    """Return the value for a scalar's bytes.

    Raises:
        LookupError: If no scalar has that extension type.
        ValueError: If the bytes are malformed; also other builtin exceptions.
    """
    return _UNPACKERS[tag](data)


# --- dates and times ----------------------------------------------------------------------

_MOMENT: Final = struct.Struct(">HBBBBBIB")
_CLOCK: Final = struct.Struct(">BBBIB")
_DAY: Final = struct.Struct(">HBB")
_SPAN: Final = struct.Struct(">iiI")
_OFFSET: Final = struct.Struct(">q")
_MICROSECOND: Final = timedelta(microseconds=1)

_Packed = tuple[Scalar, bytes] | None


def _pack_datetime(value: datetime) -> _Packed:
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
    zone = _pack_zone(value.tzinfo)
    return None if zone is None else (Scalar.DATETIME, moment + zone)


def _pack_time(value: time) -> _Packed:
    clock = _CLOCK.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    zone = _pack_zone(value.tzinfo)
    return None if zone is None else (Scalar.TIME, clock + zone)


def _pack_zone(zone: tzinfo | None) -> bytes | None:
    if zone is None:
        return b""
    if zone is UTC:
        return b"U"
    kind = type(zone)
    if kind is ZoneInfo and zone.key:  # type: ignore[attr-defined]  # narrowed by `is` above
        return b"Z" + str(zone).encode()
    if kind is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # as above
        written = _OFFSET.pack(offset // _MICROSECOND)
        # An explicit name, even an empty one, differs from none.
        return b"N" + written + _encode(name[0]) if name else b"O" + written
    if kind is TzInfo:
        return b"P" + _OFFSET.pack(zone.utcoffset(None) // _MICROSECOND)  # type: ignore[operator]  # a fixed offset
    return None


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
    if tag == b"N":
        return timezone(offset, _decode(rest[_OFFSET.size :]))
    return timezone(offset)


def _pack_zone_alone(value: tzinfo) -> _Packed:
    zone = _pack_zone(value)
    return None if zone is None else (Scalar.ZONE, zone)


def _unpack_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, micro, fold = _MOMENT.unpack_from(data)
    zone = _unpack_zone(data[_MOMENT.size :])
    return datetime(year, month, day, hour, minute, second, micro, zone, fold=fold)


def _unpack_time(data: bytes) -> time:
    hour, minute, second, micro, fold = _CLOCK.unpack_from(data)
    return time(hour, minute, second, micro, _unpack_zone(data[_CLOCK.size :]), fold=fold)


# --- numbers ------------------------------------------------------------------------------

_COMPLEX: Final = struct.Struct(">dd")


def _int_to_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _int_from_bytes(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _pack_range(value: range) -> _Packed:
    return Scalar.RANGE, f"{value.start:x} {value.stop:x} {value.step:x}".encode()


def _unpack_range(data: bytes) -> range:
    return range(*(int(number, 16) for number in data.split(b" ", 3)))


def _pack_fraction(value: Fraction) -> _Packed:
    return Scalar.FRACTION, f"{value.numerator:x} {value.denominator:x}".encode()


def _unpack_fraction(data: bytes) -> Fraction:
    numerator, denominator = data.split(b" ")
    return Fraction(int(numerator, 16), int(denominator, 16))


def _pack_uuid(value: uuid.UUID) -> _Packed:
    safe = value.is_safe  # not part of its equality, but of its pickle
    return Scalar.UUID, value.bytes + (b"" if safe is _UNKNOWN else _SAFETY.pack(safe.value))


def _unpack_uuid(data: bytes) -> uuid.UUID:
    safe = uuid.SafeUUID(_SAFETY.unpack(data[16:])[0]) if data[16:] else _UNKNOWN
    return uuid.UUID(bytes=data[:16], is_safe=safe)


_SAFETY: Final = struct.Struct(">b")
_UNKNOWN: Final = uuid.SafeUUID.unknown


# --- values made from a string ------------------------------------------------------------


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _urls() -> list[type]:
    # The documented ones; subclasses in the user's modules are left out.
    found = [getattr(pydantic.networks, name) for name in pydantic.networks.__all__]
    bases = url_bases()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, bases)]


_MADE_OF_TEXT: Final[dict[str, Callable[[str], Any]]] = {
    kind.__name__: kind
    for kind in (
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
        pathlib.PosixPath,
        pathlib.WindowsPath,
        pydantic_core.Url,
        pydantic_core.MultiHostUrl,
        *_urls(),
    )
}


def _pack_text_of(value: object) -> _Packed:
    kind, text = type(value), str(value)
    again = kind(text)  # type: ignore[call-arg]  # each of them takes a string
    if again != value or str(again) != text:  # a URL with its own options
        return None
    return Scalar.NAMED_TEXT, kind.__name__.encode() + b"\0" + _encode(text)


def _pack_secret_text(value: pydantic.SecretStr) -> _Packed:
    secret = value.get_secret_value()
    return (Scalar.NAMED_TEXT, b"SecretStr\0" + _encode(secret)) if type(secret) is str else None


def _pack_secret_bytes(value: pydantic.SecretBytes) -> _Packed:
    secret = value.get_secret_value()
    return (Scalar.SECRET_BYTES, secret) if type(secret) is bytes else None


def _unpack_text_of(data: bytes) -> object:
    name, _, text = data.partition(b"\0")
    if name == b"SecretStr":
        return pydantic.SecretStr(_decode(text))
    return _MADE_OF_TEXT[name.decode()](_decode(text))


def _pack_pattern(value: re.Pattern[Any]) -> _Packed:
    if value.flags & re.DEBUG:
        return None  # compiling it again would print
    pattern = value.pattern
    kind, data = (b"s", _encode(pattern)) if isinstance(pattern, str) else (b"b", bytes(pattern))
    return Scalar.PATTERN, kind + _OFFSET.pack(value.flags) + data


def _unpack_pattern(data: bytes) -> re.Pattern[Any]:
    flags = _OFFSET.unpack_from(data, 1)[0]
    source = data[1 + _OFFSET.size :]
    if flags & re.DEBUG:
        raise ValueError("not the flags of a pattern")
    try:
        return re.compile(source, flags) if data[:1] == b"b" else re.compile(_decode(source), flags)
    except re.error as error:
        raise ValueError("not a pattern") from error


# --- table of types -----------------------------------------------------------------------

_PACKERS: Final[dict[type, Callable[[Any], _Packed]]] = {
    datetime: _pack_datetime,
    date: lambda value: (Scalar.DATE, _DAY.pack(value.year, value.month, value.day)),
    time: _pack_time,
    timedelta: lambda value: (
        Scalar.TIMEDELTA,
        _SPAN.pack(value.days, value.seconds, value.microseconds),
    ),
    Decimal: lambda value: (Scalar.DECIMAL, str(value).encode()),
    uuid.UUID: _pack_uuid,
    int: lambda value: (Scalar.BIG_INT, _int_to_bytes(value)),
    bytearray: lambda value: (Scalar.BYTEARRAY, bytes(value)),
    timezone: _pack_zone_alone,
    ZoneInfo: _pack_zone_alone,
    TzInfo: _pack_zone_alone,
    complex: lambda value: (Scalar.COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    range: _pack_range,
    Fraction: _pack_fraction,
    re.Pattern: _pack_pattern,
    pydantic.SecretStr: _pack_secret_text,
    pydantic.SecretBytes: _pack_secret_bytes,
    pydantic.ByteSize: lambda value: (Scalar.BYTE_SIZE, _int_to_bytes(value)),
    **{kind: _pack_text_of for kind in _MADE_OF_TEXT.values() if isinstance(kind, type)},
}

SCALAR_TYPES: Final = frozenset(_PACKERS)
"""The types packed as scalars, each matched exactly."""

_UNPACKERS: Final[dict[int, Callable[[bytes], object]]] = {
    Scalar.DATETIME: _unpack_datetime,
    Scalar.DATE: lambda data: date(*_DAY.unpack(data)),
    Scalar.TIME: _unpack_time,
    Scalar.TIMEDELTA: lambda data: timedelta(*_SPAN.unpack(data)),
    Scalar.DECIMAL: lambda data: Decimal(data.decode()),
    Scalar.UUID: _unpack_uuid,
    Scalar.BIG_INT: _int_from_bytes,
    Scalar.BYTEARRAY: bytearray,
    Scalar.ZONE: _unpack_zone,
    Scalar.COMPLEX: lambda data: complex(*_COMPLEX.unpack(data)),
    Scalar.RANGE: _unpack_range,
    Scalar.FRACTION: _unpack_fraction,
    Scalar.NAMED_TEXT: _unpack_text_of,
    Scalar.PATTERN: _unpack_pattern,
    Scalar.SECRET_BYTES: pydantic.SecretBytes,
    Scalar.BYTE_SIZE: lambda data: pydantic.ByteSize(_int_from_bytes(data)),
}
