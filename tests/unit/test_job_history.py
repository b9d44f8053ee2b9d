"""The report of a job, and its rejects, by logs that real leases have written."""

import json
import tracemalloc
from pathlib import Path

import pytest

from pyrmute_tasks.io.rejects import rejects_to_lines
from pyrmute_tasks.jobs.entries import JobResult, Note
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.service.history import FailureGroup, LoggedReport, report_of
from pyrmute_tasks.service.rates import RateTally
from pyrmute_tasks.service.rejects import rejects_of
from tests.unit.watched_jobs import WatchedJob

SECRET = "ada@example.org"


@pytest.fixture
def job(tmp_path: Path) -> WatchedJob:
    return WatchedJob.submitted(tmp_path / "jobs")


def told(report: LoggedReport) -> list[tuple[str, float, str]]:
    return [
        (each.kind, each.until - each.since if each.until else -1, each.why)
        for each in report.periods
    ]


def test_report_tells_epochs_and_what_was_between(job: WatchedJob) -> None:
    job.clock = job.folder.spec.created_at
    job.later(5).taken(host="c1", pid=12).settle(3).later(60)
    job.obey(Wish.PAUSE, why="release freeze").let_go("paused by ann@host: release freeze")
    job.later(600).taken(host="c2").settle(2).later(30).note(Note.CRASH, "worker w2: signal 11")
    job.let_go("no worker answers", Note.SUSPENDED).later(2)
    job.taken().settle(1).later(10)
    job.later(20).taken().note(Note.WAIT, "the output is slow").later(7).note(Note.RESUMED, "")
    job.settle(1).later(1).ended(JobResult.SUCCEEDED)
    report = report_of(job.folder)
    assert [(each.epoch, each.ranges, each.records) for each in report.epochs] == [
        (1, 3, 30),
        (2, 2, 20),
        (3, 1, 10),
        (4, 1, 10),
    ]
    assert [each.ended for each in report.epochs] == [
        "paused by ann@host: release freeze",
        "suspended: no worker answers",
        "its driver was gone",
        "succeeded",
    ]
    assert [(each.host, each.pid) for each in report.epochs[:1]] == [("c1", 12)]
    assert [(kind, round(s), why) for kind, s, why in told(report)] == [
        ("queued", 5, ""),
        ("paused", 600, "by ann@host: release freeze"),
        ("suspended", 2, "no worker answers"),
        ("unattended", 30, "its driver was gone"),
        ("waiting", 7, "the output is slow"),
    ]
    assert round(report.driven_s) == 60 + 30 + 8
    assert (report.takeovers, report.suspension_count, report.crash_count) == (1, 1, 1)
    assert [crash.why for crash in report.crashes] == ["worker w2: signal 11"]
    assert [wish.want["why"] for wish in report.wishes] == ["release freeze"]
    assert (report.ranges, report.workers, report.epoch_count) == (7, {"w1": 7}, 4)
    assert (report.output_bytes, report.output_digest) == (123, "d19e57")
    assert report.codes == {"f00d": 1}
    assert sum(report.rate.records) == 70


def test_report_of_a_job_under_way_has_no_end(job: WatchedJob) -> None:
    job.taken().settle(2).later(3).settle(1)
    report = report_of(job.folder)
    assert [(each.ended, each.records) for each in report.epochs] == [("", 30)]
    assert report.output_bytes is None
    job.let_go("no worker answers", Note.SUSPENDED)
    assert told(report_of(job.folder))[-1] == ("suspended", -1, "no worker answers")


def test_report_of_a_queued_job_is_nearly_empty(job: WatchedJob) -> None:
    report = report_of(job.folder)
    assert (report.epochs, report.failures, report.ranges) == ((), (), 0)
    assert [each.kind for each in report.periods] == ["queued"]


def test_failures_are_grouped_with_the_first_of_each(job: WatchedJob) -> None:
    job.taken().settle(1).reject([KeyError(SECRET), ValueError(SECRET)]).settle(2)
    job.reject([KeyError(SECRET)])
    report = report_of(job.folder)
    assert report.failures == (
        FailureGroup("1.0.0 → 2.0.0", "", "KeyError", 2, 10, 11),
        FailureGroup("validate", "", "ValueError", 1, 11, 12),
    )
    assert SECRET not in json.dumps(report.as_fields())


def test_rejects_are_lines_of_a_rejects_file_with_what_is_known(job: WatchedJob) -> None:
    job.taken().settle(1).reject([KeyError(SECRET)]).reject([ValueError(SECRET)], at=500)
    lines = rejects_to_lines(rejects_of(job.folder)).splitlines()
    first, last = map(json.loads, lines)
    assert (first["index"], first["line"], first["offset"]) == (10, 11, 10)
    assert (last["index"], last["line"], last["offset"]) == (None, None, 500)
    assert first["file"] == job.folder.spec.sources[0].path
    assert (first["type"], first["step"]) == ("KeyError", "1.0.0 → 2.0.0")
    assert SECRET not in b"".join(lines).decode()
    job.settle(48, at=20)
    assert [each.index for each in rejects_of(job.folder)] == [10, 500]


def test_cancelled_job_tells_how_many_were_rejected_but_not_which(job: WatchedJob) -> None:
    job.taken().reject([KeyError(SECRET)]).ended(JobResult.CANCELLED, "cancelled by ann@host")
    job.folder.keep_history()
    (job.folder.path / "rejects.1").unlink()  # as who drives it does
    report = report_of(job.folder)
    assert (report.status.rejected, report.failures) == (1, ())
    assert list(rejects_of(job.folder)) == []


def test_rates_stay_few_however_long_a_job_takes() -> None:
    tally = RateTally()
    for minute in range(100_000):
        tally.add(minute * 60.0, 6)
    rate = tally.over_time()
    assert len(rate.records) <= 120
    assert sum(rate.records) == 600_000
    assert rate.column_s == 60 * 2**10
    assert rate.per_minute[1] == pytest.approx(6)


def test_memory_of_a_report_does_not_follow_the_number_of_ranges(job: WatchedJob) -> None:
    job.taken().settle(10_000)  # some 8 MB, if they were kept
    tracemalloc.start()
    try:
        assert report_of(job.folder).ranges == 10_000
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20  # the log is read by the MiB
    finally:
        tracemalloc.stop()
