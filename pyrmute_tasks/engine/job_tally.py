"""The tally of a job's events, from which its report is made."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkSettled,
    ChunkSubmitted,
    Event,
    SourceBlocked,
)
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.failures import RecordFailure

__all__ = ["JobTally", "new_job_id"]

_ID_BYTES: Final = 4
_UNIQUE_ID_BYTES: Final = 8


def new_job_id(*, unique: bool = False) -> str:
    """Return a new job id: eight hex digits, short enough to read aloud.

    Args:
        unique: Return 16 digits, so that what is signed for one job never fits another.
    """
    return os.urandom(_UNIQUE_ID_BYTES if unique else _ID_BYTES).hex()


@dataclass
class JobTally:
    """Counts a job's events; an `Observer`.

    Attributes:
        job: The job's id.
        failure: The record that ended it, if one did.
        exceeded: The limit of skipped records that ended it, in words.
        rejected_by_cause: Records skipped, by what failed.
        restored: Records delivered by earlier runs of the job.
        source_blocked_s: Time that the source blocked while finished outputs waited.
    """

    job: str
    clock: Callable[[], float] = time.monotonic
    state: JobState = JobState.PENDING
    records: int = 0
    chunks: int = 0
    submitted_chunks: int = 0
    delivered_bytes: int = 0
    wasted_chunks: int = 0
    by_worker: Counter[str] = field(default_factory=Counter)
    failure: RecordFailure | None = None
    exceeded: str = ""
    rejected_by_cause: Counter[str] = field(default_factory=Counter)
    restored: int = 0
    source_blocked_s: float = 0.0
    _began: float = 0.0
    _ended: float = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self.state = self.state.to(JobState.RUNNING)
        self._began = self.clock()

    def end(self, state: JobState) -> None:
        """Record the end of the job."""
        self.state = self.state.to(state)
        self._ended = self.clock()

    def __call__(self, event: Event, /) -> None:
        """Count `event`."""
        match event:
            case ChunkSubmitted():
                self.submitted_chunks += 1
            case ChunkSettled(worker=worker) if worker:  # not here, nor by an earlier run
                self.by_worker[worker] += 1
            case ChunkDelivered(count=count, size_bytes=size_bytes):
                self.chunks += 1
                self.records += count
                self.delivered_bytes += size_bytes
            case ChunkDiscarded():
                self.wasted_chunks += 1
            case SourceBlocked(seconds=seconds):
                self.source_blocked_s += seconds

    def restore(self, records: int, rejected_by_cause: Counter[str]) -> None:
        """Count what earlier runs of the job have done.

        Args:
            records: Records delivered.
            rejected_by_cause: Records skipped, by what failed.
        """
        self.restored = records
        self.records += records
        self.rejected_by_cause.update(rejected_by_cause)

    def judged(
        self, rejects: Iterable[RecordFailure], failure: RecordFailure | None, exceeded: str
    ) -> None:
        """Count the skipped records of a chunk, and record the failure that ended the job.

        Args:
            rejects: The failures of records that were skipped.
            failure: The record that ended the job, if one did.
            exceeded: The limit that this one exceeded, in words; empty if none.
        """
        self.rejected_by_cause.update(reject.cause for reject in rejects)
        self.failure = failure
        self.exceeded = exceeded

    def report(self) -> JobReport:
        """Return the counts so far."""
        until = self._ended or self.clock()
        return JobReport(
            self.job,
            self.state,
            self.records,
            self.chunks,
            self.wasted_chunks,
            until - self._began if self._began else 0.0,
            MappingProxyType(dict(self.by_worker)),
            self.failure,
            rejected=self.rejected_by_cause.total(),
            rejected_by_cause=MappingProxyType(dict(self.rejected_by_cause.most_common())),
            exceeded=self.exceeded,
            restored=self.restored,
            source_blocked_s=self.source_blocked_s,
        )
