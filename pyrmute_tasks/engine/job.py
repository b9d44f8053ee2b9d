"""A job: what a person submits, watches and trusts.

`JobSpec` says what a job is and travels to the workers; `JobTally` counts what happens to
it; `JobReport` is what remains when it has ended.
"""

import enum
import secrets
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
from pyrmute_tasks.errors import FrameError, JobError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.wire.frames import Compression, FrameKind, pack, unpack

__all__ = ["Fence", "JobReport", "JobSpec", "JobState", "JobTally", "new_job_id"]

_ID_BYTES: Final = 4
_UNIQUE_ID_BYTES: Final = 8


def new_job_id(*, unique: bool = False) -> str:
    """Return a fresh job id: eight hex digits, short enough to read aloud.

    Args:
        unique: Return 16 digits. What is signed for one job then never fits another.
    """
    return secrets.token_hex(_UNIQUE_ID_BYTES if unique else _ID_BYTES)


class Fence(enum.StrEnum):
    """What a worker does whose migrations differ from the producer's."""

    REJECT = "reject"  # it declines, and the chunk goes to another worker
    WARN = "warn"  # it says so once a job and migrates


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What every chunk of a job has in common.

    Attributes:
        id: The job's id.
        name: The model's name.
        from_version: Version of the records that go in.
        to_version: Version of those that come out.
        kind: How records travel. Lines come back validated, objects as migrated data.
        fingerprint: The producer's plan, as `MigrationPlan.fingerprint` has it.
        count_hooks: Count for the producer's `MetricsHook`.
        fence: What workers do that hold other migrations.
        retry: Which steps are run again, if any.
        compression: How workers compress outputs.
    """

    id: str
    name: str
    from_version: str
    to_version: str
    kind: FrameKind
    fingerprint: str
    count_hooks: bool = False
    fence: Fence = Fence.REJECT
    retry: Retry | None = None
    compression: Compression = Compression.NONE

    def __str__(self) -> str:
        return f"{self.name} {self.from_version}→{self.to_version} · job {self.id}"

    def to_wire(self) -> bytes:
        """Return the spec as bytes for the store."""
        return pack(
            [
                self.id,
                self.name,
                self.from_version,
                self.to_version,
                int(self.kind),
                self.fingerprint,
                self.count_hooks,
                self.fence.value,
                self.retry.to_wire() if self.retry else None,
                int(self.compression),
            ]
        )

    @classmethod
    def from_wire(cls, data: bytes) -> "JobSpec":
        """Read what `to_wire` wrote.

        Raises:
            FrameError: If it is something else.
        """
        try:
            job_id, name, first, last, kind, fingerprint, count, fence, retry, how = unpack(data)
            return cls(
                job_id,
                name,
                first,
                last,
                FrameKind(kind),
                fingerprint,
                count,
                Fence(fence),
                Retry.from_wire(retry) if retry is not None else None,
                Compression(how),
            )
        except (TypeError, ValueError) as error:
            raise FrameError(f"a job's spec is damaged ({type(error).__name__})") from None


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
