"""A job's state, the tally of its events, and its report."""

import enum
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkSettled,
    ChunkSubmitted,
    Event,
)
from pyrmute_tasks.errors import JobError
from pyrmute_tasks.failures import RecordFailure

__all__ = ["JobReport", "JobState", "JobTally"]


class JobState(enum.StrEnum):
    """The state of a job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def to(self, state: "JobState") -> "JobState":
        """Return `state` if a job may change to it from this one.

        Raises:
            JobError: If it may not.
        """
        if state not in _NEXT_STATES[self]:
            raise JobError(f"a job that is {self} cannot become {state}")
        return state


_NEXT_STATES: Final[Mapping[JobState, frozenset[JobState]]] = MappingProxyType(
    {
        # Created; nothing has been read from its source.
        JobState.PENDING: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
        # Running; it ends in exactly one of three ways.
        JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
        # Every record was delivered.
        JobState.SUCCEEDED: frozenset(),
        # An error was raised after everything before it was delivered.
        JobState.FAILED: frozenset(),
        # The consumer left or interrupted it; what was delivered is a correct prefix.
        JobState.CANCELLED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True)
class JobReport:
    """The result of a job.

    Attributes:
        job: The job's id.
        state: Its state, final once it has ended.
        records: Records delivered.
        chunks: Chunks delivered.
        wasted_chunks: Chunks submitted behind the one whose error ended the job.
        seconds: Wall time since the job began, without starting workers.
        chunks_by_worker: Chunks settled, by worker.
        failure: The record that ended it, if one did.
        partial_path: Path of the partial output, if it was kept.
        rejected: Records skipped.
        rejected_by_cause: Records skipped, by what failed: ``"step 1.0.0 → 2.0.0: KeyError"``.
        exceeded: The limit of skipped records that ended it, in words; empty if none did.
    """

    job: str
    state: JobState
    records: int
    chunks: int
    wasted_chunks: int
    seconds: float
    chunks_by_worker: Mapping[str, int]
    failure: RecordFailure | None = None
    partial_path: str = ""
    rejected: int = 0
    rejected_by_cause: Mapping[str, int] = field(default_factory=dict)
    exceeded: str = ""

    @property
    def records_per_s(self) -> float:
        """Records delivered per second of wall time."""
        return self.records / self.seconds if self.seconds else 0.0


@dataclass
class JobTally:
    """Counts a job's events; an `Observer`.

    Attributes:
        job: The job's id.
        failure: The record that ended it, if one did.
        exceeded: The limit of skipped records that ended it, in words.
        rejected_by_cause: Records skipped, by what failed.
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
            case ChunkSettled(worker=worker):
                self.by_worker[worker] += 1
            case ChunkDelivered(count=count, size_bytes=size_bytes):
                self.chunks += 1
                self.records += count
                self.delivered_bytes += size_bytes
            case ChunkDiscarded():
                self.wasted_chunks += 1

    def judged(
        self, rejects: Iterable[RecordFailure], failure: RecordFailure | None, exceeded: str
    ) -> None:
        """Count the records of a chunk that were skipped, and note the one that ended the job."""
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
        )
