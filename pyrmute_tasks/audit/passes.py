"""Running records through a plan stage by stage, to find the stage whose output differs.

A *stage* is a step, validation, or writing. In the first pass each stage gets the output of the
one before, as in a loop, and its own output becomes the reference. In later passes, in any
process, a stage whose input differs from the reference gets the reference's instead: so only the
stage at fault differs, and not those behind it.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import pydantic_core

from pyrmute_tasks.audit.compare import (
    Difference,
    Frozen,
    Raised,
    differences,
    freeze,
    freeze_error,
    holds_set,
)
from pyrmute_tasks.audit.report import Change
from pyrmute_tasks.errors import InvalidRecordError, ModelNotFoundError
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.registry import MigrationFunc

__all__ = [
    "VALIDATION",
    "WRITING",
    "FirstPass",
    "Known",
    "Reference",
    "Seen",
    "Spot",
    "Stage",
    "Tally",
    "Walker",
    "stages_of",
]

VALIDATION: Final = "validation"
WRITING: Final = "writing"

_ORDERS: Final = (Change.ITEM_ORDER, Change.KEY_ORDER)


@dataclass(frozen=True, slots=True)
class Stage:
    """One operation on a record.

    Attributes:
        name: The step, `VALIDATION` or `WRITING`.
        run: Runs it.
    """

    name: str
    run: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Known:
    """The output of a stage in the first pass.

    Attributes:
        output: The frozen output.
        pickled: The output for processes whose own differs; None if it cannot be pickled.
    """

    output: Frozen
    pickled: bytes | None


Reference: TypeAlias = list[list[Known]]
"""The stages' outputs, by record; shorter for a record that failed."""


class Spot(NamedTuple):
    """A stage and field that differ, and the kind of the difference."""

    stage: int
    field: str
    change: Change


@dataclass(slots=True)
class Tally:
    """The records that differ at a spot.

    Attributes:
        records: Their indexes in the sample.
        example: The values of the first one, which may quote the record.
    """

    records: set[int] = field(default_factory=set)
    example: tuple[str, str] = ("", "")


class Seen(NamedTuple):
    """A record that reached validation in the first pass.

    Attributes:
        record: Its index in the sample.
        data: The last step's output.
        model: The validated output.
    """

    record: int
    data: Any
    model: object


class _StepOutput(NamedTuple):
    """A step's output, and its frozen value when its record was done."""

    stage: int
    record: int
    output: object
    settled: Frozen


@dataclass(slots=True)
class FirstPass:
    """The results of the first pass.

    Attributes:
        reference: The stages' outputs.
        mutated: The spots where stages modified their input.
        changed_later: The spots where a step's output changed after its record was done: it is
            shared between records.
        seen: The records that reached validation.
    """

    reference: Reference = field(default_factory=list)
    mutated: dict[Spot, Tally] = field(default_factory=dict)
    changed_later: dict[Spot, Tally] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)


def stages_of(plan: MigrationPlan) -> list[Stage]:
    """Return the stages of a plan, in order."""
    stages = [Stage(str(step), _checked(step.function)) for step in plan.steps]
    try:
        target = plan.target
    except ModelNotFoundError:  # the plan only migrates data
        return stages

    def validate(data: Any) -> object:
        return plan.validate_one(data, target)

    return [*stages, Stage(VALIDATION, validate), Stage(WRITING, _write)]


def _checked(function: MigrationFunc) -> Callable[[Any], object]:
    def run(record: Any) -> object:
        output: object = function(record)
        if not isinstance(output, dict):
            raise InvalidRecordError(f"a step returned {type(output).__name__}")
        return output

    return run


def _write(model: Any) -> object:
    return pydantic_core.from_json(model.model_dump_json())


class Walker:
    """Runs records through stages.

    Args:
        stages: The stages.
        records: The records, pickled.
        mark: Called with the record and the stage that run next.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        records: Sequence[bytes],
        mark: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self.skipped: int = 0
        self._stages = stages
        self._records = records
        self._mark = mark

    def record(self, index: int) -> Any:
        """Return a record of the sample, a new copy each time."""
        return pickle.loads(self._records[index])  # noqa: S301  # from the parent, over a private pipe

    def first(self) -> FirstPass:
        """Run all records once."""
        done = FirstPass()
        kept: list[_StepOutput] = []
        for index in range(len(self._records)):
            done.reference.append(self._follow(index, done, kept))
        blamed: set[int] = set()
        for item in kept:
            later = differences(item.settled, freeze(item.output))
            if later and item.record not in blamed:  # later outputs may just hold the same object
                blamed.add(item.record)
                _note(done.changed_later, item.stage, item.record, later)
        return done

    def _follow(self, index: int, done: FirstPass, kept: list[_StepOutput]) -> list[Known]:
        known: list[Known] = []
        outputs: list[object] = []
        value = self.record(index)
        frozen = freeze(value)
        for number, stage in enumerate(self._stages):
            self._mark(index, number)
            output, made = _call(stage, value)
            if stage.name != WRITING:  # a model may cache values when written
                _note(done.mutated, number, index, differences(frozen, freeze(value)))
            known.append(Known(made, _pickled(output)))
            if isinstance(made, Raised):
                break
            if stage.name == VALIDATION:
                done.seen.append(Seen(index, value, output))
            elif stage.name != WRITING:
                outputs.append(output)
            value, frozen = output, made
        # Not before: changes made by later stages are noted above.
        kept += [
            _StepOutput(at, index, output, freeze(output)) for at, output in enumerate(outputs)
        ]
        return known

    def again(
        self, visits: Sequence[int], reference: Reference, *, other_seed: bool = False
    ) -> dict[Spot, Tally]:
        """Run records in the order of `visits`.

        Args:
            visits: Indexes of records in the sample.
            reference: The reference to compare with.
            other_seed: Whether it comes from a process with another hash seed, so that sets have
                another order.

        Returns:
            The spots where outputs differ from the first pass.
        """
        found: dict[Spot, Tally] = {}
        for index in visits:
            value = self.record(index)
            keeps_order = True
            for number, (stage, known) in enumerate(
                zip(self._stages, reference[index], strict=False)
            ):
                self._mark(index, number)
                output, made = _call(stage, value)
                apart = differences(known.output, made)
                if not keeps_order:
                    apart = [item for item in apart if item.change not in _ORDERS]
                _note(found, number, index, apart)
                if isinstance(known.output, Raised):
                    break
                if not apart:
                    value = output
                    keeps_order = True
                elif known.pickled is None:
                    self.skipped += 1
                    break
                else:
                    value = pickle.loads(known.pickled)  # noqa: S301  # as above
                    # A rebuilt set may have another order, which is not this stage's fault.
                    keeps_order = other_seed or not holds_set(known.output)
        return found

    def result(self, record: Any) -> Frozen:
        """Return the output for any record: the model, or the data if there is no model."""
        value, made = record, freeze(record)
        for stage in self._stages:
            if stage.name == WRITING:
                break
            value, made = _call(stage, value)
            if isinstance(made, Raised):
                break
        return made


def _call(stage: Stage, value: Any) -> tuple[object, Frozen]:
    try:
        output = stage.run(value)
    except BaseException as error:  # even an exit is the record's failure
        return None, freeze_error(error)
    return output, freeze(output)


def _note(tallies: dict[Spot, Tally], stage: int, index: int, found: Sequence[Difference]) -> None:
    for item in found:
        tally = tallies.setdefault(Spot(stage, item.field, item.change), Tally())
        if not tally.records:
            tally.example = (item.one, item.other)
        tally.records.add(index)


def _pickled(value: object) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:
        return None
