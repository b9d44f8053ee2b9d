"""Whose turn it is: which jobs of a jobs root are due, why others wait, and what ends an epoch.

Pure: the files' contents and the clocks are arguments; see
``docs/decisions/0035-submitted-jobs.md``.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.jobs.entries import JobResult
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.terms import Priority, Terms
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import CHANGES, Want, unknown_wish

__all__ = [
    "WEIGHTS",
    "Act",
    "Ending",
    "Facts",
    "FleetFacts",
    "Kind",
    "Turn",
    "by_whom",
    "decide",
    "ending_of",
    "suspension_s",
]

WEIGHTS: Final[Mapping[Priority, float]] = MappingProxyType(
    {Priority.LOW: 0.5, Priority.NORMAL: 1.0, Priority.HIGH: 2.0}
)
"""The share of the fleet's window that a job of a priority has, compared with a normal one."""

_LEAD_S: Final[Mapping[Priority, float]] = MappingProxyType(
    {Priority.LOW: -600.0, Priority.NORMAL: 0.0, Priority.HIGH: 600.0}
)
_FIRST_WAIT_S: Final = 2.0
_MOST_WAIT_S: Final = 60.0
_MOST_DOUBLINGS: Final = 10


class Act(enum.Enum):
    """What a coordinator does with a job."""

    DRIVE = "drive"
    CANCEL = "end it, as its user wishes"
    PAUSE = "note that it is paused: its driver died before it could"
    SUSPEND = "note that there is no fleet for it"
    GIVE_UP = "end it, as it was suspended for too long"
    RUN_COMMAND = "run the command for its end, which its driver did not"
    WAIT = "leave it for now"
    LEAVE = "leave it for good"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a job.

    Attributes:
        view: The job by its log.
        terms: Its terms.
        want: What its users want.
        want_problem: Why they may want something else, which cannot be read; empty if it can.
        created_at: When it was submitted, in seconds since 1970.
        driven: Who drives it, so that it must not be taken over; empty if nobody does.
        seen_s: For how long this coordinator has seen it as it is.
        has_turned: Whether the fleet has come back, or has got other workers, since then.
        before: How the job has ended after which this one runs; None if it has not.
    """

    view: JobView
    terms: Terms
    want: Want
    want_problem: str = ""
    created_at: float = 0.0
    driven: str = ""
    seen_s: float = 0.0
    has_turned: bool = False
    before: JobResult | None = None


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """What is known of a fleet.

    Attributes:
        queue: Its queue.
        trouble: Why it can run nothing; empty if it can, None if nobody has looked yet.
    """

    queue: str
    trouble: str | None = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """The decision about a job.

    Attributes:
        act: What to do.
        why: Why it waits or ends, as a sentence for people.
        order: Jobs that are due are driven in this order, the least first.
    """

    act: Act
    why: str = ""
    order: float = field(default=0.0)


def suspension_s(suspensions: int) -> float:
    """Return how long a suspended job waits, by its suspensions since anything was settled."""
    return min(_MOST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(suspensions - 1, _MOST_DOUBLINGS))


def decide(facts: Facts, fleet: FleetFacts, now: float) -> Turn:
    """Decide what to do with a job.

    Args:
        facts: The job.
        fleet: The fleet.
        now: The time, in seconds since 1970.
    """
    view, terms, want = facts.view, facts.terms, facts.want
    if view.state.is_final:
        return Turn(Act.LEAVE)
    if terms.queue and terms.queue != fleet.queue:
        return Turn(Act.WAIT, f"it is for the coordinators of queue '{terms.queue}'")
    if facts.driven:
        return Turn(Act.WAIT, facts.driven)
    is_new = want.is_pending(view.wished, view.changed_at)
    wished = _as_wished(view, want, is_new=is_new)
    if wished is not None:
        return wished
    if facts.want_problem:  # they may have paused or cancelled it
        return Turn(Act.WAIT, unknown_wish(facts.want_problem))
    waits = _before(terms, facts.before)
    return Turn(Act.WAIT, waits) if waits else _when_due(facts, fleet, now, is_new=is_new)


def _as_wished(view: JobView, want: Want, *, is_new: bool) -> Turn | None:
    """Decide about a job that its users, or its end, keep from being driven."""
    if view.state is LoggedState.FAILED and not (is_new and want.wish is not Wish.PAUSE):
        return Turn(Act.WAIT, "it has failed")
    if want.wish is Wish.CANCEL and view.publishing is None:
        return Turn(Act.CANCEL, by_whom("cancelled", want))
    if want.wish is Wish.PAUSE:
        act = Act.PAUSE if view.state.is_driven else Act.WAIT
        return Turn(act, by_whom("paused", want))
    if view.is_held and not is_new:
        return Turn(Act.WAIT, view.stopped)
    return None


def _before(terms: Terms, before: JobResult | None) -> str:
    if not terms.after or (before is not None and before.is_success):
        return ""
    how = "has not ended yet" if before is None else f"is {before.value}"
    return f"it runs after job {terms.after}, which {how}"


def _when_due(facts: Facts, fleet: FleetFacts, now: float, *, is_new: bool) -> Turn:
    """Decide about a job that nothing holds back but the fleet."""
    view, terms = facts.view, facts.terms
    if view.is_suspended:
        for_s = now - view.suspended_since
        is_over = for_s > terms.give_up_s and not is_new
        was_tried = view.changed_at - view.suspended_since > terms.give_up_s
        if is_over and (was_tried or facts.seen_s >= min(_MOST_WAIT_S, terms.give_up_s)):
            why = f"given up after {for_s:,.0f} s of being suspended: {view.stopped}"
            return Turn(Act.GIVE_UP, why)
        wait_s = suspension_s(view.suspensions)
        # A job that nobody drove for days is tried at once, before it is given up.
        has_waited = now - view.changed_at >= wait_s or facts.seen_s >= wait_s
        if fleet.trouble != "" or not (is_new or facts.has_turned or has_waited):
            return Turn(Act.WAIT, view.stopped)
    if fleet.trouble is None:
        return Turn(Act.WAIT, "the fleet is looked at")
    if fleet.trouble:
        return Turn(Act.SUSPEND, fleet.trouble)
    let_go_at = view.changed_at or facts.created_at
    return Turn(Act.DRIVE, order=let_go_at - _LEAD_S[terms.priority])


# --- what ends an epoch ---------------------------------------------------------------------


class Kind(enum.Enum):
    """How an epoch ends."""

    PUBLISHED = "published"
    HELD = "held"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    CHANGED = "changed"
    TURN_OVER = "turn over"
    SUSPENDED = "suspended"
    LOST = "lost"

    @property
    def ends_job(self) -> bool:
        """Whether the job ends with the epoch."""
        return self in (Kind.PUBLISHED, Kind.FAILED, Kind.CANCELLED)


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an epoch.

    Attributes:
        kind: How it ends.
        why: Why, as a sentence for people.
        want: The wish that ended it; None if none did.
    """

    kind: Kind
    why: str = ""
    want: Want | None = None


def ending_of(before: Want, now: Want, view: JobView) -> Ending | None:
    """Return the end of an epoch that a changed wish asks for; None if it goes on.

    Args:
        before: The wish with which it began.
        now: The wish.
        view: The job by its log.
    """
    if now.wish is Wish.CANCEL:
        # Its output may be there already: too late.
        return None if view.publishing else Ending(Kind.CANCELLED, by_whom("cancelled", now), now)
    if now.wish is Wish.PAUSE:
        return Ending(Kind.PAUSED, by_whom("paused", now), now)
    if now.wish is Wish.PUBLISH and before.wish is not Wish.PUBLISH:
        # By hand, by a process that was killed: an epoch that began without it holds the output.
        return Ending(Kind.CHANGED, by_whom("published", now), now)
    changed = [name for name in CHANGES if getattr(before, name) != getattr(now, name)]
    if not changed:
        return None
    return Ending(Kind.CHANGED, by_whom(f"{' and '.join(changed)} changed", now), now)


def by_whom(what: str, want: Want) -> str:
    """Return a wish as a sentence: ``paused by ann@host: release freeze``."""
    by = f" by {want.who}" if want.who else ""
    return f"{what}{by}: {want.why}" if want.why else f"{what}{by}"
