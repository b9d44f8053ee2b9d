"""Checking what a job's JSON files hold, which anybody may have written, or are to hold."""

import typing
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final

from pyrmute_tasks.errors import ConfigurationError

__all__ = ["MOST", "cannot_be", "check_fields", "check_given", "is_sound"]

MOST: Final = 1e12
"""The greatest time, rate or count; greater ones are nonsense, and break what shows them."""

_MOST_SIZE: Final = 2**63
_MOST_SHOWN: Final = 60
_PLAIN: Final = (str, int, float, bool, NoneType)


def check_fields(value: Any) -> None:
    """Check that the fields of a data class have the types that it declares, and sane values.

    Raises:
        ValueError: If a field has another type or value; it names the field.
    """
    kind: Any = type(value)
    for name, kinds in _kinds_of(kind).items():
        if kinds and not is_sound(getattr(value, name), kinds):
            raise ValueError(cannot_be(name, getattr(value, name)))


def check_given(value: Any) -> None:
    """Check the fields of a data class that a caller has filled, as `check_fields` does.

    Raises:
        ConfigurationError: If one has a value that it cannot have.
    """
    try:
        check_fields(value)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def cannot_be(name: str, value: object) -> str:
    """Return, as a sentence, that a field cannot have a value."""
    shown = repr(value)
    cut = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"
    return f"{name} cannot be {cut}"


@cache
def _kinds_of(kind: Any) -> dict[str, tuple[type, ...]]:
    """Return the plain types of each field; none for a field that its reader checks."""
    hints = typing.get_type_hints(kind)
    return {each.name: _plain(hints[each.name]) for each in fields(kind)}


def _plain(hint: Any) -> tuple[type, ...]:
    parts = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return parts if all(each in _PLAIN for each in parts) else ()


def is_sound(value: object, kinds: tuple[type, ...]) -> bool:
    """Return whether a value has one of some types, and is a number or text that can be used."""
    match value:
        case bool():
            return bool in kinds
        case None:
            return NoneType in kinds
        case str():
            return str in kinds and _is_sound_text(value)
        case int():
            is_size = int in kinds and abs(value) <= _MOST_SIZE
            return is_size or (float in kinds and abs(value) <= MOST)
        case float():
            return float in kinds and abs(value) <= MOST  # and not for NaN
    return False


def _is_sound_text(text: str) -> bool:
    """Return whether a text can be a file's name, even one that is not UTF-8."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text
