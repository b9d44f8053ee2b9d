"""Comparison of values by content and type, also across processes.

A value is first frozen: rewritten as plain tuples that are equal exactly if the values are, type
for type. Frozen values do not change with their originals, and any of them can be sent to another
process. The order of a set does not count; that of a dict's keys does, since files keep it.
"""

import enum
import types
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address
from pathlib import PosixPath, PurePosixPath
from typing import Any, Final, NamedTuple, TypeAlias

from pydantic import BaseModel, ValidationError

from pyrmute_tasks.audit.report import Change
from pyrmute_tasks.plans.field_shapes import fields_of
from pyrmute_tasks.pydantic_internals import extra_values, private_values

__all__ = [
    "Difference",
    "Frozen",
    "Raised",
    "differences",
    "freeze",
    "freeze_error",
    "holds_set",
    "shown_key",
]


class _Leaf(NamedTuple):
    kind: str
    text: object


class _Items(NamedTuple):
    kind: str
    items: tuple[Any, ...]


class _Bag(NamedTuple):
    kind: str
    items: tuple[Any, ...]
    mark: str = "set"


class _Fields(NamedTuple):
    kind: str
    keys: tuple[Any, ...]
    values: tuple[Any, ...]
    mark: str = "dict"


class Raised(NamedTuple):
    """The exception raised in a value's place."""

    error: str
    details: tuple[Any, ...]
    mark: str = "raised"


Frozen: TypeAlias = _Leaf | _Items | _Bag | _Fields | Raised
"""A value as plain tuples."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two values differ.

    Attributes:
        field: The place's dotted path; empty for the whole.
        change: The kind of the difference.
        one: The first value as text, which may quote a record.
        other: The second value.
    """

    field: str
    change: Change
    one: str
    other: str


# --- freezing -----------------------------------------------------------------------------

_MAX_DEPTH: Final = 100  # each level takes several of Python's 1,000

_PLAIN: Final[tuple[type, ...]] = (
    float,
    bool,
    type(None),
    complex,
    bytes,
    bytearray,
    date,
    timedelta,
)
_BY_REPR: Final = frozenset(
    (*_PLAIN, Decimal, Fraction, uuid.UUID, PosixPath, PurePosixPath, IPv4Address, IPv6Address)
)


def freeze(value: object) -> Frozen:
    """Return `value` as plain tuples; opaque objects are compared by type."""
    return _freeze(value, set())


def freeze_error(error: BaseException) -> Raised:
    """Return an exception's class and, for pydantic's, its locations and error types."""
    details: tuple[Any, ...] = ()
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        details = tuple((problem["type"], repr(problem["loc"])) for problem in problems)
    return Raised(_name_of(type(error)), details)


def _freeze(value: Any, active: set[int]) -> Frozen:
    kind = type(value)
    if kind is str or kind is int:
        return _Leaf(kind.__name__, value)
    if kind in _BY_REPR:
        return _Leaf(kind.__qualname__, repr(value))
    if id(value) in active or len(active) > _MAX_DEPTH:
        return _Leaf(_name_of(kind), "…")
    active.add(id(value))
    try:
        return _freeze_parts(value, _name_of(kind), active)
    finally:
        active.discard(id(value))


def _freeze_parts(value: Any, kind: str, active: set[int]) -> Frozen:
    if isinstance(value, dict):
        return _freeze_dict(value, kind, active)
    if isinstance(value, (list, tuple, deque)):
        return _Items(kind, tuple(_freeze(item, active) for item in value))
    if isinstance(value, (set, frozenset)):
        return _Bag(kind, tuple(sorted((_freeze(item, active) for item in value), key=repr)))
    if isinstance(value, BaseModel):
        # Not all attributes: a cached property is one only after its first use.
        parts = {key: item for key, item in vars(value).items() if key in fields_of(type(value))}
        parts |= extra_values(value) | private_values(value)
        return _freeze_dict(parts, kind, active)
    return _freeze_other(value, kind, active)


def _freeze_dict(value: dict[Any, Any], kind: str, active: set[int]) -> Frozen:
    keys = tuple(_freeze(key, active) for key in value)
    return _Fields(kind, keys, tuple(_freeze(item, active) for item in value.values()))


def _freeze_other(value: Any, kind: str, active: set[int]) -> Frozen:
    if isinstance(value, enum.Enum):
        return _Leaf(kind, value.name)
    if isinstance(value, (datetime, time)):
        # Not its repr: a time zone's may hold a memory address.
        return _Leaf(kind, f"{value.replace(tzinfo=None).isoformat()} {_zone(value)}")
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
        return _Leaf(kind, getattr(value, "__qualname__", value.__name__))
    for base in (str, bytes, int, float):
        if isinstance(value, base):
            return _Leaf(kind, base.__repr__(value))
    try:
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return _Leaf(kind, reduced)
        made_by, arguments, *rest = reduced
        parts = [list(part) if isinstance(part, Iterator) else part for part in rest]
        return _Items(kind, tuple(_freeze(part, active) for part in (made_by, arguments, *parts)))
    except Exception:  # a lock, a generator, a class that defines copying itself
        return _Leaf(kind, "")


def _zone(value: datetime | time) -> str:
    return f"{value.fold} {type(value.tzinfo).__qualname__} {value.utcoffset()} {value.tzname()}"


def _name_of(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


# --- comparing ----------------------------------------------------------------------------


def differences(one: Frozen, other: Frozen) -> list[Difference]:
    """Return the places where two frozen values differ; empty if they are equal."""
    found: list[Difference] = []
    if one != other:
        _compare(one, other, "", found)
    return found


def shown_key(key: object) -> str:
    """Return a dict's key for display; hides keys that are not identifiers, which may be data."""
    return key if isinstance(key, str) and key.isidentifier() else "<key>"


def holds_set(value: Frozen) -> bool:
    """Return whether a frozen value contains a set."""
    match value:
        case _Bag():
            return True
        case _Items(_, items):
            return any(map(holds_set, items))
        case _Fields(_, _, values):
            return any(map(holds_set, values))
        case _:
            return False


def _compare(one: Frozen, other: Frozen, path: str, found: list[Difference]) -> None:
    if one == other:
        return
    if isinstance(one, Raised) or isinstance(other, Raised):
        change = Change.FAILURE
    elif one.kind != other.kind:
        change = Change.TYPE
    elif isinstance(one, _Fields) and isinstance(other, _Fields):
        _compare_fields(one, other, path, found)
        return
    elif isinstance(one, _Items) and isinstance(other, _Items):
        if len(one.items) == len(other.items) and Counter(one.items) != Counter(other.items):
            for mine, theirs in zip(one.items, other.items, strict=True):
                _compare(mine, theirs, f"{path}[]", found)
            return
        same_length = len(one.items) == len(other.items)
        change = Change.ITEM_ORDER if same_length else Change.LENGTH
    else:
        change = Change.VALUE
    found.append(Difference(path, change, _text(one), _text(other)))


def _compare_fields(one: _Fields, other: _Fields, path: str, found: list[Difference]) -> None:
    mine = dict(zip(one.keys, one.values, strict=True))
    theirs = dict(zip(other.keys, other.values, strict=True))
    before = len(found)
    for key in mine.keys() | theirs.keys():
        inner = f"{path}.{shown_key(key.text)}".lstrip(".") if isinstance(key, _Leaf) else path
        if key in mine and key in theirs:
            _compare(mine[key], theirs[key], inner, found)
        else:
            values = [_text(side[key]) if key in side else "" for side in (mine, theirs)]
            found.append(Difference(inner, Change.PRESENCE, *values))
    if len(found) == before:
        orders = [", ".join(str(key[1]) for key in side.keys) for side in (one, other)]
        found.append(Difference(path, Change.KEY_ORDER, *orders))


_MOST_TEXT: Final = 40
_MOST_BITS: Final = 1024


def _text(value: Frozen) -> str:
    match value:
        case _Leaf("int", int() as number) if number.bit_length() > _MOST_BITS:
            shown = "a large int"  # Python refuses to print it
        case _Leaf("str" | "int", plain):
            shown = repr(plain)  # escapes control characters
        case _Leaf(_, text):
            shown = str(text)
        case Raised(error):
            shown = f"raises {error}"
        case _Items(_, items):
            shown = "[" + ", ".join(map(_text, items[:5])) + "]"
        case _Bag(_, items):
            shown = "{" + ", ".join(map(_text, items[:5])) + "}"
        case _Fields(kind, keys):
            shown = f"{kind} of {len(keys)}"
    return shown if len(shown) <= _MOST_TEXT else shown[: _MOST_TEXT - 1] + "…"
