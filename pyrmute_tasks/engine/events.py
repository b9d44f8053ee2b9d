"""Events of a job, and their observers.

An observer cannot affect the job: one that raises is dropped for the rest of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from pyrmute_tasks.engine.job_report import JobReport

__all__ = [
    "ChunkDelivered",
    "ChunkDiscarded",
    "ChunkSettled",
    "ChunkSubmitted",
    "Event",
    "JobEnded",
    "Observer",
    "Observers",
    "SlotsChanged",
    "SourceBlocked",
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
        worker: The worker; empty for this process.
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
    ChunkSubmitted
    | ChunkSettled
    | ChunkDelivered
    | ChunkDiscarded
    | SlotsChanged
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
