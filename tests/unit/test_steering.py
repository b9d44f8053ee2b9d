"""Steering: what `want.json` says after each command, what cannot be, and two at once."""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks import ModelData, ModelManager
from pyrmute_tasks.engine.stopping import JobStopped
from pyrmute_tasks.errors import ConfigurationError, JobChangedError, JobError, LeaseLostError
from pyrmute_tasks.io.job_output import DrivenJob
from pyrmute_tasks.io.kept_jobs import discard_job, publish_job
from pyrmute_tasks.jobs import want
from pyrmute_tasks.jobs.checked import MOST
from pyrmute_tasks.jobs.driver import this_process, this_user
from pyrmute_tasks.jobs.entries import Ended, Entry, JobResult, Note, Noted, Publishing
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.now import read_now
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import SPEC, SourceFile, Spec
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.storage import OpenFile
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.want import MOST_REASON, WANT, Want, read_want
from pyrmute_tasks.service import steering
from pyrmute_tasks.service.epoch_watch import Board, EpochWatch
from pyrmute_tasks.service.steering import Code, Limits
from pyrmute_tasks.service.turns import Ending, Kind
from tests import people
from tests.people import manager

HOP = ("Person", "1.0.0", "3.0.0")


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    """A job that nobody drives yet, with the code of people's manager."""
    code = steering.code_of(manager, _job(tmp_path, Code("", "")))
    (tmp_path / "jobs").mkdir()
    return _job(tmp_path / "jobs", code)


def _job(root: Path, code: Code) -> JobFolder:
    spec = Spec(
        "a1b2c3d4",
        (SourceFile("/in.jsonl", 0, "1", ""),),
        str(root / "out.jsonl"),
        HOP,
        code.fingerprint,
        code.tree,
        {"on_error": "skip", "max_errors": 3},
        terms=Terms(),
    )
    return JobsRoot(root).create(spec, Want(max_rate=7.0, who="ann@host", why="release"))


def want_of(job: JobFolder) -> Want:
    found = read_want(job.storage, Want())
    assert found.problem == ""
    return found.want


@pytest.fixture
def lease(job: JobFolder) -> Iterator[Lease]:
    """The right to drive the job."""
    lease = job.take(this_process(), "f00d")
    yield lease
    lease.log.close()


def log(lease: Lease, *entries: Entry) -> None:
    for entry in entries:
        lease.log.log(entry)
    lease.log.commit()


SUCCEEDED = Ended(JobResult.SUCCEEDED, 0, 0, 0)
FAILED = Ended(JobResult.FAILED, 0, 0, 0, "a record failed")
PUBLISHING = Publishing(0, "", "")


def test_each_wish_says_who_when_and_why_and_keeps_the_others(job: JobFolder) -> None:
    before = time.time()
    steering.pause(job, "lunch")
    paused = want_of(job)
    assert (paused.wish, paused.why, paused.who) == (Wish.PAUSE, "lunch", this_user())
    assert paused.at >= before
    steering.set_limits(job, Limits(window=3, max_errors="0.1%"), "slow disk")
    limited = want_of(job)
    told = f"lunch; other limits by {this_user()}: slow disk"
    assert limited == replace(paused, window=3, max_errors="0.1%", why=told, at=limited.at)
    assert limited.at > paused.at
    steering.resume(job)
    resumed = want_of(job)
    assert resumed == replace(limited, wish=Wish.RUN, why="", at=resumed.at)
    steering.cancel(job, "wrong file")
    assert want_of(job) == replace(resumed, wish=Wish.CANCEL, why="wrong file", at=want_of(job).at)
    assert resumed.max_rate == 7.0


def test_pause_without_a_reason_is_told_as_such_when_limits_change(job: JobFolder) -> None:
    steering.pause(job)
    for window in (3, 4):
        steering.set_limits(job, Limits(window=window))
    assert want_of(job).why == f"no reason given; other limits by {this_user()}"


def test_who_changes_limits_of_a_paused_job_does_not_pass_for_who_paused_it(
    job: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    steering.pause(job, "freeze")
    paused = want_of(job)
    monkeypatch.setattr(steering, "this_user", lambda: "bob@other")
    for window in (3, 4):
        steering.set_limits(job, Limits(window=window), "slow disk")
    now = want_of(job)
    assert (now.who, now.why) == (paused.who, "freeze; other limits by bob@other: slow disk")
    steering.resume(job)
    steering.set_limits(job, Limits(window=5), "quick")
    assert (want_of(job).who, want_of(job).why) == ("bob@other", "quick")


def test_none_takes_bounds_away(job: JobFolder) -> None:
    steering.set_limits(job, Limits(max_rate=9, window=2, max_errors=0))
    assert (want_of(job).max_rate, want_of(job).window, want_of(job).max_errors) == (9.0, 2, "0")
    steering.set_limits(job, Limits(max_rate="none", window="none", max_errors="none"))
    assert (want_of(job).max_rate, want_of(job).window) == (0.0, 0)
    assert want_of(job).max_errors == "none"


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, "name a limit to set"),
        ({"max_rate": -1}, "max_rate must be a positive number"),
        ({"max_rate": "fast"}, "max_rate must be a positive number"),
        ({"window": -1}, "window must be 1 chunk or more"),
        ({"window": True}, "window must be 1 chunk or more"),
        ({"max_errors": "many"}, "max_errors must be a number"),
    ],
)
def test_senseless_limits_are_refused(limits: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Limits(**limits)  # type: ignore[arg-type]  # that is the point


def test_rejects_of_a_job_that_skips_none_have_no_limit(tmp_path: Path) -> None:
    job = _job(tmp_path, Code("", ""))
    job.spec = replace(job.spec, options={"on_error": "raise"})
    with pytest.raises(ConfigurationError, match="ends at the first record that fails"):
        steering.set_limits(job, Limits(max_errors=3))


Steer = Callable[[JobFolder], object]
LIMIT = partial(steering.set_limits, limits=Limits(window=1))
ALL: dict[str, Steer] = {
    "pause": steering.pause,
    "resume": steering.resume,
    "cancel": steering.cancel,
    "change": LIMIT,
}


@pytest.mark.parametrize(
    ("entries", "refused"),
    [
        ([], {"resume": "drives it"}),
        ([Noted(Note.WAIT, "…")], {"resume": f"process {os.getpid()} of .* drives it"}),
        ([Noted(Note.SUSPENDED, "no worker")], {}),
        ([Noted(Note.STOPPED, "its turn is over")], {"resume": "it waits for a coordinator"}),
        (
            [Noted(Note.HELD, "whole")],
            {
                "resume": "is held: `pyrmute-tasks publish a1b2c3d4`",
                "change": "nothing to change: job a1b2c3d4 is held",
            },
        ),
        (
            [PUBLISHING],
            {"resume": "drives it", "cancel": "its output is proven, and is being published"},
        ),
        ([PUBLISHING, SUCCEEDED], dict.fromkeys(ALL, "has ended: succeeded")),
        (
            [FAILED],
            dict.fromkeys(("pause",), "has ended: failed; `pyrmute-tasks resume a1b2c3d4` goes on"),
        ),
        (
            [Ended(JobResult.CANCELLED, 0, 0, 0)],
            dict.fromkeys(ALL, "has ended: cancelled"),
        ),
    ],
    ids=[
        "running",
        "waiting",
        "suspended",
        "stopped",
        "held",
        "publishing",
        "succeeded",
        "failed",
        "cancelled",
    ],
)
def test_what_cannot_be_is_one_sentence_and_changes_nothing(
    job: JobFolder, lease: Lease, entries: list[Entry], refused: dict[str, str]
) -> None:
    log(lease, *entries)
    for name, steer in ALL.items():
        before = want_of(job)
        steering._write(job, job.view(), replace(before, wish=Wish.RUN), "")
        before = want_of(job)
        if name not in refused:
            steer(job)
            assert want_of(job).at > before.at
            continue
        with pytest.raises(JobError, match=refused[name]) as raised:
            steer(job)
        assert "\n" not in str(raised.value)
        assert want_of(job) == before


def test_job_that_somebody_has_cancelled_is_left_alone(job: JobFolder) -> None:
    steering.cancel(job)
    for steer in ALL.values():
        with pytest.raises(JobError, match=f"{this_user()} has cancelled job a1b2c3d4"):
            steer(job)


def test_failed_job_is_wished_to_run_later_than_it_failed(job: JobFolder, lease: Lease) -> None:
    """Also if the clock of its driver's host is ahead."""
    lease.log._now = lambda: time.time() + 3600
    log(lease, FAILED)
    steering.resume(job)
    assert want_of(job).at > job.view().changed_at > time.time() + 3000


def test_publish_that_was_accepted_is_kept_when_the_job_is_resumed(
    job: JobFolder, lease: Lease
) -> None:
    wished = steering._write(job, job.view(), replace(want_of(job), wish=Wish.PUBLISH), "")
    with pytest.raises(JobError, match="is not paused"):
        steering.resume(job)
    log(lease, wished.as_entry(), Noted(Note.SUSPENDED, "no worker"))
    steering.resume(job)
    assert want_of(job).wish is Wish.PUBLISH


def test_limits_do_not_publish_what_is_held_again(job: JobFolder, lease: Lease) -> None:
    """As a publish by hand that has failed leaves it."""
    wished = steering._write(job, job.view(), replace(want_of(job), wish=Wish.PUBLISH), "")
    log(lease, wished.as_entry(), Noted(Note.HELD, "it could not be published"))
    with pytest.raises(JobError, match="is held, its output is whole"):
        steering.set_limits(job, Limits(max_rate=5))
    assert want_of(job) == wished


def test_limits_of_a_job_that_is_paused_for_a_long_reason_can_be_changed(job: JobFolder) -> None:
    steering.pause(job, "x" * MOST_REASON)
    steering.set_limits(job, Limits(window=3), "tonight")
    assert want_of(job).why.startswith("xxx")
    assert want_of(job).why.endswith(f"x; other limits by {this_user()}: tonight")
    steering.set_limits(job, Limits(window=4), "y" * MOST_REASON)
    assert want_of(job).why.startswith(f"; other limits by {this_user()}: yyy")
    with pytest.raises(ConfigurationError, match="4,000 characters at most, not 4,001"):
        steering.set_limits(job, Limits(window=5), "y" * (MOST_REASON + 1))
    assert want_of(job).window == 4


def test_wishes_of_the_end_of_time_can_be_replaced(job: JobFolder) -> None:
    want.write_want(job.storage, replace(want_of(job), at=MOST))
    steering.pause(job)
    assert (want_of(job).wish, want_of(job).at) == (Wish.PAUSE, MOST)


def test_wish_that_cannot_be_written_leaves_nothing(
    job: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(os.listdir(job.path))
    monkeypatch.setattr(OpenFile, "sync", sync)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        steering.pause(job)
    assert sorted(os.listdir(job.path)) == before


# --- other code ---------------------------------------------------------------------------------

mended = ModelManager()
mended.model("Person", "1.0.0")(people.PersonV1)
mended.model("Person", "2.0.0")(people.PersonV2)
mended.model("Person", "3.0.0")(people.PersonV3)
mended.migration("Person", "1.0.0", "2.0.0")(people.split_name)


@mended.migration("Person", "2.0.0", "3.0.0")
def without_look_ups(data: ModelData) -> ModelData:
    return {**data, "adult": data["age"] >= 18}


def test_other_code_is_refused_by_name_unless_it_is_accepted(job: JobFolder) -> None:
    steering.pause(job)
    today, other = steering.code_of(manager, job), steering.code_of(mended, job)
    with pytest.raises(JobChangedError, match=r"fingerprint .* → .*step Person 2.0.0 → 3.0.0"):
        steering.resume(job, code=other)
    assert want_of(job).wish is Wish.PAUSE
    steering.resume(job, code=other, accept_code=True)
    assert (want_of(job).fingerprint, want_of(job).code) == (other.fingerprint, other.tree)
    # From now on that is the job's code, and the first one is another.
    steering.pause(job)
    with pytest.raises(JobChangedError, match=f"{other.fingerprint} → {today.fingerprint}"):
        steering.resume(job, code=today)
    steering.resume(job, code=other)
    steering.resume(job, code=today, accept_code=True)
    assert (want_of(job).wish, want_of(job).fingerprint, want_of(job).code) == (Wish.RUN, "", "")


def test_same_code_does_not_resume_what_goes_on(job: JobFolder) -> None:
    with pytest.raises(JobError, match="is not paused"):
        steering.resume(job, code=steering.code_of(manager, job))


def test_accepted_code_that_is_lost_with_its_file_is_asked_for(
    job: JobFolder, lease: Lease
) -> None:
    other = steering.code_of(mended, job)
    steering.pause(job)
    steering.resume(job, code=other, accept_code=True)
    log(lease, want_of(job).as_entry(), Noted(Note.STOPPED, "its turn is over"))
    (job.path / WANT).write_bytes(b"{")
    lost = r"code that was accepted for it is lost \(want.json .*--manager M --accept-code"
    with pytest.raises(JobError, match=lost):
        steering.resume(job)
    steering.pause(job)  # that needs no code
    assert (want_of(job).wish, want_of(job).fingerprint) == (Wish.PAUSE, other.fingerprint)
    with pytest.raises(JobError, match=lost):
        steering.resume(job)
    with pytest.raises(JobChangedError, match=f"fingerprint {other.fingerprint} → "):
        steering.resume(job, code=steering.code_of(manager, job))
    steering.resume(job, code=other)
    assert (want_of(job).wish, want_of(job).code) == (Wish.RUN, other.tree)


# --- two at once, and files that are torn -------------------------------------------------------


def test_wishes_of_two_writers_are_all_kept(job: JobFolder) -> None:
    """Each reads, changes and writes the whole file; none of them loses what another wanted."""

    def change(limit: str) -> None:
        for number in range(1, 20):
            steering.set_limits(job, Limits(**{limit: number}))
            seen = want_of(job)
            assert getattr(seen, limit) == number

    threads = [threading.Thread(target=change, args=(name,)) for name in ("max_rate", "window")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (want_of(job).max_rate, want_of(job).window) == (19.0, 19)


def test_frozen_writer_is_not_waited_for(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(want, "_LOCK_S", 0.05)
    steering.pause(job)
    frozen = os.open(job.path, os.O_RDONLY)
    fcntl.flock(frozen, fcntl.LOCK_EX)
    steering.resume(job)
    os.close(frozen)
    assert want_of(job).wish is Wish.RUN


@pytest.mark.parametrize("wish", [steering.cancel, steering.pause])
def test_output_does_not_appear_once_another_wish_was_accepted(
    job: JobFolder, lease: Lease, wish: Callable[[JobFolder], Want]
) -> None:
    watch = EpochWatch(DrivenJob(job, lease), want_of(job), Board())
    with watch.deciding():
        pass
    wanted = wish(job)
    with pytest.raises(JobStopped), watch.deciding():
        raise AssertionError
    assert watch.ending is not None
    assert watch.ending.want == wanted


@pytest.mark.parametrize("wish", [steering.cancel, steering.pause])
def test_wish_that_was_accepted_while_the_lease_was_taken_is_obeyed_before_all_else(
    job: JobFolder,
    lease: Lease,
    wish: Callable[[JobFolder], Want],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = want_of(job)
    wanted = wish(job)
    watch = EpochWatch(DrivenJob(job, lease), before, Board())
    for name in ("start", "join"):  # however late its thread begins
        monkeypatch.setattr(watch._thread, name, lambda *_: None)
    with watch, pytest.raises(JobStopped):
        watch.stop.check()
    assert watch.ending is not None
    assert watch.ending.want == wanted


def test_output_does_not_appear_once_a_wish_was_seen_although_it_is_torn(
    job: JobFolder, lease: Lease
) -> None:
    watch = EpochWatch(DrivenJob(job, lease), want_of(job), Board())
    steering.cancel(job)
    with watch:
        (job.path / WANT).write_bytes(b"")
        with pytest.raises(JobStopped), watch.deciding():
            raise AssertionError


@pytest.mark.parametrize("torn", [b"", b'{"wish": "pau', b'{"wish": "stop"}', b"\0" * 100])
def test_torn_wishes_are_those_that_were_obeyed_last(
    job: JobFolder, lease: Lease, torn: bytes
) -> None:
    steering.set_limits(job, Limits(window=3))
    log(lease, want_of(job).as_entry())
    (job.path / WANT).write_bytes(torn)
    steering.pause(job)
    assert (want_of(job).wish, want_of(job).window, want_of(job).max_rate) == (Wish.PAUSE, 3, 7.0)


def test_files_have_the_roots_mode_whatever_the_umask(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    before = os.umask(0o077)
    try:
        job = _job(tmp_path, Code("", ""))
        steering.pause(job)
    finally:
        os.umask(before)
    modes = {name: (job.path / name).stat().st_mode & 0o777 for name in (SPEC, WANT, "parts/nonce")}
    assert set(modes.values()) == {0o660}


def test_user_without_the_right_is_told(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(want, "write_want", refuse)  # root may do all
    with pytest.raises(ConfigurationError, match=r"cannot write .*want.json: Permission denied"):
        steering.pause(job)


@pytest.mark.parametrize("why", [5, "\ud800", "a\0b", "x" * 4001])
def test_reason_that_nobody_could_read_again_changes_nothing(job: JobFolder, why: Any) -> None:
    before = want_of(job)
    for steer in (steering.pause, steering.cancel):
        with pytest.raises(ConfigurationError, match=r"^why "):
            steer(job, why)
    for end in (publish_job, discard_job):
        with pytest.raises(ConfigurationError, match=r"^why "):
            end(job.path, why=why)
    assert want_of(job) == before


def test_limit_that_nobody_could_read_again_changes_nothing(job: JobFolder) -> None:
    before = want_of(job)
    with pytest.raises(ConfigurationError, match="max_rate is not between 0 and 1e"):
        steering.set_limits(job, Limits(max_rate=1e13))
    assert want_of(job) == before


@pytest.mark.parametrize("kind", [Kind.PAUSED, Kind.LOST])
def test_what_stays_of_an_epoch_was_seen_at_its_end(
    job: JobFolder, lease: Lease, kind: Kind
) -> None:
    board = Board()
    watch = EpochWatch(DrivenJob(job, lease), want_of(job), board)
    with watch:
        board.note("worker w2 is gone")
        watch.end(Ending(kind))
    now = read_now(job.path)
    assert now is not None
    # After a lost one it is another driver's.
    assert now.notes == (() if kind is Kind.LOST else ("worker w2 is gone",))


def test_epoch_that_learns_by_writing_that_it_is_lost_leaves_nothing(
    job: JobFolder, lease: Lease
) -> None:
    board = Board()
    watch = EpochWatch(DrivenJob(job, lease), want_of(job), board)
    with pytest.raises(LeaseLostError), watch:
        board.note("worker w2 is gone")
        raise LeaseLostError("another process drives this job now")
    now = read_now(job.path)
    assert now is not None
    assert now.notes == ()
