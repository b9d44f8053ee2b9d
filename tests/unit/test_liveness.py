"""The rules that end a job without progress, case by case, without a fleet."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from pyrmute_tasks.distributed.producer.liveness import (
    BrokerAway,
    Deadlines,
    Liveness,
    NoWorkers,
    OtherCode,
    Stall,
    Trouble,
    Verdict,
    View,
)
from pyrmute_tasks.distributed.protocol import ClaimInfo, WorkerInfo

JOB = "0123abcd"
LIMITS = Deadlines(
    stall_s=60.0, worker_wait_s=5.0, outage_s=30.0, code_wait_s=20.0, time_limit_s=100.0
)
LONG_S = 1000


def worker(*running: str, name: str = "w1", slots: int = 1) -> WorkerInfo:
    return WorkerInfo(name, slots, frozenset(running), 0.5)


def task(part: str, sends: int = 1) -> str:
    return f"{JOB}-{part}-{sends}"


def claim(part: str, age_s: float, *, by: str = "w1", at: int = 0) -> ClaimInfo:
    return ClaimInfo(by, task(part), age_s, at)


STILL = View(1, [worker()], {}, {"0": (task("0"), 1)}, JOB)
"""One task waits, one worker is idle, and nothing moves."""


def ends_after(views: Iterable[View]) -> tuple[float, Verdict | None]:
    """Show one view a second; return the time and the reason of the job's end."""
    liveness = Liveness(LIMITS)
    for second, view in enumerate(views):
        verdict = liveness.judge(float(second), view)
        if verdict is not None:
            return second, verdict
    return LONG_S, None


def always(view: View) -> list[View]:
    return [view] * LONG_S


@pytest.mark.parametrize(
    ("view", "seconds", "kind"),
    [
        pytest.param(STILL, 60, Stall, id="idle worker, task waits"),
        pytest.param(replace(STILL, waiting=0), 60, Stall, id="idle worker, task vanished"),
        pytest.param(replace(STILL, waiting=9), 60, Stall, id="others' tasks wait, none is taken"),
        pytest.param(replace(STILL, workers=[]), 5, NoWorkers, id="no worker"),
        pytest.param(
            replace(STILL, workers=[worker(slots=0)]), 5, NoWorkers, id="consumer is cancelled"
        ),
        pytest.param(
            replace(STILL, workers=[worker("other-1-1", slots=0)]),
            LONG_S,
            None,
            id="consumer is cancelled, but it still runs a chunk",
        ),
        pytest.param(
            replace(STILL, workers=[worker("other-1-1")]), LONG_S, None, id="busy with other jobs"
        ),
        pytest.param(
            replace(STILL, workers=[worker("other-1-1", name="w2"), worker()]),
            60,
            Stall,
            id="one is busy, one is idle",
        ),
        pytest.param(
            replace(STILL, workers=[worker(task("0"))]), 60, Stall, id="has it and never begins"
        ),
        pytest.param(replace(STILL, tasks={}), LONG_S, None, id="nothing is on its way"),
        pytest.param(replace(STILL, waiting=None), 30, BrokerAway, id="broker is away"),
        pytest.param(
            replace(STILL, claims={"7": claim("7", 1.0)}),
            60,
            Stall,
            id="a claim of a part that is settled",
        ),
        pytest.param(
            replace(STILL, claims={"0": claim("0", 50.0)}), 60, Stall, id="claimed and not run"
        ),
        pytest.param(
            replace(STILL, workers=[worker(task("0"))], claims={"0": claim("0", 101.0)}),
            60,
            Stall,
            id="runs beyond its time limit",
        ),
    ],
)
def test_unchanging_view_ends_after_its_deadline(
    view: View, seconds: int, kind: type[Verdict] | None
) -> None:
    ended, verdict = ends_after(always(view))
    assert (ended, type(verdict)) == (seconds, kind or type(None))


def test_running_chunk_counts_as_progress_until_its_time_limit() -> None:
    def views() -> Iterable[View]:
        for second in range(LONG_S):
            claims = {"0": claim("0", float(second))}
            yield replace(STILL, workers=[worker(task("0"))], claims=claims)

    ended, verdict = ends_after(views())
    assert ended == LIMITS.time_limit_s + LIMITS.stall_s
    assert isinstance(verdict, Stall)
    assert (verdict.last, verdict.ago_s, verdict.claimed) == ("a chunk ran", 60.0, 1)


def test_endlessly_redelivered_task_is_not_progress() -> None:
    """Its channel is closed every 20 s, and it starts again."""

    def views() -> Iterable[View]:
        for second in range(LONG_S):
            begun = second - second % 20
            claims = {"0": claim("0", float(second - begun), at=begun)}
            yield replace(STILL, waiting=0, workers=[worker(task("0"))], claims=claims)

    ended, verdict = ends_after(views())
    assert isinstance(verdict, Stall)
    assert ended <= 4 * 20 + LIMITS.stall_s
    assert verdict.repeats >= 4


def test_settled_chunk_is_progress() -> None:
    liveness = Liveness(LIMITS)
    for second in range(500):
        if second % 50 == 0:
            liveness.settled(float(second))
        assert liveness.judge(float(second), STILL) is None
    assert isinstance(liveness.judge(510.0, STILL), Stall)


def test_crash_counts_as_progress_and_decline_does_not() -> None:
    liveness = Liveness(LIMITS)
    liveness.judge(0.0, STILL)
    liveness.crashed(50.0)
    assert liveness.judge(100.0, STILL) is None
    liveness.declined(105.0, {"w2"})
    verdict = liveness.judge(110.0, STILL)
    assert isinstance(verdict, Stall)
    assert (verdict.last, verdict.declined) == ("a process died that ran a chunk", 1)


def test_resend_is_not_progress() -> None:
    views = [replace(STILL, waiting=n, tasks={"0": (task("0", n), n)}) for n in range(1, LONG_S)]
    assert ends_after(views)[0] == LIMITS.stall_s


def test_deadline_starts_when_a_chunk_is_under_way() -> None:
    idle = replace(STILL, tasks={})
    ended, verdict = ends_after([idle] * 500 + always(STILL))
    assert ended == 499 + LIMITS.stall_s
    assert isinstance(verdict, Stall)


def test_worker_briefly_idle_between_others_chunks_counts_as_busy() -> None:
    """Others' tasks are ahead of ours: now and then a sample finds a slot free."""
    busy = [
        replace(STILL, waiting=50, workers=[worker(f"other-{n}-1", slots=4)]) for n in range(LONG_S)
    ]
    assert ends_after(busy) == (LONG_S, None)
    only_ours = [replace(view, waiting=1) for view in busy]
    assert ends_after(only_ours)[0] == LIMITS.stall_s


def test_a_fleet_that_was_there_has_more_time_to_come_back() -> None:
    gone = replace(STILL, workers=[])
    assert ends_after([STILL, *always(gone)]) == (1 + LIMITS.outage_s, NoWorkers(0))


def test_a_broker_that_answers_in_between_is_not_away() -> None:
    away = replace(STILL, waiting=None, workers=[worker("other-1-1")])
    back = replace(away, waiting=1)
    assert ends_after(([away] * 20 + [back]) * 40) == (LONG_S, None)
    ended, verdict = ends_after([back, *always(away)])
    assert (ended, verdict) == (LIMITS.outage_s, BrokerAway())


def test_other_code_has_its_own_deadline() -> None:
    liveness = Liveness(LIMITS)
    liveness.declined(0.0, {"w1"})
    assert liveness.judge(19.0, STILL) is None
    assert liveness.judge(20.0, STILL) == OtherCode(20.0)


def test_worker_not_yet_asked_extends_the_code_deadline() -> None:
    busy = replace(STILL, workers=[worker(), worker("other-1-1", name="w2")])
    liveness = Liveness(LIMITS)
    liveness.declined(0.0, {"w1"})
    assert liveness.judge(199.0, busy) is None
    assert liveness.judge(200.0, busy) == OtherCode(200.0)


def test_working_worker_with_the_right_code_resets_the_deadline() -> None:
    at_work = replace(
        STILL,
        workers=[worker(), worker(task("0"), name="w2")],
        claims={"0": claim("0", 5.0, by="w2")},
    )
    liveness = Liveness(LIMITS)
    liveness.declined(0.0, {"w1"})
    assert liveness.judge(30.0, at_work) is None
    assert liveness.judge(50.0, STILL) is None


@pytest.mark.parametrize(
    ("view", "trouble"),
    [
        (STILL, Trouble("workers are idle, and no chunk moves", 4.0)),
        (replace(STILL, workers=[]), Trouble("no worker answers", 4.0)),
        (replace(STILL, waiting=None), Trouble("the broker does not answer", 4.0)),
        (
            replace(STILL, workers=[worker("other-1-1")]),
            Trouble("no worker is free", 4.0, "other work keeps 1 worker busy"),
        ),
        (replace(STILL, tasks={}), Trouble()),
    ],
    ids=["stalled", "no workers", "no broker", "busy with others", "nothing to do"],
)
def test_trouble_is_told_long_before_the_job_ends(view: View, trouble: Trouble) -> None:
    liveness = Liveness(LIMITS)
    for second in range(5):
        assert liveness.judge(float(second), view) is None
    assert liveness.trouble(4.0) == trouble


def beating(silent_s: float, name: str = "w1", every_s: float = 1.0) -> WorkerInfo:
    return replace(worker(name=name), silent_s=silent_s, beats_every_s=every_s)


@pytest.mark.parametrize(
    ("workers", "trouble"),
    [
        ([beating(1.9)], ""),
        ([beating(2.2)], "no worker answers"),
        ([beating(-2.2)], "no worker answers"),  # the store's clock was set back
        ([beating(2.2), beating(0.4, "w2")], ""),
        ([beating(2.2), beating(2.0, "w2")], "no worker answers"),
        ([beating(9.0, every_s=10.0)], ""),
    ],
    ids=["late", "silent", "set back", "another beats", "both are silent", "beats seldom"],
)
def test_silence_is_told_before_workers_count_as_gone(
    workers: list[WorkerInfo], trouble: str
) -> None:
    liveness = Liveness(LIMITS)
    liveness.judge(8.0, replace(STILL, workers=[worker(task("0"))]))
    assert liveness.judge(9.0, replace(STILL, workers=workers)) is None
    found = liveness.trouble(9.0)
    since_s = found.since_s
    assert found.what == (trouble or "workers are idle, and no chunk moves")
    if trouble:
        assert since_s == pytest.approx(min(abs(each.silent_s) for each in workers))
        assert liveness.is_late
        liveness.judge(10.0, replace(STILL, workers=[]))
        assert liveness.trouble(10.0).since_s == pytest.approx(since_s + 1.0)
    liveness.judge(11.0, replace(STILL, workers=[worker()]))
    assert liveness.trouble(11.0).what != "no worker answers"
    assert not liveness.is_late


def test_outcome_is_an_answer_though_heartbeats_are_late() -> None:
    liveness = Liveness(LIMITS)
    liveness.settled(9.0)
    liveness.judge(9.0, replace(STILL, workers=[beating(2.5)]))
    assert liveness.trouble(9.0) == Trouble()


def test_declines_are_told() -> None:
    liveness = Liveness(LIMITS)
    liveness.declined(1.0, ["w1"], why="1 worker holds other code")
    liveness.judge(4.0, STILL)
    told = Trouble("no worker takes chunks", 3.0, "1 worker holds other code")
    assert liveness.trouble(4.0) == told
