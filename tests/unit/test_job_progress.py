"""What is shown of a job: the state folded from events, as a bar, a line, and JSON."""

import io
import json
import unicodedata
from typing import Final

import pytest

from pyrmute_tasks import ChunkDelivered, JobEnded, JobReport, JobState, Wait, WaitBegan
from pyrmute_tasks.engine.events import (
    ChunkResent,
    ChunkSettled,
    Event,
    FleetSeen,
    RecordIsolated,
    SourceOpened,
    WorkerDeclined,
    WorkerGone,
)
from pyrmute_tasks.engine.job_progress import JobProgress, sentence_of
from pyrmute_tasks.engine.progress import ProgressBar, ProgressOptions
from pyrmute_tasks.engine.progress_text import bar_lines, json_line, plain_line, wrapped

MIB: Final = 1024 * 1024
WIDTHS: Final = (50, 80, 120)
LAG: Final = "replication of the reporting database lags by 12 minutes, says the data team"
WAITS: Final[dict[str, tuple[list[Event], float, str]]] = {
    "running": ([WaitBegan(Wait.WORKERS)], 0.0, ""),
    "no worker": ([FleetSeen(0, "no worker answers", 17.0)], 1.0, "no worker answers for 18 s"),
    "just now": ([FleetSeen(0, "no worker answers", 1.0)], 1.0, ""),
    "silence": ([], 27.0, "broker or store have not answered for 27 s"),
    "throttled": ([WaitBegan(Wait.THROTTLE, LAG)], 31.0, f"throttled for 31 s: {LAG}"),
    "source": ([WaitBegan(Wait.SOURCE)], 9.0, "the source is slow: nothing read for 9 s"),
    "output": ([WaitBegan(Wait.OUTPUT)], 9.0, "the output is slow: nothing taken for 9 s"),
    "a moment": ([WaitBegan(Wait.OUTPUT)], 1.0, ""),
    "pace": ([WaitBegan(Wait.PACE)], 9.0, ""),
    "publishing": ([WaitBegan(Wait.PUBLISH)], 9.0, "the output is being published"),
}


def cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def a_minute_of(job: JobProgress, records: int = 45_678, rejected: int = 0) -> float:
    """Let a job of 900 MiB run for a minute; return the time."""
    job.note(SourceOpened(900 * MIB), 0.0)
    for second in range(1, 61):
        job.note(FleetSeen(2), second)
        job.note(ChunkDelivered(second, records, 6 * MIB, rejected), second)
        job.note(WaitBegan(Wait.WORKERS), second)
    return 60.0


# --- the state ----------------------------------------------------------------------------


def test_rate_and_eta_are_those_of_late() -> None:
    job = JobProgress()
    now = a_minute_of(job)
    assert job.rate(now) == pytest.approx(45_678)
    assert job.eta_s(now) == pytest.approx(540 / 6)
    for second in range(61, 121):
        job.note(ChunkDelivered(second, 10, 1 * MIB), second)
    assert job.rate(120.0) == pytest.approx(10)
    assert job.eta_s(120.0) == pytest.approx(480)


def test_rate_sinks_while_nothing_comes() -> None:
    job = JobProgress()
    now = a_minute_of(job)
    rates = [job.rate(now + later) for later in (0, 10, 60, 600)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * rates[0]


@pytest.mark.parametrize("name", WAITS)
def test_reasons_of_waits(name: str) -> None:
    events, later, reason = WAITS[name]
    job = JobProgress()
    now = a_minute_of(job)
    for event in events:
        job.note(event, now)
    assert job.waiting(now + later) == reason


def test_resumed_job_begins_where_the_earlier_one_ended() -> None:
    job = JobProgress()
    job.note(SourceOpened(100, 60, 600, 3), 0.0)
    job.note(ChunkDelivered(0, 100, 10), 10.0)
    assert (job.records, job.rejected, job.fraction()) == (700, 3, 0.7)
    assert job.rate(10.0) == pytest.approx(10)
    assert job.eta_s(10.0) == pytest.approx(30)
    for opened in (SourceOpened(100, 60, 600, 3), SourceOpened(100, settled=600)):
        assert sentence_of(opened) == "resumed: 600 records were there already"


def test_ranges_of_earlier_runs_are_no_part_of_the_rate() -> None:
    job = JobProgress()
    job.note(SourceOpened(100), 0.0)
    job.note(ChunkSettled(0, 60, 0.0, "", failed=False), 1.0)
    job.note(ChunkDelivered(0, 600, 60, 3), 1.0)
    job.note(ChunkSettled(1, 10, 4.0, "worker", failed=False), 10.0)
    job.note(ChunkDelivered(1, 100, 10), 10.0)
    assert (job.records, job.rejected, job.fraction()) == (700, 3, 0.7)
    assert job.rate(10.0) == pytest.approx(10)
    assert job.eta_s(10.0) == pytest.approx(30)


def test_records_count_where_there_is_no_file() -> None:
    job = JobProgress(total=10)
    job.note(ChunkDelivered(0, 4, 900, 1), 1.0)
    assert job.fraction() == 0.5


def test_ended_job_has_the_counts_of_its_report() -> None:
    job = JobProgress()
    now = a_minute_of(job)
    report = JobReport("ab", JobState.SUCCEEDED, 5_000_000, 60, 0, 50.0, {}, rejected=7)
    job.note(JobEnded(report), now)
    assert (job.fraction(), job.rate(now + 9), job.elapsed_s(now + 9)) == (1.0, 100_000, 50)
    assert "took 50 s" in plain_line(job, now + 9)


# --- as text ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", WAITS)
def test_bar_fits_and_tells_all(name: str, width: int) -> None:
    events, later, reason = WAITS[name]
    job = JobProgress(max_rate=50_000 if name == "throttled" else None)
    now = a_minute_of(job, records=2_345_678, rejected=20)
    for event in events:
        job.note(event, now)
    lines = bar_lines(job, now + later, width)
    assert max(map(cells, lines)) <= width
    text = " ".join(lines)
    for field in ("40%", "140,740,680 records", "/s", "1,200 rejected", "worker", "ETA "):
        assert field in text
    assert text.count("━") + text.count("─") >= 10
    assert ("waiting: " + reason[:30] in text) == bool(reason)
    assert ("ETA ?" in text) == bool(reason)
    assert len(lines) <= (2 if width < 100 else 1) + 2 * bool(reason)


def test_bar_at_three_widths() -> None:
    job = JobProgress()
    now = a_minute_of(job)
    job.note(FleetSeen(0, "no worker answers", 17.0), now)
    assert bar_lines(job, now, 50) == [
        " 40% " + "━" * 15 + "─" * 23 + "  ETA ?",
        " 2,740,680 records  45,678/s  0 workers",
        "waiting: no worker answers for 17 s",
    ]
    assert bar_lines(job, now, 80) == [
        " 40% " + "━" * 11 + "─" * 17 + "  2,740,680 records  45,678/s  0 workers  ETA ?",
        "waiting: no worker answers for 17 s",
    ]
    assert bar_lines(job, now, 120)[0] == (
        " 40% " + "━" * 24 + "─" * 36 + "  2,740,680 records  45,678/s  0 workers  ETA ?"
    )


@pytest.mark.parametrize("width", [12, 20, 30, 40])
def test_bar_fits_where_it_hardly_can(width: int) -> None:
    job = JobProgress()
    now = a_minute_of(job, records=1_000_000_000)
    job.note(WaitBegan(Wait.THROTTLE, "数据库复制滞后" * 9), now)
    assert all(cells(line) <= width for line in bar_lines(job, now + 9, width))


def test_start_of_a_fleet_has_no_counts() -> None:
    job = JobProgress()
    job.note(WaitBegan(Wait.START), 0.0)
    assert bar_lines(job, 0.5, 80) == ["waiting: the fleet starts"]
    assert plain_line(job, 0.5) == "waiting: the fleet starts"
    job.note(WaitBegan(Wait.WORKERS), 10.0)
    job.note(ChunkDelivered(0, 500, 0), 15.0)
    assert job.rate(15.0) == 100, "the start counts as little as in the report"


def test_unknown_end_has_neither_bar_nor_eta() -> None:
    job = JobProgress()
    job.note(SourceOpened(None), 0.0)
    job.note(ChunkDelivered(0, 1200, 1000), 12.0)
    assert bar_lines(job, 12.0, 80) == ["1,200 records  100/s  for 12 s"]
    assert json.loads(json_line(job, 12.0))["fraction"] is None


def test_plain_line_and_json() -> None:
    job = JobProgress()
    now = a_minute_of(job, rejected=1)
    assert plain_line(job, now) == (
        "40%, 2,740,680 records, 45,678/s, 60 rejected, 2 workers, ETA 90 s"
    )
    job.note(WaitBegan(Wait.THROTTLE, "a\nb"), now)
    assert plain_line(job, now + 5).endswith(r"ETA ?; waiting: throttled for 5 s: a\nb")
    assert json.loads(json_line(job, now + 5)) == {
        "state": "running",
        "elapsed_s": 65.0,
        "records": 2_740_680,
        "rejected": 60,
        "records_per_s": 38_065.0,
        "fraction": 0.4,
        "eta_s": None,
        "workers": 2,
        "waiting": "throttled for 5 s: a\nb",
    }


def test_seconds_stay_with_their_number() -> None:
    assert wrapped("nothing read for 12 s", 19, 2) == ["nothing read for", "12 s"]
    assert wrapped("a b c d e f g", 5, 2) == ["a b c", "d e …"]


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (WorkerGone("w@h:1"), "worker w@h:1 is gone; what it had begun is sent again"),
        (WorkerDeclined("w", "step X differs"), "worker w takes no chunk: step X differs"),
        (ChunkResent(7, "nobody took it"), "chunk 7 is sent again: nobody took it"),
        (
            ChunkResent(7, "its process ended: signal 9 (SIGKILL)", in_halves=True),
            "chunk 7 is sent again in two halves, to find the record at fault: its process ended: "
            "signal 9 (SIGKILL)",
        ),
        (
            RecordIsolated(723, "in.jsonl, line 724", "signal 9 (SIGKILL)"),
            "in.jsonl, line 724 (record 723) is skipped: every process that ran it ended "
            "(signal 9 (SIGKILL))",
        ),
        (FleetSeen(2), ""),
    ],
)
def test_sentences_of_events(event: Event, sentence: str) -> None:
    assert sentence_of(event) == sentence


# --- the observer -------------------------------------------------------------------------


def test_lines_go_to_the_stream_of_the_observer() -> None:
    stream = io.StringIO()
    bar = ProgressBar(10, ProgressOptions(as_json=True), stream)
    bar(ChunkDelivered(0, 4, 0))
    bar(WorkerGone("w"))
    bar.say("a warning")
    bar(JobEnded(JobReport("ab", JobState.SUCCEEDED, 10, 1, 0, 1.0, {})))
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert rows[0]["note"].startswith("worker w is gone")
    assert rows[1] == {"note": "a warning"}
    assert (rows[2]["state"], rows[2]["records"], len(rows)) == ("succeeded", 10, 3)


def test_trouble_is_not_told_without_end() -> None:
    stream = io.StringIO()
    bar = ProgressBar(10, stream=stream)
    for number in range(1000):
        bar(ChunkResent(number, "nobody took it"))
    bar.close()
    bar.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 52
    assert lines[50] == "more of this kind is not shown"
