"""The only code that uses undocumented parts of pydantic: the state of models and their classes.

What each use is for, the versions it was tested with and when it can go:
`docs/library-internals.md`.
"""

import enum
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pydantic
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import ModelPrivateAttr

__all__ = [
    "BUILT",
    "MODEL_SLOTS",
    "SERIALIZER",
    "SERIALIZER_WARNINGS",
    "VALIDATOR",
    "calls_users_code",
    "class_fields",
    "decorators_of",
    "error_state",
    "extra_values",
    "has_own_validate",
    "is_complete",
    "is_pydantics_module",
    "is_pydantics_name",
    "json_error_text",
    "model_state",
    "private_attributes",
    "private_values",
    "serializes_itself",
    "set_model_state",
    "type_of_adapter",
    "url_bases",
]


# --- running ----------------------------------------------------------------------------------

VALIDATOR: Final = "__pydantic_validator__"
"""Where a class's dict holds its validator, once the model is `BUILT`."""

SERIALIZER: Final = "__pydantic_serializer__"
"""Where a class's dict holds its serializer, once the model is `BUILT`."""

BUILT: Final = "__pydantic_complete__"
"""Where a class's dict tells that the model's forward references are known."""

SERIALIZER_WARNINGS: Final = "Pydantic serializer warnings"
"""Text at the start of a warning that quotes values of a model."""

_VALIDATE: Final = BaseModel.model_validate.__func__  # type: ignore[attr-defined]  # a bound classmethod


def is_complete(model: type[BaseModel]) -> bool:
    """Return whether a model's forward references are resolved."""
    return model.__pydantic_complete__


def has_own_validate(model: type[BaseModel]) -> bool:
    """Return whether a model has a `model_validate` of its own."""
    return getattr(model.model_validate, "__func__", None) is not _VALIDATE


def json_error_text(error: Exception) -> str:
    """Return the text of an error about a line of JSON, without the line's number.

    It names what was expected and the column, never what was there; the number, 1, is that of
    the line in the text that was parsed.
    """
    return str(error).replace(" at line 1 column ", " at column ")


# --- classes ----------------------------------------------------------------------------------


def class_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of a model's fields; `model_fields` may be a field of the user's."""
    return tuple(model.__pydantic_fields__)


_PRIVATE: Final = "__private_attributes__"


def private_attributes(model: type[BaseModel]) -> Mapping[str, ModelPrivateAttr]:
    """Return a model's private attributes, inherited ones included."""
    found: Mapping[str, ModelPrivateAttr] = vars(model).get(_PRIVATE, {})
    return found


def decorators_of(kind: type) -> Any:
    """Return the validators and serializers of a model or dataclass; None if it is neither.

    They are a dataclass of mappings: for each kind, names and what has an ``info``.
    """
    return vars(kind).get("__pydantic_decorators__")


def serializes_itself(model: type[BaseModel]) -> bool:
    """Return whether a model writes itself in a way of its own."""
    return bool(model.__pydantic_decorators__.model_serializers)


def is_pydantics_name(name: str) -> bool:
    """Return whether pydantic, not the user, has put a name into a class's dict."""
    return name.startswith("__pydantic_") or name == _PRIVATE


def is_pydantics_module(name: str) -> bool:
    """Return whether a module is pydantic's own."""
    return name.startswith(("pydantic.", "pydantic_core."))


def type_of_adapter(adapter: TypeAdapter[Any]) -> Any:
    """Return the type of a type adapter."""
    return adapter._type  # noqa: SLF001  # it has no public way


def url_bases() -> tuple[type, type]:
    """Return the base classes of URLs with one host, and with several."""
    return pydantic.AnyUrl.__mro__[1], pydantic.PostgresDsn.__mro__[1]


# --- schemas ----------------------------------------------------------------------------------


def calls_users_code(adapter: TypeAdapter[Any]) -> bool:
    """Return whether validation calls the user's functions, which may modify its input."""
    return any(map(_runs_users_code, _nodes(adapter.core_schema)))


def _runs_users_code(node: Mapping[str, Any]) -> bool:
    if node.get("type") == "enum":
        found = node["cls"]._missing_
        return found.__func__ is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]  # a bound classmethod
    flags = ("custom_init", "post_init", "default_factory_takes_data")
    functions = ("function", "discriminator")
    return any(map(node.get, flags)) or any(_is_users(node.get(key)) for key in functions)


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, Mapping):
            yield node
            pending.extend(item for key, item in node.items() if key not in _NOT_SCHEMAS)
        elif isinstance(node, (list, tuple)):
            pending.extend(node)


_NOT_SCHEMAS: Final = frozenset({"serialization", "metadata", "default", "expected"})


def _is_users(function: Any) -> bool:
    module = getattr(getattr(function, "func", function), "__module__", None) or ""
    return callable(function) and not is_pydantics_module(module)


# --- models -----------------------------------------------------------------------------------

MODEL_SLOTS: Final = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
"""The slots of a model, which are its state beside its dict."""

_SET_SLOTS: Final = tuple(BaseModel.__dict__[slot].__set__ for slot in MODEL_SLOTS)


def extra_values(model: BaseModel) -> dict[str, Any]:
    """Return the values of a model that no field declares."""
    return model.__pydantic_extra__ or {}


def private_values(model: BaseModel) -> dict[str, Any]:
    """Return the values of a model's private attributes."""
    return model.__pydantic_private__ or {}


def model_state(model: BaseModel) -> tuple[Any, Any, Any]:
    """Return the values of `MODEL_SLOTS`, without running the model's code."""
    return model.__pydantic_fields_set__, model.__pydantic_extra__, model.__pydantic_private__


def set_model_state(model: BaseModel, state: tuple[Any, Any, Any]) -> None:
    """Set the values of `MODEL_SLOTS`, without running the model's code.

    Through the slots: a `RootModel` has class attributes of the same names.
    """
    for set_slot, value in zip(_SET_SLOTS, state, strict=True):
        set_slot(model, value)


# --- errors -----------------------------------------------------------------------------------


def error_state(error: ValidationError) -> tuple[str, Any, Any, Any]:
    """Return an error's title, lines, kind of input and ``hide_input``: the parts of its text."""
    reduced: Any = error.__reduce__()
    state: tuple[str, Any, Any, Any] = reduced[1]
    return state
