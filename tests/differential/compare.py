"""Canonical forms of values and errors, equal only if these are the same in every respect."""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from pyrmute_tasks import InvalidRecordError

__all__ = ["Seen", "described", "shape"]

_ATOMS: Final = (int, str, bytes, bool, type(None))


class Seen(dict[int, tuple[int, Any]]):
    """The values seen before, by id.

    Args:
        tells_aliases: Tell each object that was seen before; else only those that hold
            themselves.
    """

    def __init__(self, tells_aliases: bool = True) -> None:
        super().__init__()
        self.tells_aliases = tells_aliases


def shape(value: Any, seen: Seen | None = None) -> Any:
    """Return a form of a value that shows types, the order of keys, bits of floats and aliases.

    Args:
        value: Anything.
        seen: What was seen before; one that is kept for several calls tells aliases across
            them, too.
    """
    seen = Seen() if seen is None else seen
    kind = type(value)
    if kind in _ATOMS:
        return (kind.__name__, value)
    if kind is float:
        return ("float", "nan" if value != value else value.hex())  # noqa: PLR0124  # nan's test
    if isinstance(value, (BaseModel, Mapping, list, set, bytearray)) and kind is not str:
        if id(value) in seen:
            return ("again", seen[id(value)][0])
        seen[id(value)] = (len(seen), value)  # kept alive, so that its id stays its own
    found = _shape_inside(value, seen)
    if not seen.tells_aliases:
        seen.pop(id(value), None)
    return found


def _shape_inside(value: Any, seen: Seen) -> Any:
    kind = type(value)
    if isinstance(value, BaseModel):
        return _shape_of_model(value, seen)
    if isinstance(value, Mapping):
        return (kind, *((shape(key, seen), shape(value[key], seen)) for key in list(value)))
    if isinstance(value, (list, tuple)):
        return (kind, *(shape(item, seen) for item in value))
    if isinstance(value, BaseException):
        return (kind, shape(value.args, Seen(False)), text_of(value))
    if isinstance(value, memoryview):
        return (kind, value.tobytes(), value.format, value.readonly)
    return (kind, repr(value))


def _shape_of_model(value: BaseModel, seen: Seen) -> Any:
    return (
        type(value),
        shape(dict(vars(value)), seen),
        sorted(value.model_fields_set),
        shape(value.__pydantic_extra__, seen),
        shape(value.__pydantic_private__, seen),
    )


def text_of(error: BaseException) -> Any:
    """Return an exception's text, or the exception that reading it raises."""
    try:
        return re.sub(r"\b0x[0-9a-f]+", "0x…", str(error))  # addresses of objects it shows
    except BaseException as raised:
        return ("raises", type(raised), raised.args)


def described(error: BaseException | None) -> Any:
    """Return a form of an exception with all its causes."""
    chain: list[Any] = []
    seen: list[int] = []
    while error is not None and id(error) not in seen:
        seen.append(id(error))
        chain.append(_described_alone(error))
        if isinstance(error, InvalidRecordError):
            return chain  # pyrmute has none; what is behind it is for people
        error = error.__cause__
    return [*chain, ("cycle", seen.index(id(error)))] if error is not None else chain


def _described_alone(error: BaseException) -> Any:
    notes = [
        note for note in getattr(error, "__notes__", []) if not re.match(r"record \d+( |$)", note)
    ]
    if isinstance(error, ValidationError):
        details = error.errors(include_url=False)
        inputs, text = shape(details, Seen(False)), text_of(error)
        if "memoryview" in repr(inputs):  # its text has a part of an address
            text = re.sub("input_value=.*, input_type", "input_value=…, input_type", text)
        return ("ValidationError", error.title, inputs, text, notes)
    parts = [getattr(error, part, None) for part in ("name", "from_version", "to_version")]
    if type(error).__name__ in ("MigrationError", "ModelNotFoundError"):
        # The same error is of another class with each of the libraries.
        return (type(error).__name__, *parts, getattr(error, "reason", None), text_of(error), notes)
    members = getattr(error, "exceptions", ())
    arguments = () if members else shape(error.args, Seen(False))
    return (type(error), arguments, text_of(error), [described(each) for each in members], notes)
