"""`SubmittedJob`: what it waits for, what it tells, and where it finds that."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyrmute_tasks import JobFailedError, JobNotFoundError, Migrator, Settings, SubmittedJob
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import Ended, Entry, JobResult, Note, Noted, Publishing
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.states import ShownState
from pyrmute_tasks.jobs.want import Want, read_want, write_want
from pyrmute_tasks.service.handles import Pauses
from pyrmute_tasks.service.listing import list_jobs

SUCCEEDED = (Publishing(0, "", ""), Ended(JobResult.SUCCEEDED, 0, 0, 0))
FAILED = Ended(JobResult.FAILED, 0, 0, 0, "record 7: no age")


@pytest.fixture
def job(tmp_path: Path) -> SubmittedJob:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "in.jsonl").write_text(json.dumps({"name": "Ann Lee", "age": 7}) + "\n")
    migrator = Migrator("tests.people:manager", settings=Settings(jobs_root=f"{tmp_path}/jobs"))
    files = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    return migrator.submit(*files, "Person", "1.0.0", "3.0.0", name="people")


@pytest.fixture
def lease(job: SubmittedJob) -> Iterator[Lease]:
    lease = JobFolder(job.path).take(this_process(), "f00d")
    yield lease
    lease.log.close()


def log(lease: Lease, *entries: Entry) -> None:
    for entry in entries:
        lease.log.log(entry)
    lease.log.commit()


def test_job_that_nobody_takes_waits_and_tells_why(job: SubmittedJob) -> None:
    with pytest.raises(TimeoutError, match=rf"job {job.id} has not ended after 0.01 s; it goes on"):
        job.wait(0.01)
    seen = job.progress()
    assert (seen.job, seen.name, seen.state) == (job.id, "people", ShownState.QUEUED)
    assert "coordinator" in seen.reason


def test_wait_returns_the_status_of_a_job_that_ends_meanwhile(
    job: SubmittedJob, lease: Lease
) -> None:
    ends = threading.Timer(0.05, log, (lease, *SUCCEEDED))
    ends.start()
    assert job.wait(60).state is ShownState.SUCCEEDED
    ends.join()


def test_wait_returns_when_the_output_is_held(job: SubmittedJob, lease: Lease) -> None:
    lease.let_go("its output is whole, and held", Note.HELD)
    assert job.wait(0).reason.startswith("its output is whole, and held")


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (FAILED, "has failed: record 7: no age"),
        (Ended(JobResult.CANCELLED, 0, 0, 0, "cancelled by ann@host"), "was cancelled: cancelled"),
    ],
)
def test_wait_raises_what_ended_it(job: SubmittedJob, lease: Lease, end: Ended, told: str) -> None:
    log(lease, end)
    with pytest.raises(JobFailedError, match=told) as raised:
        job.wait()
    assert (raised.value.job, raised.value.why) == (job.id, end.why)


def test_job_that_was_resumed_is_waited_for_again(job: SubmittedJob, lease: Lease) -> None:
    log(lease, FAILED)
    job.resume("mended")
    assert not job.is_over()
    second = JobFolder(job.path).take(this_process(), "f00d")
    log(second, Ended(JobResult.FAILED, 0, 0, 0, "record 8: no age"))
    with pytest.raises(JobFailedError, match="record 8"):
        job.wait()
    second.log.close()


@pytest.mark.parametrize(
    ("steer", "shown"),
    [
        (lambda job: job.set(max_rate=3), ShownState.WAITING),
        (lambda job: job.cancel(), ShownState.CANCELLING),
    ],
    ids=["limits", "cancel"],
)
def test_job_that_failed_before_its_driver_saw_a_wish_is_waited_for(
    job: SubmittedJob, lease: Lease, steer: Callable[[SubmittedJob], object], shown: ShownState
) -> None:
    log(lease, read_want(JobFolder(job.path).storage, Want()).want.as_entry())
    steer(job)
    lease.log._now = lambda: time.time() + 60
    log(lease, FAILED)
    assert not job.is_over()
    assert job.progress().state is shown
    (listed,) = list_jobs(JobsRoot(job.path.parent)).jobs
    assert listed.state is shown


@pytest.mark.parametrize("end", [FAILED, Noted(Note.HELD, "its output is whole, and held")])
def test_obeyed_wish_is_not_pending_although_its_clock_was_ahead(
    job: SubmittedJob, end: Entry
) -> None:
    folder = JobFolder(job.path)
    submitted = replace(read_want(folder.storage, Want()).want, at=time.time() + 3600)
    write_want(folder.storage, submitted)
    lease = folder.take(this_process(), "f00d")
    log(lease, submitted.as_entry(), end)
    (listed,) = list_jobs(JobsRoot(job.path.parent)).jobs
    if end is FAILED:
        assert listed.state is ShownState.FAILED
        with pytest.raises(JobFailedError):
            job.wait(0)
    else:
        assert listed.is_held
        assert job.wait(0).is_held
    lease.log.close()


def test_pause_is_no_end_and_neither_is_a_suspension(job: SubmittedJob, lease: Lease) -> None:
    log(lease, Noted(Note.SUSPENDED, "no worker answers"))
    assert not job.is_over()
    assert job.progress().state is ShownState.SUSPENDED
    job.pause("release freeze")
    assert not job.is_over()
    assert "release freeze" in job.progress().reason


def test_storage_that_is_away_is_no_end(job: SubmittedJob) -> None:
    root = job.path.parent
    root.rename(root.with_name("away"))
    assert not job.is_over()
    root.with_name("away").rename(root)
    assert not job.is_over()


def test_discarded_job_is_not_waited_for(job: SubmittedJob) -> None:
    JobFolder(job.path).discard()
    for call in (job.wait, job.progress, job.report, job.retry):
        with pytest.raises(JobNotFoundError, match=f"job {job.id} was discarded"):
            call()


def test_report_and_rejects_are_those_of_the_log(job: SubmittedJob, lease: Lease) -> None:
    log(lease, *SUCCEEDED)
    report = job.report()
    assert report.status.state is ShownState.SUCCEEDED
    assert (report.epoch_count, list(job.rejects())) == (1, [])


def test_pauses_are_a_hundredth_of_the_wait_and_at_most_half_a_second() -> None:
    clock = iter([0.0, 0.0, 0.5, 5.0, 50.0, 500.0, 999.9, 1000.0])
    pauses = Pauses("a1b2c3d4", 1000.0, lambda: next(clock))
    taken = [pauses.next_s() for _ in range(6)]
    assert taken == pytest.approx([0.01, 0.01, 0.05, 0.5, 0.5, 0.1])
    with pytest.raises(TimeoutError):
        pauses.next_s()
