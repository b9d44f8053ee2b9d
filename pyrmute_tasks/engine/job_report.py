"""What a job did: its state, the tally of its events, and the report that remains."""

import enum
import time
from collections import Counter
from collections.abc import Callable, Mapping
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
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def to(self, state: "JobState") -> "JobState":
        """Return `state` if a job may go there from here.

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
        # Chunks are on their way. It ends in exactly one of three ways.
        JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
        # Every record was delivered.
        JobState.SUCCEEDED: frozenset(),
        # An error was raised; everything before it was delivered.
        JobState.FAILED: frozenset(),
        # The consumer went away or interrupted; what was delivered is a correct prefix.
        JobState.CANCELLED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a job did.

    Attributes:
        job: The job's id.
        state: How it ended, or where it stands.
        records: Records delivered.
        chunks: Chunks delivered.
        wasted_chunks: Chunks that were submitted behind the one whose error ended the job.
        seconds: Wall time since the job began, without starting workers.
        chunks_by_worker: Chunks settled, by worker.
        failure: The record that ended it, if one did.
        partial_path: Where what it had written was kept; empty if it was not.
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
    _began: float = 0.0
    _ended: float = 0.0

    def begin(self) -> None:
        """The job starts running now."""
        self.state = self.state.to(JobState.RUNNING)
        self._began = self.clock()

    def end(self, state: JobState) -> None:
        """The job ended now."""
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

    def report(self) -> JobReport:
        """Return what has been counted so far."""
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
        )
