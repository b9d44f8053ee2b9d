"""Events of a job, and their observers.

An observer cannot affect the job: one that raises is dropped for the rest of it.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from pyrmute_tasks.engine.job_report import JobReport

__all__ = [
    "ChunkDelivered",
    "ChunkDiscarded",
    "ChunkResent",
    "ChunkSettled",
    "ChunkSubmitted",
    "Event",
    "FleetSeen",
    "JobEnded",
    "Observer",
    "Observers",
    "RecordIsolated",
    "SlotsChanged",
    "SourceBlocked",
    "SourceOpened",
    "Wait",
    "WaitBegan",
    "WorkerDeclined",
    "WorkerGone",
]


@dataclass(frozen=True, slots=True)
class ChunkSubmitted:
    """A chunk entered the window and was handed to the executor.

    Attributes:
        chunk: The chunk's index.
        start: Index of its first record.
        count: Number of its records.
    """

    chunk: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class ChunkSettled:
    """A chunk's first outcome arrived; it may still wait for its turn.

    Attributes:
        chunk: The chunk's index.
        count: Number of its records.
        seconds: Time the work took, without waiting.
        worker: The worker; empty for this process, or an earlier run of the job.
        failed: Whether one of its records failed.
    """

    chunk: int
    count: int
    seconds: float
    worker: str
    failed: bool


@dataclass(frozen=True, slots=True)
class ChunkDelivered:
    """A chunk's outputs were delivered in order, and its window slot is free.

    Attributes:
        chunk: The chunk's index.
        count: Outputs delivered.
        size_bytes: Size of the chunk's input, for the window; 0 if it ended in a failure.
        rejected: Records skipped.
    """

    chunk: int
    count: int
    size_bytes: int
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class ChunkDiscarded:
    """A submitted chunk is no longer wanted, because an earlier one failed.

    Attributes:
        chunk: The chunk's index.
        count: Number of its records.
        ran: Whether its outcome had arrived. Otherwise it was cancelled, perhaps while running.
    """

    chunk: int
    count: int
    ran: bool


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """The executor's number of slots changed; also sent before the first chunk.

    Attributes:
        slots: Number of chunks that run at a time.
    """

    slots: int


class Wait(enum.StrEnum):
    """What a job waits for."""

    START = "start"  # of the fleet
    SOURCE = "source"
    WORKERS = "workers"
    OUTPUT = "output"  # the consumer of the outputs
    PACE = "pace"  # the greatest rate
    THROTTLE = "throttle"
    PUBLISH = "publish"  # the appearance of the output, once all is delivered


@dataclass(frozen=True, slots=True)
class WaitBegan:
    """The job waits for something else from now on, however briefly.

    Attributes:
        wait: What it waits for.
        reason: Why, if a throttle said so.
    """

    wait: Wait
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SourceOpened:
    """The source of a file's job is known; before its first chunk.

    Attributes:
        size_bytes: Its size; None if unknown.
        done_bytes: Read by earlier runs of the job.
        records: Delivered by them.
        rejected: Skipped by them.
        settled: Records that they have settled by reference; these are delivered again, at once,
            and count in none of the others.
    """

    size_bytes: int | None
    done_bytes: int = 0
    records: int = 0
    rejected: int = 0
    settled: int = 0


@dataclass(frozen=True, slots=True)
class FleetSeen:
    """A survey of the fleet has arrived; about once a second while chunks are under way.

    Attributes:
        workers: Workers that take chunks.
        trouble: Why nothing moves, in words; empty if nothing is wrong.
        since_s: For how long that has been so.
        detail: What is behind it, and what helps; may be empty.
    """

    workers: int
    trouble: str = ""
    since_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker that had begun a chunk is gone.

    Attributes:
        worker: Its name.
    """

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerDeclined:
    """A worker declines the job's chunks: it holds other code, or does not see the files.

    Attributes:
        worker: Its name.
        why: What it said.
    """

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class ChunkResent:
    """A chunk, or a part of one, is sent to the workers again.

    Attributes:
        chunk: The chunk's index.
        why: The reason, in words.
        in_halves: It is sent as two halves, to find the record at fault.
    """

    chunk: int
    why: str
    in_halves: bool = False


@dataclass(frozen=True, slots=True)
class RecordIsolated:
    """A record was found to end every process that runs it, and was skipped.

    Attributes:
        index: The record's index.
        source: Its place, as ``"flights.jsonl, line 7"``; empty if unknown.
        how: How the processes ended.
    """

    index: int
    source: str
    how: str


@dataclass(frozen=True, slots=True)
class SourceBlocked:
    """The source blocked for a second or more, while finished outputs waited for it to return.

    `in_thread` lets them leave meanwhile, if another thread may read the source.

    Attributes:
        seconds: How long it blocked.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job has ended, successfully or not; the last event.

    Attributes:
        report: The job's report; without the path of a partial output, which is kept later.
    """

    report: JobReport


Event: TypeAlias = (
    SourceOpened
    | ChunkSubmitted
    | ChunkSettled
    | ChunkDelivered
    | ChunkDiscarded
    | SlotsChanged
    | WaitBegan
    | FleetSeen
    | WorkerGone
    | WorkerDeclined
    | ChunkResent
    | RecordIsolated
    | SourceBlocked
    | JobEnded
)
"""An event of a job."""


class Observer(Protocol):
    """Anything called with a job's events."""

    def __call__(self, event: Event, /) -> None:
        """Handle `event`; must not block."""


class Observers:
    """Sends each event to every observer, and drops observers that raise."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Add an observer."""
        self._observers.append(observer)

    def __call__(self, event: Event, /) -> None:
        """Send `event` to all observers."""
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:
                # By identity: observers may equal each other, or raise when compared.
                self._observers = [each for each in self._observers if each is not observer]
                import logging  # batches of a `ModelManager` do without

                logging.getLogger(__name__).exception(
                    "an observer raised and was dropped", extra={"action": "observer_dropped"}
                )
