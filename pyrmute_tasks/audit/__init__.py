"""The audit: steps that depend on more than their record, and fields that get lost.

`audit` runs a sample of records several times, in processes with other hash seeds, in other
orders and repeatedly, and reports each step whose output differs, with the field and the likely
cause. The report also lists the fields that get lost silently.
"""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pyrmute_tasks.audit.child import Request
from pyrmute_tasks.audit.compare import Raised
from pyrmute_tasks.audit.passes import Spot, Tally, stages_of
from pyrmute_tasks.audit.report import (
    WHOLE_RECORD,
    AuditReport,
    Cause,
    Change,
    Failed,
    Finding,
    Loss,
    LossKind,
)
from pyrmute_tasks.audit.runs import PROCESSES, RUNS, Deadline, Evidence, cause_of, examine
from pyrmute_tasks.audit.sample import Sample, take_sample
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.pyrmute_adapter import FleetManager, Manager, adapt, load_manager
from pyrmute_tasks.records import RecordLike
from pyrmute_tasks.registry import is_loading
from pyrmute_tasks.versions import VersionLike

__all__ = [
    "SAMPLE",
    "TIMEOUT_S",
    "AuditReport",
    "Cause",
    "Change",
    "Failed",
    "Finding",
    "Loss",
    "LossKind",
    "audit",
]

SAMPLE: Final = 1000
"""Default number of records to run."""

TIMEOUT_S: Final = 300.0
"""Default time limit of an audit."""


def audit(
    manager: str | Manager,
    source: Iterable[RecordLike] | str | os.PathLike[str],
    name: str,
    from_version: VersionLike,
    to_version: VersionLike,
    *,
    sample: int | None = SAMPLE,
    include_records: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> AuditReport:
    """Find steps that depend on more than their record, and fields that get lost.

    Steps run several times a record, in four processes, with their side effects. The source is
    read to its end and the sample held in memory.

    Args:
        manager: The manager, which must be an attribute of a module, or its name.
        source: The records, or the path of a file of JSON lines.
        name: The model's name.
        from_version: Version of the records.
        to_version: Version to migrate them to.
        sample: Number of records to run: the first, the last, and some evenly spread between;
            None runs all.
        include_records: Include values of records as examples. By default the report has none.
        timeout_s: Time limit of the whole audit.

    Raises:
        ConfigurationError: If the file cannot be read or an option makes no sense.
        ManagerImportError: If the manager cannot be imported by name.
        ModelNotFoundError: If the model or a version is not registered.
        MigrationError: If there is no path.
        UnsupportedValueError: If a record cannot be sent to another process.
        JobError: If a step ends its process, or the audit takes too long.
    """
    if is_loading():
        raise ConfigurationError(
            "an audit was started while its manager's module is imported; start it under "
            "if __name__ == '__main__':"
        )
    began = time.monotonic()
    loaded, spec = _resolve_manager(manager)
    plan = loaded.plan(name, from_version, to_version)
    taken = take_sample(source, sample)
    request = Request(
        spec,
        name,
        str(from_version),
        str(to_version),
        tuple(sys.path),
        taken.records,
        taken.positions,
        passes=(),
    )
    stages = tuple(stage.name for stage in stages_of(plan))
    evidence = examine(request, stages, Deadline(timeout_s)) if taken.records else None
    builder = _ReportBuilder(plan, stages, taken, include_records)
    return builder.report(request, evidence, time.monotonic() - began)


def _resolve_manager(manager: str | Manager) -> tuple[FleetManager, str]:
    if isinstance(manager, str):
        return load_manager(manager), manager
    adapted = adapt(manager)
    return adapted, adapted.locate()


class _ReportBuilder:
    """Turns the evidence of the runs into a report's entries."""

    def __init__(
        self, plan: MigrationPlan, stages: tuple[str, ...], sample: Sample, examples: bool
    ) -> None:
        self._where = {
            str(step): "" if step.generated else _where(step.function) for step in plan.steps
        }
        self._stages = stages
        self._sample = sample
        self._examples = examples

    def report(self, request: Request, evidence: Evidence | None, seconds: float) -> AuditReport:
        return AuditReport(
            request.name,
            request.from_version,
            request.to_version,
            len(self._sample.records) + len(self._sample.unreadable),
            self._sample.total,
            RUNS,
            PROCESSES,
            round(seconds, 3),
            self.findings(evidence) if evidence else (),
            evidence.reference.losses if evidence else (),
            self.failures(evidence),
            evidence.skipped if evidence else 0,
        )

    def findings(self, evidence: Evidence) -> tuple[Finding, ...]:
        found = []
        for spot, by_run in evidence.differing.items():
            records = set().union(*(tally.records for tally in by_run.values()))
            example = next(iter(by_run.values())).example
            found.append((spot, cause_of(frozenset(by_run)), Tally(records, example)))
        found += [
            (spot, Cause.MUTATION, tally) for spot, tally in evidence.reference.mutated.items()
        ]
        causes = list(Cause)
        found.sort(key=lambda item: (item[0].stage, causes.index(item[1]), item[0][1:]))
        return tuple(self._finding(*item) for item in found)

    def _finding(self, spot: Spot, cause: Cause, tally: Tally) -> Finding:
        step = self._stages[spot.stage]
        return Finding(
            step,
            self._where.get(step, ""),
            spot.field or WHOLE_RECORD,
            cause,
            spot.change,
            len(tally.records),
            self._sample.positions[min(tally.records)],
            tally.example if self._examples else None,
        )

    def failures(self, evidence: Evidence | None) -> tuple[Failed, ...]:
        failed: dict[tuple[str, str], list[int]] = {}
        for index in self._sample.unreadable:
            failed.setdefault(("reading", "InvalidRecordError"), []).append(index)
        reference = evidence.reference.reference if evidence else []
        for index, known in enumerate(reference):
            last = known[-1].output if known else None
            if isinstance(last, Raised):
                key = (self._stages[len(known) - 1], last.error)
                failed.setdefault(key, []).append(self._sample.positions[index])
        return tuple(Failed(*key, len(found), found[0]) for key, found in failed.items())


def _where(function: object) -> str:
    function = getattr(function, "__wrapped__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    return f"{Path(code.co_filename).name}:{code.co_firstlineno} in {code.co_name}"
