"""The oracle: a plain loop around pyrmute, and the few intended differences from it."""

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pydantic_core
import pyrmute

from pyrmute_tasks import InvalidRecordError
from tests.differential.chains import COUNTS, Chain, records_of
from tests.differential.compare import Seen, described, shape

__all__ = [
    "Reject",
    "Run",
    "as_raised_by_a_generator",
    "as_told_by_a_process",
    "bounded",
    "call_of",
    "loop",
    "run_of",
]


@dataclass
class Run:
    """The result of a case.

    Attributes:
        outputs: What was delivered before the error, with what is shared between outputs.
        alone: The same, each output for itself, as it was when it was delivered.
        error: What was raised.
        index: Which record the error is about; None if it does not say.
        calls: What was called.
        after: The records and the state of steps afterwards.
    """

    outputs: Any = ()
    alone: list[Any] = field(default_factory=list)
    error: Any = None
    index: int | None = None
    calls: list[Any] = field(default_factory=list)
    after: Any = None


class _Documented(BaseException):
    """Carries our exception past pyrmute, where pyrmute would go on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


# --- differences on purpose: docs/differences-from-pyrmute.md, "Errors and batches" --------


def refusing(hop: str, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Documented difference: "a step that returns no dict"."""

    def run(record: Any) -> Any:
        result = step(record)
        if not isinstance(result, dict):
            text = (
                f"step {hop} returned {type(result).__name__} and must return a dict; "
                "return the new record from the step"
            )
            raise _Documented(InvalidRecordError(text))
        return result

    return run


def check_record(record: Any) -> None:
    """Documented difference: "a record that is no dict"."""
    if not isinstance(record, dict):
        text = f"a record is {type(record).__name__} and must be a dict; convert it in the source"
        raise _Documented(InvalidRecordError(text))


def as_raised_by_a_generator(error: Any) -> Any:
    """Replace `StopIteration`, which Python lets no generator raise (PEP 479), so no stream can."""
    if error is None or error[0][0] is not StopIteration:
        return error
    text = "generator raised StopIteration"
    return [(RuntimeError, (tuple, ("str", text)), text, [], []), *error]


def as_told_by_a_process(error: Any) -> Any:
    """Replace an input that cannot be carried by its type: docs/types.md, "Errors"."""
    if isinstance(error, tuple) and error and error[0] is memoryview:
        return ("str", "<builtins.memoryview>")
    if isinstance(error, (tuple, list)):
        return type(error)(map(as_told_by_a_process, error))
    return error


# --- sources ------------------------------------------------------------------------------


class SourceError(Exception):
    pass


def source_of(chain: Chain, kept: list[Any]) -> Iterable[Any]:
    """Return a case's source, which copies its records to `kept` for later comparison."""
    spec = chain.spec
    records = records_of(spec)
    kept.extend(records)
    match spec.source:
        case "list":
            return records
        case "same":
            return [*records[:1] * 3, *records[1:]]
        case "odd":
            odd: Any = [None, 3, "text", [("id", 1)]][spec.at % 4]
            return [*records[: spec.at], odd, *records[spec.at :]]
        case kind:
            return _generate(chain, records, kind)


def _generate(chain: Chain, records: list[Any], kind: str) -> Iterator[Any]:
    reused: dict[str, Any] = {}
    for at, record in enumerate(records):
        if at == chain.spec.at and kind == "fails":
            raise SourceError("the cursor died", at)
        if at == chain.spec.at and kind == "interrupted":
            raise KeyboardInterrupt
        chain.calls.append(("source", at))
        if kind == "reusing":
            reused.clear()
            reused.update(record)
            yield reused
        else:
            yield record


# --- the loop -----------------------------------------------------------------------------


def run_of(chain: Chain, deliver: Callable[[Iterable[Any], Callable[[Any], None]], None]) -> Run:
    """Run a case from a fresh start, and record the result.

    Args:
        chain: The case.
        deliver: Gets the source and a function to call with each output, until it raises.
    """
    # The row "plain dicts and lists in fields": pyrmute's automatic steps copy them.
    tells_aliases = None not in chain.spec.steps
    chain.reset()
    kept: list[Any] = []
    run = Run()
    outputs: list[Any] = []

    def take(output: Any) -> None:
        outputs.append(output)
        run.alone.append(shape(output, Seen(tells_aliases)))

    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a worker's are not seen here either
            deliver(source_of(chain, kept), take)
    except _Documented as raised:
        run.error, run.index = described(raised.error), len(outputs)
    except BaseException as error:
        run.error = described(error)
        run.index = getattr(error, "record_index", None)
        del error
    seen = Seen(tells_aliases)
    run.outputs = shape(outputs, seen)
    run.calls = list(chain.calls)
    run.after = (shape(kept, seen), COUNTS.get(chain.name))
    chain.reset()
    return run


@contextmanager
def bounded() -> Iterator[None]:
    """Limit the time of a case, so that an endless one is an outcome to show."""

    def end(*_: object) -> None:
        raise EndlessError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, _ENDLESS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class EndlessError(BaseException):
    """A case has not ended."""


_ENDLESS_S: Final = 5.0  # many times what any case takes


@dataclass(frozen=True)
class Reject:
    """A skipped record, in the place of its output."""

    index: int
    error: Any


def loop(chain: Chain, call: str, *, skips: bool = False) -> Run:
    """Run a case in a loop over pyrmute.

    Args:
        chain: The case.
        call: ``migrate``, ``migrate_as``, ``migrate_data``, or ``lines``.
        skips: Go on behind a record that raises an `Exception`, and take a `Reject` for it.
    """
    theirs = pyrmute.ModelManager()
    chain.register(theirs, refusing)
    migrate = call_of(theirs, chain, call)
    is_record: list[bool] = []

    def deliver(source: Iterable[Any], take: Callable[[Any], None]) -> None:
        for index, record in enumerate(source):
            is_record.append(True)
            try:
                if chain.steps:
                    check_record(record)
                output = migrate(record)
            except (_Documented, Exception) as raised:
                if not skips:
                    raise
                error = raised.error if isinstance(raised, _Documented) else raised
                output = Reject(index, described(error))
            take(output)
            is_record.pop()

    run = run_of(chain, deliver)
    if is_record:  # else it is the source that failed
        run.index = len(run.alone)
    return run


def call_of(manager: Any, chain: Chain, call: str) -> Callable[[Any], Any]:
    """Return the function of either library that migrates one record."""
    if call == "migrate_data":
        return lambda record: manager.migrate_data(record, *chain.hop)
    if call == "migrate_as":
        return lambda record: manager.migrate_as(record, *chain.hop, chain.models[-1])
    if call == "lines":
        return lambda record: manager.migrate(
            pydantic_core.from_json(pydantic_core.to_json(record)), *chain.hop
        ).model_dump_json()
    return lambda record: manager.migrate(record, *chain.hop)
