"""The functions of a plan, generated from source as `attrs` generates an `__init__`.

Two functions are made for a plan and a kind of output. One migrates a record and raises what
a plain loop would raise; the other migrates many and returns what stopped it, as data. Both
take one record through all steps, the check, validation and writing before the next one
begins, and call everything exactly once.

The source can be read (`Generated.source`), and tracebacks show its lines.
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
    """Ends whatever runs, from outside of it; never the fault of a record."""


class OutputKind(enum.Enum):
    """What a record becomes."""

    DATA = "data"  # the last step's dict
    PACKED = "packed"  # that dict as bytes for the wire, taken before the next record begins
    MODELS = "models"  # an instance of a model
    LINES = "lines"  # that instance as a line of JSON; the record is read from one, too


@dataclass(frozen=True, slots=True)
class Output:
    """What a record becomes, and the model that validates it.

    Attributes:
        kind: What comes out.
        model: What validates it; None where nothing does.
        pack: What packs it; given if it is packed.
    """

    kind: OutputKind
    model: type[BaseModel] | None = None
    pack: Callable[[Any], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Something a record goes through.

    Attributes:
        function: What is called with it.
        step: The step that is to blame if no dict comes back.
        wraps: Whether its exceptions become errors of `step`; otherwise they pass.
    """

    function: MigrationFunc
    step: Step
    wraps: bool = True


@dataclass(frozen=True, slots=True)
class Stopped:
    """What ended a run of many records.

    Attributes:
        stage: What was being done with the record.
        step: The hop that failed; empty outside of steps.
        error: What a plain loop would have raised.
    """

    stage: Stage
    step: str
    error: BaseException

    def at(self, index: int) -> RecordFailure:
        """Return the failure of the record at `index` of the whole input."""
        return RecordFailure.of(index, self.stage, self.step, self.error)


@dataclass(frozen=True, slots=True)
class Generated:
    """The functions of a plan for one kind of output.

    Attributes:
        one: Migrates a record; raises what a plain loop would raise.
        many: Migrates records, hands each output to a function, and returns what stopped it.
            What the records' source raises passes.
        source: The source of both.
    """

    one: Callable[[Any], Any]
    many: Callable[[Iterable[Any], Callable[[Any], object]], Stopped | None]
    source: str


def generate(title: str, name: str, calls: Sequence[Call], output: Output) -> Generated:
    """Generate the functions that take records through `calls`.

    Args:
        title: What tracebacks name as the file.
        name: The model's name, for errors.
        calls: What a record goes through, in order.
        output: What becomes of the last one's data.
    """
    names: dict[str, Any] = {}
    parts = [_read()] if output.kind is OutputKind.LINES else []
    for number, call in enumerate(calls, 1):
        names[f"step_{number}"], names[f"blame_{number}"] = call.function, _Blame(name, call)
        parts.append(_run(number, call, "data" if number > 1 else "record"))
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
    """Something that is done with a record.

    Attributes:
        code: A statement.
        stopped: An expression of the `Stopped` for the `error` it raised.
        raised: An expression of what one record's function raises for `error`; empty if that
            is the error itself.
        refused: What must not have come out.
        before: A statement before the first of many records, and before this of a single one.
    """

    code: str
    stopped: str
    raised: str = ""
    refused: "_Refusal | None" = None
    before: str = ""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What is refused, as expressions: when, with which error, and as which `Stopped`."""

    condition: str
    error: str
    stopped: str


def _read() -> _Part:
    return _Part(
        "record = from_json(record)",
        stopped="unreadable(record, error)",
        raised="no_json(record, error)",
        refused=_Refusal("type(record) is not dict", "no_object(record)", "foreign(record)"),
    )


def _run(number: int, call: Call, value: str) -> _Part:
    return _Part(
        f"data = step_{number}({value})",
        stopped=f"blame_{number}.stopped({value}, error)",
        raised=f"blame_{number}.error({value}, error)" if call.wraps else "",
        refused=_Refusal(
            "type(data) is not dict and not isinstance(data, dict)",
            f"blame_{number}.no_dict(data)",
            f"blame_{number}.refused(data)",
        ),
    )


def _validate(model: type[BaseModel], data: str) -> _Part:
    value = f'{data}.get("root")' if issubclass(model, RootModel) else data
    own = getattr(model.model_validate, "__func__", None) is not _PYDANTICS_VALIDATE
    # The attribute is looked up for each run: rebuilding the model replaces it. A model that
    # is not built yet may be by the first step. (In its dict, as the way through its metaclass
    # takes four times as long.)
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
        # A validator may return an object of another class, which writes itself its own way.
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
        if part.refused:
            lines.append(f"    if {part.refused.condition}:")
            lines.append(f"        raise {part.refused.error}")
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
        if part.refused:
            lines.append(f"        if {part.refused.condition}:")
            lines.append(f"            return {part.refused.stopped}")
    return [*lines, f"        deliver({result})"]


_numbers: Final = count(1)


class _Text:
    """Generated source, whose lines tracebacks show as long as its functions are alive."""

    def __init__(self, title: str, source: str) -> None:
        filename = f"<{title} #{next(_numbers)}>"
        # As of a file without a time of change: nothing looks whether it is still there.
        lines = source.splitlines(keepends=True)
        linecache.cache[filename] = len(source), None, lines, filename
        finalize(self, linecache.cache.pop, filename, None).atexit = False
        self.code = compile(source, filename, "exec")


# --- what generated code calls ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Blame:
    """Makes the errors of one call.

    Attributes:
        name: The model's name.
        call: What was called.
    """

    name: str
    call: Call

    def error(self, record: object, error: Exception) -> Exception:
        """Return what stands for an exception: the step's own fault, or its record's.

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
        """Return the error of a call that did not return a dict."""
        return InvalidRecordError(
            f"step {self.call.step} returned {type(data).__name__} and must return a dict; "
            "return the new record from the step"
        )

    def refused(self, data: object) -> Stopped:
        """Return what stopped a run in which the call did not return a dict."""
        return _stopped(Stage.STEP, str(self.call.step), self.no_dict(data))

    def stopped(self, record: object, error: BaseException) -> Stopped:
        """Return what stopped a run in which the call raised `error`."""
        if not self.call.wraps:
            return _stopped(Stage.STEP, _step_in(error), error)
        if isinstance(error, Exception):
            try:
                self._raise(record, error)
            except Exception as raised:  # or what the text of the error has raised
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
        error = _no_json(line, error)
    return _stopped(Stage.DECODE, "", error)


def _foreign(value: object) -> Stopped:
    return _stopped(Stage.DECODE, "", _no_object(value))


def _invalid(error: BaseException) -> Stopped:
    return _stopped(Stage.VALIDATE, "", error)


def _unwritable(error: BaseException) -> Stopped:
    return _stopped(Stage.ENCODE, "", error)


def _no_json(line: Any, error: Exception) -> InvalidRecordError:
    if line[-1:] == b"\n":  # where it ends early is not to be on the next line
        try:
            pydantic_core.from_json(line[:-1])
        except ValueError as same:
            error = same.with_traceback(error.__traceback__)
    # jiter names what it expected and the column, never what it saw; "line 1" is ours.
    reason = str(error).replace(" at line 1 column ", " at column ")
    invalid = InvalidRecordError(f"not valid JSON: {reason}")
    invalid.__cause__ = error
    return invalid


def _no_object(value: object) -> InvalidRecordError:
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
    "no_json": _no_json,
    "no_object": _no_object,
    "invalid": _invalid,
    "unwritable": _unwritable,
}
