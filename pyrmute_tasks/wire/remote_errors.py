"""Exceptions as plain values, for sending to another process.

`take_apart` lists an exception and all it refers to: causes, contexts, members of groups.
`put_together` rebuilds it from the list: this package's errors with all attributes, pydantic's
`ValidationError` with the same ``errors()``, builtin and already imported classes as themselves,
anything else as a `RemoteError` that keeps name and message. A message never imports anything.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from pyrmute_tasks.errors import (
    FrameError,
    RemoteError,
    UnsupportedValueError,
    derive_from_pyrmutes,
)
from pyrmute_tasks.failures import attributes_of
from pyrmute_tasks.pydantic_internals import error_state
from pyrmute_tasks.wire.frames import pack, pack_record, unpack
from pyrmute_tasks.wire.loaded_classes import find_class, is_made_in_python
from pyrmute_tasks.wire.objects import slots_filled, slots_of

__all__ = ["put_together", "take_apart"]


_ARGS: Final[Any] = BaseException.__dict__["args"]
_CAUSE: Final[Any] = BaseException.__dict__["__cause__"]
_CONTEXT: Final[Any] = BaseException.__dict__["__context__"]
_SUPPRESS: Final[Any] = BaseException.__dict__["__suppress_context__"]
_MAX_ERRORS: Final = 100
_NOT_TEXT: Final = (Exception, SystemExit, GeneratorExit)  # not those raised by signals


# --- taking apart -------------------------------------------------------------------------

_Number = Callable[[BaseException | None], int | None]


def take_apart(error: BaseException) -> list[dict[str, Any]]:
    """Return `error` and the exceptions it refers to by number, as plain values."""
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
    return [_parts_of(each, number) for each in errors]  # grows during the iteration


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
        return parts
    args: tuple[Any, ...]
    if isinstance(error, BaseExceptionGroup):
        parts["members"] = [number(member) for member in error.exceptions]
        args = (error.message,)
    else:
        args = _arguments_made_in_c(error)
    parts["args"] = [_packed(arg, number) for arg in args]
    parts["attributes"] = {
        name: packed
        for name, value in (slots_filled(error) | attributes).items()
        if not name.startswith("__") and (packed := _packed(value, number)) is not None
    }
    parts["native"] = {
        name: packed
        for base, names in _NATIVE.items()
        if isinstance(error, base)
        for name in names
        if (packed := _packed(vars(base)[name].__get__(error), number)) is not None
    }
    return parts


# Attributes of Python's own classes beside their arguments.
_NATIVE: Final[dict[type[BaseException], tuple[str, ...]]] = {
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}


def _arguments_made_in_c(error: BaseException) -> tuple[Any, ...]:
    # An OSError's arguments lack the file names that its text shows.
    if isinstance(error, OSError):
        return cast("tuple[Any, ...]", OSError.__reduce__(error)[1])
    if isinstance(error, PydanticCustomError):
        return (error.type, error.message_template, error.context)
    return cast("tuple[Any, ...]", _ARGS.__get__(error))


def _packed(value: object, number: _Number) -> bytes | int | None:
    """Return a value as bytes, an exception's number, or None if it cannot be carried."""
    if isinstance(value, BaseException):
        return number(value)
    try:
        return pack_record(value)
    except UnsupportedValueError:
        return None


def _unpacked(packed: bytes | int, make: Callable[[int], BaseException]) -> Any:
    return make(packed) if isinstance(packed, int) else unpack(packed)


def _text_of(error: BaseException) -> str | None:
    """Return an exception's text; None if reading it raises."""
    try:
        return str(error)
    except _NOT_TEXT:  # the user's code
        return None


def _listed(notes: object) -> list[object]:
    return list(notes) if isinstance(notes, (list, tuple)) else []


# --- putting together ---------------------------------------------------------------------


def put_together(parts: list[dict[str, Any]]) -> BaseException:
    """Return the exception from `take_apart`'s values."""
    derive_from_pyrmutes()
    assembly = _Assembly(parts)
    for number, part in enumerate(parts):
        error = assembly.make(number)
        if part["cause"] is not None:
            _CAUSE.__set__(error, assembly.make(part["cause"]))
        if part["context"] is not None:
            _CONTEXT.__set__(error, assembly.make(part["context"]))
        _SUPPRESS.__set__(error, part["suppress"])
        if part["notes"]:
            attributes_of(error)["__notes__"] = list(part["notes"])
    return assembly.make(0)


_Make = Callable[[int], BaseException]


class _Assembly:
    """Rebuilds exceptions from their parts, each once, even if they refer to themselves.

    Args:
        parts: The return value of `take_apart`.
    """

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self._parts = parts
        self._made: dict[int, BaseException] = {}
        self._begun: set[int] = set()

    def make(self, number: int) -> BaseException:
        """Return the exception with that number.

        Raises:
            FrameError: If it is one of its own arguments.
        """
        if number in self._made:
            return self._made[number]
        if number in self._begun:
            raise FrameError("an exception is one of its own arguments")
        self._begun.add(number)
        parts = self._parts[number]
        if "validation" in parts:
            error: BaseException = _put_together_validation(parts["validation"], self.make)
        elif not self._rebuild(number, parts):
            error = RemoteError(parts["type"].replace(":", "."), parts["message"] or "")
        else:
            return self._made[number]
        self._made[number] = error
        return error

    def _rebuild(self, number: int, parts: dict[str, Any]) -> bool:
        """Rebuild an exception of the original's class with the same text, if possible."""
        kind = _known_class(parts["type"])
        if kind is None:
            return False
        args = _arguments_of(parts, self.make)
        try:
            error = self._made[number] = _new(kind, args)
            for base, names in _NATIVE.items():
                for name in parts["native"].keys() & names if isinstance(error, base) else ():
                    vars(base)[name].__set__(error, _unpacked(parts["native"][name], self.make))
            _set_attributes(error, _attributes_of(parts, self.make))
        except _NOT_TEXT:
            return False
        return bool(_text_of(error) == parts["message"])


def _set_attributes(error: BaseException, attributes: dict[str, Any]) -> None:
    slots = slots_of(type(error))
    for name in slots.keys() & attributes.keys():
        slots[name].__set__(error, attributes.pop(name))
    attributes_of(error).update(attributes)


def _arguments_of(parts: dict[str, Any], make: _Make) -> tuple[Any, ...]:
    members = [[make(member) for member in parts["members"]]] if "members" in parts else []
    try:
        if None not in parts["args"]:
            return (*(_unpacked(arg, make) for arg in parts["args"]), *members)
    except FrameError:  # an instance of a class that is not loaded
        pass
    return (parts["message"], *members)


def _attributes_of(parts: dict[str, Any], make: _Make) -> dict[str, Any]:
    found = {}
    for name, packed in parts["attributes"].items():
        try:
            found[name] = _unpacked(packed, make)
        except FrameError:
            continue
    return found


def _new(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    # Skip any __new__ and __init__ written in Python: they may want other arguments, and they
    # are the user's code. Those made in C set what the text is made of.
    made_in_c = cast("Any", next(base for base in kind.__mro__ if not is_made_in_python(base)))
    error = cast("BaseException", made_in_c.__new__(kind, *args))
    made_in_c.__init__(error, *args)
    if not isinstance(error, OSError):  # it drops some of its arguments
        _ARGS.__set__(error, args)
    return error


def _known_class(name: str) -> type[BaseException] | None:
    """Return the exception class of that name if this process has loaded it."""
    found = find_class(name)
    return found if found is not None and issubclass(found, BaseException) else None


# --- pydantic's ---------------------------------------------------------------------------


def _take_apart_validation(error: ValidationError, number: _Number) -> dict[str, Any]:
    title, lines, input_type, hide_input = error_state(error)
    # Of fields that are missing, the input is the whole record each time: it is packed once.
    inputs = {id(line["input"]): line["input"] for line in lines}
    numbers = {found: at for at, found in enumerate(inputs)}
    return {
        "title": title,
        "lines": [
            _take_apart_line(line, number, input_type) | {"input": numbers[id(line["input"])]}
            for line in lines
        ],
        "inputs": [pack(value, lossy=True) for value in inputs.values()],
        "input_type": input_type,
        "hide_input": hide_input,
    }


def _take_apart_line(line: dict[str, Any], number: _Number, input_type: Any) -> dict[str, Any]:
    kind, context = line["type"], line.get("ctx", {})
    template: str | None = None
    if isinstance(kind, PydanticCustomError):
        template, kind = kind.message_template, kind.type
    elif not _is_of_pydantic(line, input_type):
        template = line["msg"]
    return {
        "type": kind,
        "template": template,
        "message": line["msg"],
        "loc": list(line["loc"]),
        "context": {name: _packed_or_text(value, number) for name, value in context.items()},
    }


def _is_of_pydantic(line: dict[str, Any], input_type: Any) -> bool:
    """Return whether an error is pydantic's own, and not a `PydanticCustomError`.

    Before 2.14.2, pydantic reports those by their names alone, without their templates.
    """
    same = InitErrorDetails(type=line["type"], loc=(), input=None, ctx=line.get("ctx", {}))
    try:
        (made,) = ValidationError.from_exception_data("", [same], input_type).errors()
    except (KeyError, TypeError, ValueError):  # no such type, or it needs another context
        return False
    return bool(made["msg"] == line["msg"])


def _packed_or_text(value: object, number: _Number) -> bytes | int:
    packed = _packed(value, number)
    return pack(value, lossy=True) if packed is None else packed


def _put_together_validation(parts: dict[str, Any], make: _Make) -> ValidationError:
    inputs = [_value_or_text(packed, make) for packed in parts["inputs"]]
    return ValidationError.from_exception_data(
        parts["title"],
        [_put_together_line(line, inputs, make) for line in parts["lines"]],
        parts["input_type"],
        parts["hide_input"],
    )


def _put_together_line(parts: dict[str, Any], inputs: list[Any], make: _Make) -> InitErrorDetails:
    kind, template = parts["type"], parts["template"]
    context = {name: _value_or_text(value, make) for name, value in parts["context"].items()}
    line = InitErrorDetails(
        type=kind if template is None else PydanticCustomError(kind, template, context or None),
        loc=tuple(parts["loc"]),
        input=inputs[parts["input"]],
    )
    if template is None and context:
        cause = context.get("error")
        if isinstance(cause, RemoteError):
            # Its text would become the line's: use the text of the validator's own error.
            context["error"] = _QuotedError(cause.type_name, cause.message)
        line["ctx"] = context
    return line


def _value_or_text(packed: bytes | int, make: _Make) -> Any:
    try:
        return _unpacked(packed, make)
    except FrameError as error:
        return f"<{error}>"


class _QuotedError(RemoteError, ValueError):
    """An exception raised by a validator, of a class that is not loaded here."""

    def __str__(self) -> str:
        return self.message
