"""The report of an audit, as data and as JSON."""

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
"""The path shown where no single field is meant."""


class Cause(enum.StrEnum):
    """Likely cause of differing outputs, judged by the runs that differ."""

    NOT_DETERMINISTIC = "not deterministic"
    PROCESS = "depends on the process"
    STATE = "keeps state"
    MUTATION = "modifies its input"


class Change(enum.StrEnum):
    """The kind of a difference."""

    VALUE = "value"
    TYPE = "type"
    PRESENCE = "presence"
    LENGTH = "length"
    ITEM_ORDER = "order of items"
    KEY_ORDER = "order of keys"
    FAILURE = "failure"


class LossKind(enum.StrEnum):
    """The kind of a loss: where a field gets lost."""

    UNDECLARED = "not declared by the source's model"
    IGNORED = "ignored by validation"


@dataclass(frozen=True, slots=True)
class Finding:
    """A field that a step makes from more than its record, or changes in its input.

    Attributes:
        step: The step, ``"1.0.0 → 2.0.0"``, or ``"validation"`` or ``"writing"``.
        where: The step's code, ``"flights.py:88 in parse"``; empty for a generated step.
        field: The field's dotted path, with ``[]`` for the items of a list.
        cause: The likely cause.
        change: The kind of the difference.
        records: Number of records in the sample that show it.
        first_record: Index of the first of them in the source, counted from 0.
        example: Two of the field's values; only if records are included.
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
    """A field of records that has no influence on the output.

    Attributes:
        field: The field's dotted path.
        kind: Where it is lost.
        records: Number of records in the sample that have it.
        share: Their share of the sample, from 0 to 1.
        first_record: Index of the first of them in the source, counted from 0.
    """

    field: str
    kind: LossKind
    records: int
    share: float
    first_record: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Records that fail in the same way in every run.

    Attributes:
        step: The step, ``"validation"`` or ``"writing"``.
        error: The exception's class.
        records: Number of them in the sample.
        first_record: Index of the first of them in the source, counted from 0.
    """

    step: str
    error: str
    records: int
    first_record: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit.

    Attributes:
        name: The model's name.
        from_version: Version of the records.
        to_version: Version of the outputs.
        records: Number of records in the sample.
        total: Number of records in the source.
        runs: The most runs of a record.
        processes: Number of processes.
        seconds: Duration.
        findings: Fields that depend on more than their record.
        losses: Fields that get lost.
        failures: Records that fail in every run; not a finding.
        not_compared: Number of runs left unfinished, because a step's input differed and could not
            be sent to another process.
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
        """Whether there are no findings and no losses."""
        return not self.findings and not self.losses

    @property
    def came_through(self) -> int:
        """Number of records that did not fail in every run."""
        return self.records - sum(failed.records for failed in self.failures)

    def to_json(self) -> str:
        """Return the report as JSON.

        Returns:
            The report as a line of JSON.
        """
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)
