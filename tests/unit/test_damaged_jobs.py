"""A jobs root with a job that is damaged, or whose files somebody else has written."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.errors import BrokerUnavailableError, JobError, LeaseLostError
from pyrmute_tasks.io.kept_jobs import discard_job, publish_job
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import (
    Ended,
    JobResult,
    Leased,
    Note,
    Noted,
    Publishing,
    Settled,
    encode,
)
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import epochs
from pyrmute_tasks.jobs.output import Output, Proof, digest_of
from pyrmute_tasks.jobs.pruning import collect_orphans, prune
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import write_spec
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.want import WANT, Want, read_want, write_want
from pyrmute_tasks.service import steering
from pyrmute_tasks.service.driving import take_epoch
from pyrmute_tasks.service.status import status_of
from pyrmute_tasks.service.steering import Limits
from pyrmute_tasks.service.turns import Act, FleetFacts, Kind, Turn, decide
from pyrmute_tasks.service.watched_jobs import WatchedJobs
from tests.unit.watched_jobs import SOURCE_BYTES, WatchedJob

LATER_S = 100 * 86400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "log.2").write_bytes(b"no\nlog\nof\nours\n"),
        lambda path: (path / "log.2").mkdir(),
        lambda path: (path / "log.2").symlink_to(path / "log.2"),
        lambda path: (path / "spec.json").write_bytes(b"{"),
    ],
    ids=["garbage", "folder", "loop", "spec"],
)
def test_others_are_seen_and_pruned(root: Path, damage: Callable[[Path], object]) -> None:
    bad = WatchedJob.submitted(root, "bad00000").taken().log(Ended(JobResult.FAILED, 0, 0, 0))
    old = WatchedJob.submitted(root, "old00000").taken().log(Ended(JobResult.FAILED, 0, 0, 0))
    WatchedJob.submitted(root, "good0000")
    damage(bad.folder.path)
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    assert "good0000" in jobs.open
    assert "good0000" not in jobs.troubles
    collect_orphans(root)
    assert prune(root, now=time.time() + LATER_S) == [old.folder.spec.job]
    assert bad.folder.path.exists()


def test_coordinators_that_prune_at_the_same_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WatchedJob.submitted(root).taken().log(Ended(JobResult.FAILED, 0, 0, 0))
    discard = JobFolder.discard

    def discard_twice(folder: JobFolder) -> None:
        discard(folder)
        discard(folder)

    monkeypatch.setattr(JobFolder, "discard", discard_twice)
    assert prune(root, now=time.time() + LATER_S) == []
    assert not list(root.iterdir())


def test_pause_holds_when_its_file_is_torn_and_another_coordinator_comes(root: Path) -> None:
    job = WatchedJob.submitted(root)
    paused = Want(Wish.PAUSE, max_rate=5.0, who="ann@here", at=job.clock)
    job.taken().log(paused.as_entry(), Noted(Note.STOPPED, "paused by ann@here"))
    write_want(FolderStorage(job.folder.path), paused)
    (job.folder.path / WANT).write_bytes(b'{"wish": "pa')
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    found = jobs.open[job.folder.spec.job]
    assert found.want == paused
    assert decide(found.facts(0.0, None), FleetFacts(""), job.clock).act is Act.WAIT


@pytest.mark.parametrize("left", [b"", b'{"wish": "pa', None])
def test_pause_of_which_nothing_is_left_but_a_torn_file_is_asked_for_again(
    root: Path, left: bytes | None
) -> None:
    """No log tells of it: nobody has driven the job."""
    job = WatchedJob.submitted(root)
    steering.pause(job.folder)
    leave(job, left)
    turn = turn_of(root, job)
    assert turn.act is Act.WAIT
    assert "pause, resume or cancel the job to write a new want.json" in turn.why
    assert status_of(job.folder).reason == turn.why
    with pytest.raises(
        JobError, match=r"cannot be changed: want\.json .*: pause, resume or cancel"
    ):
        steering.set_limits(job.folder, Limits(window=3))
    steering.resume(job.folder)
    assert turn_of(root, job).act is Act.DRIVE


def test_job_whose_wishes_are_torn_stays_cancelled_when_another_epoch_has_begun(root: Path) -> None:
    job = WatchedJob.submitted(root).taken().let_go("it is held", Note.HELD)
    steering.cancel(job.folder)
    leave(job, b"")
    with pytest.raises(JobError, match=r"cannot be published: want\.json cannot be used"):
        publish_job(job.folder.path)
    assert turn_of(root, job).act is Act.WAIT


def test_coordinator_that_has_read_older_wishes_knows_those_that_were_logged_since(
    root: Path,
) -> None:
    job = WatchedJob.submitted(root)
    write_want(job.folder.storage, Want(who="ann@host", at=job.clock))
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    paused = Want(Wish.PAUSE, who="bob@host", at=job.clock + 1)
    job.later(2).taken().log(paused.as_entry(), Noted(Note.STOPPED, "paused by bob@host"))
    leave(job, b"")
    jobs.look(but=frozenset())
    facts = jobs.open[job.folder.spec.job].facts(0.0, None)
    assert decide(facts, FleetFacts(""), job.clock) == Turn(Act.WAIT, "paused by bob@host")


def leave(job: WatchedJob, left: bytes | None) -> None:
    """Leave bytes in place of a job's wishes, or no file at all."""
    (job.folder.path / WANT).unlink()
    if left is not None:
        (job.folder.path / WANT).write_bytes(left)


def turn_of(root: Path, job: WatchedJob) -> Turn:
    """Return the decision of a coordinator that was just started."""
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    facts = jobs.open[job.folder.spec.job].facts(0.0, None)
    return decide(facts, FleetFacts(""), job.clock)


def test_end_is_known_however_long_its_reason_and_its_log_are(root: Path) -> None:
    job = WatchedJob.submitted(root).taken().settle(400)
    why = "because " * 2000
    job.log(Ended(JobResult.CANCELLED, 0, 0, 0, why))
    end = job.folder.end()
    assert end is not None
    assert end.ended.why == why


def test_what_a_killed_driver_has_left_beside_the_target_goes_with_the_job(root: Path) -> None:
    job = WatchedJob.submitted(root).taken().log(Ended(JobResult.CANCELLED, 0, 0, 0))
    target = Path(job.folder.spec.target)
    left = [
        target.with_name(f".{target.name}.{job.folder.spec.job}.{kind}.1")
        for kind in ("joined", "staged")
    ]
    other = target.with_name(f".{target.name}.0123abcd.joined.1")
    left[0].write_text("outputs")
    left[1].mkdir()
    other.write_text("of another job")
    collect_orphans(root)
    assert not any(path.exists() for path in left)
    assert other.exists()
    assert not job.folder.parts_path.exists()


def test_job_is_kept_while_another_one_retries_its_rejects(root: Path) -> None:
    parent = WatchedJob.submitted(root, "parent00").taken().ended(JobResult.FAILED)
    child = WatchedJob.submitted(root, "child000")
    parents = parent.folder.spec.lineage
    write_spec(child.folder.storage, replace(child.folder.spec, parents=parents))
    assert prune(root, now=time.time() + LATER_S) == []
    with pytest.raises(JobError, match="retries the rejects of job parent00"):
        discard_job(parent.folder.path)
    child.taken().log(Ended(JobResult.CANCELLED, 0, 0, 0))
    assert len(prune(root, now=time.time() + LATER_S)) == 2


def test_job_is_kept_while_another_one_waits_for_it(root: Path) -> None:
    WatchedJob.submitted(root, "first000").taken().ended(JobResult.SUCCEEDED)
    WatchedJob.submitted(root, "second00", after="first000")
    assert prune(root, now=time.time() + LATER_S) == []


def test_job_that_was_about_to_publish_is_not_cancelled_by_who_takes_it_over(root: Path) -> None:
    job = WatchedJob.submitted(root).taken().log(Publishing(1, "d", ".temp"))
    cancelled = Want(Wish.CANCEL, who="ann@here", at=job.clock)
    epoch = take_epoch(job.folder, cancelled, 1)

    ending = epoch.carry_out(Turn(Act.CANCEL, "cancelled by ann@here"), no_session)
    assert ending.kind is not Kind.CANCELLED
    assert not job.folder.view().state.is_final


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        (None, Kind.FAILED),
        (steering.resume, Kind.CHANGED),
        (steering.pause, Kind.PAUSED),
        (steering.cancel, Kind.CANCELLED),
        (lambda folder: (folder.path / WANT).write_bytes(b"{"), Kind.TURN_OVER),
    ],
    ids=["nothing", "resume", "pause", "cancel", "torn"],
)
def test_job_is_not_given_up_against_a_wish_that_was_accepted_meanwhile(
    root: Path, wish: Callable[[JobFolder], object] | None, kind: Kind
) -> None:
    job = WatchedJob.submitted(root).taken().let_go("no worker", Note.SUSPENDED).wish()
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    known = jobs.open["a1b2c3d4"]
    if wish is not None:
        wish(job.folder)
    epoch = take_epoch(job.folder, known.want, known.newest)
    ending = epoch.carry_out(Turn(Act.GIVE_UP, "given up"), no_session)
    assert ending.kind is kind
    view = job.folder.view()
    assert view.state.has_ended is kind.ends_job
    if wish is steering.resume:
        assert not view.suspensions
        assert view.wished["at"] == read_want(job.folder.storage, Want()).want.at


def test_coordinator_keeps_the_code_that_it_has_read_when_the_file_is_torn(root: Path) -> None:
    job = WatchedJob.submitted(root).taken().obey(Wish.RUN, fingerprint="beef", code="{}")
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    (job.folder.path / WANT).write_bytes(b"{")
    jobs.look(but=frozenset())
    known = jobs.open["a1b2c3d4"]
    assert known.want_problem
    assert (known.want.fingerprint, known.want.code) == ("beef", "{}")


def test_held_job_that_somebody_has_cancelled_is_not_published(root: Path) -> None:
    job = WatchedJob.submitted(root).taken().let_go("it is held", Note.HELD).wish(Wish.CANCEL)
    with pytest.raises(JobError, match="ann@host has cancelled job a1b2c3d4"):
        publish_job(job.folder.path)


def test_held_job_that_is_cancelled_while_it_is_proven_is_not_published(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cancels it meanwhile was told that it would be."""
    job = WatchedJob.submitted(root).taken()
    assert job.lease is not None
    put = job.lease.log.put(b"12345")
    job.lease.log.settle(Settled(0, 0, SOURCE_BYTES, 5, 5, put=put, digest=digest_of(b"12345")))
    job.let_go("it is held", Note.HELD)
    prove = Output.prove

    def prove_and_cancel(output: Output) -> Proof:
        steering.cancel(job.folder)
        return prove(output)

    monkeypatch.setattr(Output, "prove", prove_and_cancel)
    with pytest.raises(JobError, match="has cancelled job a1b2c3d4"):
        publish_job(job.folder.path)
    assert not Path(job.folder.spec.target).exists()
    assert job.folder.view().publishing is None
    assert turn_of(root, job).act is Act.CANCEL


@pytest.mark.parametrize("is_quicker", [True, False], ids=["a quicker one", "the one before"])
def test_coordinator_that_was_too_late_for_a_cancelled_job_is_told_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, is_quicker: bool
) -> None:
    """The other one has removed its half of a lease with the job's other files."""
    job = WatchedJob.submitted(root)
    before = None if is_quicker else take_epoch(job.folder, Want(Wish.CANCEL), 0)
    link = FolderStorage.link

    def too_late(storage: FolderStorage, name: str, new: str) -> None:
        monkeypatch.setattr(FolderStorage, "link", link)
        epoch = before or take_epoch(job.folder, Want(Wish.CANCEL), 0)
        ending = epoch.carry_out(Turn(Act.CANCEL), no_session)
        assert ending.kind is Kind.CANCELLED
        link(storage, name, new)

    monkeypatch.setattr(FolderStorage, "link", too_late)
    with pytest.raises(LeaseLostError, match="another process has ended this job meanwhile"):
        take_epoch(job.folder, Want(), 0 if before is None else 1)
    assert job.folder.view().state.is_final


def test_coordinator_that_takes_a_job_over_which_just_ends_is_told_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = WatchedJob.submitted(root).taken()
    link = FolderStorage.link

    def link_and_end(storage: FolderStorage, name: str, new: str) -> None:
        link(storage, name, new)
        with pytest.raises(LeaseLostError):
            job.log(Publishing(0, "", ""), Ended(JobResult.SUCCEEDED, 0, 0, 0))

    monkeypatch.setattr(FolderStorage, "link", link_and_end)
    with pytest.raises(LeaseLostError, match="has ended this job meanwhile: succeeded"):
        take_epoch(job.folder, Want(), 1)
    end = job.folder.end()
    assert end is not None
    assert end.ended.result is JobResult.SUCCEEDED
    assert epochs(job.folder.storage) == [1]  # else a living process would seem to drive it
    assert discard_job(job.folder.path) == [job.folder.path]


def test_ended_job_for_which_a_process_was_too_late_is_discarded(root: Path) -> None:
    job = WatchedJob.submitted(root).taken().ended(JobResult.SUCCEEDED)
    late = encode(Leased(2, "t0ken", this_process()), time.time(), 2, 0)
    (job.folder.path / "log.2").write_bytes(late)
    assert discard_job(job.folder.path) == [job.folder.path]


def test_job_that_this_user_may_not_see_keeps_no_other_from_being_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = WatchedJob.submitted(root, "bad00000").folder.path
    WatchedJob.submitted(root, "old00000").taken().ended(JobResult.CANCELLED)
    is_file = Path.is_file

    def refuse(path: Path) -> bool:  # root may do all
        if path.parent == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    collect_orphans(root)
    assert JobsRoot(root).find("old0").spec.job == "old00000"
    assert prune(root, now=time.time() + LATER_S) == ["old00000"]


def no_session() -> Any:
    raise BrokerUnavailableError("away")
