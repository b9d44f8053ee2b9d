"""Failures of records, as data that survives every process boundary.

A `RecordFailure` holds a real exception. To send it to another process, `wire.remote_failures`
takes the exception apart into plain values and rebuilds it.
"""

import enum
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from pydantic import ValidationError

from pyrmute_tasks.errors import FleetError, MigrationError, PyrmuteTasksError, RemoteError

__all__ = [
    "RecordFailure",
    "Stage",
    "attributes_of",
    "causes_of",
    "describe_safely",
    "record_index",
]


class Stage(enum.StrEnum):
    """What was being done with a record."""

    DECODE = "decode"
    STEP = "step"
    VALIDATE = "validate"
    ENCODE = "encode"


@dataclass(frozen=True, slots=True)
class RecordFailure:
    """One record that could not be migrated.

    Attributes:
        index: The record's position in the whole input, counted from 0.
        stage: What was being done with it.
        step: The step that failed, ``"1.0.0 → 2.0.0"``; empty outside of steps.
        error: The exception that a sequential run would raise.
        raised_at: Place that raised the innermost exception, ``"flights.py:88 in parse"``.
        source: Place of the record, ``"flights.jsonl, line 7"``; empty if unknown.
        worker: The worker; empty for this process.
        traceback: The worker's traceback as text; it may quote the record.
    """

    index: int
    stage: Stage
    step: str
    error: BaseException
    raised_at: str = ""
    source: str = ""
    worker: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, index: int, stage: Stage, step: str, error: BaseException) -> "RecordFailure":
        """Return the failure for an exception just caught.

        Args:
            index: The record's position.
            stage: What was being done.
            step: The step; empty outside of steps.
            error: The exception.

        Returns:
            The failure.
        """
        return cls(index, stage, step, error, _raised_at(error))

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
