"""Instances of the user's classes as parts: enums, named tuples, dataclasses, models.

`take_apart` splits an instance into values, `put_together` rebuilds it. Only loaded classes are
used, and only if they match the bytes: a class with other members or fields than where the value
was packed is rejected. None of their code runs except ``__hash__`` and ``__eq__`` of keys and of
items of sets: members are looked up by name, instances are filled without ``__init__``,
``__new__``, validators or properties.
"""

import dataclasses
import enum
import zlib
from collections.abc import Callable, Iterable
from types import MemberDescriptorType
from typing import Any, Final

from pydantic import BaseModel

from pyrmute_tasks.pydantic_internals import (
    MODEL_SLOTS,
    class_fields,
    model_state,
    private_attributes,
    private_values,
    set_model_state,
)
from pyrmute_tasks.wire.loaded_classes import find_class, is_made_in_python, name_of_class

__all__ = [
    "ClassMismatch",
    "Kind",
    "Parts",
    "put_together",
    "slots_filled",
    "slots_of",
    "take_apart",
]


class ClassMismatch(ValueError):  # noqa: N818  # becomes a FrameError
    """A class is not loaded in this process, or its definition differs."""


class Kind(enum.IntEnum):
    """The msgpack extension types of instances; part of the wire, never renumbered."""

    ENUM = 28
    NAMED_TUPLE = 29
    DATACLASS = 30
    MODEL = 31


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an instance.

    Attributes:
        kind: The kind of its class.
        head: Plain values: the class's name and what else must match.
        names: The names of its values.
        values: Its values, which may be unsupported.
    """

    kind: Kind
    head: list[Any]
    names: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()


def take_apart(value: object) -> Parts | None:
    """Return an instance's parts; None if it cannot be carried losslessly."""
    cls = type(value)
    for kind, is_one, split in _KINDS:
        if is_one(cls):
            name = name_of_class(cls)
            return split(kind, name, value) if name is not None else None
    return None


def put_together(kind: int, parts: list[Any]) -> Any:
    """Return the instance with these parts: a head, then its values.

    Raises:
        ClassMismatch: If its class is not loaded, or its definition differs.
        ValueError: If the parts are not what `take_apart` returns; also LookupError and
            TypeError.
    """
    name = parts[0]
    cls = find_class(name) if type(name) is str else None
    if cls is None:
        raise ClassMismatch(
            f"the class {str(name)[:_MAX_NAME]!r} is not loaded in this process; import its module "
            "where the manager is defined"
        )
    if not _is_a(kind, cls):
        raise ClassMismatch(f"the class {name!r} is of another kind in this process")
    return _BUILDERS[kind](cls, parts)


def _is_a(kind: int, cls: type) -> bool:
    return any(kind == other and is_one(cls) for other, is_one, _ in _KINDS)


_MAX_NAME: Final = 200


def _other_definition(cls: type) -> ClassMismatch:
    return ClassMismatch(
        f"the class {cls.__module__}:{cls.__qualname__} is defined differently in this process "
        "than where the value was packed"
    )


def _digest(names: Iterable[str]) -> int:
    return zlib.crc32(",".join(names).encode("utf-8", "surrogatepass"))


# --- enums --------------------------------------------------------------------------------

_PLAIN: Final = (str, int, float, bool, bytes, type(None))
_FLAG_MISSING: Final[Any] = vars(enum.Flag)["_missing_"].__func__


def _is_enum(cls: type) -> bool:
    return issubclass(cls, enum.Enum)


def _split_enum(kind: Kind, name: str, member: Any) -> Parts | None:
    cls: Any = type(member)
    known = cls._member_map_.get(member._name_)
    plain = member._value_ if type(member._value_) in _PLAIN else None
    if known is not None and known is member:
        return Parts(kind, [name, member._name_, plain])
    if _combines(cls) and _combined(cls, member._value_) is member:
        return Parts(kind, [name, None, member._value_])
    return None


def _build_enum(cls: Any, parts: list[Any]) -> enum.Enum:
    _, name, value = parts
    if name is None:
        if not _combines(cls) or type(value) is not int:
            raise _other_definition(cls)
        found = _combined(cls, value)
    else:
        found = cls._member_map_.get(name)
    if not isinstance(found, cls):
        raise _other_definition(cls)
    plain = found._value_ if type(found._value_) in _PLAIN else None
    if type(plain) is not type(value) or (plain != value and plain == plain):  # noqa: PLR0124  # not NaN
        raise _other_definition(cls)
    return found  # type: ignore[no-any-return]  # cls is some Enum


def _combines(cls: Any) -> bool:
    # A class with its own _missing_ would run it.
    return issubclass(cls, enum.Flag) and cls._missing_.__func__ is _FLAG_MISSING


def _combined(cls: Any, value: int) -> Any:
    found = cls._value2member_map_.get(value)
    return found if found is not None else _FLAG_MISSING(cls, value)


# --- named tuples -------------------------------------------------------------------------


def _is_named_tuple(cls: type) -> bool:
    fields = getattr(cls, "_fields", None)
    return (
        issubclass(cls, tuple)
        and type(fields) is tuple
        and all(type(field) is str for field in fields)
        and _is_made_in_python(cls, tuple)
    )


def _split_named_tuple(kind: Kind, name: str, value: Any) -> Parts | None:
    cls = type(value)
    values = tuple.__getitem__(value, slice(None))
    if len(values) != len(cls._fields) or _state_of(value):
        return None
    return Parts(kind, [name, _digest(cls._fields)], cls._fields, values)


def _build_named_tuple(cls: Any, parts: list[Any]) -> Any:
    _, digest, *values = parts
    if digest != _digest(cls._fields) or len(values) != len(cls._fields):
        raise _other_definition(cls)
    return tuple.__new__(cls, values)


# --- dataclasses --------------------------------------------------------------------------


def _is_dataclass(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and _is_made_in_python(cls, object)


def _is_made_in_python(cls: type, base: type) -> bool:
    # A subclass of a class made in C holds more than attributes.
    return all(each is base or each is object or is_made_in_python(each) for each in cls.__mro__)


def _fields_of(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _split_dataclass(kind: Kind, name: str, value: Any) -> Parts | None:
    fields = _fields_of(type(value))
    state = _state_of(value)
    if not state.keys() <= set(fields):
        return None  # a cached property, or another attribute set from outside
    head = [name, _digest(fields), None if tuple(state) == fields else list(state)]
    return Parts(kind, head, tuple(state), tuple(state.values()))


def _build_dataclass(cls: Any, parts: list[Any]) -> Any:
    _, digest, names, *values = parts
    fields = _fields_of(cls)
    names = fields if names is None else names
    if digest != _digest(fields) or not set(names) <= set(fields):
        raise _other_definition(cls)
    made = object.__new__(cls)
    slots = slots_of(cls)
    for name, value in zip(names, values, strict=True):
        if name in slots:
            slots[name].__set__(made, value)
        else:
            _namespace(made)[name] = value
    return made


def _state_of(value: object) -> dict[str, Any]:
    """Return all attributes of an instance, in slots or its dict."""
    return slots_filled(value) | _namespace(value)


def slots_filled(value: object) -> dict[str, Any]:
    """Return the filled slots of an instance by name, without running its class's code."""
    filled: dict[str, Any] = {}
    for name, slot in slots_of(type(value)).items():
        try:
            filled[name] = slot.__get__(value)
        except AttributeError:
            continue  # empty
    return filled


def slots_of(cls: type) -> dict[str, MemberDescriptorType]:
    """Return the slots declared by a class's Python code, by name."""
    return {
        name: attribute
        for base in reversed(cls.__mro__)
        if is_made_in_python(base)
        for name, attribute in base.__dict__.items()
        if type(attribute) is MemberDescriptorType
    }


def _namespace(instance: object) -> dict[str, Any]:
    try:
        found = object.__getattribute__(instance, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


# --- models -------------------------------------------------------------------------------


def _is_model(cls: type) -> bool:
    return issubclass(cls, BaseModel) and _is_made_in_python(cls, object)


def _split_model(kind: Kind, name: str, model: Any) -> Parts | None:
    cls = type(model)
    fields, private = class_fields(cls), private_attributes(cls)
    values = _namespace(model)
    state = model_state(model)
    if (
        not values.keys() <= set(fields)
        or not private_values(model).keys() <= private.keys()
        or slots_of(cls).keys() - set(MODEL_SLOTS)
    ):
        return None
    head = [name, _digest((*fields, *private)), list(values)]
    names = ("<fields set>", "<extra>", "<private>", *values)
    return Parts(kind, head, names, (*state, *values.values()))


def _build_model(cls: Any, parts: list[Any]) -> Any:
    _, digest, names, fields_set, extra, private, *values = parts
    fields, privates = class_fields(cls), private_attributes(cls)
    if digest != _digest((*fields, *privates)) or not set(names) <= set(fields):
        raise _other_definition(cls)
    sound = type(fields_set) is set and type(extra) in _DICT_OR_NONE
    if not sound or type(private) not in _DICT_OR_NONE or not set(private or ()) <= set(privates):
        raise _other_definition(cls)
    made = object.__new__(cls)
    _namespace(made).update(zip(names, values, strict=True))
    set_model_state(made, (fields_set, extra, private))
    return made


_DICT_OR_NONE: Final = (dict, type(None))

_KINDS: Final[tuple[tuple[Kind, Callable[[type], bool], Callable[..., Parts | None]], ...]] = (
    (Kind.ENUM, _is_enum, _split_enum),
    (Kind.MODEL, _is_model, _split_model),
    (Kind.NAMED_TUPLE, _is_named_tuple, _split_named_tuple),
    (Kind.DATACLASS, _is_dataclass, _split_dataclass),
)

_BUILDERS: Final[dict[int, Callable[[Any, list[Any]], Any]]] = {
    Kind.ENUM: _build_enum,
    Kind.NAMED_TUPLE: _build_named_tuple,
    Kind.DATACLASS: _build_dataclass,
    Kind.MODEL: _build_model,
}
