"""A job's state, and its report."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.failures import RecordFailure

__all__ = ["JobReport", "JobState"]


class JobState(enum.StrEnum):
    """The state of a job, as its report shows it."""

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
        chunks: Chunks delivered; 0 for a batch in the caller's thread.
        wasted_chunks: Chunks submitted behind the one whose error ended the job.
        seconds: Wall time since the job began, without starting workers.
        chunks_by_worker: Chunks settled, by worker.
        failure: The record that ended it, if one did.
        partial_path: Path of the partial output, if it was kept.
        backup_path: Path of the target that was replaced, if it was kept.
        rejected: Records skipped.
        rejected_by_cause: Records skipped, by what failed: ``"step 1.0.0 → 2.0.0: KeyError"``.
        exceeded: The limit of skipped records that ended it, in words; empty if none did.
        restored: Records delivered by the earlier runs that this one resumed; they are among
            `records`.
        source_blocked_s: Total time that the source blocked while finished outputs waited for it;
            `in_thread` lets them leave meanwhile.
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
    restored: int = 0
    backup_path: str = ""
    source_blocked_s: float = 0.0

    @property
    def records_per_s(self) -> float:
        """Records delivered by this run per second of wall time."""
        return (self.records - self.restored) / self.seconds if self.seconds else 0.0
