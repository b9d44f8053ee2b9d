"""What happens during a job, as frozen records, and who may listen.

Observers are told, never asked: an observer that raises is dropped for the rest of the job
and cannot hurt it.
"""

import logging
from dataclasses import dataclass
from typing import Protocol, TypeAlias

__all__ = [
    "ChunkDelivered",
    "ChunkDiscarded",
    "ChunkSettled",
    "ChunkSubmitted",
    "Event",
    "Observer",
    "Observers",
    "SlotsChanged",
]


@dataclass(frozen=True, slots=True)
class ChunkSubmitted:
    """A chunk entered the window and was handed to the executor."""

    chunk: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class ChunkSettled:
    """The first outcome of a chunk arrived; it may still wait for its turn."""

    chunk: int
    count: int
    seconds: float
    worker: str
    failed: bool


@dataclass(frozen=True, slots=True)
class ChunkDelivered:
    """A chunk's outputs left, in order, and its slot in the window is free.

    Attributes:
        chunk: The chunk's index.
        count: Outputs delivered.
        size_bytes: Size of the chunk's input, as the window counted it; 0 if it ended in a
            failure.
    """

    chunk: int
    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkDiscarded:
    """A chunk was submitted in vain: a chunk before it failed.

    Attributes:
        chunk: The chunk's index.
        count: Its records.
        ran: Its outcome had arrived already. Otherwise it was cancelled, and may or may
            not have begun.
    """

    chunk: int
    count: int
    ran: bool


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """The executor runs another number of chunks at a time; told before the first chunk, too."""

    slots: int


Event: TypeAlias = ChunkSubmitted | ChunkSettled | ChunkDelivered | ChunkDiscarded | SlotsChanged


class Observer(Protocol):
    """Anything that wants to be told what happens."""

    def __call__(self, event: Event, /) -> None:
        """Take notice of `event`; must not block."""


class Observers:
    """Tells each event to every observer, and drops those that raise."""

    def __init__(self, observers: tuple[Observer, ...] = ()) -> None:
        self._observers = list(observers)

    def __call__(self, event: Event, /) -> None:
        """Tell `event` to all of them."""
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:
                self._observers.remove(observer)
                logging.getLogger(__name__).exception(
                    "an observer raised and is no longer told", extra={"action": "observer_dropped"}
                )
