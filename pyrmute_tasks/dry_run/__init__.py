"""A dry run: what a migration of files will do, found out on a sample; nothing is written.

`dry_run` shows the path with each step's place in the code and what changes at each hop, and runs
a sample in a process of its own: failures with bounds, fields that get lost, the time of a record,
and from these the room, the number of ranges and the time with more workers.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyrmute_tasks.audit.child import Answer, Request
from pyrmute_tasks.audit.passes import stages_of
from pyrmute_tasks.audit.runs import Deadline, try_out
from pyrmute_tasks.audit.trial import Trial
from pyrmute_tasks.dry_run.estimates import (
    WORKERS,
    coordinator_s,
    count_chunks,
    timing,
    upper_bound,
)
from pyrmute_tasks.dry_run.hops import planned_hops
from pyrmute_tasks.dry_run.report import (
    ChangeKind,
    DryRun,
    FailureCause,
    FieldChange,
    LostField,
    PlannedHop,
    PlannedRoom,
    Timing,
)
from pyrmute_tasks.engine.chunk_sizes import ChunkSizer, RangeSizer
from pyrmute_tasks.io.jsonl import new_sizer
from pyrmute_tasks.io.line_sample import LineSample
from pyrmute_tasks.io.preflight import Need, room_at
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.pyrmute_adapter import FleetManager

__all__ = [
    "SAMPLE",
    "TIMEOUT_S",
    "ChangeKind",
    "DryRun",
    "FailureCause",
    "FieldChange",
    "LostField",
    "Planned",
    "PlannedHop",
    "PlannedRoom",
    "Timing",
    "dry_run",
]

SAMPLE: Final = 1000
"""Default number of records to run."""

TIMEOUT_S: Final = 300.0
"""Default time limit of a dry run."""

_RANGE_BYTES: Final = 512  # of an outcome in the store, by reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The run that is planned.

    Attributes:
        sizes: Sizes of the source's files; none for a pipe.
        target: The output; None if it is a pipe or a device.
        limit: The most records to migrate; None for all.
        by_reference: Whether workers read and write the files.
        joins: Whether what they write is joined into one file.
        skips: Whether records that fail are skipped.
        window_bytes: Size of the job's window.
    """

    sizes: Sequence[int]
    target: str | None
    limit: int | None = None
    by_reference: bool = False
    joins: bool = True
    skips: bool = False
    window_bytes: int = 0

    def new_sizer(self) -> ChunkSizer:
        """Return the rule by which the source will be cut."""
        return RangeSizer(skips=self.skips) if self.by_reference else new_sizer(self.window_bytes)


def dry_run(
    manager: FleetManager,
    manager_name: str,
    plan: MigrationPlan,
    sample: LineSample,
    planned: Planned,
    *,
    timeout_s: float = TIMEOUT_S,
) -> DryRun:
    """Run a sample, and tell from it what the run will do.

    Steps run two times a record, and some dozen times for fields that may get lost, with their
    side effects.

    Args:
        manager: The manager.
        manager_name: Its name, for the process that runs the sample.
        plan: The migration.
        sample: The sample.
        planned: The run.
        timeout_s: Time limit.

    Raises:
        ConfigurationError: If the target's folder cannot be read.
        ModelNotFoundError: If the target version has no model.
        JobError: If a step ends its process, or the sample takes too long.
    """
    began = time.monotonic()
    request = Request(
        manager_name,
        plan.name,
        str(plan.from_version),
        str(plan.to_version),
        tuple(sys.path),
        records=(),
        positions=(),
        passes=(),
        lines=tuple(line.text for line in sample.lines),
        places=tuple(line.place for line in sample.lines),
    )
    stages = tuple(stage.name for stage in stages_of(plan))
    answer = try_out(request, stages, Deadline(timeout_s)) if sample.lines else Answer()
    trial = answer.trial or Trial((), 0, 0, 0, 0, 0.0)
    failed, size = len(trial.failed), len(sample.lines)
    estimate = _Estimate(sample, trial, planned)
    return DryRun(
        plan.name,
        str(plan.from_version),
        str(plan.to_version),
        planned_hops(manager, plan),
        size,
        estimate.total,
        sample.size_bytes,
        sample.is_whole,
        failed,
        _bound(failed, sample),
        _failures(trial, sample),
        tuple(
            LostField(
                loss.field,
                loss.kind,
                loss.records,
                loss.share,
                sample.lines[loss.first_record].place,
            )
            for loss in answer.losses
        ),
        trial.seconds / max(trial.timed_records, 1),
        estimate.ratio,
        planned.by_reference,
        estimate.timings(),
        estimate.room(),
        round(time.monotonic() - began, 3),
    )


def _bound(failed: int, sample: LineSample) -> float:
    size = len(sample.lines)
    if sample.is_whole:
        return failed / size if size else 0.0
    return upper_bound(failed, size)


def _failures(trial: Trial, sample: LineSample) -> tuple[FailureCause, ...]:
    first = {failed.cause: failed for failed in reversed(trial.failed)}
    return tuple(
        FailureCause(
            cause,
            first[cause].described,
            count,
            _bound(count, sample),
            sample.lines[first[cause].index].place,
        )
        for cause, count in Counter(failed.cause for failed in trial.failed).most_common()
    )


@dataclass(frozen=True, slots=True)
class _Estimate:
    """The whole, by its sample."""

    sample: LineSample
    trial: Trial
    planned: Planned

    @property
    def total(self) -> int | None:
        records, limit = self.sample.records, self.planned.limit
        return records if records is None or limit is None else min(records, limit)

    @property
    def ratio(self) -> float:
        """Bytes of output for each byte of the source, also of records that fail."""
        read = sum(len(line.text) for line in self.sample.lines)
        return self.trial.bytes_out / read if read else 1.0

    @property
    def sizes(self) -> list[int]:
        """Sizes of what is read of the files."""
        records = self.sample.records
        share = (self.total or 0) / records if records else 1.0
        left = round((self.sample.size_bytes or 0) * share)
        sizes = []
        for size in self.planned.sizes:
            sizes.append(min(size, left))
            left -= sizes[-1]
        return sizes

    def timings(self) -> tuple[Timing, ...]:
        sizes, trial = self.sizes, self.trial
        if not trial.timed_bytes or not any(sizes):
            return ()
        seconds = trial.seconds / trial.timed_bytes
        return tuple(self._timing(workers, sizes, seconds) for workers in WORKERS)

    def _timing(self, workers: int, sizes: list[int], seconds_per_byte: float) -> Timing:
        size_bytes, planned = sum(sizes), self.planned
        chunks = count_chunks(planned.new_sizer(), sizes, workers, seconds_per_byte)
        limit_s = coordinator_s(
            size_bytes,
            size_bytes * self.ratio,
            ranges=chunks,
            by_reference=planned.by_reference,
            joins=planned.joins,
        )
        return timing(workers, size_bytes * seconds_per_byte, limit_s, chunks)

    def room(self) -> PlannedRoom | None:
        planned, size_bytes = self.planned, sum(self.sizes)
        if planned.target is None or not planned.sizes:
            return None
        chunks = max((each.chunks for each in self.timings()), default=0)
        need = Need.of(
            size_bytes,
            ratio=self.ratio,
            joins=planned.by_reference and planned.joins,
            parts=chunks if planned.by_reference else 0,
        )
        free = room_at(planned.target)
        through = min(planned.window_bytes, round(size_bytes * (1 + self.ratio)))
        return PlannedRoom(
            free.folder,
            need.likely_bytes,
            need.most_bytes,
            free.free_bytes,
            need.files,
            free.free_files,
            chunks * _RANGE_BYTES if planned.by_reference else through,
        )
