"""The states of a job by its log, and their names for people.

`LoggedState` follows from the log alone. ``want.json`` holds a user's wish; where the two differ,
`shown` derives the state to show: "pausing" is running while a pause is wanted.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.errors import JobLogError

__all__ = ["Event", "LoggedState", "ShownState", "Wish", "next_state", "shown"]


class LoggedState(enum.StrEnum):
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
        return self.is_final or self is LoggedState.FAILED

    @property
    def is_driven(self) -> bool:
        """Whether a process drives the job, unless it has died."""
        return self in (LoggedState.RUNNING, LoggedState.PUBLISHING)


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


_NEXT: Final[Mapping[LoggedState, Mapping[Event, LoggedState]]] = MappingProxyType(
    {
        # Created; no log yet.
        LoggedState.QUEUED: {Event.OPENED: LoggedState.RUNNING},
        # Somebody drives it. Opened again: its driver died, and the next one took over.
        LoggedState.RUNNING: {
            Event.OPENED: LoggedState.RUNNING,
            Event.SETTLED: LoggedState.RUNNING,
            Event.NOTED: LoggedState.RUNNING,
            Event.STOPPED: LoggedState.STOPPED,
            Event.GONE: LoggedState.STOPPED,
            Event.PUBLISHING: LoggedState.PUBLISHING,
            Event.FAILED: LoggedState.FAILED,
            Event.CANCELLED: LoggedState.CANCELLED,
        },
        # Nobody drives it: paused, interrupted, held, or its driver is gone.
        LoggedState.STOPPED: {Event.OPENED: LoggedState.RUNNING, Event.GONE: LoggedState.STOPPED},
        # The proof is done, and the target is replaced at any moment: too late to cancel.
        # Another process that takes over runs, finds nothing to plan, and publishes again.
        LoggedState.PUBLISHING: {
            Event.OPENED: LoggedState.RUNNING,
            Event.NOTED: LoggedState.PUBLISHING,
            Event.STOPPED: LoggedState.STOPPED,
            Event.GONE: LoggedState.STOPPED,
            Event.PUBLISHING: LoggedState.PUBLISHING,
            Event.SUCCEEDED: LoggedState.SUCCEEDED,
            Event.SUCCEEDED_WITH_REJECTS: LoggedState.SUCCEEDED_WITH_REJECTS,
            Event.FAILED: LoggedState.FAILED,
        },
        # Published. A retry is a job of its own.
        LoggedState.SUCCEEDED: {},
        LoggedState.SUCCEEDED_WITH_REJECTS: {},
        # Data or code failed it. With these mended it goes on: what is settled stays settled.
        LoggedState.FAILED: {Event.OPENED: LoggedState.RUNNING},
        # Somebody wanted it to end.
        LoggedState.CANCELLED: {},
    }
)


def next_state(state: LoggedState, event: Event) -> LoggedState:
    """Return the state after an event.

    Raises:
        JobLogError: If that cannot happen in this state.
    """
    found = _NEXT[state].get(event)
    if found is None:
        raise JobLogError(f"a job that is {state} does not allow the event: {event}")
    return found


class Wish(enum.StrEnum):
    """An action on a job that a user asks for."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"
    PUBLISH = "publish"


class ShownState(enum.StrEnum):
    """The state of a job as shown to people."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    HELD = "held"
    CANCELLING = "cancelling"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_REJECTS = "succeeded with rejects"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Where a wish differs from the logged state; otherwise that state is shown.
_DIFFERING: Final[Mapping[tuple[LoggedState, Wish], ShownState]] = MappingProxyType(
    {
        (LoggedState.QUEUED, Wish.PAUSE): ShownState.PAUSED,
        (LoggedState.QUEUED, Wish.CANCEL): ShownState.CANCELLING,
        (LoggedState.RUNNING, Wish.PAUSE): ShownState.PAUSING,
        (LoggedState.RUNNING, Wish.CANCEL): ShownState.CANCELLING,
        (LoggedState.STOPPED, Wish.PAUSE): ShownState.PAUSED,
        (LoggedState.STOPPED, Wish.CANCEL): ShownState.CANCELLING,
    }
)


def shown(
    state: LoggedState, wish: Wish, waits: str = "", *, is_suspended: bool = False
) -> ShownState:
    """Return the state to show.

    Args:
        state: The state by the log.
        wish: The user's wish.
        waits: Why the job waits; empty if it does not.
        is_suspended: Whether a fault of infrastructure has stopped it.
    """
    if wish in (Wish.RUN, Wish.PUBLISH):
        if state is LoggedState.RUNNING and waits:
            return ShownState.WAITING
        if state is LoggedState.STOPPED and is_suspended:
            return ShownState.SUSPENDED
    return _DIFFERING.get((state, wish), ShownState(state.value))
