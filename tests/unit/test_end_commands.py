"""Commands for the end of jobs: when they are due, and that they are run once in the ordinary."""

import os
import threading
import time
from pathlib import Path

import pytest

from pyrmute_tasks import Settings
from pyrmute_tasks.io.output_lock import held_lock
from pyrmute_tasks.jobs.entries import JobResult
from pyrmute_tasks.jobs.folder import ON_END, JobFolder
from pyrmute_tasks.jobs.pruning import clear
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.service import coordinator, steering, watched_jobs
from pyrmute_tasks.service.coordinator import Coordinator, CoordinatorOptions
from pyrmute_tasks.service.end_commands import is_due, run_if_due
from pyrmute_tasks.service.probing import FleetProbe
from pyrmute_tasks.service.watched_jobs import WatchedJobs
from tests.unit.watched_jobs import WatchedJob

DAY_S = 86400.0


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


def job_telling(told: Path, more: str = "") -> WatchedJob:
    root = told.parent / "jobs"
    return WatchedJob.submitted(root, name="people", on_end=f'echo "$JOB_RESULT" >> {told}{more}')


def lines(told: Path) -> list[str]:
    return told.read_text().split() if told.exists() else []


@pytest.mark.parametrize("more", ["", "; exit 3"])
@pytest.mark.parametrize("result", [JobResult.SUCCEEDED, JobResult.FAILED, JobResult.CANCELLED])
def test_command_is_run_once_whatever_becomes_of_it(
    told: Path, result: JobResult, more: str
) -> None:
    job = job_telling(told, more).taken()
    run_if_due(job.folder)
    assert lines(told) == []
    job.ended(result)
    assert is_due(job.folder)
    for _ in range(2):
        run_if_due(job.folder)
    assert lines(told) == [result.value]
    assert not is_due(job.folder)


def test_command_is_run_again_when_a_job_that_was_resumed_fails_again(told: Path) -> None:
    job = job_telling(told).taken().ended(JobResult.FAILED)
    run_if_due(job.folder)
    job.taken()
    run_if_due(job.folder)
    job.ended(JobResult.FAILED)
    run_if_due(job.folder)
    assert lines(told) == ["failed"] * 2


def test_coordinators_that_come_at_the_same_time_run_it_once(told: Path) -> None:
    job = job_telling(told, "; sleep 0.2").taken().ended(JobResult.SUCCEEDED)
    threads = [threading.Thread(target=run_if_due, args=(job.folder,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines(told) == ["succeeded"]


def test_end_of_long_ago_is_told_no_more(told: Path) -> None:
    job = job_telling(told)
    job.clock = time.time() - DAY_S - 60
    job.taken().ended(JobResult.SUCCEEDED)
    assert not is_due(job.folder)


def test_note_and_lock_stay_when_the_rest_of_the_job_is_removed(told: Path) -> None:
    job = job_telling(told).taken().ended(JobResult.SUCCEEDED)
    with held_lock(job.folder.path / ON_END, "a1b2c3d4"):
        clear(job.folder)
        run_if_due(job.folder)  # another one runs it
        assert lines(told) == []
    run_if_due(job.folder)
    clear(job.folder)
    assert not is_due(job.folder)
    assert set(os.listdir(job.folder.path)) == {"spec.json", "want.json", "log.1", "on-end.1"}


@pytest.mark.parametrize("result", [JobResult.SUCCEEDED, JobResult.FAILED])
def test_coordinator_finds_what_is_due_if_it_may_run_it(told: Path, result: JobResult) -> None:
    job = job_telling(told).taken()
    watches = [WatchedJobs(told.parent / "jobs", finds_commands=each) for each in (True, False)]
    for jobs in watches:
        jobs.look(but=frozenset())
        assert not jobs.with_command
    job.ended(result)
    for jobs in watches:
        jobs.look(but=frozenset())
    assert [set(jobs.with_command) for jobs in watches] == [{"a1b2c3d4"}, set()]
    later = WatchedJobs(told.parent / "jobs", finds_commands=True)
    later.look(but=frozenset())
    assert set(later.with_command) == {"a1b2c3d4"}
    for jobs in (watches[0], later):
        jobs.with_command["a1b2c3d4"].note_command()
    run_if_due(job.folder)
    for jobs in (watches[0], later):
        jobs.with_command["a1b2c3d4"].command_at = 0.0
        jobs.look(but=frozenset())
        assert not jobs.with_command


@pytest.mark.parametrize("result", [JobResult.SUCCEEDED, JobResult.FAILED])
def test_end_that_waits_is_not_looked_at_again_and_again(
    told: Path, result: JobResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def counted(folder: JobFolder) -> bool:
        looked.append(folder.spec.job)
        return is_due(folder)

    monkeypatch.setattr(watched_jobs, "is_due", counted)
    job_telling(told).taken().ended(result)
    jobs = WatchedJobs(told.parent / "jobs", finds_commands=True, queue="mine")
    WatchedJob.submitted(jobs.root, "00000000", on_end="true", queue="other").taken().ended(result)
    for _ in range(3):
        jobs.look(but=frozenset())
    assert looked == ["a1b2c3d4"]
    job = jobs.with_command["a1b2c3d4"]
    job.note_command()
    jobs.look(but=frozenset())
    assert looked == ["a1b2c3d4"]
    job.command_at = 0.0
    jobs.look(but=frozenset())
    assert looked == ["a1b2c3d4"] * 2


def test_command_that_cannot_be_run_is_tried_ever_more_rarely(told: Path) -> None:
    job_telling(told).taken().ended(JobResult.SUCCEEDED)
    jobs = WatchedJobs(told.parent / "jobs", finds_commands=True)
    jobs.look(but=frozenset())
    job, waits = jobs.with_command["a1b2c3d4"], []
    for _ in range(9):
        before = time.monotonic()
        job.note_command()
        waits.append(round(job.command_at - before))
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_few_commands_are_run_at_a_time_those_of_the_oldest_ends_first(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, ids = told.parent / "jobs", [f"{number:08x}" for number in range(9)]
    for age, job in enumerate(ids):
        submitted = WatchedJob.submitted(root, job, on_end="true")
        submitted.clock -= 100.0 * age
        submitted.taken().ended(JobResult.SUCCEEDED)
    options = CoordinatorOptions(allow_on_end=True)
    one = Coordinator(JobsRoot(root), Settings(), options)
    begun: list[str] = []
    monkeypatch.setattr(coordinator, "run_if_due", lambda folder: begun.append(folder.spec.job))
    probe = FleetProbe(one._settings, threading.Event())
    for oldest in (ids[5:], ids[1:]):
        one._round(probe)
        assert set(one._running) <= set(oldest)
        for running in one._running.values():
            assert running.thread is not None
            running.thread.join()
        assert sorted(begun) == oldest


def test_few_of_many_cancelled_jobs_are_ended_at_a_time(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their commands are run as those of others, not all at once."""
    root, ids = told.parent / "jobs", [f"{number:08x}" for number in range(20)]
    for job in ids:
        steering.cancel(WatchedJob.submitted(root, job, on_end="true").folder)
    one = Coordinator(JobsRoot(root), Settings(), CoordinatorOptions(allow_on_end=True))
    one._session = object()  # type: ignore[assignment]  # it needs none
    begun: list[str] = []
    monkeypatch.setattr(coordinator, "run_if_due", lambda folder: begun.append(folder.spec.job))
    probe = FleetProbe(one._settings, threading.Event())
    for ended, told_ends in ((16, 0), (20, 4)):
        one._round(probe)
        for running in one._running.values():
            assert running.thread is not None
            running.thread.join()
        assert sum(JobFolder(root / job).end() is not None for job in ids) == ended
        assert len(begun) == told_ends
