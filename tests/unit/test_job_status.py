"""The status of submitted jobs: state, numbers, and why they wait, by what their folders hold."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from pyrmute_tasks.errors import JobError, JobLogError, JobNotFoundError
from pyrmute_tasks.jobs.entries import JobResult, Note, Publishing
from pyrmute_tasks.jobs.folder import ON_END, JobFolder
from pyrmute_tasks.jobs.log import log_name
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.states import ShownState, Wish
from pyrmute_tasks.jobs.want import WANT, Want, write_want
from pyrmute_tasks.service import steering
from pyrmute_tasks.service.coordinator import Coordinator
from pyrmute_tasks.service.embedded_coordinators import EmbeddedCoordinators, embedded_queue
from pyrmute_tasks.service.listing import list_jobs
from pyrmute_tasks.service.logged_job import LoggedJob
from pyrmute_tasks.service.status import JobStatus, JobWatch, status_of
from pyrmute_tasks.settings import Settings
from tests.unit.watched_jobs import WatchedJob

HOST: Final = os.uname().nodename
ELSEWHERE: Final = {"host": "far", "place": "another kernel", "pid": 12}
GONE: Final = {"pid": 2**22 + 1, "started": "1"}  # no process has an id so high
UNTAKEN: Final = "no coordinator has taken it yet: is one running with --jobs {root}?"
PUBLISHING: Final = Publishing(123, "d19e57", ".tmp")
OVER: Final = "its turn is over, and others wait"

Build = Callable[[WatchedJob], Any]
CASES: Final[dict[str, tuple[Build, ShownState, str]]] = {
    "queued": (lambda job: job, ShownState.QUEUED, UNTAKEN),
    "paused while queued": (
        lambda job: job.wish(Wish.PAUSE, why="release freeze"),
        ShownState.PAUSED,
        "paused by ann@host: release freeze",
    ),
    "cancelled while queued": (
        lambda job: job.wish(Wish.CANCEL),
        ShownState.CANCELLING,
        "being cancelled by ann@host",
    ),
    "running": (lambda job: job.taken().settle().tells(), ShownState.RUNNING, ""),
    "running, without now.json": (lambda job: job.taken().settle(), ShownState.RUNNING, ""),
    "waits for workers": (
        lambda job: job.taken().tells(waits="no worker answers for 12 s"),
        ShownState.WAITING,
        "no worker answers for 12 s",
    ),
    "waits, by the log": (
        lambda job: job.taken().note(Note.WAIT, "the output is slow"),
        ShownState.WAITING,
        "the output is slow",
    ),
    "waits no more": (
        lambda job: job.taken().note(Note.WAIT, "slow").note(Note.RESUMED, ""),
        ShownState.RUNNING,
        "",
    ),
    "being paused": (
        lambda job: job.taken().tells(waits="no worker answers").wish(Wish.PAUSE),
        ShownState.PAUSING,
        "being paused by ann@host",
    ),
    "paused": (
        lambda job: job.taken().obey(Wish.PAUSE, why="release freeze").let_go("paused by ann@host"),
        ShownState.PAUSED,
        "paused by ann@host: release freeze",
    ),
    "resumed, not taken": (
        lambda job: (
            job.taken().obey(Wish.PAUSE).let_go("paused by ann@host").wish(Wish.RUN).later(4)
        ),
        ShownState.WAITING,
        "resumed by ann@host",
    ),
    "suspended": (
        lambda job: job.taken().let_go("no worker answers", Note.SUSPENDED),
        ShownState.SUSPENDED,
        "no worker answers; it is tried again in 2 s",
    ),
    "suspended three times": (
        lambda job: [
            job.taken().let_go("the store does not answer", Note.SUSPENDED) for _ in range(3)
        ],
        ShownState.SUSPENDED,
        "the store does not answer; it is tried again in 8 s (suspended 3 times)",
    ),
    "suspended for long": (
        lambda job: job.taken().let_go("no worker answers", Note.SUSPENDED).later(600),
        ShownState.SUSPENDED,
        "no worker answers; it goes on as soon as a coordinator finds it over",
    ),
    "suspended, then paused": (
        lambda job: job.taken().let_go("no worker answers", Note.SUSPENDED).wish(Wish.PAUSE),
        ShownState.PAUSED,
        "paused by ann@host",
    ),
    "turn over": (lambda job: job.taken().let_go(OVER), ShownState.WAITING, OVER),
    "turn over, and not taken": (
        lambda job: job.taken().let_go(OVER).later(42),
        ShownState.WAITING,
        f"{OVER}; no coordinator has taken it for 42 s: is one running with --jobs {{root}}?",
    ),
    "held": (
        lambda job: job.taken().let_go("its output is whole, and held", Note.HELD),
        ShownState.HELD,
        "its output is whole, and held; `pyrmute-tasks publish a1b2c3d4` publishes it",
    ),
    "driver gone": (
        lambda job: job.taken(**GONE).tells(waits="no worker answers"),
        ShownState.WAITING,
        f"its coordinator (process {GONE['pid']} on host {HOST}) has ended; another one takes over",
    ),
    "driver gone, while it pauses": (
        lambda job: job.taken(**GONE).wish(Wish.PAUSE),
        ShownState.PAUSING,
        f"being paused by ann@host; its coordinator (process {GONE['pid']} on host {HOST}) has "
        "ended; another one takes over",
    ),
    "driver silent": (
        lambda job: job.taken(**ELSEWHERE).tells(waits="output is slow").silent(12.1),
        ShownState.WAITING,
        "its coordinator on host far has been silent for 12 s; another one takes over after 20 s",
    ),
    "driver silent for long": (
        lambda job: job.taken(**ELSEWHERE).silent(31.1),
        ShownState.WAITING,
        "its coordinator on host far has been silent for 31 s; another one takes over now",
    ),
    "driver without now.json": (
        lambda job: job.taken(**ELSEWHERE).silent(6.0),  # it touches its log every five
        ShownState.RUNNING,
        "",
    ),
    "publishing": (
        lambda job: job.taken().settle().log(PUBLISHING).wish(Wish.CANCEL),
        ShownState.PUBLISHING,
        "its output is being published",
    ),
    "failed": (
        lambda job: job.taken().ended(JobResult.FAILED, "line 7 (record 6): KeyError"),
        ShownState.FAILED,
        "line 7 (record 6): KeyError",
    ),
    "failed, and resumed": (
        lambda job: job.taken().ended(JobResult.FAILED, "KeyError").wish(Wish.RUN, why="mended"),
        ShownState.WAITING,
        "resumed by ann@host: mended",
    ),
    "failed, and paused": (
        lambda job: job.taken().ended(JobResult.FAILED, "KeyError").wish(Wish.PAUSE),
        ShownState.FAILED,
        "KeyError",
    ),
    "cancelled": (
        lambda job: job.taken().ended(JobResult.CANCELLED, "cancelled by ann@host"),
        ShownState.CANCELLED,
        "cancelled by ann@host",
    ),
    "succeeded": (
        lambda job: job.taken().settle(100).ended(JobResult.SUCCEEDED),
        ShownState.SUCCEEDED,
        "",
    ),
}


def look_at(job: WatchedJob, *, briefly: bool = False, tended: bool = True) -> JobStatus:
    if tended:
        job.tended()
    watch = JobWatch(job.folder, clock=job.now)
    return watch.glance() if briefly else watch.look()


@pytest.fixture
def job(tmp_path: Path) -> WatchedJob:
    return WatchedJob.submitted(tmp_path / "jobs", name="nightly")


@pytest.mark.parametrize("briefly", [False, True], ids=["look", "glance"])
@pytest.mark.parametrize("case", CASES)
def test_state_and_reason_follow_from_the_folder(
    case: str, briefly: bool, job: WatchedJob, tmp_path: Path
) -> None:
    build, state, reason = CASES[case]
    build(job)
    status = look_at(job, briefly=briefly)
    assert (status.state, status.reason) == (state, reason.format(root=tmp_path / "jobs"))


NEVER: Final = "no coordinator was ever seen at this jobs root: start `pyrmute-tasks coordinator`"
LONG_AGO: Final = (
    "no coordinator runs for this jobs root (last seen 40 s ago): start `pyrmute-tasks coordinator`"
)
ELSE: Final = (
    "coordinators run for queue 'b' only, and not for 'a': start "
    "`pyrmute-tasks coordinator --queue a`"
)
GONE_DRIVER: Final = f"its coordinator (process {GONE['pid']} on host {HOST}) has ended"
SUSPENDED: Final = "no worker answers"
UNTENDED: Final[dict[str, tuple[Build, str]]] = {
    "queued, never": (lambda job: job, NEVER),
    "queued, long ago": (lambda job: job.tended(40), LONG_AGO),
    "queued, another queue": (lambda job: job.tended(queue="b"), ELSE),
    "queued, another queue, long ago": (lambda job: job.tended(40, queue="b"), LONG_AGO),
    "queued, one of each": (
        lambda job: job.tended(queue="b").tended(3, queue="a", host="c2"),
        UNTAKEN,
    ),
    "queued, one that lives": (lambda job: job.tended(queue="a").tended(40, host="c2"), UNTAKEN),
    "queued, one of an older version": (lambda job: job.tended(), UNTAKEN),
    "suspended": (
        lambda job: job.taken().let_go(SUSPENDED, Note.SUSPENDED).tended(40),
        f"{LONG_AGO}; it was suspended: {SUSPENDED}",
    ),
    "resumed": (
        lambda job: (
            job.taken().obey(Wish.PAUSE).let_go("paused by ann@host").wish(Wish.RUN).tended(40)
        ),
        f"resumed by ann@host; {LONG_AGO}",
    ),
    "turn over, another queue": (
        lambda job: job.taken().let_go(OVER).tended(queue="b"),
        f"{OVER}; {ELSE}",
    ),
    "failed, and resumed": (
        lambda job: job.taken().ended(JobResult.FAILED, "KeyError").wish(Wish.RUN),
        f"resumed by ann@host; {NEVER}",
    ),
    "held, and to be published": (
        lambda job: job.taken().let_go("held", Note.HELD).wish(Wish.PUBLISH),
        f"to be published by ann@host; {NEVER}",
    ),
    "driver gone": (lambda job: job.taken(**GONE).tended(40), f"{GONE_DRIVER}; {LONG_AGO}"),
    "driver silent": (
        lambda job: job.taken(**ELSEWHERE).silent(41.0).tended(40),
        f"its coordinator on host far has been silent for 41 s; {LONG_AGO}",
    ),
    "cancelled": (lambda job: job.wish(Wish.CANCEL), f"being cancelled by ann@host; {NEVER}"),
    "paused": (lambda job: job.wish(Wish.PAUSE), "paused by ann@host"),
    "running": (lambda job: job.taken().tells(), ""),
    "held": (
        lambda job: job.taken().let_go("held", Note.HELD),
        "held; `pyrmute-tasks publish a1b2c3d4` publishes it",
    ),
}


@pytest.mark.parametrize("briefly", [False, True], ids=["look", "glance"])
@pytest.mark.parametrize("case", UNTENDED)
def test_job_that_no_coordinator_looks_after_says_so(
    case: str, briefly: bool, tmp_path: Path
) -> None:
    build, reason = UNTENDED[case]
    job = WatchedJob.submitted(tmp_path / "jobs", queue="a")
    build(job)
    told = look_at(job, briefly=briefly, tended=False).reason
    assert told == reason.format(root=tmp_path / "jobs")


def test_job_that_runs_after_another_says_that_nobody_drives_either(tmp_path: Path) -> None:
    WatchedJob.submitted(tmp_path / "jobs", "first")
    then = WatchedJob.submitted(tmp_path / "jobs", "then", after="first")
    reason = look_at(then, tended=False).reason
    assert reason.startswith("it waits for job first to succeed, which is queued; no coordinator")


def test_job_of_an_embedded_fleet_asks_for_no_coordinator(tmp_path: Path) -> None:
    job = WatchedJob.submitted(tmp_path / "jobs", queue=embedded_queue("m:manager"))
    told = (
        "no Migrator with an embedded fleet of 'm:manager' is open for this jobs root: one goes on "
        "when it submits or finds a job"
    )
    assert look_at(job, tended=False).reason == told
    assert look_at(job.tended(queue="pyrmute-tasks"), tended=False).reason == told


def test_job_of_an_embedded_fleet_is_looked_after_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = embedded_queue("m:manager")
    job = WatchedJob.submitted(tmp_path / "jobs", queue=queue)
    monkeypatch.setattr(Coordinator, "run", lambda *_: None)  # as a thread that begins late
    session: Any = SimpleNamespace(settings=Settings())
    EmbeddedCoordinators().attend(JobsRoot(tmp_path / "jobs"), session, queue)
    job.clock = time.time()
    assert "no coordinator has taken it yet" in look_at(job, tended=False).reason


def test_coordinators_whose_clock_differs_are_found_by_what_they_do(tmp_path: Path) -> None:
    job = WatchedJob.submitted(tmp_path / "jobs").tended(400)
    watch = JobWatch(job.folder, clock=job.now)
    assert "no coordinator runs" in watch.look().reason
    job.tended(399)  # its sign has changed
    assert "no coordinator has taken it yet" in watch.look().reason
    job.later(21)
    assert "no coordinator runs for this jobs root (last seen 21 s ago)" in watch.look().reason
    WatchedJob.submitted(tmp_path / "jobs", "other").taken().tells()
    job.clock = time.time()
    job.tended(400)
    assert look_at(job, tended=False).reason == "it waits for its turn: another job is being driven"


def test_status_tells_whether_the_command_for_the_end_was_run(tmp_path: Path) -> None:
    job = WatchedJob.submitted(tmp_path / "jobs", on_end="mail ann")
    assert look_at(job).on_end == "due"
    job.taken().ended(JobResult.FAILED)
    assert look_at(job).on_end == "due"
    (job.folder.path / f"{ON_END}.1").touch()
    assert look_at(job).on_end == "run"
    assert look_at(WatchedJob.submitted(tmp_path / "jobs", "other")).on_end == ""


# --- other jobs -----------------------------------------------------------------------------


def test_list_does_not_tell_when_a_job_is_tried_again_whose_log_it_does_not_read(
    job: WatchedJob,
) -> None:
    for _ in range(3):
        job.taken().tells().let_go("no room", Note.SUSPENDED)
    assert look_at(job).reason == "no room; it is tried again in 8 s (suspended 3 times)"
    assert look_at(job, briefly=True).reason == "no room; it is tried again"


def test_queued_job_tells_that_others_are_driven(job: WatchedJob, tmp_path: Path) -> None:
    for number in range(2):
        WatchedJob.submitted(tmp_path / "jobs", f"other{number}").taken().tells()
    assert look_at(job).reason == "it waits for its turn: 2 other jobs are being driven"


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda first: first, "which is queued"),
        (lambda first: first.taken(), "which is running"),
        (
            lambda first: first.taken().ended(JobResult.FAILED),
            "which has failed: `pyrmute-tasks resume first` goes on with that one",
        ),
        (
            lambda first: first.taken().ended(JobResult.CANCELLED),
            "which is cancelled: cancel this one, too",
        ),
        (lambda first: first.taken().let_go("no worker", Note.SUSPENDED), "which is suspended"),
        (lambda first: first.taken().let_go("whole", Note.HELD), "which is held"),
        (
            lambda first: first.wish(Wish.PAUSE).taken().let_go("paused"),
            "which is paused",
        ),
        (lambda first: first.folder.discard(), "not there any more: cancel this one"),
        (lambda first: first.taken().ended(JobResult.SUCCEEDED), ""),
    ],
)
def test_job_waits_for_the_success_of_another(build: Build, told: str, tmp_path: Path) -> None:
    first = WatchedJob.submitted(tmp_path / "jobs", "first")
    then = WatchedJob.submitted(tmp_path / "jobs", "then", after="first")
    build(first)
    reason = look_at(then).reason
    assert told in reason
    assert ("it waits for job first" in reason) == bool(told)


# --- numbers --------------------------------------------------------------------------------


def test_numbers_are_those_that_the_driver_tells(job: WatchedJob) -> None:
    job.taken().settle(3).tells(
        records=50,
        outputs=48,
        rejected=2,
        done_bytes=500,
        rate=12.5,
        eta_s=40.0,
        workers=3,
        window=8,
        in_flight=5,
        jobs=2,
        causes={"step 1.0.0 → 2.0.0: KeyError": 2},
        notes=("worker w2 is gone",),
        way="by reference",
    )
    found = look_at(job)
    assert (found.records, found.outputs, found.rejected, found.fraction) == (50, 48, 2, 0.5)
    assert (found.rate, found.eta_s, found.workers, found.window) == (12.5, 40.0, 3, 8)
    assert (found.in_flight, found.jobs, found.way) == (5, 2, "by reference")
    assert found.causes == {"step 1.0.0 → 2.0.0: KeyError": 2}
    assert found.notes == ("worker w2 is gone",)
    assert found.is_live
    assert found.driver is not None
    assert (found.driver.host, found.driver.pid) == (HOST, os.getpid())


def test_numbers_without_a_driver_are_those_of_the_log(job: WatchedJob) -> None:
    job.taken().settle(20)
    job.later(10).settle(10).reject([KeyError("secret"), ValueError("secret")]).silent(0)
    found = look_at(job)
    assert (found.records, found.outputs, found.rejected) == (310, 308, 2)
    assert found.fraction == 0.31
    assert found.rate == pytest.approx(31, rel=0.1)
    assert found.eta_s == pytest.approx(690 / 31, rel=0.1)
    assert found.causes == {"step 1.0.0 → 2.0.0: KeyError": 1, "validate: ValueError": 1}
    assert "secret" not in json.dumps(found.as_fields())
    job.later(55).silent(0)
    assert look_at(job).rate == pytest.approx(110 / 60)  # of the last minute
    job.let_go("no worker answers", Note.SUSPENDED)
    assert (look_at(job).rate, look_at(job).eta_s) == (0.0, None)


@pytest.mark.parametrize("briefly", [False, True], ids=["look", "glance"])
def test_held_job_is_done_whatever_its_driver_told_last(job: WatchedJob, briefly: bool) -> None:
    job.taken().settle(10).tells(records=7, rejected=3, done_bytes=7)
    job.settle(90).let_go("its output is whole, and held", Note.HELD)
    found = look_at(job, briefly=briefly)
    assert (found.records, found.rejected, found.fraction) == (1000, 0, 1.0)


def test_now_of_an_older_epoch_is_ignored(job: WatchedJob) -> None:
    job.taken().settle().tells(records=900, waits="no worker answers")
    job.taken()
    found = look_at(job)
    assert (found.records, found.reason, found.epochs) == (10, "", 2)


@pytest.mark.parametrize(("records", "is_known"), [(9, False), (10, True)])
def test_eta_is_told_from_one_percent_on(records: int, is_known: bool, job: WatchedJob) -> None:
    job.taken().tells(records=records, done_bytes=records, eta_s=90.0)
    assert look_at(job).eta_s == (90.0 if is_known else None)


def test_wishes_in_force_are_told_with_who_and_why(job: WatchedJob) -> None:
    job.taken().obey(Wish.RUN, max_rate=100.0, why="evening")
    assert look_at(job).want.max_rate == 100.0
    (job.folder.path / WANT).write_text('{"max_rate":')  # torn
    found = look_at(job)
    assert (found.want.max_rate, found.want.who, found.want.why) == (100.0, "ann@host", "evening")
    assert found.want_problem.startswith("want.json cannot be used")


def test_status_is_a_json_object(job: WatchedJob) -> None:
    job.taken().tells(waits="no worker answers", causes={"decode: JsonError": 1}).wish(max_rate=5)
    found = json.loads(json.dumps(look_at(job).as_fields()))
    assert (found["state"], found["job"]) == ("waiting", "a1b2c3d4")
    assert (found["driver"]["host"], found["want"]["max_rate"]) == (HOST, 5)


# --- looking again and again ----------------------------------------------------------------


def test_each_entry_is_read_once_and_epochs_are_followed(
    job: WatchedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = JobWatch(job.folder, clock=job.now)
    assert watch.look().state is ShownState.QUEUED
    job.taken().settle(90)
    assert watch.look().records == 900
    read = 0
    really_read = job.folder.storage.read

    def counting(name: str, start: int = 0, length: int | None = None) -> bytes:
        nonlocal read
        data = really_read(name, start, length)
        read += len(data) if name == log_name(1) and start else 0
        return data

    monkeypatch.setattr(job.folder.storage, "read", counting)
    job.settle(2)
    assert watch.look().records == 920
    assert 0 < read < 1000  # bytes: two ranges, and not the ninety before
    job.let_go(OVER).taken().settle(1)
    assert (watch.look().records, watch.look().epochs) == (930, 2)


def test_what_a_frozen_driver_writes_behind_the_seal_is_forgotten(job: WatchedJob) -> None:
    watch = JobWatch(job.folder, clock=job.now)
    job.taken().settle(2)
    frozen = job.folder.path / log_name(1)
    sealed = frozen.read_bytes()
    job.settle(3)
    whole = frozen.read_bytes()
    assert watch.look().records == 50
    frozen.write_bytes(sealed)  # what its successor has seen
    job.taken()
    frozen.write_bytes(whole)
    assert watch.look().records == 20
    job.settle(4, at=500)
    assert watch.look().records == 60


def test_discarded_and_damaged_jobs_are_errors(job: WatchedJob) -> None:
    job.taken().settle(20).let_go(OVER).taken()
    path = job.folder.path / log_name(1)
    path.write_bytes(path.read_bytes().replace(b'"in":10', b'"in":11', 1))
    with pytest.raises(JobLogError, match=r"log\.1 is damaged"):
        status_of(job.folder)
    job.folder.discard()
    with pytest.raises(JobNotFoundError, match="was discarded"):
        status_of(job.folder)


def test_storage_that_is_away_is_an_error_of_the_job(
    job: WatchedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> list[str]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(job.folder.storage, "names", away)
    with pytest.raises(JobError, match=r"job a1b2c3d4 in .* cannot be read: Stale file handle"):
        status_of(job.folder)


# --- all jobs -------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_and_the_ended_bounded(tmp_path: Path) -> None:
    root = tmp_path / "jobs"
    for number in range(5):
        job = WatchedJob.submitted(root, f"ended{number}").later(number)
        job.taken().settle().ended(JobResult.SUCCEEDED)
    failed = (
        WatchedJob.submitted(root, "failed").later(9).taken().ended(JobResult.FAILED, "KeyError")
    )
    WatchedJob.submitted(root, "running").taken().settle(2)
    damaged = WatchedJob.submitted(root, "damaged").taken()
    (damaged.folder.path / log_name(1)).write_bytes(b"no log\n" * 3)
    (root / "lost+found").mkdir()
    found = list_jobs(JobsRoot(root), most_ended=2)
    assert [job.job for job in found.jobs] == ["running", "failed", "ended4"]
    assert (found.left_out, list(found.unreadable)) == (4, ["damaged"])
    assert len(list_jobs(JobsRoot(root)).jobs) == 7
    only = list_jobs(JobsRoot(root), states={ShownState.FAILED})
    assert [job.job for job in only.jobs] == ["failed"]
    failed.wish(Wish.RUN)
    assert list_jobs(JobsRoot(root), most_ended=0).jobs[1].state is ShownState.WAITING


def test_listing_opens_one_file_of_an_ended_job_that_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "jobs"
    for number in range(30):
        WatchedJob.submitted(root, f"ended{number}").taken().settle().ended(JobResult.SUCCEEDED)
    opened: list[str] = []
    really_open = os.open

    def counting(path: Any, *given: Any, **others: Any) -> int:
        opened.append(os.fsdecode(path))
        return really_open(path, *given, **others)

    monkeypatch.setattr(os, "open", counting)
    assert len(list_jobs(JobsRoot(root), most_ended=5).jobs) == 5
    assert len(opened) == 30 + 5  # a log each, and a spec of each that is shown
    assert {Path(path).name for path in opened} == {"log.1", "spec.json"}


@pytest.mark.parametrize("state", [ShownState.RUNNING, ShownState.PAUSED, ShownState.SUSPENDED])
def test_listing_reads_of_a_long_log_only_its_ends(
    state: ShownState, job: WatchedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.taken().settle(99).tells(records=990, done_bytes=990)
    if state is ShownState.PAUSED:
        job.obey(Wish.PAUSE).let_go("paused by ann@host")
    elif state is ShownState.SUSPENDED:
        job.let_go(OVER).taken().let_go("no worker answers", Note.SUSPENDED)
    read: list[int] = []
    really_read = os.pread

    def counting(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return really_read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counting)
    (found,) = list_jobs(JobsRoot(job.folder.path.parent)).jobs
    assert (found.records, found.fraction, found.state) == (990, 0.99, state)
    assert len(read) <= 6


def test_failed_jobs_of_a_submitter_whose_clock_is_ahead_are_listed_as_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "jobs"
    for number in range(5):
        job = WatchedJob.submitted(root, f"{number:08x}")
        ahead = Want(who="ann@ahead", at=job.clock + 3600)
        write_want(job.folder.storage, ahead)
        job.taken().log(ahead.as_entry()).ended(JobResult.FAILED)

    def whole(*_: object) -> None:
        raise AssertionError("the whole log is read")

    with monkeypatch.context() as patch:
        patch.setattr(LoggedJob, "look", whole)
        found = list_jobs(JobsRoot(root), most_ended=2)
    assert [each.state for each in found.jobs] == [ShownState.FAILED] * 2
    assert found.left_out == 3
    steering.resume(JobFolder(root / "00000001"))
    (resumed,) = list_jobs(JobsRoot(root), most_ended=0).jobs
    assert (resumed.job, resumed.state) == ("00000001", ShownState.WAITING)
