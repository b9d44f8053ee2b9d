"""What an audit found, as data, as JSON."""

import enum
import json
from dataclasses import asdict, dataclass
from typing import Final

__all__ = [
    "WHOLE_RECORD",
    "AuditReport",
    "Cause",
    "Change",
    "Failed",
    "Finding",
    "Loss",
    "LossKind",
]

WHOLE_RECORD: Final = "(whole record)"
"""Stands for a field's path where no single field is meant."""


class Cause(enum.StrEnum):
    """Why outputs of a step differ, as far as the runs that differ tell."""

    NOT_DETERMINISTIC = "not deterministic"
    PROCESS = "depends on the process"
    STATE = "keeps state"
    MUTATION = "modifies its input"


class Change(enum.StrEnum):
    """What differs at a field."""

    VALUE = "value"
    TYPE = "type"
    PRESENCE = "presence"
    LENGTH = "length"
    ITEM_ORDER = "order of items"
    KEY_ORDER = "order of keys"
    FAILURE = "failure"


class LossKind(enum.StrEnum):
    """Where a value is lost that a record had."""

    UNDECLARED = "not declared by the source's model"
    IGNORED = "ignored by validation"


@dataclass(frozen=True, slots=True)
class Finding:
    """A field that a step does not make from its record alone, or changes in its input.

    Attributes:
        step: The step, ``"1.0.0 → 2.0.0"``, or ``"validation"`` or ``"writing"``.
        where: The step's code, ``"flights.py:88 in parse"``; empty if nobody wrote it.
        field: The field's dotted path, with ``[]`` for the items of a list.
        cause: Why it differs.
        change: What differs.
        records: How many records of the sample it was seen at.
        first_record: Index of the first of them in the source, counted from 0.
        example: Two of the field's values; only if records were asked for.
    """

    step: str
    where: str
    field: str
    cause: Cause
    change: Change
    records: int
    first_record: int
    example: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """A field of records that has no influence on what comes out.

    Attributes:
        field: The field's dotted path.
        kind: Where it is lost.
        records: How many records of the sample have it.
        share: The same as a part of the sample, from 0 to 1.
        first_record: Index of the first of them in the source, counted from 0.
    """

    field: str
    kind: LossKind
    records: int
    share: float
    first_record: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Records that failed in the same way in every run.

    Attributes:
        step: Where they failed.
        error: The exception's class.
        records: How many of the sample.
        first_record: Index of the first of them in the source, counted from 0.
    """

    step: str
    error: str
    records: int
    first_record: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Attributes:
        name: The model's name.
        from_version: Version of the records.
        to_version: Version they were migrated to.
        records: Records that were run, the sample.
        total: Records in the source.
        runs: How often each was run at most.
        processes: In how many processes.
        seconds: How long it took.
        findings: What depends on more than its record.
        losses: Fields that get lost.
        failures: Records that failed in every run; not a finding.
        not_compared: Runs of a record through a step left out, since the step's input was
            different already and could not be carried into another process.
    """

    name: str
    from_version: str
    to_version: str
    records: int
    total: int
    runs: int
    processes: int
    seconds: float
    findings: tuple[Finding, ...] = ()
    losses: tuple[Loss, ...] = ()
    failures: tuple[Failed, ...] = ()
    not_compared: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings and not self.losses

    @property
    def came_through(self) -> int:
        """How many records did not fail in every run."""
        return self.records - sum(failed.records for failed in self.failures)

    def to_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)
