"""Failures of records, as data that survives every process boundary.

A `RecordFailure` holds a real exception. To send it to another process, `wire.remote_failures`
takes the exception apart into plain values and rebuilds it.
"""

import copy
import enum
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from pydantic import ValidationError

from pyrmute_tasks.errors import (
    FleetError,
    MigrationError,
    ModelNotFoundError,
    PyrmuteTasksError,
    RemoteError,
)

__all__ = [
    "RecordFailure",
    "RecordPlace",
    "Stage",
    "attributes_of",
    "causes_of",
    "describe_safely",
    "detach_failure",
    "record_index",
]


class Stage(enum.StrEnum):
    """The stage at which a record failed."""

    DECODE = "decode"
    STEP = "step"
    VALIDATE = "validate"
    ENCODE = "encode"


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """The place of a record in a file.

    Attributes:
        file: The file, as the user named it.
        line: Its line number, counted from 1.
        offset: The byte at which its line begins, counted from 0.
        length: Bytes of its line, without the newline.
        digest: Hash of these bytes, ``"sha256:…"``.
        text: These bytes, if asked for.
    """

    file: str
    line: int
    offset: int
    length: int
    digest: str
    text: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RecordFailure:
    """One record that could not be migrated.

    Attributes:
        index: The record's position in the whole input, counted from 0.
        stage: The stage at which it failed.
        step: The step that failed, ``"1.0.0 → 2.0.0"``; empty outside of steps.
        error: The exception that a sequential run would raise.
        raised_at: Place that raised the innermost exception, ``"flights.py:88 in parse"``.
        source: Place of the record, ``"flights.jsonl, line 7"``; empty if unknown.
        worker: The worker; empty for this process.
        traceback: The worker's traceback as text; it may quote the record.
        place: The record's place in its file, if it was skipped; None otherwise.
    """

    index: int
    stage: Stage
    step: str
    error: BaseException
    raised_at: str = ""
    source: str = ""
    worker: str = ""
    traceback: str = ""
    place: RecordPlace | None = None

    @classmethod
    def of(cls, index: int, stage: Stage, step: str, error: BaseException) -> "RecordFailure":
        """Return the failure for an exception just caught.

        Args:
            index: The record's position.
            stage: The stage that raised it.
            step: The step; empty outside of steps.
            error: The exception.

        Returns:
            The failure.
        """
        return cls(index, stage, step, error, _raised_at(error))

    @property
    def type_name(self) -> str:
        """Name of the exception's class; of what a step raised, not of the `MigrationError`."""
        return _type_name(_unwrapped(self.error)[1])

    @property
    def field(self) -> str:
        """The first invalid field, ``"owner.name"``; empty if the failure is not about fields."""
        if not isinstance(self.error, ValidationError):
            return ""
        return next(iter(_invalid_fields(self.error)), ("", ""))[0]

    @property
    def cause(self) -> str:
        """The cause, without anything from the record: ``"step 1.0.0 → 2.0.0: KeyError"``."""
        what = f"step {self.step}" if self.step else self.stage.value
        return f"{what}: {self.type_name}"

    def describe(self, *, with_text: bool = False) -> str:
        """Describe what happened to the record in one line, without anything from the record.

        Args:
            with_text: Add the text of the exception, which may quote the record.

        Returns:
            The description.
        """
        described = _described(self.error, self.raised_at)
        text = " ".join(_text_of(_unwrapped(self.error)[1]).split()) if with_text else ""
        return f"{described}: {text}" if text and text not in described else described

    def exception(self) -> BaseException:
        """Return the exception to raise, with the record's position.

        It gets the attributes ``record_index``, ``record_source``, ``raised_at``, ``worker`` and
        ``worker_traceback``, and a note with the first two.

        Returns:
            The exception.
        """
        where = f"record {self.index}" + (f" ({self.source})" if self.source else "")
        # Not by setattr and add_note: the class may define its own, which may raise.
        attributes = attributes_of(self.error)
        attributes.update(
            record_index=self.index,
            record_source=self.source,
            raised_at=self.raised_at,
            worker=self.worker,
            worker_traceback=self.traceback,
        )
        notes = attributes.setdefault("__notes__", [])
        if isinstance(notes, list) and where not in notes:
            notes.append(where)
        return self.error


def detach_failure(failure: RecordFailure, _number: int, /) -> RecordFailure:
    """Return the failure with a `ValidationError` that later changes of its input do not alter.

    Other exceptions hold what their raiser gave them, and stay as they are.

    Args:
        failure: The failure.
        _number: How many there were before it.

    Returns:
        The failure, with a copy of the error if it can be copied.
    """
    error = failure.error
    if not isinstance(error, ValidationError):
        return failure
    try:
        copied = copy.deepcopy(error)
        if str(copied) != str(error):
            return failure
    except Exception:  # an input may be of any class
        return failure
    attributes_of(copied).update(attributes_of(error))
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return replace(failure, error=copied.with_traceback(error.__traceback__))


def record_index(error: BaseException) -> int | None:
    """Return the position of the record that an error is about.

    Errors of pydantic and of the steps' own classes have it, too.

    Args:
        error: An error that a call has raised.

    Returns:
        The position in the whole input, counted from 0; None if it is about no record.

    Example:
        ```python
        try:
            manager.migrate_batch(rows, "User", "1.0.0", "2.0.0")
        except Exception as error:
            index = record_index(error)
            if index is not None:
                print(rows[index])
        ```
    """
    index = attributes_of(error).get("record_index")
    return index if isinstance(index, int) else None


def causes_of(error: BaseException) -> list[BaseException]:
    """Return `error` and its chain of causes, each once."""
    causes: dict[int, BaseException] = {}
    following: BaseException | None = error
    while following is not None and id(following) not in causes:
        causes[id(following)] = following
        following = following.__cause__
    return list(causes.values())


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return the dict of an exception's attributes, even if its class overrides ``__dict__``."""
    return cast("dict[str, Any]", _DICT.__get__(error))


_DICT: Final[Any] = BaseException.__dict__["__dict__"]


def describe_safely(error: BaseException) -> str:
    """Describe an error and its record in one line, without anything from the record.

    Messages of the steps' own exceptions are left out, since they quote values (``invalid
    literal for int(): 'secret'``); the line has their type, the step, the fields and the place in
    the code.
    """
    index = record_index(error)
    source = getattr(error, "record_source", "")
    prefix = ""
    if index is not None:
        prefix = f"{source} (record {index}): " if source else f"record {index}: "
    if isinstance(error, FleetError):
        return str(error)  # may quote the log of a process that did not start
    return prefix + _described(error, getattr(error, "raised_at", ""))


def _described(error: BaseException, raised_at: str) -> str:
    place = f" at {raised_at}" if raised_at else ""
    if isinstance(error, ValidationError):
        return f"the migrated record is not a valid {error.title} ({_fields(error)})"
    steps, raised = _unwrapped(error)
    if steps:
        shown = (f"step {step.name} {step.from_version} → {step.to_version}" for step in steps)
        return f"{', in it '.join(shown)} raised {_type_name(raised)}{place}"
    if isinstance(error, RemoteError) or not isinstance(error, PyrmuteTasksError):
        return f"{_type_name(error)}{place}"
    hint = f"; {error.hint}" if isinstance(error, ModelNotFoundError) and error.hint else ""
    return " ".join(str(error).splitlines()) + hint


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's code
        return ""


def _unwrapped(error: BaseException) -> tuple[list[MigrationError], BaseException]:
    """Return the steps that failed, each in the one before it, and what the last one raised.

    A nested model's step fails in the step of the model that holds it.
    """
    steps: list[MigrationError] = []
    *outer, innermost = causes_of(error)
    for cause in outer:
        if not isinstance(cause, MigrationError):
            return steps, cause
        steps.append(cause)
    return steps, innermost


def _type_name(error: BaseException) -> str:
    return error.type_name if isinstance(error, RemoteError) else type(error).__name__


def _fields(error: ValidationError) -> str:
    details = _invalid_fields(error)
    shown = [f"{path or 'the record'}: {kind}" for path, kind in details[:_MAX_FIELDS]]
    more = len(details) - len(shown)
    return "; ".join(shown) + (f"; {more} more" if more > 0 else "")


def _invalid_fields(error: ValidationError) -> list[tuple[str, str]]:
    """Return the invalid fields, each with the type of its error."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    return [(".".join(map(str, _field_path(detail["loc"]))), detail["type"]) for detail in details]


def _field_path(location: tuple[int | str, ...]) -> list[int | str]:
    # Keys of a free-form dict are data: show only names that could be fields.
    return [part if isinstance(part, int) or part.isidentifier() else "…" for part in location]


def _raised_at(error: BaseException) -> str:
    frame: TracebackType | None = causes_of(error)[-1].__traceback__
    if frame is None:
        return ""
    while frame.tb_next is not None:
        frame = frame.tb_next
    code = frame.tb_frame.f_code
    return f"{Path(code.co_filename).name}:{frame.tb_lineno} in {code.co_name}"


_MAX_FIELDS: Final = 5
