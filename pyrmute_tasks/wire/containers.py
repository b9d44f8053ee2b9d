"""Containers and instances, split into lists of their parts and joined again.

`split` takes one level apart, `BUILDERS` put a container together again; `objects` handles
instances. No name is ever imported or called.
"""

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from pyrmute_tasks.wire import objects

__all__ = ["ATOMS", "BUILDERS", "Split", "Tag", "split"]


class Tag(enum.IntEnum):
    """The msgpack extension types made here; part of the wire, never renumbered."""

    TUPLE = 7
    SET = 8
    FROZENSET = 9
    PAIRS = 11  # a dict with keys other than strings
    TEXT = 12  # a string with lone surrogates, which UTF-8 cannot carry
    LABEL = 13  # a number, and the value for later REFs with that number
    REF = 14
    DEQUE = 24
    ORDERED_DICT = 25
    DEFAULT_DICT = 26
    COUNTER = 27
    SLICE = 32


@dataclass(frozen=True, slots=True)
class Split:
    """A container as a list: a plain `head`, and `items` of any type."""

    tag: int
    head: list[Any]
    items: Sequence[Any]
    place: Callable[[int], str]


ATOMS: Final = frozenset({bool, float, bytes, type(None), int})
"""Types that msgpack carries itself, besides strings."""


# --- taking apart -------------------------------------------------------------------------


def split(value: Any) -> Split | None:
    """Return the parts of a container or an instance; None if it has none or is unsupported."""
    splitter = _SPLITTERS.get(type(value))
    if splitter is not None:
        return splitter(value)
    parts = objects.take_apart(value)
    if parts is None:
        return None
    names = parts.names
    return Split(parts.kind, parts.head, parts.values, lambda position: f".{names[position]}")


def _in_sequence(tag: Tag, head: list[Any], items: Sequence[Any]) -> Split:
    return Split(tag, head, items, lambda position: f"[{position}]")


def _in_dict(tag: Tag, head: list[Any], value: dict[Any, Any]) -> Split:
    flat = [part for item in value.items() for part in item]

    def place(position: int) -> str:
        return f".{_shown(flat[position - 1])}" if position % 2 else ".<key>"

    return Split(tag, head, flat, place)


def _shown(key: object) -> str:
    # A key that is not an identifier may be data (a dict by customer, say): keep it out.
    return str(key) if type(key) is str and key.isidentifier() else "<key>"


def _split_default_dict(value: defaultdict[Any, Any]) -> Split | None:
    factory = value.default_factory
    name = next((name for name, known in _FACTORIES.items() if known is factory), None)
    if factory is not None and name is None:
        return None
    return _in_dict(Tag.DEFAULT_DICT, [name], value)


def _split_slice(value: slice) -> Split | None:
    parts = [value.start, value.stop, value.step]
    plain = all(type(part) in ATOMS for part in parts)
    return _in_sequence(Tag.SLICE, [], parts) if plain else None


# Factories are called, so only these are allowed, never one named by a message.
_FACTORIES: Final[dict[str, Callable[[], Any]]] = {
    kind.__name__: kind
    for kind in (
        *(bool, bytes, dict, float, frozenset, int, list, set, str, tuple),
        *(Counter, OrderedDict, defaultdict, deque, Decimal),
    )
}

_SPLITTERS: Final[dict[type, Callable[[Any], Split | None]]] = {
    dict: lambda value: _in_dict(Tag.PAIRS, [], value),
    list: lambda value: _in_sequence(Tag.TUPLE, [], value),
    tuple: lambda value: _in_sequence(Tag.TUPLE, [], value),
    set: lambda value: _in_sequence(Tag.SET, [], list(value)),
    frozenset: lambda value: _in_sequence(Tag.FROZENSET, [], list(value)),
    deque: lambda value: _in_sequence(Tag.DEQUE, [value.maxlen], value),
    OrderedDict: lambda value: _in_dict(Tag.ORDERED_DICT, [], value),
    Counter: lambda value: _in_dict(Tag.COUNTER, [], value),
    defaultdict: _split_default_dict,
    slice: _split_slice,
}


# --- putting together ---------------------------------------------------------------------


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _deque(parts: list[Any]) -> deque[Any]:
    maxlen, *items = parts
    return deque(items, maxlen)


def _counter(flat: list[Any]) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    dict.update(counter, _pairs(flat))
    return counter


def _default_dict(parts: list[Any]) -> defaultdict[Any, Any]:
    name, *flat = parts
    return defaultdict(None if name is None else _FACTORIES[name], _pairs(flat))


BUILDERS: Final[dict[int, Callable[[list[Any]], object]]] = {
    Tag.TUPLE: tuple,
    Tag.SET: set,
    Tag.FROZENSET: frozenset,
    Tag.PAIRS: _pairs,
    Tag.DEQUE: _deque,
    Tag.ORDERED_DICT: lambda flat: OrderedDict(_pairs(flat)),
    Tag.COUNTER: _counter,
    Tag.DEFAULT_DICT: _default_dict,
    Tag.SLICE: lambda parts: slice(*parts),
}
