"""The functions of a plan, generated from source as `attrs` generates an `__init__`.

Each plan and kind of output gets two functions. One migrates a single record and raises what
a plain loop would raise; the other migrates many and returns what stopped it, as data. Both
take a record through steps, checks, validation and writing before the next one begins, and
call everything exactly once.

`Generated.source` holds the source, and tracebacks show its lines.
"""

import enum
import linecache
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from weakref import finalize

from pydantic import BaseModel, RootModel

from pyrmute_tasks.plans.codegen_helpers import HELPERS, Call, CallErrors, Stopped
from pyrmute_tasks.pydantic_internals import BUILT, SERIALIZER, VALIDATOR, has_own_validate

__all__ = ["Generated", "Output", "OutputKind", "generate"]


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


def generate(
    title: str, name: str, calls: Sequence[Call], output: Output, *, migrated: bool = False
) -> Generated:
    """Generate the functions that pass records through `calls`.

    Args:
        title: The file name shown in tracebacks.
        name: The model's name, for errors.
        calls: The functions to call with each record, in order.
        output: The form of the outputs.
        migrated: The records are outputs of steps, and not a caller's.
    """
    names: dict[str, Any] = {}
    parts = [] if migrated else [_read() if output.kind is OutputKind.LINES else _convert()]
    for number, call in enumerate(calls, 1):
        names[f"step_{number}"], names[f"blame_{number}"] = call.function, CallErrors(name, call)
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
    names.update(HELPERS)
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


def _convert() -> _Part:
    return _Part(
        "if type(record) is not dict: record = as_record(record)", stopped="unconverted(error)"
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
    # Look the attribute up for each run: rebuilding the model replaces it, and the first step
    # may be what builds it. (In the class's dict: going through its metaclass takes four times
    # as long.)
    validate = "Target.model_validate"
    if not has_own_validate(model):
        validate = f'own["{VALIDATOR}"].validate_python if {_BUILT} else {validate}'
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
        before=f'to_json = own["{SERIALIZER}"].to_json if {_BUILT} else dump',
    )


_RESULTS: Final = {
    OutputKind.PACKED: "written",
    OutputKind.MODELS: "model",
    OutputKind.LINES: "written + newline",
}
_BUILT: Final = f'own.get("{BUILT}")'


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
