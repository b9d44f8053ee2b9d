"""The states of a job by its log, and their names for people.

`Observed` follows from the log alone. What is wanted stands in ``want.json``; where the two differ,
`shown` derives the state that people are told: "pausing" is running while a pause is wanted.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.errors import JobLogError

__all__ = ["Event", "Observed", "Shown", "Wish", "next_state", "shown"]


class Observed(enum.StrEnum):
    """The state of a job by its log."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_REJECTS = "succeeded with rejects"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the state is final."""
        return not _NEXT[self]

    @property
    def has_ended(self) -> bool:
        """Whether the log has an `end`; a failed job may still be resumed."""
        return self.is_final or self is Observed.FAILED


class Event(enum.StrEnum):
    """An event that changes a job's state: an entry of its log, or its writer's death."""

    OPENED = "an epoch was opened"
    SETTLED = "a range was settled"
    NOTED = "a crash, a wait or a wish was noted"
    STOPPED = "its driver let go"
    GONE = "its driver is gone"  # no entry: found out by looking at the holder
    PUBLISHING = "its output is about to appear"
    SUCCEEDED = "it succeeded"
    SUCCEEDED_WITH_REJECTS = "it succeeded with rejects"
    FAILED = "it failed"
    CANCELLED = "it was cancelled"


_NEXT: Final[Mapping[Observed, Mapping[Event, Observed]]] = MappingProxyType(
    {
        # Created; no log yet.
        Observed.QUEUED: {Event.OPENED: Observed.RUNNING},
        # Somebody drives it. Opened again: its driver died, and the next one took over.
        Observed.RUNNING: {
            Event.OPENED: Observed.RUNNING,
            Event.SETTLED: Observed.RUNNING,
            Event.NOTED: Observed.RUNNING,
            Event.STOPPED: Observed.STOPPED,
            Event.GONE: Observed.STOPPED,
            Event.PUBLISHING: Observed.PUBLISHING,
            Event.FAILED: Observed.FAILED,
            Event.CANCELLED: Observed.CANCELLED,
        },
        # Nobody drives it: paused, interrupted, held, or its driver is gone.
        Observed.STOPPED: {Event.OPENED: Observed.RUNNING, Event.GONE: Observed.STOPPED},
        # The proof is done, and the target is replaced at any moment: too late to cancel. Who
        # takes over runs, finds nothing to plan, and publishes again.
        Observed.PUBLISHING: {
            Event.OPENED: Observed.RUNNING,
            Event.NOTED: Observed.PUBLISHING,
            Event.STOPPED: Observed.STOPPED,
            Event.GONE: Observed.STOPPED,
            Event.PUBLISHING: Observed.PUBLISHING,
            Event.SUCCEEDED: Observed.SUCCEEDED,
            Event.SUCCEEDED_WITH_REJECTS: Observed.SUCCEEDED_WITH_REJECTS,
            Event.FAILED: Observed.FAILED,
        },
        # Published. A retry is a job of its own.
        Observed.SUCCEEDED: {},
        Observed.SUCCEEDED_WITH_REJECTS: {},
        # Data or code failed it. With these mended it goes on: what is settled stays settled.
        Observed.FAILED: {Event.OPENED: Observed.RUNNING},
        # Somebody wanted it to end.
        Observed.CANCELLED: {},
    }
)


def next_state(state: Observed, event: Event) -> Observed:
    """Return the state after an event.

    Raises:
        JobLogError: If that cannot happen in this state.
    """
    found = _NEXT[state].get(event)
    if found is None:
        raise JobLogError(f"a job that is {state} cannot go on with: {event}")
    return found


class Wish(enum.StrEnum):
    """An action on a job that a user asks for."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"
    PUBLISH = "publish"


class Shown(enum.StrEnum):
    """The state of a job as shown to people."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPED = "stopped"
    CANCELLING = "cancelling"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_REJECTS = "succeeded with rejects"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Where what is wanted differs from what is observed; everything else is shown as observed.
_DIFFERING: Final[Mapping[tuple[Observed, Wish], Shown]] = MappingProxyType(
    {
        (Observed.QUEUED, Wish.PAUSE): Shown.PAUSED,
        (Observed.QUEUED, Wish.CANCEL): Shown.CANCELLING,
        (Observed.RUNNING, Wish.PAUSE): Shown.PAUSING,
        (Observed.RUNNING, Wish.CANCEL): Shown.CANCELLING,
        (Observed.STOPPED, Wish.PAUSE): Shown.PAUSED,
        (Observed.STOPPED, Wish.CANCEL): Shown.CANCELLING,
    }
)


def shown(state: Observed, wish: Wish, waits: str = "") -> Shown:
    """Return the state to show.

    Args:
        state: The state by the log.
        wish: The user's wish.
        waits: Why the job waits; empty if it does not.
    """
    if state is Observed.RUNNING and wish in (Wish.RUN, Wish.PUBLISH) and waits:
        return Shown.WAITING
    return _DIFFERING.get((state, wish), Shown(state.value))
