"""Exceptions as plain values, for the way to another process and back.

`take_apart` lists an exception and all that it refers to: causes, contexts, the members of
groups. `put_together` makes of the list what it was: this package's errors with all their
attributes, pydantic's `ValidationError` with the same ``errors()``, builtin and already
imported classes as themselves, and anything else as a `RemoteError` that keeps name and
message. Nothing is imported on behalf of a message.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, cast, get_args

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from pyrmute_tasks.errors import PyrmuteTasksError

__all__ = [
    "RemoteError",
    "attributes_of",
    "causes_of",
    "put_together",
    "take_apart",
    "validation_error_of",
]


class RemoteError(PyrmuteTasksError):
    """Stands for an exception whose class this process has not imported.

    Args:
        type_name: ``module.QualifiedName`` of the original class.
        message: The original's text.
    """

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name = type_name
        self.message = message
        super().__init__(f"{type_name}: {message}" if message else type_name)


def causes_of(error: BaseException) -> list[BaseException]:
    """Return `error`, its cause, the cause of that and so on, each once."""
    causes: dict[int, BaseException] = {}
    following: BaseException | None = error
    while following is not None and id(following) not in causes:
        causes[id(following)] = following
        following = following.__cause__
    return list(causes.values())


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return the dict of an exception's attributes, whatever its class makes of ``__dict__``."""
    return cast("dict[str, Any]", _DICT.__get__(error))


_DICT: Final[Any] = BaseException.__dict__["__dict__"]
_ARGS: Final[Any] = BaseException.__dict__["args"]
_CAUSE: Final[Any] = BaseException.__dict__["__cause__"]
_CONTEXT: Final[Any] = BaseException.__dict__["__context__"]
_SUPPRESS: Final[Any] = BaseException.__dict__["__suppress_context__"]
_MADE_IN_PYTHON: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_PLAIN: Final = (str, int, float, bool, bytes, type(None))
_MAX_ERRORS: Final = 100
_NOT_TEXT: Final = (Exception, SystemExit, GeneratorExit)  # not what a signal raises


# --- taking apart -------------------------------------------------------------------------

_Number = Callable[[BaseException | None], int | None]


def take_apart(error: BaseException) -> list[dict[str, Any]]:
    """Return `error` and what it refers to as plain values; they refer to it by number."""
    errors: list[BaseException] = []
    numbers: dict[int, int] = {}

    def number(referred: BaseException | None) -> int | None:
        if referred is None or (id(referred) not in numbers and len(errors) >= _MAX_ERRORS):
            return None
        if id(referred) not in numbers:
            numbers[id(referred)] = len(errors)
            errors.append(referred)
        return numbers[id(referred)]

    number(error)
    return [_parts_of(each, number) for each in errors]  # which grows on the way


def _parts_of(error: BaseException, number: _Number) -> dict[str, Any]:
    kind = type(error)
    attributes = attributes_of(error)
    notes = attributes.get("__notes__")
    parts: dict[str, Any] = {
        "type": f"{kind.__module__}:{kind.__qualname__}",
        "message": _text_of(error),
        "notes": [note for note in _listed(notes) if isinstance(note, str)],
        "cause": number(_CAUSE.__get__(error)),
        "context": number(_CONTEXT.__get__(error)),
        "suppress": _SUPPRESS.__get__(error),
    }
    if isinstance(error, ValidationError):
        parts["validation"] = _take_apart_validation(error, number)
    else:
        # An OSError's own arguments lack the names of the files that its text has.
        args = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args
        parts["args"] = [arg for arg in args if isinstance(arg, _PLAIN)]
        parts["complete"] = len(parts["args"]) == len(args)
        parts["attributes"] = {
            name: value
            for name, value in attributes.items()
            if isinstance(value, _PLAIN) and not name.startswith("__")
        }
    return parts


def _text_of(error: BaseException) -> str | None:
    """Return what an exception says; None if asking it raises."""
    try:
        return str(error)
    except _NOT_TEXT:  # it is somebody's code
        return None


def _listed(notes: object) -> list[object]:
    return list(notes) if isinstance(notes, (list, tuple)) else []


# --- putting together ---------------------------------------------------------------------


def put_together(parts: list[dict[str, Any]]) -> BaseException:
    """Return the exception that `take_apart` took apart."""
    made: dict[int, BaseException] = {}

    def make(number: int) -> BaseException:
        if number not in made:
            made[number] = _made(parts[number], make)
        return made[number]

    for number, part in enumerate(parts):
        error = make(number)
        if part["cause"] is not None:
            _CAUSE.__set__(error, make(part["cause"]))
        if part["context"] is not None:
            _CONTEXT.__set__(error, make(part["context"]))
        _SUPPRESS.__set__(error, part["suppress"])
        if part["notes"]:
            attributes_of(error)["__notes__"] = list(part["notes"])
    return made[0]


def _made(parts: dict[str, Any], make: Callable[[int], BaseException]) -> BaseException:
    if "validation" in parts:
        return _put_together_validation(parts["validation"], make)
    rebuilt = _rebuilt(parts)  # which may count as false, or refuse to be asked
    if rebuilt is not None:
        return rebuilt
    return RemoteError(parts["type"].replace(":", "."), parts["message"] or "")


def _rebuilt(parts: dict[str, Any]) -> BaseException | None:
    """Return an exception of the original's class that says the same, if that is possible."""
    kind = _known_class(parts["type"])
    if kind is None:
        return None
    args = tuple(parts["args"]) if parts["complete"] else (parts["message"],)
    try:
        if kind.__module__ == "builtins":
            error = kind(*args)
        else:
            # Neither the class's __new__ nor its __init__: they may want other arguments,
            # and they are somebody's code.
            made_in_c = next(base for base in kind.__mro__ if not base.__flags__ & _MADE_IN_PYTHON)
            error = made_in_c.__new__(kind, *args)
            _ARGS.__set__(error, args)
            if isinstance(error, OSError):
                OSError.__init__(error, *args)  # its text is made of more than its arguments
        attributes_of(error).update(parts["attributes"])
    except _NOT_TEXT:
        return None
    return error if _text_of(error) == parts["message"] else None


def _known_class(name: str) -> type[BaseException] | None:
    """Return the exception class of that name if this process has it already."""
    module_name, _, qualname = name.partition(":")
    found: object = sys.modules.get(module_name)
    for attribute in qualname.split("."):
        found = getattr(found, attribute, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    return None


# --- pydantic's ---------------------------------------------------------------------------


def _take_apart_validation(error: ValidationError, number: _Number) -> dict[str, Any]:
    details = []
    for detail in error.errors(include_url=False):
        context = dict(detail.get("ctx", {}))
        cause = context.pop("error", None)
        about = number(cause) if isinstance(cause, BaseException) else None
        details.append({**detail, "loc": list(detail["loc"]), "ctx": context, "error": about})
    return {"title": error.title, "details": details}


_BUILTIN_TYPES: Final = frozenset(get_args(ErrorType))


def _put_together_validation(
    parts: dict[str, Any], make: Callable[[int], BaseException]
) -> ValidationError:
    lines: list[InitErrorDetails] = []
    for detail in parts["details"]:
        context = dict(detail["ctx"])
        if detail["error"] is not None:
            context["error"] = make(detail["error"])
        kind: str | PydanticCustomError = detail["type"]
        if detail["type"] not in _BUILTIN_TYPES:
            kind = PydanticCustomError(detail["type"], detail["msg"], context or None)
        line = InitErrorDetails(type=kind, loc=tuple(detail["loc"]), input=detail["input"])
        if context and isinstance(kind, str):
            line["ctx"] = context
        lines.append(line)
    return ValidationError.from_exception_data(parts["title"], lines)


def validation_error_of(error: ValidationError, position: int, title: str) -> ValidationError:
    """Return the part of a list's validation error that is about one of its records.

    Args:
        error: What validating a list of records raised.
        position: The record's position in that list.
        title: The model's name, as validating the record alone would have it.
    """
    causes: list[BaseException] = []

    def number(cause: BaseException | None) -> int | None:
        causes.append(cast("BaseException", cause))
        return len(causes) - 1

    parts = _take_apart_validation(error, number)
    mine = [detail for detail in parts["details"] if detail["loc"][0] == position]
    for detail in mine:
        detail["loc"] = detail["loc"][1:]
    return _put_together_validation({"title": title, "details": mine}, causes.__getitem__)
