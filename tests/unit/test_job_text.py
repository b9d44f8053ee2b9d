"""Submitted jobs as text: a table, a page, a line and a report, at every width."""

import itertools
import unicodedata
from dataclasses import replace
from typing import Final

import pytest

from pyrmute_tasks.cli.job_status import exit_status
from pyrmute_tasks.cli.job_text import bytes_of, job_page, job_table, progress_line, short_number
from pyrmute_tasks.cli.report_text import report_lines
from pyrmute_tasks.jobs.driver import Driver
from pyrmute_tasks.jobs.states import ShownState, Wish
from pyrmute_tasks.jobs.want import Want
from pyrmute_tasks.service.history import (
    Crash,
    EpochReport,
    FailureGroup,
    LoggedReport,
    Period,
    WishReport,
)
from pyrmute_tasks.service.rates import RateOverTime
from pyrmute_tasks.service.status import JobStatus

NOW: Final = 1_800_000_000.0
LONG: Final = "the store redis://queue.internal:6379/0 does not answer: connection refused; " * 4
RUNNING: Final = JobStatus(
    job="2908961f2908961f",
    name="orders-of-the-year-2026-backfill-注文",
    model="Order",
    from_version="1.0.0",
    to_version="3.0.0",
    sources=("/data/orders.jsonl", "/data/more.jsonl"),
    target="/data/new/orders.jsonl",
    state=ShownState.RUNNING,
    priority="high",
    queue="pyrmute-tasks",
    submitted_by="ann@build-3",
    submitted_at=NOW - 4000,
    begun_at=NOW - 3900,
    elapsed_s=3900.0,
    driver=Driver(host="c1", pid=12, who="svc"),
    way="by reference",
    records=3_482_113,
    outputs=3_482_001,
    rejected=112,
    done_bytes=412,
    total_bytes=1000,
    rate=4123.4,
    eta_s=1210.0,
    causes={"step 1.0.0 → 2.0.0: KeyError": 100, "validate: ValidationError": 12},
    workers=4,
    window=16,
    in_flight=12,
    jobs=2,
    notes=("worker w3@host-7 is gone; what it had begun is sent again",),
    want=Want(max_rate=5000.0, who="bob@host", why="evening peak", at=NOW - 60),
    epochs=3,
    suspensions=2,
    crashes=1,
)
SUSPENDED: Final = JobStatus(
    job="5", model="Invoice", state=ShownState.SUSPENDED, reason=LONG, submitted_at=NOW - 90
)
FAILED: Final = JobStatus(
    job="6",
    name="payments",
    model="Payment",
    state=ShownState.FAILED,
    reason="line 7 (record 6): KeyError",
    done_bytes=None,
    ended_at=NOW,
)
REPORT: Final = LoggedReport(
    status=RUNNING,
    options={"on_error": "skip", "max_errors": None},
    fingerprint="f00d",
    codes={"f00d": 1, "beef": 7},
    epochs=tuple(
        EpochReport(epoch=number, host="c1", pid=12, begun_at=NOW, ended_at=NOW + 30, ended=LONG)
        for number in range(1, 40)
    ),
    epoch_count=39,
    ranges=412,
    driven_s=900.0,
    periods=(
        Period("queued", NOW - 100, NOW - 40, ""),
        Period("suspended", NOW - 30, NOW - 20, "no worker answers"),
        Period("suspended", NOW - 10, 0.0, "no worker answers"),
    ),
    wishes=(WishReport(NOW, {"wish": "pause", "who": "ann@host", "why": "release freeze"}),),
    failures=(FailureGroup("1.0.0 → 2.0.0", "", "KeyError", 100, 4212, 4213),),
    rate=RateOverTime(NOW, 60, tuple(range(100))),
    crashes=(Crash(NOW, "a chunk killed its process (signal 11)"),),
    crash_count=2,
    takeovers=1,
    suspension_count=2,
    workers={"w1": 400, "w2": 12},
    output_bytes=123456,
    output_digest="d19e57",
)


def cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


@pytest.mark.parametrize("width", [49, 79, 100, 119])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    jobs = [RUNNING, SUSPENDED, FAILED]
    for lines in (
        job_table(jobs, NOW, width),
        *(job_page(job, width) for job in jobs),
        report_lines(REPORT, NOW, width),
    ):
        assert max(map(cells, lines)) <= width
        assert all(line.isprintable() for line in lines)


def test_table_shows_each_job_and_below_it_why_it_waits() -> None:
    table = job_table([RUNNING, FAILED], NOW, 119)
    assert " ".join(table[0].split()) == "STATE JOB NAME MODEL DONE RATE ETA REJECTS AGE"
    assert table[1].split()[0] == "running"
    assert table[1].split()[-7:] == ["41%", "4.1k/s", "20", "min", "112", "1", "h"]
    assert [line.strip() for line in table[2:]][-1] == "line 7 (record 6): KeyError"
    only_ended = job_table([FAILED], NOW, 119)[0]
    assert "ETA" not in only_ended  # a column of nothing


def test_narrow_table_shows_state_job_progress_and_a_command_whole() -> None:
    held = replace(
        RUNNING,
        state=ShownState.HELD,
        reason="its output is whole, and held; `pyrmute-tasks publish 2908961f5b` publishes it",
    )
    table = job_table([RUNNING, held], NOW, 49)
    assert table[0].split()[:3] == ["STATE", "JOB", "NAME"]
    assert "41%" in table[1]
    assert "`pyrmute-tasks publish 2908961f5b` publishes it" in " ".join(
        line.strip() for line in table[-3:]
    )


def test_reason_of_the_row_above_is_not_told_again() -> None:
    reason = "no coordinator was ever seen at this jobs root: start `pyrmute-tasks coordinator`"
    queued = JobStatus(job="8", reason=reason)
    table = job_table([queued, replace(queued, job="9"), FAILED, queued], NOW, 119)
    told = [line.strip() for line in table[1:]]
    assert [told[1], told[3], told[7]] == [reason, "as above", reason]


@pytest.mark.parametrize("width", [49, 79, 119])
def test_command_that_helps_is_not_cut_off(width: int) -> None:
    reason = (
        "no coordinator runs for this jobs root (last seen 40 s ago): start "
        "`pyrmute-tasks coordinator`; it was suspended: no worker answers on queue 'pyrmute-tasks'"
    )
    job = replace(SUSPENDED, reason=reason)
    for lines in (job_table([job], NOW, width), job_page(job, width)):
        assert reason in " ".join(" ".join(lines).split())


def test_chunks_beyond_a_share_that_has_shrunk_are_no_contradiction() -> None:
    page = "\n".join(job_page(replace(RUNNING, in_flight=6, window=2), 119))
    assert "6 chunks in flight, soon at most 2" in page


def test_long_names_are_shortened_before_numbers() -> None:
    row = job_table([RUNNING], NOW, 79)[1]
    assert "orders-" in row
    assert "…" in row
    for told in ("2908961f", "Order", "41%", "4.1k/s", "20 min", "112"):
        assert told in row


def test_page_of_a_running_job_fits_a_screen_and_tells_all() -> None:
    page = job_page(RUNNING, 79)
    assert len(page) <= 24
    text = " ".join(" ".join(page).split())
    for told in (
        "41% ━",
        "3,482,113 records 4,123/s (max 5,000) 112 rejected 4 workers",
        "ETA 0:20:10",
        "Order 1.0.0 → 3.0.0",
        "/data/orders.jsonl and 1 more file, 1,000 bytes",
        "by ann@build-3, priority high",
        "process 12 of svc on host c1, by reference",
        "4 workers on queue pyrmute-tasks, shared by 2 jobs; 12 of at most 16 chunks in flight",
        "at most 5,000 records/s, by bob@host",
        "evening peak",
        "100 × step 1.0.0 → 2.0.0: KeyError",
        "3 epochs; suspended 2 times since anything moved; 1 crash survived",
        "worker w3@host-7 is gone",
    ):
        assert told in text


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (replace(RUNNING, on_end="due"), "at end    coordinators with --allow-on-end run its"),
        (replace(FAILED, on_end="due"), "at end    its command was not run yet: coordinators with"),
        (replace(FAILED, on_end="run"), "at end    its command was run"),
    ],
)
def test_page_tells_of_a_command_for_the_end(job: JobStatus, told: str) -> None:
    assert any(line.startswith(told) for line in job_page(job, 79))
    assert not any("at end" in line for line in job_page(replace(job, on_end=""), 79))


def test_line_of_a_log_tells_progress_and_reason() -> None:
    assert progress_line(FAILED) == (
        "payments (6): 0 records, took 0 s; failed: line 7 (record 6): KeyError"
    )
    assert progress_line(RUNNING).endswith("112 rejected, 4 workers, ETA 0:20:10; running")


def test_limits_of_a_paused_job_are_told_without_who_paused_it() -> None:
    want = Want(Wish.PAUSE, max_rate=10.0, who="ann@host", why="freeze", at=NOW)
    (line,) = (line for line in job_page(JobStatus(job="7", want=want), 79) if "wishes" in line)
    assert line.endswith("at most 10 records/s")


def test_report_of_a_job_that_nobody_took_is_a_page() -> None:
    assert report_lines(LoggedReport(status=JobStatus(job="7")), NOW, 79)[0] == "queued  7"


def test_report_groups_what_repeats() -> None:
    text = " ".join(" ".join(report_lines(REPORT, NOW, 119)).split())
    for told in (
        "code f00d, then beef from epoch 7 on",
        "options on_error skip",
        "412 by 2 workers; driven for 0:15:00",
        "output 121 KiB, digest d19e57",
        "… 27 epochs …",
        "100 × step 1.0.0 → 2.0.0: KeyError; first record 4,212 (line 4,213)",
        "suspended 2 times, 20 s, at most 10 s from",
        "and still is: no worker answers",
        "pause, by ann@host: release freeze",
        "1 death of its driver",
        "2 crashes",
        "at most 98 records/min",
    ):
        assert told in text


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (999.4, "999"), (999.6, "1.0k"), (4123, "4.1k"), (12_345, "12k"), (9.9e8, "990M")],
)
def test_numbers_are_short(value: float, told: str) -> None:
    assert short_number(value) == told


def test_sizes_are_told_in_the_largest_unit() -> None:
    sizes = [bytes_of(size) for size in (1, 1023, 1024, 10_240, 123_456_789, 10**13)]
    assert sizes == ["1 byte", "1,023 bytes", "1.0 KiB", "10 KiB", "118 MiB", "9.1 TiB"]


def test_exit_status_is_that_of_the_worst_job() -> None:
    done, rejects = JobStatus(job="1", ended_at=NOW), JobStatus(job="2", ended_at=NOW, rejected=1)
    for jobs, status in (([done], 0), ([done, rejects], 3), ([rejects, FAILED], 1)):
        for each in itertools.permutations(jobs):
            assert exit_status(each) == status
