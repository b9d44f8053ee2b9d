"""The commands that show submitted jobs, on folders as drivers leave them."""

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.entries import JobResult, Note
from pyrmute_tasks.jobs.states import Wish
from tests.acceptance.test_run import call_here, command
from tests.unit.watched_jobs import WatchedJob

SECRET = "ada@example.org"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def rejecting(root: Path) -> WatchedJob:
    """A job of a thousand records, of which the eleventh was rejected."""
    job = WatchedJob.submitted(root, "aaaa1111", name="nightly")
    job.taken().settle(1).reject([KeyError(SECRET)]).settle(98)
    return job.ended(JobResult.SUCCEEDED_WITH_REJECTS)


@pytest.fixture
def paused(root: Path) -> WatchedJob:
    job = WatchedJob.submitted(root, "bbbb2222").taken().settle(40)
    return job.obey(Wish.PAUSE, why="release freeze").let_go("paused by ann@host: release freeze")


def test_jobs_lists_them_with_reasons(
    root: Path, rejecting: WatchedJob, paused: WatchedJob
) -> None:
    shown = call_here("jobs", "--jobs", root)
    assert shown.returncode == 0
    header, first, reason, second = shown.stdout.splitlines()
    assert header.split()[:3] == ["STATE", "JOB", "NAME"]
    assert first.split()[:2] == ["paused", "bbbb2222"]
    assert reason.strip() == "paused by ann@host: release freeze"
    assert second.split()[:6] == ["succeeded", "aaaa1111", "nightly", "User", "100%", "1"]
    lines = call_here("jobs", "--jobs", root, "--json", "--state", "paused").stdout.splitlines()
    (job,) = map(json.loads, lines)
    assert (job["job"], job["state"], job["fraction"]) == ("bbbb2222", "paused", 0.4)


def test_ended_jobs_beyond_the_limit_are_counted(root: Path, rejecting: WatchedJob) -> None:
    shown = call_here("jobs", "--jobs", root, "--limit", 0)
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "1 more job ended before these: --all shows all" in shown.stderr
    assert "aaaa1111" in call_here("jobs", "--jobs", root, "--limit", 0, "--all").stdout


def test_jobs_root_comes_from_the_environment(
    root: Path, paused: WatchedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call_here("jobs").returncode == 2
    monkeypatch.setenv("PYRMUTE_TASKS_JOBS_ROOT", str(root))
    assert "bbbb2222" in call_here("jobs").stdout


def test_status_is_a_page_or_json(root: Path, paused: WatchedJob) -> None:
    page = call_here("status", "bbbb", "--jobs", root)
    assert page.returncode == 0
    assert page.stdout.startswith("paused  bbbb2222\n")
    assert "paused by ann@host: release freeze" in page.stdout
    found = json.loads(call_here("status", "bbbb2222", "--jobs", root, "--json").stdout)
    assert (found["reason"], found["records"]) == ("paused by ann@host: release freeze", 400)


def test_unknown_job_is_an_error_that_names_what_lists_them(root: Path, paused: WatchedJob) -> None:
    for name in ("status", "watch", "rejects", "report"):
        shown = call_here(name, "nope", "--jobs", root)
        assert shown.returncode == 1
        assert "there is no job 'nope'" in shown.stderr
        assert "`pyrmute-tasks jobs` lists them" in shown.stderr


def test_rejects_are_json_lines_without_records(root: Path, rejecting: WatchedJob) -> None:
    shown = call_here("rejects", "nightly", "--jobs", root)
    (line,) = map(json.loads, shown.stdout.splitlines())
    assert (line["index"], line["line"], line["type"]) == (10, 11, "KeyError")
    assert SECRET not in shown.stdout
    assert call_here("rejects", "nightly", "--jobs", root, "--limit", 0).stdout == ""


def test_report_is_text_or_json(root: Path, rejecting: WatchedJob) -> None:
    text = call_here("report", "nightly", "--jobs", root).stdout
    assert "1 × step 1.0.0 → 2.0.0: KeyError; first record 10 (line 11)" in text
    found = json.loads(call_here("report", "nightly", "--jobs", root, "--json").stdout)
    assert found["failures"][0]["first_index"] == 10
    assert (found["output_digest"], found["status"]["state"]) == (
        "d19e57",
        "succeeded with rejects",
    )


def test_run_in_the_foreground_is_shown_by_its_target(tmp_path: Path) -> None:
    job = WatchedJob.beside(tmp_path / "out.jsonl").taken().settle(40)
    shown = call_here("status", tmp_path / "out.jsonl")
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "running")
    job.let_go("interrupted")
    found = json.loads(call_here("status", tmp_path / "out.jsonl", "--json").stdout)
    assert (found["state"], found["reason"], found["fraction"]) == ("stopped", "interrupted", 0.4)
    assert "1: " in call_here("report", tmp_path / "out.jsonl").stdout


# --- watching -------------------------------------------------------------------------------


def test_watch_ends_as_the_worst_job_has(root: Path, rejecting: WatchedJob) -> None:
    WatchedJob.submitted(root, "cccc").taken().ended(JobResult.FAILED, "KeyError")
    held = WatchedJob.submitted(root, "dddd").taken().let_go("held", Note.HELD)
    assert call_here("watch", held.folder.spec.job, "--jobs", root).returncode == 0
    assert call_here("watch", "dddd", "nightly", "--jobs", root).returncode == 3
    failed = call_here("watch", "dddd", "nightly", "cccc", "--jobs", root)
    assert failed.returncode == 1
    assert "cccc: 0%, 0 records, took 0 s; failed: KeyError" in failed.stdout
    assert failed.stdout.count("\n") == 3  # without a terminal a line each


@pytest.fixture
def watching(root: Path) -> Iterator[tuple[WatchedJob, "subprocess.Popen[bytes]", int]]:
    """A job that runs, watched in a terminal."""
    job = WatchedJob.submitted(root, "eeee").taken().settle(10)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("watch", "eeee", "--jobs", root),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(theirs)
    try:
        yield job, process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, told: str) -> str:
    """Read from a terminal until a text has come."""
    found, until = b"", time.monotonic() + 60
    while told.encode() not in found:
        assert time.monotonic() < until, found
        try:
            found += os.read(terminal, 4096)
        except OSError:  # its other end is closed
            raise AssertionError(found) from None
    return found.decode()


@pytest.mark.slow
def test_watch_redraws_until_the_end(
    watching: tuple[WatchedJob, "subprocess.Popen[bytes]", int],
) -> None:
    job, process, terminal = watching
    read_until(terminal, "100 records")
    job.settle(90)
    assert "\x1b[J" in read_until(terminal, "1,000 records")
    job.ended(JobResult.SUCCEEDED)
    read_until(terminal, "succeeded")
    assert process.wait(30) == 0


def test_interrupt_ends_the_watching_only(
    watching: tuple[WatchedJob, "subprocess.Popen[bytes]", int],
) -> None:
    job, process, terminal = watching
    read_until(terminal, "100 records")
    process.send_signal(signal.SIGINT)
    read_until(terminal, "no longer watched; nothing else has ended")
    assert process.wait(30) == 130
    job.settle(1)  # its lease is as before
