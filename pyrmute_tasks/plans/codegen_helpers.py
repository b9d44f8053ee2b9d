"""Helpers of generated functions: their errors, and the reasons why a run of many stops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import pydantic_core

from pyrmute_tasks.errors import InvalidRecordError, MigrationError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.plans.steps import Step
from pyrmute_tasks.pydantic_internals import json_error_text
from pyrmute_tasks.records import as_record
from pyrmute_tasks.registry import MigrationFunc

__all__ = ["HELPERS", "Call", "CallErrors", "Interruption", "Stopped"]


class Interruption(BaseException):
    """Interrupts a run from outside, such as a time limit; never the fault of a record."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call with each record.

    Attributes:
        function: The function.
        step: The step to blame if it does not return a dict.
        wraps: Whether to raise its exceptions as errors of `step`, instead of unchanged.
    """

    function: MigrationFunc
    step: Step
    wraps: bool = True


@dataclass(frozen=True, slots=True)
class Stopped:
    """The reason a run of many records stopped.

    Attributes:
        stage: The stage that failed.
        step: The step that failed; empty outside of steps.
        error: The exception a plain loop would have raised.
    """

    stage: Stage
    step: str
    error: BaseException

    def at(self, index: int) -> RecordFailure:
        """Return the failure for the record at `index` of the whole input."""
        return RecordFailure.of(index, self.stage, self.step, self.error)


@dataclass(frozen=True, slots=True)
class CallErrors:
    """Makes the errors for one call.

    Attributes:
        name: The model's name.
        call: The call.
    """

    name: str
    call: Call

    def error(self, record: object, error: Exception) -> Exception:
        """Return the exception to raise instead of `error`: the step's fault, or its record's.

        Its cause is set. Raising it ``from error`` would overwrite what the step has set.
        """
        if isinstance(record, Mapping):
            return self.call.step.error(self.name, error)
        invalid = InvalidRecordError(
            f"a record is {type(record).__name__} and must be a dict; convert it in the source"
        )
        invalid.__cause__ = error
        return invalid

    def no_dict(self, data: object) -> InvalidRecordError:
        """Return the error for a call that did not return a dict."""
        return InvalidRecordError(
            f"step {self.call.step} returned {type(data).__name__} and must return a dict; "
            "return the new record from the step"
        )

    def refused(self, data: object) -> Stopped:
        """Return the `Stopped` for a call that did not return a dict."""
        return _stopped(Stage.STEP, str(self.call.step), self.no_dict(data))

    def stopped(self, record: object, error: BaseException) -> Stopped:
        """Return the `Stopped` for a call that raised `error`."""
        if not self.call.wraps:
            return _stopped(Stage.STEP, _step_in(error), error)
        if isinstance(error, Exception):
            try:
                self._raise(record, error)
            except Exception as raised:  # perhaps by the text of the error
                error = raised
        return _stopped(Stage.STEP, str(self.call.step), error)

    def _raise(self, record: object, error: Exception) -> NoReturn:
        raise self.error(record, error)


def _step_in(error: BaseException) -> str:
    if isinstance(error, MigrationError):
        return f"{error.from_version} → {error.to_version}"
    return ""


def _stopped(stage: Stage, step: str, error: BaseException) -> Stopped:
    if isinstance(error, Interruption):
        raise error
    return Stopped(stage, step, error)


def _unreadable(line: Any, error: BaseException) -> Stopped:
    if isinstance(error, Exception):
        error = _not_json(line, error)
    return _stopped(Stage.DECODE, "", error)


def _foreign(value: object) -> Stopped:
    return _stopped(Stage.DECODE, "", _not_an_object(value))


def _unconverted(error: BaseException) -> Stopped:
    return _stopped(Stage.DECODE, "", error)


def _invalid(error: BaseException) -> Stopped:
    return _stopped(Stage.VALIDATE, "", error)


def _unwritable(error: BaseException) -> Stopped:
    return _stopped(Stage.ENCODE, "", error)


def _not_json(line: Any, error: Exception) -> InvalidRecordError:
    if line[-1:] == b"\n":  # a JSON error must not point to the next line
        try:
            pydantic_core.from_json(line[:-1])
        except ValueError as same:
            error = same.with_traceback(error.__traceback__)
    invalid = InvalidRecordError(f"not valid JSON: {json_error_text(error)}")
    invalid.__cause__ = error
    return invalid


def _not_an_object(value: object) -> InvalidRecordError:
    kind = type(value)
    return InvalidRecordError(f"not a JSON object but {_JSON_NAMES.get(kind, kind.__name__)}")


_JSON_NAMES: Final[dict[type, str]] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _dump(model: Any) -> bytes:
    written: str = model.model_dump_json()
    return written.encode()


HELPERS: Final[dict[str, Any]] = {
    "from_json": pydantic_core.from_json,
    "newline": b"\n",
    "dump": _dump,
    "as_record": as_record,
    "unconverted": _unconverted,
    "unreadable": _unreadable,
    "foreign": _foreign,
    "no_json": _not_json,
    "no_object": _not_an_object,
    "invalid": _invalid,
    "unwritable": _unwritable,
}
