"""The view of a job by its log, entry by entry: its state, its settled ranges, its end."""

from collections.abc import Iterable, Mapping
from typing import Self

from pyrmute_tasks.errors import JobLogError
from pyrmute_tasks.jobs.entries import (
    Ended,
    Entry,
    JobResult,
    Leased,
    Logged,
    Note,
    Noted,
    Opened,
    Publishing,
    Settled,
    Wished,
)
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.states import Event, LoggedState, Wish, next_state

__all__ = ["JobView"]


class JobView:
    """A job by its log.

    Attributes:
        state: Its state; whether its driver still lives is not in the log.
        fold: Its settled ranges.
        epoch: The newest epoch that was opened; 0 before the first.
        leased: The holder of the lease.
        opened: Its `open` entry.
        publishing: The latest publishing entry, of any epoch.
        ended: How it ended, unless it was taken up again.
        waits: Why it waits; empty if it does not.
        let_go: How its driver let go; None if it did not.
        stopped: Why it did.
        suspensions: How often faults of infrastructure have stopped it since a range was settled.
        suspended_since: When the first of these did, in seconds since 1970; 0 if none did.
        wished: The wish that was obeyed last; empty before the first.
        is_to_publish: Whether a user has wished to publish it since it was held last.
        crashes: Crashes noted.
        changed_at: When the last entry was written.
    """

    def __init__(self) -> None:
        self.state: LoggedState = LoggedState.QUEUED
        self.fold: Fold = Fold()
        self.epoch: int = 0
        self.leased: Leased | None = None
        self.opened: Opened | None = None
        self.publishing: Publishing | None = None
        self.ended: Ended | None = None
        self.waits: str = ""
        self.let_go: Note | None = None
        self.stopped: str = ""
        self.suspensions: int = 0
        self.suspended_since: float = 0.0
        self.wished: Mapping[str, object] = {}
        self.is_to_publish: bool = False
        self.crashes: int = 0
        self.changed_at: float = 0.0
        self._leasing: Leased | None = None

    @classmethod
    def of(cls, entries: Iterable[Logged]) -> Self:
        """Return the view of a log.

        Raises:
            JobLogError: If its entries contradict each other.
        """
        view = cls()
        for logged in entries:
            view.read(logged)
        return view

    @property
    def is_held(self) -> bool:
        """Whether it waits, proven, to be published."""
        return self.let_go is Note.HELD

    @property
    def is_suspended(self) -> bool:
        """Whether a fault of infrastructure has stopped it last."""
        return self.let_go is Note.SUSPENDED

    def read(self, logged: Logged) -> None:
        """Apply one more entry that was read from a log, with its time.

        Raises:
            JobLogError: If it contradicts those before it.
        """
        try:
            self.apply(logged.entry)
        except JobLogError as error:
            error.add_note(f"in log.{logged.epoch} at byte {logged.offset}")
            raise
        self.changed_at = logged.at
        if self.suspensions and not self.suspended_since:
            self.suspended_since = logged.at

    def apply(self, entry: Entry) -> None:
        """Apply one more entry.

        Raises:
            JobLogError: If it contradicts those before it, which then are all that counts.
        """
        if isinstance(entry, Settled):  # nearly all are
            next_state(self.state, Event.SETTLED)
            self.fold.add(entry)
            self.suspensions, self.suspended_since = 0, 0.0
        elif isinstance(entry, Leased):
            self._leasing = entry
        else:
            self.state = next_state(self.state, _event_of(entry))
            self._note(entry)

    def _note(self, entry: Opened | Noted | Wished | Publishing | Ended) -> None:
        match entry:
            case Opened():
                self.epoch, self.opened, self.leased = entry.epoch, entry, self._leasing
                self.ended = None
                self.waits = self.stopped = ""
                self.let_go = None
            case Noted(note=note, why=why):
                self._noted(note, why)
            case Wished():
                self.wished = entry.want
                self.is_to_publish |= entry.want.get("wish") == Wish.PUBLISH
                self.suspensions, self.suspended_since = 0, 0.0  # a user has looked after it
            case Publishing():
                self.publishing = entry
            case Ended():
                self.ended = entry
                self.suspensions, self.suspended_since = 0, 0.0

    def _noted(self, note: Note, why: str) -> None:
        match note:
            case Note.WAIT:
                self.waits = why
            case Note.RESUMED:
                self.waits = ""
            case Note.CRASH:
                self.crashes += 1
            case Note.STOPPED | Note.SUSPENDED | Note.HELD:
                self.let_go, self.stopped = note, why
                self.suspensions += self.is_suspended
                self.is_to_publish &= not self.is_held


def _event_of(entry: Opened | Noted | Wished | Publishing | Ended) -> Event:
    match entry:
        case Opened():
            return Event.OPENED
        case Noted(note=note):
            return Event.STOPPED if note.lets_go else Event.NOTED
        case Wished():
            return Event.NOTED
        case Publishing():
            return Event.PUBLISHING
        case Ended(result=result):
            return _ENDS[result]


_ENDS = {
    JobResult.SUCCEEDED: Event.SUCCEEDED,
    JobResult.SUCCEEDED_WITH_REJECTS: Event.SUCCEEDED_WITH_REJECTS,
    JobResult.FAILED: Event.FAILED,
    JobResult.CANCELLED: Event.CANCELLED,
}
