"""Telling in one sentence why a job waits: the reason that matters most."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.engine.job_progress import seconds
from pyrmute_tasks.jobs.driver import SILENT_S, Driver
from pyrmute_tasks.jobs.entries import Note
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.want import Want, unknown_wish
from pyrmute_tasks.service.logged_job import LoggedStatus
from pyrmute_tasks.service.neighbours import Neighbours
from pyrmute_tasks.service.turns import by_whom, suspension_s

__all__ = ["Waiting", "reason_of"]

_UNTAKEN_S: Final = 5.0  # a coordinator looks at its jobs about once a second
_ASIDE: Final = (LoggedState.QUEUED, LoggedState.STOPPED)
_WISHED: Final[Mapping[Wish, tuple[str, str]]] = MappingProxyType(
    {
        Wish.PAUSE: ("paused", "being paused"),
        Wish.CANCEL: ("being cancelled", "being cancelled"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The facts that tell why a job waits.

    Attributes:
        clock: The time, in seconds since 1970.
        job: The job's id.
        logged: What its log tells.
        want: Users' wishes.
        want_problem: Why they may be out of date; empty if they are not.
        after: Id of the job that must have succeeded first; empty for none.
        queue: The queue of its workers; empty for any.
        driver: Who drives it; None if nobody does.
        waits: Why nothing moves, as its driver tells.
        neighbours: The jobs beside it; None for a run in the foreground.
    """

    clock: float
    job: str
    logged: LoggedStatus
    want: Want = field(default_factory=Want)
    want_problem: str = ""
    after: str = ""
    queue: str = ""
    driver: Driver | None = None
    waits: str = ""
    neighbours: Neighbours | None = None

    @property
    def next_try_at(self) -> float:
        """When a suspended job is tried again, in seconds since 1970; 0 if not known."""
        if self.logged.let_go is not Note.SUSPENDED or not self.logged.suspensions:
            return 0.0
        return self.logged.changed_at + suspension_s(self.logged.suspensions)

    @property
    def untended(self) -> str:
        """The sentence that no coordinator drives such jobs; empty if one may."""
        if self.neighbours is None:
            return ""
        return self.neighbours.without_coordinator(self.job, self.queue)


def reason_of(waiting: Waiting) -> str:
    """Return why a job waits, or has ended; empty if there is nothing to say."""
    logged = waiting.logged
    if logged.ended is not None:
        return logged.ended.why
    reasons = [_wished(waiting), _trouble(waiting)]
    if any(reasons):
        return "; ".join(filter(None, reasons))
    match logged.state:
        case LoggedState.QUEUED:
            return _queued(waiting)
        case LoggedState.STOPPED:
            return _stopped(waiting)
        case LoggedState.PUBLISHING:
            return waiting.waits or "its output is being published"
    return waiting.waits


def _wished(waiting: Waiting) -> str:
    """Return who wants it to stop, and why, or why that is not known; empty if nobody does."""
    want = waiting.want
    is_aside = waiting.logged.state in _ASIDE and waiting.driver is None
    if want.wish not in _WISHED and waiting.want_problem and is_aside:
        return unknown_wish(waiting.want_problem)
    if want.wish not in _WISHED or waiting.logged.state is LoggedState.PUBLISHING:
        return ""
    aside, driven = _WISHED[want.wish]
    told = by_whom(aside if is_aside else driven, want)
    untended = waiting.untended if is_aside and want.wish is Wish.CANCEL else ""
    return f"{told}; {untended}" if untended else told


def _trouble(waiting: Waiting) -> str:
    """Return what is wrong with its driver; empty if nothing is."""
    driver = waiting.driver
    if driver is None:
        return ""
    is_submitted = waiting.neighbours is not None
    what = "coordinator" if is_submitted else "run"
    if driver.is_gone:
        follows = "another one takes over" if is_submitted else "--resume goes on with it"
        follows = waiting.untended or follows
        return f"its {what} (process {driver.pid} on host {driver.host}) has ended; {follows}"
    if not driver.is_silent:
        return ""
    told = f"its {what} on host {driver.host} has been silent for {seconds(driver.silent_s)}"
    if not is_submitted:
        return told
    when = f"after {SILENT_S:.0f} s" if driver.silent_s < SILENT_S else "now"
    return f"{told}; {waiting.untended or f'another one takes over {when}'}"


def _queued(waiting: Waiting) -> str:
    if waiting.neighbours is None:
        return ""
    after = waiting.neighbours.waits_for(waiting.after)
    if after:
        return "; ".join(filter(None, [after, waiting.untended]))
    return _untaken(waiting, waiting.neighbours, "no coordinator has taken it yet")


def _stopped(waiting: Waiting) -> str:
    logged = waiting.logged
    is_new = waiting.want.is_pending(logged.wished, logged.changed_at)
    if logged.let_go is Note.HELD and not is_new:
        return f"{logged.stopped}; `pyrmute-tasks publish {waiting.job}` publishes it"
    if waiting.neighbours is None:
        return logged.stopped
    if logged.let_go is Note.SUSPENDED:
        if waiting.untended:
            return f"{waiting.untended}; it was suspended: {logged.stopped}"
        return f"{logged.stopped}; {_next_try(waiting)}"
    stopped = logged.stopped
    if waiting.want.at > logged.changed_at:
        is_published = logged.let_go is Note.HELD and waiting.want.wish is Wish.PUBLISH
        stopped = by_whom("to be published" if is_published else "resumed", waiting.want)
    since_s = waiting.clock - max(logged.changed_at, waiting.want.at)
    if waiting.untended:
        return f"{stopped}; {waiting.untended}"
    if since_s < _UNTAKEN_S:
        return stopped
    untaken = f"no coordinator has taken it for {seconds(since_s)}"
    return f"{stopped}; {_untaken(waiting, waiting.neighbours, untaken)}"


def _untaken(waiting: Waiting, neighbours: Neighbours, told: str) -> str:
    if waiting.untended:
        return waiting.untended
    driven = neighbours.driven(waiting.job)
    if driven:
        are = "another job is" if driven == 1 else f"{driven:,} other jobs are"
        return f"it waits for its turn: {are} being driven"
    return f"{told}: is one running with --jobs {neighbours.root}?"


def _next_try(waiting: Waiting) -> str:
    number = waiting.logged.suspensions
    if not number:  # who lists jobs does not read their whole logs
        return "it is tried again"
    left_s = waiting.next_try_at - waiting.clock
    if left_s <= 0:
        return "it goes on as soon as a coordinator finds it over"
    times = "" if number == 1 else f" (suspended {number:,} times)"
    return f"it is tried again in {seconds(left_s + 0.999)}{times}"
