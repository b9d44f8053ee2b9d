"""The functions of a plan, generated from source as `attrs` generates an `__init__`.

Each plan and kind of output gets two functions. One migrates a single record and raises what
a plain loop would raise; the other migrates many and returns what stopped it, as data. Both
take a record through steps, checks, validation and writing before the next one begins, and
call everything exactly once.

`Generated.source` holds the source, and tracebacks show its lines.
"""

import enum
import linecache
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NoReturn
from weakref import finalize

import pydantic_core
from pydantic import BaseModel, RootModel

from pyrmute_tasks.errors import InvalidRecordError, MigrationError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.plans.steps import Step
from pyrmute_tasks.registry import MigrationFunc

__all__ = ["Call", "Generated", "Interruption", "Output", "OutputKind", "Stopped", "generate"]


class Interruption(BaseException):
    """Interrupts a run from outside, such as a time limit; never the fault of a record."""


class OutputKind(enum.Enum):
    """The form of a plan's outputs."""

    DATA = "data"  # the last step's dict
    PACKED = "packed"  # that dict packed for the wire before the next record begins
    MODELS = "models"  # an instance of a model
    LINES = "lines"  # that instance as a line of JSON; the input is a line too


@dataclass(frozen=True, slots=True)
class Output:
    """An output kind, with the model and the packer it needs.

    Attributes:
        kind: The form of the outputs.
        model: The model to validate with; None to skip validation.
        pack: Packs a record for the wire; only for `OutputKind.PACKED`.
    """

    kind: OutputKind
    model: type[BaseModel] | None = None
    pack: Callable[[Any], bytes] | None = None


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
class Generated:
    """The functions generated for a plan and one kind of output.

    Attributes:
        one: Migrates a record; raises what a plain loop would raise.
        many: Migrates records, hands each output to a function, and returns the reason it stopped.
            Exceptions from the source are raised unchanged.
        source: The source code of both.
    """

    one: Callable[[Any], Any]
    many: Callable[[Iterable[Any], Callable[[Any], object]], Stopped | None]
    source: str


def generate(title: str, name: str, calls: Sequence[Call], output: Output) -> Generated:
    """Generate the functions that pass records through `calls`.

    Args:
        title: The file name shown in tracebacks.
        name: The model's name, for errors.
        calls: The functions to call with each record, in order.
        output: The form of the outputs.
    """
    names: dict[str, Any] = {}
    parts = [_read()] if output.kind is OutputKind.LINES else []
    for number, call in enumerate(calls, 1):
        names[f"step_{number}"], names[f"blame_{number}"] = call.function, _CallErrors(name, call)
        parts.append(_call_step(number, call, "data" if number > 1 else "record"))
    data = "data" if calls else "record"
    if output.model is not None:
        names["Target"], names["own"] = output.model, output.model.__dict__
        parts.append(_validate(output.model, data))
    result = _RESULTS.get(output.kind, data)
    if "written" in result:
        names["pack"] = output.pack
        parts.append(_write(output.model, data))
    source = "\n".join([*_one(parts, result), "", "", *_many(parts, result), ""])
    names.update(_HELPERS)
    names["text"] = _Text(title, source)
    exec(names["text"].code, names)  # noqa: S102  # the text is made here, of no input
    return Generated(names["migrate_one"], names["migrate_many"], source)


# --- source -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """One operation on a record, as source code.

    Attributes:
        code: A statement.
        stopped: Expression for the `Stopped` of an `error` it raised.
        raised: Expression for the exception to raise for `error` when migrating a single record;
            empty to raise `error` itself.
        check: The check of its result.
        before: Statement before the first of many records, or before the operation on a single one.
    """

    code: str
    stopped: str
    raised: str = ""
    check: "_Check | None" = None
    before: str = ""


@dataclass(frozen=True, slots=True)
class _Check:
    """A check of a result, as expressions: the condition, its error, and its `Stopped`."""

    condition: str
    error: str
    stopped: str


def _read() -> _Part:
    return _Part(
        "record = from_json(record)",
        stopped="unreadable(record, error)",
        raised="no_json(record, error)",
        check=_Check("type(record) is not dict", "no_object(record)", "foreign(record)"),
    )


def _call_step(number: int, call: Call, value: str) -> _Part:
    return _Part(
        f"data = step_{number}({value})",
        stopped=f"blame_{number}.stopped({value}, error)",
        raised=f"blame_{number}.error({value}, error)" if call.wraps else "",
        check=_Check(
            "type(data) is not dict and not isinstance(data, dict)",
            f"blame_{number}.no_dict(data)",
            f"blame_{number}.refused(data)",
        ),
    )


def _validate(model: type[BaseModel], data: str) -> _Part:
    value = f'{data}.get("root")' if issubclass(model, RootModel) else data
    own = getattr(model.model_validate, "__func__", None) is not _PYDANTICS_VALIDATE
    # Look the attribute up for each run: rebuilding the model replaces it, and the first step
    # may be what builds it. (In the class's dict: going through its metaclass takes four times
    # as long.)
    validate = "Target.model_validate"
    if not own:
        validate = f'own["__pydantic_validator__"].validate_python if {_BUILT} else {validate}'
    return _Part(f"model = validate({value})", "invalid(error)", before=f"validate = {validate}")


def _write(model: type[BaseModel] | None, data: str) -> _Part:
    if model is None:
        return _Part(f"written = pack({data})", "unwritable(error)")
    if model.model_dump_json is not BaseModel.model_dump_json:
        return _Part("written = dump(model)", "unwritable(error)")
    return _Part(
        # A validator may return an object of another class, which serializes itself its own way.
        "written = to_json(model) if type(model) is Target else dump(model)",
        "unwritable(error)",
        before=f'to_json = own["__pydantic_serializer__"].to_json if {_BUILT} else dump',
    )


_RESULTS: Final = {
    OutputKind.PACKED: "written",
    OutputKind.MODELS: "model",
    OutputKind.LINES: "written + newline",
}
_BUILT: Final = 'own.get("__pydantic_complete__")'
_PYDANTICS_VALIDATE: Final = BaseModel.model_validate.__func__  # type: ignore[attr-defined]  # a bound classmethod


def _one(parts: Sequence[_Part], result: str) -> list[str]:
    lines = ["def migrate_one(record):"]
    for part in parts:
        lines += [f"    {part.before}"] if part.before else []
        if part.raised:
            lines += [
                "    try:",
                f"        {part.code}",
                "    except Exception as error:",
                f"        raise {part.raised}",
            ]
        else:
            lines.append(f"    {part.code}")
        if part.check:
            lines.append(f"    if {part.check.condition}:")
            lines.append(f"        raise {part.check.error}")
    return [*lines, f"    return {result}"]


def _many(parts: Sequence[_Part], result: str) -> list[str]:
    lines = ["def migrate_many(records, deliver):"]
    lines += [f"    {part.before}" for part in parts if part.before]
    lines.append("    for record in records:")
    for part in parts:
        lines += [
            "        try:",
            f"            {part.code}",
            "        except BaseException as error:",
            f"            return {part.stopped}",
        ]
        if part.check:
            lines.append(f"        if {part.check.condition}:")
            lines.append(f"            return {part.check.stopped}")
    return [*lines, f"        deliver({result})"]


_numbers: Final = count(1)


class _Text:
    """Generated source, kept for tracebacks while its functions are alive."""

    def __init__(self, title: str, source: str) -> None:
        filename = f"<{title} #{next(_numbers)}>"
        # No modification time, so that `linecache` does not look for the file.
        lines = source.splitlines(keepends=True)
        linecache.cache[filename] = len(source), None, lines, filename
        finalize(self, linecache.cache.pop, filename, None).atexit = False
        self.code = compile(source, filename, "exec")


# --- helpers called by generated code -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _CallErrors:
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
    # jiter names what it expected and the column, never what it saw; "line 1" is ours.
    reason = str(error).replace(" at line 1 column ", " at column ")
    invalid = InvalidRecordError(f"not valid JSON: {reason}")
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


_HELPERS: Final[dict[str, Any]] = {
    "from_json": pydantic_core.from_json,
    "newline": b"\n",
    "dump": _dump,
    "unreadable": _unreadable,
    "foreign": _foreign,
    "no_json": _not_json,
    "no_object": _not_an_object,
    "invalid": _invalid,
    "unwritable": _unwritable,
}
