"""Why a job waits: each reason from what its driver sees, and what of it the log keeps."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from pyrmute_tasks import ChunkDelivered, Wait, WaitBegan
from pyrmute_tasks.distributed.producer.job_errors import declining
from pyrmute_tasks.distributed.producer.liveness import Deadlines, Liveness, View
from pyrmute_tasks.distributed.protocol import STORAGE, STORAGE_NOW, ClaimInfo, WorkerInfo
from pyrmute_tasks.engine.events import ChunkSettled, ChunkSubmitted, FleetSeen
from pyrmute_tasks.engine.job_progress import JobProgress
from pyrmute_tasks.io.job_output import DrivenJob
from pyrmute_tasks.jobs.entries import Entry, Note, Noted
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.want import Want
from pyrmute_tasks.service import epoch_watch
from pyrmute_tasks.service.epoch_watch import Board, EpochWatch
from pyrmute_tasks.service.history import report_of
from tests.unit.watched_jobs import WatchedJob

JOB: Final = "0123abcd"
LIMITS: Final = Deadlines(
    stall_s=600.0, worker_wait_s=600.0, outage_s=600.0, code_wait_s=600.0, time_limit_s=600.0
)
OWN: Final = f"{JOB}-0-1"


def workers(*running: str, count: int = 2) -> tuple[WorkerInfo, ...]:
    """Return workers with a slot each; the first ones run something."""
    names = [f"w{number}" for number in range(count)]
    busy = [*(frozenset([task]) for task in running), *[frozenset[str]()] * count]
    return tuple(WorkerInfo(name, 1, tasks, 0.5) for name, tasks in zip(names, busy, strict=False))


OTHERS: Final = workers("ffff-1-1", "eeee-1-1")
VIEW: Final = View(5, OTHERS, {}, {"0": (OWN, 1)}, JOB, jobs=5)
"""The job's only chunk waits behind those of four other jobs."""
RUNS: Final = replace(
    VIEW,
    workers=workers("ffff-1-1", OWN),
    claims={"0": ClaimInfo("w1", OWN, 1.0, 0)},
)


@dataclass
class Driver:
    """What the driver of a job sees, a second after another."""

    now: float = 0.0
    liveness: Liveness = field(default_factory=lambda: Liveness(LIMITS))
    progress: JobProgress = field(
        default_factory=lambda: JobProgress(
            least_trouble_s=1.0, least_silence_s=2.0, is_surveyed=True
        )
    )

    def __post_init__(self) -> None:
        self.sends(0).waits(Wait.WORKERS)

    def sends(self, chunk: int) -> "Driver":
        self.progress.note(ChunkSubmitted(chunk, 0, 10), self.now)
        self.liveness.sent_first(self.now)
        return self

    def settled(self, chunk: int) -> "Driver":
        self.liveness.settled(self.now)
        self.progress.note(ChunkSettled(chunk, 10, 1.0, "w1", failed=False), self.now)
        self.progress.note(ChunkDelivered(chunk, 10, 100), self.now)
        return self

    def settles(self, chunk: int, next_one: int) -> "Driver":
        self.settled(chunk)
        self.progress.note(ChunkSubmitted(next_one, 0, 10), self.now)
        return self.waits(Wait.WORKERS)

    def waits(self, wait: Wait, reason: str = "") -> "Driver":
        self.progress.note(WaitBegan(wait, reason), self.now)
        return self

    def declined(self, codes: dict[str, str]) -> "Driver":
        self.liveness.declined(self.now, codes.keys(), why=declining(codes))
        return self

    def sees(self, view: View, seconds: int) -> "Driver":
        for _ in range(seconds):
            self.now += 1
            assert self.liveness.judge(self.now, view) is None
            found = self.liveness.trouble(self.now)
            serving = sum(each.is_serving for each in view.workers)
            seen = FleetSeen(serving, found.what, found.since_s, found.detail)
            self.progress.note(seen, self.now)
        return self

    def sees_nothing(self, seconds: int) -> "Driver":
        self.now += seconds
        return self

    def has_slow_share(self, pause_s: int, turns: int = 3) -> "Driver":
        """Run a chunk once in a while, as one of many jobs does."""
        for chunk in range(turns):
            self.sees(VIEW, pause_s - 1).sees(RUNS, 1).settles(chunk, chunk + 1)
        return self


FREE: Final = replace(VIEW, workers=workers(), jobs=1, waiting=0)
SHARED: Final = "no worker is free for {} s: 5 jobs share 2 workers; add workers, or pause a job"
FILES: Final = "it cannot read /data/in.jsonl: Stale file handle"
CASES: Final[dict[str, tuple[Callable[[Driver], Driver], str]]] = {
    "workers scaled to zero": (
        lambda job: job.sees(RUNS, 9).sees(replace(VIEW, workers=()), 3),
        "no worker answers for 2 s",
    ),
    "workers are hung": (
        lambda job: job.sees(RUNS, 9).sees(
            replace(VIEW, workers=tuple(replace(each, silent_s=2.5) for each in OTHERS)), 1
        ),
        "no worker answers for 2 s",
    ),
    "broker gone": (
        lambda job: job.sees(RUNS, 9).sees(replace(RUNS, waiting=None), 3),
        "the broker does not answer for 3 s",
    ),
    "store gone": (
        lambda job: job.sees(RUNS, 9).sees_nothing(3),
        "broker or store have not answered for 3 s",
    ),
    "store gone before the first survey": (
        lambda job: job.sees_nothing(3),
        "broker or store have not answered for 3 s",
    ),
    "storage gone for the workers": (
        lambda job: job.declined({"w0": f"{STORAGE_NOW}{FILES}", "w1": "storage: x"}).sees(FREE, 3),
        f"no worker takes chunks for 3 s: w0 (and 1 more): {FILES}",
    ),
    "storage that the workers have not": (
        lambda job: job.declined({"w0": f"{STORAGE}none of its roots holds /data"}).sees(FREE, 3),
        "no worker takes chunks for 3 s: w0: none of its roots holds /data",
    ),
    "storage gone for the driver": (
        lambda job: job.sees(RUNS, 2).waits(Wait.OUTPUT).sees_nothing(4),
        "the output is slow: nothing taken for 4 s",
    ),
    "all hold other code": (
        lambda job: job.declined({"w0": "beef", "w1": "beef", "w2": "f00d"}).sees(FREE, 3),
        "no worker takes chunks for 3 s: 3 workers hold other code",
    ),
    "one holds other code, one has no files": (
        lambda job: job.declined({"w0": "beef", "w1": f"{STORAGE_NOW}{FILES}"}).sees(FREE, 3),
        f"no worker takes chunks for 3 s: 1 worker holds other code; w1: {FILES}",
    ),
    "throttled": (
        lambda job: job.waits(Wait.THROTTLE, "the replica lags").sees_nothing(4),
        "throttled for 4 s: the replica lags",
    ),
    "greatest rate": (
        lambda job: job.settles(0, 1).waits(Wait.PACE).sees(RUNS, 4),
        "",
    ),
    "greatest rate, with long pauses": (
        lambda job: job.settled(0).waits(Wait.PACE).sees_nothing(12),
        "the greatest rate is reached: nothing sent for 12 s",
    ),
    "greatest rate, and no worker": (
        lambda job: job.waits(Wait.PACE).sees(replace(VIEW, workers=()), 12),
        "no worker answers for 12 s",
    ),
    "output slow": (
        lambda job: job.waits(Wait.OUTPUT).sees_nothing(9),
        "the output is slow: nothing taken for 9 s",
    ),
    "source slow": (
        lambda job: job.waits(Wait.SOURCE).sees_nothing(9),
        "the source is slow: nothing read for 9 s",
    ),
    "being published": (
        lambda job: job.waits(Wait.PUBLISH).sees_nothing(9),
        "the output is being published",
    ),
    "idle workers": (
        lambda job: job.sees(FREE, 3),
        "workers are idle, and no chunk moves for 3 s",
    ),
    "shared fleet, at once": (lambda job: job.sees(VIEW, 3), SHARED.format(3)),
    "shared fleet, that was its own": (
        lambda job: job.sees(RUNS, 9).settles(0, 1).sees(VIEW, 3),
        SHARED.format(3),
    ),
    "shared fleet, and it was gone meanwhile": (
        lambda job: job.sees(VIEW, 9).sees(replace(VIEW, workers=()), 5).sees(VIEW, 3),
        SHARED.format(3),
    ),
    "shared fleet, and its broker was gone meanwhile": (
        lambda job: job.sees(VIEW, 9).sees(replace(VIEW, waiting=None), 5).sees(VIEW, 3),
        SHARED.format(3),
    ),
    "shared with nobody who counts": (
        lambda job: job.sees(replace(VIEW, jobs=1, workers=workers("x-1-1", count=1)), 3),
        "no worker is free for 3 s: other work keeps 1 worker busy",
    ),
    "shared fleet, and it runs": (lambda job: job.sees(RUNS, 9), ""),
    "shared fleet, and it has its share": (
        lambda job: job.has_slow_share(8).sees(VIEW, 7),
        "",
    ),
    "shared fleet, and less than its share": (
        lambda job: job.has_slow_share(8).sees(VIEW, 17),
        SHARED.format(17),
    ),
    "shared fleet, and a slow share of nothing": (
        lambda job: job.has_slow_share(80).sees(VIEW, 31),
        SHARED.format(31),
    ),
    "shared fleet, and moving between surveys": (
        lambda job: [job.sees(VIEW, 1).settles(number, number + 1) for number in range(9)][-1],
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_reason_is_that_of_what_happens(case: str) -> None:
    act, reason = CASES[case]
    job = act(Driver())
    assert job.progress.waiting(job.now) == reason


# --- what the log keeps ---------------------------------------------------------------------


class Time:
    """The time of a board, which the test moves."""

    def __init__(self, at: float) -> None:
        self.at = at

    def time(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def job(tmp_path: Path) -> WatchedJob:
    return WatchedJob.submitted(tmp_path / "jobs").taken()


@pytest.fixture
def clock(job: WatchedJob, monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time(job.clock)
    monkeypatch.setattr(epoch_watch, "time", clock)
    return clock


class Watched:
    """The watch of an epoch, as its thread and its driver's would call it."""

    def __init__(self, job: WatchedJob, clock: Time) -> None:
        assert job.lease is not None
        self.board = Board()
        self.watch = EpochWatch(DrivenJob(job.folder, job.lease), Want(), self.board)
        self._job, self._clock = job, clock
        self.board(ChunkSubmitted(0, 0, 10))
        self.board(WaitBegan(Wait.WORKERS))

    def second(self, seen: FleetSeen | None, *, is_hung: bool = False) -> None:
        self._clock.at += 1
        self._job.later(1)
        if seen is not None:
            self.board(seen)
        self.watch._look()
        if not is_hung:
            self.watch.log_changes()


def noted(job: WatchedJob) -> list[Noted]:
    assert job.lease is not None
    job.lease.log.commit()
    entries: list[Entry] = [each.entry for each in History(job.folder.storage)]
    return [each for each in entries if isinstance(each, Noted)]


def test_wait_is_logged_with_its_beginning_and_without_its_length(
    job: WatchedJob, clock: Time
) -> None:
    watched, began = Watched(job, clock), job.clock
    for second in range(1, 9):
        watched.second(FleetSeen(0, "no worker answers", second))
    watched.second(FleetSeen(2))
    assert noted(job) == [
        Noted(Note.WAIT, "no worker answers", began),
        Noted(Note.RESUMED, "it goes on"),
    ]
    (period,) = (each for each in report_of(job.folder).periods if each.kind == "waiting")
    assert (period.since, period.until) == (began, began + 9)


def test_moment_is_not_logged(job: WatchedJob, clock: Time) -> None:
    watched = Watched(job, clock)
    for second in range(1, 4):
        watched.second(FleetSeen(0, "no worker answers", second))
    watched.second(FleetSeen(2))
    watched.watch.log_wait()
    assert noted(job) == []


def test_suspension_of_a_driver_that_hung_tells_since_when_it_waited(
    job: WatchedJob, clock: Time
) -> None:
    watched, began = Watched(job, clock), job.clock
    watched.second(FleetSeen(2), is_hung=True)
    for _ in range(60):  # the store is away
        watched.second(None, is_hung=True)
    watched.watch.log_wait()
    job.let_go("the store does not answer", Note.SUSPENDED)
    found = {each.kind: each for each in report_of(job.folder).periods}
    assert found["waiting"].why == "broker or store have not answered"
    assert (found["waiting"].since, found["waiting"].until) == (began + 1, began + 61)
    assert (found["suspended"].since, found["suspended"].until) == (began + 61, 0)


def test_reasons_that_follow_each_other_are_periods_each(job: WatchedJob, clock: Time) -> None:
    watched, began = Watched(job, clock), job.clock
    for second in range(1, 8):
        watched.second(FleetSeen(0, "no worker answers", second))
    for second in range(1, 8):
        watched.second(FleetSeen(0, "no worker takes chunks", second, f"{second} hold other code"))
    watched.second(FleetSeen(2))
    assert len(noted(job)) == 3
    periods = [each for each in report_of(job.folder).periods if each.kind == "waiting"]
    assert [(each.why, each.since, each.until) for each in periods] == [
        ("no worker answers", began, began + 7),
        ("no worker takes chunks: 5 hold other code", began + 7, began + 15),
    ]


def test_reasons_that_overlap_are_told_one_after_another(job: WatchedJob) -> None:
    began = job.clock
    job.later(6).log(Noted(Note.WAIT, "no worker answers", began))
    job.later(6).log(Noted(Note.WAIT, "the broker does not answer", began - 50))
    job.later(6).log(Noted(Note.RESUMED, "it goes on"))
    periods = [each for each in report_of(job.folder).periods if each.kind == "waiting"]
    assert [(each.since - began, each.until - began) for each in periods] == [(0, 12), (12, 18)]


def test_entry_of_an_earlier_version_has_no_beginning(job: WatchedJob) -> None:
    job.note(Note.WAIT, "the output is slow")
    (path,) = job.folder.path.glob("log.1")
    (line,) = (each for each in path.read_text().splitlines() if "the output is slow" in each)
    assert "since" not in line
    assert json.dumps("the output is slow") in line
