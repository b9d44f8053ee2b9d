"""Discarding submitted jobs: who may, and what is left of one for which it fails."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.errors import ConfigurationError, JobError, JobNotFoundError, ProofError
from pyrmute_tasks.io import discarding
from pyrmute_tasks.io.kept_jobs import discard_job, publish_job
from pyrmute_tasks.jobs.discarded import was_discarded
from pyrmute_tasks.jobs.driver import SILENT_S, this_process
from pyrmute_tasks.jobs.entries import JobResult, Note
from pyrmute_tasks.jobs.folder import ON_END
from pyrmute_tasks.jobs.lease import reserved
from pyrmute_tasks.jobs.log import epochs, log_name
from pyrmute_tasks.jobs.pruning import collect_orphans, prune
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import SPEC, write_spec
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.storage import FolderStorage, OpenFile
from pyrmute_tasks.service.beats import remove_old_beats
from pyrmute_tasks.service.handles import SubmittedJob
from tests.unit.watched_jobs import WatchedJob

ELSEWHERE = {"place": "elsewhere", "host": "c2"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def failed(root: Path) -> WatchedJob:
    return WatchedJob.submitted(root).taken().ended(JobResult.FAILED, "record 7: no age")


def held(root: Path) -> WatchedJob:
    return WatchedJob.submitted(root).taken().settle().let_go("held, as was asked for", Note.HELD)


def suspended(root: Path) -> WatchedJob:
    return WatchedJob.submitted(root).taken().let_go("no worker answers", Note.SUSPENDED)


def paused(root: Path) -> WatchedJob:
    return WatchedJob.submitted(root).taken().obey(Wish.PAUSE).let_go("paused by ann@host")


def age(path: Path, seconds: float) -> None:
    """Behave as if a file had not been touched for a while."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def refuse_rename(monkeypatch: pytest.MonkeyPatch, refused: Path) -> None:
    """Behave as a jobs root in which users may rename their own folders only."""
    rename = Path.rename

    def rename_others(path: Path, target: Any) -> Path:
        if path == refused:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_others)


@pytest.mark.parametrize("make", [failed, held, suspended, paused])
def test_job_that_could_not_be_removed_is_in_the_state_in_which_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], WatchedJob]
) -> None:
    folder = make(root).folder
    before = folder.view()
    (folder.path / f"{ON_END}.1").touch()
    refuse_rename(monkeypatch, folder.path)
    told = f"cannot write {folder.path}: Operation not permitted"
    with pytest.raises(ConfigurationError, match=told):
        discard_job(folder.spec.job, jobs=root)
    after = folder.view()
    assert (after.state, after.let_go, after.ended) == (before.state, before.let_go, before.ended)
    assert (after.stopped, after.wished) == (before.stopped, before.wished)
    if after.ended is not None:  # and the command for its end is not run again
        assert (folder.path / f"{ON_END}.{after.epoch}").exists()


def test_job_of_which_nothing_could_be_noted_is_not_taken(root: Path) -> None:
    folder = failed(root).folder
    (root / f".{folder.spec.job}.discarded").mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        discard_job(folder.path)
    assert epochs(folder.storage) == [1]
    assert folder.view().state is LoggedState.FAILED


@pytest.mark.parametrize("place", ["gone", "in.jsonl", "loop", "long"])
def test_job_whose_target_has_no_place_any_more_is_discarded(root: Path, place: str) -> None:
    folder = failed(root).folder
    (root.parent / "loop").symlink_to("loop")
    name = "x" * 300 if place == "long" else place
    target = str(root.parent / name / "out.jsonl")
    write_spec(folder.storage, replace(folder.spec, target=target))
    assert discard_job(folder.path) == [folder.path]
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("make", "told"),
    [(failed, "failed"), (held, "held"), (suspended, "suspended"), (paused, "paused")],
)
def test_note_tells_the_state_that_was_shown(
    root: Path, make: Callable[[Path], WatchedJob], told: str
) -> None:
    job = make(root)
    discard_job(job.folder.path)
    assert f"when it was {told}" in str(was_discarded(job.folder.path))


def test_note_may_be_read_by_all_who_may_read_the_root(root: Path) -> None:
    job = failed(root)
    root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        discard_job(job.folder.path)
    finally:
        os.umask(before)
    note = root / f".{job.folder.spec.job}.discarded"
    assert note.stat().st_mode & 0o777 == 0o664


def test_note_that_was_half_written_is_removed_an_hour_later(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = failed(root)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(FolderStorage, "replace", die)
        patched.setattr(FolderStorage, "remove", remove_no_note)  # it is killed
        discard_job(job.folder.path)
    discard_job(job.folder.path)
    note = f".{job.folder.spec.job}.discarded"
    collect_orphans(root)
    assert len(os.listdir(root)) == 2
    collect_orphans(root, now=time.time() + 3700)
    assert os.listdir(root) == [note]


def die(*_: object) -> None:
    raise KeyboardInterrupt


def remove_no_note(storage: FolderStorage, name: str) -> None:
    if not name.startswith(".."):
        (storage.path / name).unlink()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
def test_job_that_cannot_be_read_now_is_not_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    spec, opened = WatchedJob.submitted(root).taken().folder.path / SPEC, os.open

    def fail(name: Any, *others: Any, **more: Any) -> int:
        if os.fspath(name) == str(spec):
            raise OSError(number, os.strerror(number), str(spec))
        return opened(name, *others, **more)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(JobError, match=f"cannot be read: {os.strerror(number)}"):
        discard_job(spec.parent)
    assert spec.exists()


def test_driven_job_is_not_removed_although_its_spec_is_damaged(root: Path) -> None:
    job = WatchedJob.submitted(root).taken()
    (job.folder.path / SPEC).write_text("{")
    with pytest.raises(JobError, match=r"drives this job, and its spec\.json is damaged: end"):
        discard_job(job.folder.path)
    job.let_go("its turn is over")
    assert discard_job(job.folder.path) == [job.folder.path]


def test_damaged_job_of_a_host_that_is_gone_is_discarded_when_its_log_is_old(root: Path) -> None:
    job = WatchedJob.submitted(root).taken(**ELSEWHERE)
    (job.folder.path / SPEC).write_text("{")
    with pytest.raises(JobError, match="on host c2 drives this job"):
        discard_job(job.folder.path)
    job.silent(SILENT_S + 2)
    assert discard_job(job.folder.path) == [job.folder.path]


ODD: list[Callable[[Path], object]] = [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)]


@pytest.mark.parametrize("damage", ODD, ids=["folder", "pipe", "loop"])
def test_job_with_an_odd_log_is_discarded(root: Path, damage: Callable[[Path], object]) -> None:
    folder = WatchedJob.submitted(root).folder
    damage(folder.path / "log.1")
    assert discard_job(folder.path) == [folder.path]


def test_job_that_could_not_be_removed_is_not_told_to_be_discarded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = failed(root).folder
    refuse_rename(monkeypatch, folder.path)
    with pytest.raises(ConfigurationError, match="Operation not permitted"):
        discard_job(folder.path, why="old")
    assert (root / f".{folder.spec.job}.discarded").exists()
    (folder.path / SPEC).write_bytes(b"")  # so that it is found by no name
    with pytest.raises(JobNotFoundError, match="none has this id or name"):
        JobsRoot(root).find("a1b2c3")
    os.rename(folder.path, root.parent / "moved")
    with pytest.raises(JobNotFoundError, match=r"was discarded by .* when it was failed: old"):
        JobsRoot(root).find("a1b2c3")


def test_job_that_lacks_a_file_for_a_moment_is_not_told_to_be_discarded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who was too late to take a job removes the log with which it did."""
    folder, names = failed(root).folder, FolderStorage.names
    monkeypatch.setattr(FolderStorage, "names", lambda *of: [*names(*of), "log.2"])
    job = SubmittedJob(JobsRoot(root), folder, None)  # type: ignore[arg-type]  # it submits none
    assert not job.is_over()
    for look in (folder.view, job.progress, job.report):
        with pytest.raises(JobError, match=r"log\.2 cannot be read: No such file") as raised:
            look()
        assert not isinstance(raised.value, JobNotFoundError)


@pytest.mark.parametrize("make", [failed, held, suspended, paused])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_no_reason_to_keep_a_job(
    root: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], WatchedJob], number: int
) -> None:
    folder, create = make(root).folder, FolderStorage.create

    def create_if_there_is_room(storage: FolderStorage, name: str) -> OpenFile:
        if folder.path.exists():
            raise OSError(number, os.strerror(number), name)
        return create(storage, name)

    monkeypatch.setattr(FolderStorage, "create", create_if_there_is_room)
    assert discard_job(folder.path, why="no room") == [folder.path]
    assert os.listdir(root) == [f".{folder.spec.job}.discarded"]
    assert str(was_discarded(folder.path)).endswith(": no room")


@pytest.mark.parametrize(
    "name", [".a.discarded", ".b.0a.gone", "..c.discarded.0a", ".coordinator.d"]
)
def test_what_cannot_be_removed_does_not_keep_the_rest(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As of another user, in a jobs root that is sticky."""
    root.mkdir()
    names = [".x.discarded", ".x.0a.gone", "..x.discarded.0a", ".coordinator.x"]
    for each in (name, *names):
        (root / each).touch()
        os.utime(root / each, (1.0, 1.0))
    unlink = Path.unlink

    def unlink_others(path: Path, missing_ok: bool = False) -> None:
        if path.name == name:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_others)
    monkeypatch.setattr(Path, "glob", lambda *_: [root / name, *(root / each for each in names)])
    collect_orphans(root)
    remove_old_beats(root)
    prune(root)
    assert name in os.listdir(root)
    assert len(os.listdir(root)) == 1


def test_jobs_root_that_is_away_is_not_told_as_discarded_jobs(root: Path) -> None:
    folder = failed(root).folder
    job = SubmittedJob(JobsRoot(root), folder, None)  # type: ignore[arg-type]  # it submits none
    root.rename(root.parent / "away")
    for look in (folder.view, job.progress, job.discard):
        with pytest.raises(JobError, match="No such file") as raised:
            look()
        assert not isinstance(raised.value, JobNotFoundError)


@pytest.mark.parametrize("where", [{"started": "1"}, ELSEWHERE], ids=["here", "elsewhere"])
def test_held_job_whose_discarding_was_killed_is_held(root: Path, where: dict[str, str]) -> None:
    """On a host that has started again, or in a container, it is not known to have ended."""
    folder = held(root).folder
    killed = reserved(folder.storage, {**this_process(), **where}, 1)
    killed.__enter__()
    age(folder.path / log_name(2), SILENT_S + 1)
    job = SubmittedJob(JobsRoot(root), folder, None)  # type: ignore[arg-type]  # it submits none
    status = job.progress()
    assert (status.is_held, status.driver) == (True, None)
    assert status.reason.startswith("held")
    with pytest.raises(ProofError):  # it gets as far as that
        job.publish()
    assert job.progress().is_held
    job.discard()
    assert not folder.path.exists()


def test_job_that_is_being_discarded_elsewhere_is_left_alone(root: Path) -> None:
    folder = held(root).folder
    with reserved(folder.storage, {**this_process(), **ELSEWHERE}, 1):
        age(folder.path / log_name(2), SILENT_S / 2)
        for call in (discard_job, publish_job):
            with pytest.raises(JobError, match="on host c2 drives this job"):
                call(folder.path)
    assert epochs(folder.storage) == [1, 2]


def test_who_is_too_late_to_discard_a_job_is_not_noted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = failed(root).folder

    def reserve_later(*args: Any) -> Any:
        monkeypatch.undo()
        discard_job(folder.path, why="mine")
        return reserved(*args)

    monkeypatch.setattr(discarding, "reserved", reserve_later)
    with pytest.raises((JobError, ConfigurationError)):
        discard_job(folder.path, why="mine, too")
    assert str(was_discarded(folder.path)).endswith(": mine")
