"""What went wrong with a record, as data that survives every process boundary.

A `RecordFailure` holds a real exception. On its way to another process the exception is
taken apart into plain values (`to_wire`) and put together again (`from_wire`): this
package's errors with all their attributes, pydantic's `ValidationError` with the same
``errors()``, builtin and already imported classes as themselves, and anything else as a
`RemoteError` that keeps name and message. Nothing is imported on behalf of a message.
"""

import enum
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from pyrmute_tasks.errors import FleetError, MigrationError, PyrmuteTasksError

__all__ = ["RecordFailure", "RemoteError", "Stage", "describe_safely"]


class Stage(enum.StrEnum):
    """What was being done with the record."""

    DECODE = "decode"
    STEP = "step"
    VALIDATE = "validate"
    ENCODE = "encode"


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


@dataclass(frozen=True, slots=True)
class RecordFailure:
    """One record that could not be migrated.

    Attributes:
        index: The record's position in the whole input, counted from 0.
        stage: What was being done with it.
        step: The hop that failed, ``"1.0.0 → 2.0.0"``; empty outside of steps.
        error: The exception that a sequential run would raise.
        raised_at: Where the innermost exception was raised, ``"flights.py:88 in parse"``.
        source: Where the record came from, ``"flights.jsonl, line 7"``, if that is known.
        worker: Which worker it was, if it was one.
        traceback: The worker's traceback as text; it may quote the record.
    """

    index: int
    stage: Stage
    step: str
    error: Exception
    raised_at: str = ""
    source: str = ""
    worker: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, index: int, stage: Stage, step: str, error: Exception) -> "RecordFailure":
        """Build a failure from an exception just caught."""
        return cls(index, stage, step, error, _raised_at(error))

    def exception(self) -> Exception:
        """Return the exception to raise, which knows where it belongs.

        It gets the attributes ``record_index``, ``record_source``, ``raised_at``, ``worker``
        and ``worker_traceback``, and a note that says the first two.
        """
        where = f"record {self.index}" + (f" ({self.source})" if self.source else "")
        vars(self.error).update(
            record_index=self.index,
            record_source=self.source,
            raised_at=self.raised_at,
            worker=self.worker,
            worker_traceback=self.traceback,
        )
        if where not in getattr(self.error, "__notes__", ()):
            self.error.add_note(where)
        return self.error

    def to_wire(self) -> dict[str, Any]:
        """Return this failure as plain values for `codec.pack` with ``lossy=True``."""
        return {
            "index": self.index,
            "stage": self.stage.value,
            "step": self.step,
            "error": _take_apart(self.error),
            "raised_at": self.raised_at,
            "worker": self.worker,
            "traceback": self.traceback or _traceback_of(self.error),
        }

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> "RecordFailure":
        """Rebuild a failure from `to_wire`'s values.

        Raises:
            KeyError: If something is missing.
        """
        error = _put_together(data["error"])
        return cls(
            data["index"],
            Stage(data["stage"]),
            data["step"],
            error,
            data["raised_at"],
            worker=data["worker"],
            traceback=data["traceback"],
        )


def describe_safely(error: BaseException) -> str:
    """Say in one line what happened to which record, without anything from the record.

    Messages of the steps' own exceptions are left out, since they quote values (``invalid
    literal for int(): 'secret'``); their type, the step, the fields and the place in the
    code are told.
    """
    index = getattr(error, "record_index", None)
    source = getattr(error, "record_source", "")
    prefix = ""
    if index is not None:
        prefix = f"{source} (record {index}): " if source else f"record {index}: "
    raised_at = getattr(error, "raised_at", "")
    place = f" at {raised_at}" if raised_at else ""
    if isinstance(error, ValidationError):
        return f"{prefix}the migrated record is not a valid {error.title} ({_fields(error)})"
    if isinstance(error, MigrationError) and error.__cause__ is not None:
        step = f"{error.name} {error.from_version} → {error.to_version}"
        return f"{prefix}step {step} raised {_type_name(error.__cause__)}{place}"
    if isinstance(error, RemoteError) or not isinstance(error, PyrmuteTasksError):
        return f"{prefix}{_type_name(error)}{place}"
    if isinstance(error, FleetError):
        return str(error)  # may quote the log of a process that did not start
    return prefix + " ".join(str(error).splitlines())


def _type_name(error: BaseException) -> str:
    return error.type_name if isinstance(error, RemoteError) else type(error).__name__


def _fields(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [
        f"{'.'.join(map(str, _field_path(detail['loc']))) or 'the record'}: {detail['type']}"
        for detail in details[:_MAX_FIELDS]
    ]
    more = len(details) - len(shown)
    return "; ".join(shown) + (f"; {more} more" if more > 0 else "")


def _field_path(location: tuple[int | str, ...]) -> list[int | str]:
    # Keys of a free-form dict are data: only names that could be fields are told.
    return [part if isinstance(part, int) or part.isidentifier() else "…" for part in location]


def _raised_at(error: BaseException) -> str:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    frame: TracebackType | None = cause.__traceback__
    if frame is None:
        return ""
    while frame.tb_next is not None:
        frame = frame.tb_next
    code = frame.tb_frame.f_code
    return f"{Path(code.co_filename).name}:{frame.tb_lineno} in {code.co_name}"


# --- exceptions as plain values ---------------------------------------------------------

_MAX_FIELDS: Final = 5
_PLAIN: Final = (str, int, float, bool, bytes, type(None))
_MAX_CAUSES: Final = 10
_MAX_TRACEBACK: Final = 20_000


def _traceback_of(error: BaseException) -> str:
    # The end says what happened; a recursion without end has a long beginning.
    try:
        return "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
    except Exception:  # notes that are none
        return "".join(traceback.format_tb(error.__traceback__))[-_MAX_TRACEBACK:]


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # it is somebody's code
        return ""


def _take_apart(error: BaseException, depth: int = 0) -> dict[str, Any]:
    kind = type(error)
    notes = getattr(error, "__notes__", ())
    parts: dict[str, Any] = {
        "type": f"{kind.__module__}:{kind.__qualname__}",
        "message": _text_of(error),
        "notes": [note for note in notes if isinstance(note, str)] if _is_listed(notes) else [],
    }
    if isinstance(error, ValidationError):
        parts["validation"] = _take_apart_validation(error)
    else:
        # An OSError's own arguments lack the names of the files that its text has.
        args = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args
        parts["args"] = [arg for arg in args if isinstance(arg, _PLAIN)]
        parts["complete"] = len(parts["args"]) == len(args)
        parts["attributes"] = {
            name: value
            for name, value in vars(error).items()
            if isinstance(value, _PLAIN) and not name.startswith("__")
        }
    if error.__cause__ is not None and depth < _MAX_CAUSES:
        parts["cause"] = _take_apart(error.__cause__, depth + 1)
    return parts


def _is_listed(notes: object) -> bool:
    return isinstance(notes, (list, tuple))


def _put_together(parts: dict[str, Any]) -> Exception:
    if "validation" in parts:
        error: Exception = _put_together_validation(parts["validation"])
    else:
        rebuilt = _rebuilt(parts)  # which may count as false, or refuse to be asked
        name = parts["type"].replace(":", ".")
        error = rebuilt if rebuilt is not None else RemoteError(name, parts["message"])
    for note in parts["notes"]:
        error.add_note(note)
    if "cause" in parts:
        error.__cause__ = _put_together(parts["cause"])
    return error


def _rebuilt(parts: dict[str, Any]) -> Exception | None:
    """Return an exception of the original's class that says the same, if that is possible."""
    kind = _known_class(parts["type"])
    if kind is None:
        return None
    args = tuple(parts["args"]) if parts["complete"] else (parts["message"],)
    try:
        if kind.__module__ == "builtins":
            error = kind(*args)
        else:
            # No __init__: it may want other arguments, and it is somebody's code.
            error = kind.__new__(kind, *args)
            error.args = args
            if isinstance(error, OSError):
                OSError.__init__(error, *args)  # its text is made of more than its arguments
        vars(error).update(parts["attributes"])
        return error if str(error) == parts["message"] else None
    except Exception:
        return None


def _known_class(name: str) -> type[Exception] | None:
    """Return the exception class of that name if this process has it already."""
    module_name, _, qualname = name.partition(":")
    found: object = sys.modules.get(module_name)
    for attribute in qualname.split("."):
        found = getattr(found, attribute, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None


def _take_apart_validation(error: ValidationError) -> dict[str, Any]:
    details = []
    for detail in error.errors(include_url=False):
        context = dict(detail.get("ctx", {}))
        cause = context.get("error")
        if isinstance(cause, BaseException):
            context["error"] = _take_apart(cause)
        details.append({**detail, "loc": list(detail["loc"]), "ctx": context})
    return {"title": error.title, "details": details}


_BUILTIN_TYPES: Final = frozenset(get_args(ErrorType))


def _put_together_validation(parts: dict[str, Any]) -> ValidationError:
    lines: list[InitErrorDetails] = []
    for detail in parts["details"]:
        context = dict(detail["ctx"])
        if isinstance(context.get("error"), dict):
            context["error"] = _put_together(context["error"])
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
    parts = _take_apart_validation(error)
    mine = [detail for detail in parts["details"] if detail["loc"][0] == position]
    for detail in mine:
        detail["loc"] = detail["loc"][1:]
    return _put_together_validation({"title": title, "details": mine})
