"""Python values as msgpack without loss; others are rejected.

JSON's types are msgpack's own; others are extension types (`scalars`, `objects`, `containers`). A
first pass packs a value at the library's speed. What that cannot do (keys other than strings,
lone surrogates, instances, one dict held twice) is done by a second, slower pass, which also
finds and names unsupported values.

An object held twice is packed once, as ``LABEL(number, value)``, and as ``REF(number)`` from then
on, so that it arrives as one object.
"""

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from gc import is_tracked
from threading import get_ident
from typing import Any, Final

import ormsgpack

from pyrmute_tasks.errors import FrameError, UnsupportedValueError
from pyrmute_tasks.wire import objects
from pyrmute_tasks.wire.containers import ATOMS, BUILDERS, Split, Tag, split
from pyrmute_tasks.wire.msgpack_depth import nests_deeper
from pyrmute_tasks.wire.scalars import SCALAR_TYPES, scalar_from_bytes, scalar_to_bytes
from pyrmute_tasks.wire.sharing import holds_buffer, may_hold_binary, needs_care

__all__ = ["join_packed", "pack", "pack_record", "unpack"]


_OPTIONS: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


def pack_record(record: object) -> bytes:
    """Return one record as msgpack, for `join_packed`.

    Raises:
        UnsupportedValueError: If a value in it cannot be carried losslessly; its ``path`` is
            relative to the record.
    """
    try:
        packed = ormsgpack.packb(record, default=_to_ext, option=_OPTIONS)
    except TypeError:
        _raise_swallowed()
        return _pack_with_care(record)
    if is_tracked(record):
        careful = needs_care(record, packed)
    else:
        careful = may_hold_binary(packed) and holds_buffer(record)
    return _pack_with_care(record) if careful else packed


def pack(value: object, *, lossy: bool = False) -> bytes:
    """Return `value` as msgpack.

    Args:
        value: Anything made of the types in ``docs/types.md``.
        lossy: Replace unsupported values by their type's name instead of raising; for reports,
            never for records.

    Raises:
        UnsupportedValueError: If a part of `value` cannot be carried losslessly; its ``path``
            says where.
    """
    return _pack_with_care(value, lossy=True) if lossy else pack_record(value)


def join_packed(records: Sequence[bytes]) -> bytes:
    """Return packed records as one packed list."""
    count = len(records)
    if count < _FEW:
        header = bytes([0x90 | count])
    elif count < _MANY:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return header + b"".join(records)


_FEW: Final = 1 << 4  # arrays of fewer items have a one-byte header, and
_MANY: Final = 1 << 16  # those of fewer than this a three-byte one


def unpack(data: bytes | memoryview) -> Any:
    """Return the value that was packed.

    Raises:
        FrameError: If the bytes are malformed, or hold an instance of a class that is not loaded
            here or whose definition differs.
    """
    state = _State({})
    try:
        return _unpack(data, 0, state)
    except _UNREADABLE as error:
        _raise_swallowed()
        reason = f": {state.mismatch}" if state.mismatch else f" ({type(error).__name__})"
        raise FrameError(f"a payload cannot be decoded{reason}") from None


# OSError: a time zone's name may be a directory.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,  # a path of another operating system
    OSError,
    RecursionError,
    struct.error,
)


# --- packing at the library's speed -------------------------------------------------------


def _to_ext(value: object) -> ormsgpack.Ext:
    try:
        scalar = scalar_to_bytes(value)
        if scalar is not None:
            return ormsgpack.Ext(*scalar)
        tag = _SEQUENCES.get(type(value))
        if tag is not None:
            return _nested(tag, list(value))  # type: ignore[call-overload]  # one of _SEQUENCES
        if isinstance(value, enum.Enum):
            parts = objects.take_apart(value)
            if parts is not None:
                return _nested(parts.kind, parts.head)
    except Exception:
        raise
    except BaseException as error:
        _swallowed[get_ident()] = error
        raise
    raise TypeError


_swallowed: Final[dict[int, BaseException]] = {}
"""By thread: exceptions raised by signals in callbacks, where the library replaces them."""


def _raise_swallowed() -> None:
    error = _swallowed.pop(get_ident(), None)
    if error is not None:
        raise error


def _nested(tag: int, items: list[Any]) -> ormsgpack.Ext:
    return ormsgpack.Ext(tag, ormsgpack.packb(items, default=_to_ext, option=_OPTIONS))


_SEQUENCES: Final[dict[type, Tag]] = {tuple: Tag.TUPLE, set: Tag.SET, frozenset: Tag.FROZENSET}


# --- packing with care --------------------------------------------------------------------


class _UnsupportedError(Exception):
    """A value that cannot be carried; each level adds its part of the path."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name
        self.path: list[str] = []


def _pack_with_care(value: object, *, lossy: bool = False) -> bytes:
    writer = _Writer(value, lossy)
    try:
        written = writer.write(value, 0)
        packed = ormsgpack.packb(written, default=_to_ext, option=_OPTIONS)
    except _UnsupportedError as refused:
        path = "".join(reversed(refused.path)).lstrip(".")
        raise UnsupportedValueError(refused.type_name, path or "the top level") from None
    except TypeError:
        _raise_swallowed()
        raise
    if writer.deepest > _TRUSTED_DEPTH and not _is_readable(packed):
        if lossy:
            return ormsgpack.packb("<too deep>")
        raise UnsupportedValueError("nesting too deep", "the top level")
    return packed


def _is_readable(packed: bytes) -> bool:
    # Readers bound the nesting of extension types by more than the number of levels.
    try:
        unpack(packed)
    except FrameError:
        return False
    return True


class _Writer:
    """Rewrites one value so that msgpack can carry it."""

    def __init__(self, value: object, lossy: bool) -> None:
        self._lossy = lossy
        self._shared = _number_shared(value)
        self.deepest = 0
        self._written: set[int] = set()
        self._open: set[int] = set()  # containers of the current value

    def write(self, value: object, depth: int) -> Any:
        kind = type(value)
        if kind in ATOMS:
            return value
        if kind is str:
            return _write_text(value)
        if id(value) in self._written:
            return ormsgpack.Ext(Tag.REF, ormsgpack.packb(self._shared[id(value)]))
        if id(value) in self._open:
            return self._reject("a value that contains itself")
        if depth > _MAX_DEPTH:
            return self._reject(f"nesting deeper than {_MAX_DEPTH} levels")
        number = self._shared.get(id(value))
        self._open.add(id(value))
        written = self._write_new(value, depth if number is None else depth + 1)
        self._open.discard(id(value))
        if number is None:
            return written
        self._written.add(id(value))
        return _nested(Tag.LABEL, [number, written])

    def _write_new(self, value: object, depth: int) -> Any:
        scalar = scalar_to_bytes(value)
        if scalar is not None:
            return ormsgpack.Ext(*scalar)
        parts = split(value)
        if parts is None:
            return self._reject(_name_of_type(value))
        self.deepest = max(self.deepest, depth + 1)
        return self._write_split(value, parts, depth + 1)

    def _write_split(self, value: Any, parts: Split, depth: int) -> Any:
        items = []
        for position, item in enumerate(parts.items):
            try:
                items.append(self.write(item, depth))
            except _UnsupportedError as refused:
                refused.path.append(parts.place(position))
                raise
        if type(value) is list:
            return items
        if type(value) is dict and all(type(key) is str for key in items[::2]):
            return dict(zip(items[::2], items[1::2], strict=True))
        return _nested(parts.tag, [*parts.head, *items])

    def _reject(self, type_name: str) -> str:
        if self._lossy:
            return f"<{type_name}>"
        raise _UnsupportedError(type_name)


def _name_of_type(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


_MAX_DEPTH: Final = 200  # ormsgpack refuses deeper nesting with the same TypeError


def _number_shared(value: object) -> dict[int, int]:
    """Number the objects that are held more than once, by id."""
    numbers: dict[int, int] = {}
    seen: set[int] = set()
    left = [value]
    while left:
        each = left.pop()
        if type(each) in _UNLABELLED or isinstance(each, enum.Enum):
            continue
        if id(each) in seen:
            numbers.setdefault(id(each), len(numbers))
            continue
        seen.add(id(each))
        parts = split(each)
        if parts is not None:
            left.extend(parts.items)
    return numbers


# The identity of what is immutable and holds nothing does not matter.
_UNLABELLED: Final = (ATOMS | SCALAR_TYPES | {str}) - {bytearray}


def _write_text(value: Any) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return ormsgpack.Ext(Tag.TEXT, value.encode("utf-8", "surrogatepass"))
    return value


# --- unpacking ----------------------------------------------------------------------------

_TRUSTED_DEPTH: Final = 8  # of extension types; 8 x 1,024 levels fit on any stack
_DEEP_WITHIN: Final = 16  # levels in each one beyond that


def _unpack(data: bytes | memoryview, depth: int, state: "_State") -> Any:
    # The library limits the nesting of one payload to 1,024, but not of payloads in extension
    # types in payloads: about ten of those would overflow the C stack.
    if depth > _TRUSTED_DEPTH and (depth > _MAX_DEPTH or nests_deeper(data, _DEEP_WITHIN)):
        raise ValueError("nested too deep")
    return ormsgpack.unpackb(data, ext_hook=_Reader(depth + 1, state).read)


class _Reader:
    """Unpacks extension types."""

    __slots__ = ("_depth", "_state")

    def __init__(self, depth: int, state: "_State") -> None:
        self._depth = depth
        self._state = state

    def read(self, tag: int, data: bytes) -> object:
        try:
            container = BUILDERS.get(tag)
            if container is not None:
                return container(_unpack(data, self._depth, self._state))
            if tag in _SHARING:
                return self._shared(tag, data)
            if tag == Tag.TEXT:
                return data.decode("utf-8", "surrogatepass")
            if tag in _INSTANCES:
                return self._put_together(tag, data)
            return scalar_from_bytes(tag, data)
        except Exception:
            raise
        except BaseException as error:
            _swallowed[get_ident()] = error
            raise

    def _shared(self, tag: int, data: bytes) -> object:
        if tag == Tag.REF:
            return self._state.labels[ormsgpack.unpackb(data)]
        number, value = _unpack(data, self._depth, self._state)
        self._state.labels[number] = value
        return value

    def _put_together(self, tag: int, data: bytes) -> object:
        parts = _unpack(data, self._depth, self._state)
        try:
            return objects.put_together(tag, parts)
        except objects.ClassMismatch as error:
            self._state.mismatch = str(error)  # the library raises another exception
            raise


@dataclass(slots=True)
class _State:
    """The state of unpacking one payload.

    Attributes:
        labels: The values of references; each record's overwrite those of the last one.
        mismatch: The class mismatch, if one was found.
    """

    labels: dict[int, Any]
    mismatch: str = ""


_INSTANCES: Final = frozenset(objects.Kind)
_SHARING: Final = frozenset({Tag.LABEL, Tag.REF})
