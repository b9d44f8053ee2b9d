"""Whose turn it is, by tables of cases."""

from dataclasses import replace
from typing import Any

import pytest

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
)
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.terms import Priority, Terms
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import Want
from pyrmute_tasks.service.turns import (
    Act,
    Facts,
    FleetFacts,
    Kind,
    Turn,
    decide,
    ending_of,
    suspension_s,
)

NOW = 1000.0
CAN = FleetFacts("q", "")
CANNOT = FleetFacts("q", "no worker answers")
UNKNOWN = FleetFacts("q", None)
SUBMITTED = Want(who="ann@here", at=10.0)
TAKEN: tuple[Entry, ...] = (Leased(1, "t", {}), Opened(1, "code", {}), SUBMITTED.as_entry())
STOPPED = (*TAKEN, Noted(Note.STOPPED, "its turn is over"))
SUSPENDED = (*TAKEN, Noted(Note.SUSPENDED, "no workers"))
HELD = (*TAKEN, Noted(Note.HELD, "it is held"))
FAILED = (*TAKEN, Ended(JobResult.FAILED, 1, 1, 0, "a step"))
DONE = (*TAKEN, Publishing(1, "", ""), Ended(JobResult.SUCCEEDED, 1, 1, 0))
PUBLISHING = (*TAKEN, Publishing(1, "", ""))
DAY = Terms(queue="q", give_up_s=900)


def view(*entries: Entry, at: float = 900.0) -> JobView:
    return JobView.of(Logged(1, 0, 1, at, entry) for entry in entries)


def facts(*entries: Entry, at: float = 900.0, **changes: Any) -> Facts:
    base = Facts(view=view(*entries, at=at), terms=Terms(queue="q"), want=SUBMITTED)
    return replace(base, **changes)


def wish(action: Wish, at: float = 950.0) -> Want:
    return Want(action, who="bob@there", why="because", at=at)


@pytest.mark.parametrize(
    ("known", "fleet", "act", "why"),
    [
        # What nothing holds back.
        (facts(), CAN, Act.DRIVE, ""),
        (facts(*STOPPED), CAN, Act.DRIVE, ""),
        (facts(*TAKEN), CAN, Act.DRIVE, ""),  # its driver is gone
        (facts(*PUBLISHING), CAN, Act.DRIVE, ""),
        (facts(*TAKEN, driven="process 7 drives it"), CAN, Act.WAIT, "process 7 drives it"),
        (facts(*DONE), CAN, Act.LEAVE, ""),
        (facts(terms=Terms(queue="other")), CAN, Act.WAIT, "of queue 'other'"),
        # The fleet.
        (facts(), UNKNOWN, Act.WAIT, "looked at"),
        (facts(), CANNOT, Act.SUSPEND, "no worker answers"),
        (facts(*STOPPED), CANNOT, Act.SUSPEND, "no worker answers"),
        (facts(*SUSPENDED), CANNOT, Act.WAIT, "no workers"),
        (facts(*SUSPENDED, at=NOW - 1.9), CAN, Act.WAIT, "no workers"),
        (facts(*SUSPENDED, at=NOW - 2.1), CAN, Act.DRIVE, ""),
        (facts(*SUSPENDED, at=NOW - 1, has_turned=True), CAN, Act.DRIVE, ""),
        (facts(*SUSPENDED, at=NOW + 500, seen_s=2.1), CAN, Act.DRIVE, ""),  # clocks differ
        (facts(*SUSPENDED, at=NOW - 1, want=wish(Wish.RUN, NOW)), CAN, Act.DRIVE, ""),
        (facts(*SUSPENDED, at=1.0, seen_s=60, terms=DAY), CAN, Act.GIVE_UP, "no workers"),
        (facts(*SUSPENDED, at=1.0, seen_s=60, terms=DAY), CANNOT, Act.GIVE_UP, "given up"),
        # Nobody has tried for long: no coordinator was there, or it was paused.
        (facts(*SUSPENDED, at=1.0, terms=DAY), CAN, Act.DRIVE, ""),
        (facts(*SUSPENDED, at=1.0, terms=DAY), CANNOT, Act.WAIT, "no workers"),
        (facts(*SUSPENDED, at=1.0, want=wish(Wish.RUN), seen_s=60, terms=DAY), CAN, Act.DRIVE, ""),
        # Wishes.
        (facts(want=wish(Wish.CANCEL)), CANNOT, Act.CANCEL, "cancelled by bob@there: because"),
        (facts(*SUSPENDED, want=wish(Wish.CANCEL)), CANNOT, Act.CANCEL, ""),
        (facts(*HELD, want=wish(Wish.CANCEL)), CAN, Act.CANCEL, ""),
        (facts(*TAKEN, want=wish(Wish.CANCEL)), CAN, Act.CANCEL, ""),
        (facts(*FAILED, want=wish(Wish.CANCEL)), CAN, Act.CANCEL, ""),
        (facts(*PUBLISHING, want=wish(Wish.CANCEL)), CAN, Act.DRIVE, ""),
        (facts(*DONE, want=wish(Wish.CANCEL)), CAN, Act.LEAVE, ""),
        (facts(want=wish(Wish.PAUSE)), CAN, Act.WAIT, "paused by bob@there: because"),
        (facts(*STOPPED, want=wish(Wish.PAUSE)), CAN, Act.WAIT, "paused"),
        (facts(*TAKEN, want=wish(Wish.PAUSE)), CAN, Act.PAUSE, "paused"),
        (facts(*PUBLISHING, want=wish(Wish.PAUSE)), CANNOT, Act.PAUSE, "paused"),
        (facts(*FAILED), CAN, Act.WAIT, "failed"),
        (facts(*FAILED, want=wish(Wish.RUN)), CAN, Act.DRIVE, ""),
        (facts(*FAILED, want=wish(Wish.RUN, 899.0)), CAN, Act.WAIT, "failed"),
        (facts(*FAILED, want=wish(Wish.PAUSE)), CAN, Act.WAIT, "failed"),
        # A wish of the last moments of an epoch, which it did not see.
        (facts(*FAILED, want=wish(Wish.CANCEL, 899.0)), CAN, Act.CANCEL, "cancelled by bob"),
        (facts(*FAILED, want=wish(Wish.PAUSE, 899.0)), CAN, Act.WAIT, "failed"),
        (facts(*FAILED, want=replace(SUBMITTED, max_errors="9")), CAN, Act.DRIVE, ""),
        (facts(*HELD, want=wish(Wish.PUBLISH, 899.0)), CAN, Act.DRIVE, ""),
        (facts(*HELD, want=wish(Wish.RUN, 899.0)), CAN, Act.WAIT, "it is held"),
        (facts(*HELD), CAN, Act.WAIT, "it is held"),
        (facts(*HELD, want=wish(Wish.PUBLISH)), CAN, Act.DRIVE, ""),
        (facts(*HELD, want=wish(Wish.RUN)), CAN, Act.DRIVE, ""),
        # Other jobs.
        (facts(terms=Terms(after="b")), CAN, Act.WAIT, "after job b, which has not ended"),
        (facts(terms=Terms(after="b"), before=JobResult.FAILED), CAN, Act.WAIT, "is failed"),
        (facts(terms=Terms(after="b"), before=JobResult.SUCCEEDED), CAN, Act.DRIVE, ""),
        (
            facts(terms=Terms(after="b"), before=JobResult.SUCCEEDED_WITH_REJECTS),
            CAN,
            Act.DRIVE,
            "",
        ),
        (facts(terms=Terms(after="b"), want=wish(Wish.CANCEL)), CAN, Act.CANCEL, ""),
    ],
)
def test_decision_about_a_job(known: Facts, fleet: FleetFacts, act: Act, why: str) -> None:
    turn = decide(known, fleet, NOW)
    assert turn.act is act
    assert why in turn.why


def test_wish_that_was_obeyed_is_not_obeyed_again() -> None:
    again = wish(Wish.RUN, 950.0)
    entries = (*TAKEN, again.as_entry(), Ended(JobResult.FAILED, 0, 0, 0))
    assert decide(facts(*entries, want=again), CAN, NOW).act is Act.WAIT
    assert decide(facts(*entries, want=replace(again, at=960.0)), CAN, NOW).act is Act.DRIVE


def test_order_is_by_age_less_a_lead_for_the_priority() -> None:
    def order(age_s: float, priority: Priority) -> float:
        terms = Terms(queue="q", priority=priority)
        return decide(facts(terms=terms, created_at=NOW - age_s), CAN, NOW).order

    normal = order(0, Priority.NORMAL)
    assert order(0, Priority.HIGH) < order(599, Priority.NORMAL) < normal
    assert normal < order(0, Priority.LOW) < order(0, Priority.NORMAL) + 601
    assert order(1201, Priority.LOW) < order(0, Priority.HIGH)  # none starves
    let_go = decide(facts(*STOPPED, at=990.0, created_at=1.0), CAN, NOW)
    assert let_go == Turn(Act.DRIVE, order=990.0)


def test_suspensions_grow_and_begin_again_once_something_is_settled() -> None:
    assert [suspension_s(count) for count in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]
    assert suspension_s(100_000) == 60
    one = Noted(Note.SUSPENDED, "away")
    leased: list[Entry] = [Leased(2, "t", {}), Opened(2, "code", {})]
    twice = view(*TAKEN, one, *leased, one)
    assert (twice.suspensions, twice.suspended_since, twice.is_suspended) == (2, 900.0, True)
    settled = view(*TAKEN, one, *leased, Settled(0, 0, 9, 0, 0), one)
    assert settled.suspensions == 1
    ended = view(*TAKEN, one, *leased, Ended(JobResult.FAILED, 0, 0, 0), *leased, one)
    assert ended.suspensions == 1


@pytest.mark.parametrize(
    ("now", "kind", "why"),
    [
        ({}, None, ""),
        ({"who": "bob", "why": "again", "at": 5.0}, None, ""),
        ({"wish": Wish.PAUSE}, Kind.PAUSED, "paused"),
        ({"wish": Wish.CANCEL, "who": "bob"}, Kind.CANCELLED, "cancelled by bob"),
        ({"max_rate": 5.0}, Kind.CHANGED, "max_rate changed"),
        ({"max_rate": 5.0, "window": 3}, Kind.CHANGED, "max_rate and window changed"),
        ({"max_errors": "1%"}, Kind.CHANGED, "max_errors changed"),
        ({"fingerprint": "ab"}, Kind.CHANGED, "fingerprint changed"),
        ({"wish": Wish.PUBLISH, "who": "bob"}, Kind.CHANGED, "published by bob"),
    ],
)
def test_wish_that_ends_an_epoch(now: dict[str, Any], kind: Kind | None, why: str) -> None:
    ending = ending_of(Want(), replace(Want(), **now), view(*TAKEN))
    assert (ending.kind if ending is not None else None) is kind
    if ending is not None:
        assert ending.why == why


def test_publish_with_which_an_epoch_began_does_not_end_it() -> None:
    assert ending_of(Want(Wish.PUBLISH), Want(Wish.PUBLISH, who="bob"), view(*TAKEN)) is None


def test_what_publishes_is_not_cancelled() -> None:
    assert ending_of(Want(), Want(Wish.CANCEL), view(*PUBLISHING)) is None


def test_job_that_was_tried_at_the_last_is_given_up_at_once() -> None:
    tried = view(*SUSPENDED, at=1.0)
    for entry in (Leased(2, "u", {}), Opened(2, "code", {}), Noted(Note.SUSPENDED, "no workers")):
        tried.read(Logged(2, 0, 1, 950.0, entry))
    assert decide(facts(view=tried, terms=DAY), CAN, NOW).act is Act.GIVE_UP


def test_time_of_suspension_begins_anew_when_a_user_has_looked_after_it() -> None:
    resumed = view(*SUSPENDED, at=1.0)
    want = wish(Wish.RUN)
    for entry in (Leased(2, "u", {}), Opened(2, "code", {}), want.as_entry()):
        resumed.read(Logged(2, 0, 1, 951.0, entry))
    resumed.read(Logged(2, 0, 1, 960.0, Noted(Note.SUSPENDED, "no workers")))
    assert decide(facts(view=resumed, want=want, seen_s=60, terms=DAY), CAN, NOW).act is Act.DRIVE
