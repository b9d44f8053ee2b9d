"""`submit`, `pause`, `resume`, `cancel` and `set`: what they take, print and refuse."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pyrmute_tasks.cli.coordinator import coordinator_command
from pyrmute_tasks.cli.job_status import status_command
from pyrmute_tasks.cli.jobs import discard_command
from pyrmute_tasks.cli.retry import retry_command
from pyrmute_tasks.cli.run import run
from pyrmute_tasks.cli.steer import cancel_command, pause_command, resume_command, set_command
from pyrmute_tasks.cli.submit import submit
from pyrmute_tasks.cli.worker import worker
from pyrmute_tasks.jobs.entries import JobResult
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.want import Want, read_want
from tests.unit.watched_jobs import WatchedJob

HOP = ("--manager", "tests.people:manager", "--model", "Person", "--from", "1.0.0", "--to", "3.0.0")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "in.jsonl").write_text(json.dumps({"name": "Ann Lee", "age": 7}) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYRMUTE_TASKS_JOBS_ROOT", "jobs")
    return tmp_path


def call(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def want_of(name: str) -> Want:
    return read_want(JobsRoot("jobs").find(name).storage, Want()).want


def test_submit_prints_the_id_and_nothing_else(here: Path) -> None:
    done = call(submit, *HOP, "--name", "people", "in.jsonl", "out.jsonl")
    folder = JobsRoot("jobs").find("people")
    assert (done.exit_code, done.output) == (0, f"{folder.spec.job}\n")
    done = call(submit, *HOP, "--json", "in.jsonl", "other.jsonl")
    told = json.loads(done.output)
    assert told == {"id": told["id"], "folder": str(here / "jobs" / told["id"])}


def test_all_options_of_a_job_are_taken_and_those_of_a_process_are_not() -> None:
    """`run` and `submit` share declarations; what is left out belongs to a process."""
    shared = {each.name for each in run.params} & {each.name for each in submit.params}
    only_run = {each.name for each in run.params} - shared
    assert only_run == {
        *("workers", "broker", "store", "wait_s", "stall_s"),  # a fleet of its own
        *("resume", "restart", "accept_code", "no_log", "keep_partial"),  # jobs are always logged
        *("rejects", "rejects_with_records", "include_records", "dry_run"),
        *("throttle", "stats_s", "quiet"),
    }
    done = call(
        submit,
        *HOP,
        *("--priority", "high", "--on-end", "true", "--give-up", "60", "--why", "release"),
        *("--overwrite", "--backup", "--hold", "--on-error", "skip", "--max-errors", "0.1%"),
        *("--max-rate", "9", "--window", "3", "--by-reference", "never", "--chunk-size", "5"),
        *("--limit", "1", "--retry-on", "builtins:OSError", "--attempts", "2"),
        *("--max-line-bytes", "99", "--queue", "q", "--name", "all", "in.jsonl", "out.jsonl"),
    )
    assert done.exit_code == 0, done.output
    spec, want = JobsRoot("jobs").find("all").spec, want_of("all")
    assert spec.terms is not None
    told = spec.terms.as_fields()
    assert told == {
        "manager": "tests.people:manager",
        "name": "all",
        "queue": "q",
        "priority": "high",
        "after": "",
        "by_reference": "never",
        "chunk_size": 5,
        "overwrite": True,
        "backup": True,
        "hold": True,
        "retry": told["retry"],
        "on_end": "true",
        "give_up_s": 60.0,
        "why": "release",
    }
    assert spec.terms.retry is not None
    assert spec.terms.retry[:2] == [["builtins:OSError"], 2]
    assert (spec.options["max_errors"], spec.options["max_line_bytes"]) == ("0.1%", 99)
    assert (want.max_rate, want.window, want.why) == (9.0, 3, "release")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ((*HOP, "-", "out.jsonl"), 2, "belongs to its process; use `run`"),
        ((*HOP, "in.jsonl", "-"), 2, "belongs to its process; use `run`"),
        ((*HOP, "--jobs", "no", "in.jsonl", "out.jsonl"), 2, "there is no jobs root"),
        ((*HOP, "--jobs", "", "in.jsonl", "out.jsonl"), 2, "which jobs root? --jobs DIR"),
        ((*HOP, "--max-errors", "3", "in.jsonl", "out.jsonl"), 2, "add --on-error skip"),
        ((*HOP, "--attempts", "3", "in.jsonl", "out.jsonl"), 2, "--attempts needs --retry-on"),
        ((*HOP, "--after", "x", "in.jsonl", "out.jsonl"), 1, "there is no job 'x'"),
        ((*HOP, "--name", "a/b", "in.jsonl", "out.jsonl"), 2, "cannot be named 'a/b'"),
        ((*HOP, "--why", "x" * 4001, "in.jsonl", "out.jsonl"), 2, "4,000 characters at most"),
        ((*HOP, "--give-up", "1e13", "in.jsonl", "out.jsonl"), 2, "give_up_s cannot be 10000"),
        ((*HOP, "--max-rate", "1e13", "in.jsonl", "out.jsonl"), 1, "max_rate is not between"),
        ((*HOP, "--limit", "9" * 20, "in.jsonl", "out.jsonl"), 1, "limit cannot be 9999"),
        (("--manager", "no:no", *HOP[2:], "in.jsonl", "out.jsonl"), 1, "No module named 'no'"),
    ],
)
def test_submit_refuses_in_one_sentence(arguments: tuple[str, ...], status: int, told: str) -> None:
    done = call(submit, *arguments)
    assert (done.exit_code, list(Path("jobs").iterdir())) == (status, [])
    assert done.output.startswith("error: ")
    assert told in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("--max-rate", "nan"), ("--max-rate", "inf"), ("--give-up", "nan")]
)
def test_what_is_no_number_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = call(submit, *HOP, *arguments, "in.jsonl", "out.jsonl")
    assert (done.exit_code, list(Path("jobs").iterdir())) == (2, [])
    assert "is not a number above 0" in done.output


@pytest.mark.parametrize("command", [coordinator_command, worker])
def test_log_level_that_is_none_is_wrong_usage(command: click.Command) -> None:
    done = call(command, "--loglevel", "loud")
    assert done.exit_code == 2
    assert "'loud' is not one of 'debug', 'info'" in done.output.lower()  # click's case differs


def test_why_a_job_was_submitted_stays_whatever_is_wished_later() -> None:
    call(submit, *HOP, "--name", "people", "--why", "release 3", "in.jsonl", "out.jsonl")
    call(pause_command, "people", "--why", "lunch")
    call(resume_command, "people")
    assert ": release 3" in call(status_command, "people").output


def test_job_after_one_that_was_cancelled_is_refused() -> None:
    WatchedJob.submitted(Path("jobs"), "first").taken().ended(JobResult.CANCELLED)
    done = call(submit, *HOP, "--after", "first", "in.jsonl", "out.jsonl")
    assert (done.exit_code, [each.name for each in Path("jobs").iterdir()]) == (1, ["first"])
    assert done.output == "error: nothing can begin after job first: it was cancelled\n"


def test_job_is_steered_by_name() -> None:
    call(submit, *HOP, "--on-error", "skip", "--name", "people", "in.jsonl", "out.jsonl")
    assert call(pause_command, "people", "--why", "lunch").exit_code == 0
    assert (want_of("people").wish, want_of("people").why) == (Wish.PAUSE, "lunch")
    arguments = ("--max-rate", "2.5", "--window", "4", "--max-errors", "1%")
    assert call(set_command, "people", *arguments).exit_code == 0
    assert want_of("people").wish is Wish.PAUSE
    assert (want_of("people").max_rate, want_of("people").window) == (2.5, 4)
    call(set_command, "people", "--max-rate", "0", "--window", "none", "--max-errors", "none")
    want = want_of("people")
    assert (want.max_rate, want.window, want.max_errors) == (0.0, 0, "none")
    assert call(resume_command, "people", "--manager", "tests.people:manager").exit_code == 0
    done = call(resume_command, "people")
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "is not paused" in done.output
    assert call(cancel_command, "people").exit_code == 0
    assert "has cancelled job" in call(pause_command, "people").output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--max-rate", "fast"), "neither a number of 0 or more nor none"),
        (("--window", "1.5"), "neither a number of 0 or more"),
        (("--window", "-1"), "neither a number of 0 or more"),
        (("--max-rate", "inf"), "neither a number of 0 or more"),
        (("--max-errors", "many"), "max_errors must be a number"),
        ((), "name a limit to set: --max-rate"),
    ],
)
def test_senseless_limits_are_wrong_usage(arguments: tuple[str, ...], told: str) -> None:
    done = call(set_command, "people", *arguments)
    assert done.exit_code == 2
    assert told in done.output


def test_unknown_job_and_root_are_told() -> None:
    for command in (pause_command, resume_command, cancel_command, retry_command):
        manager = () if command is not retry_command else HOP[:2]
        done = call(command, "nobody", *manager)
        assert (done.exit_code, done.output.count("\n")) == (1, 1)
        assert "none has this id or name; `pyrmute-tasks jobs` lists them" in done.output
    done = call(pause_command, "nobody", "--jobs", "")
    assert (done.exit_code, "which jobs root?" in done.output) == (2, True)


def test_retry_of_a_submitted_job_takes_no_fleet_of_its_own() -> None:
    call(submit, *HOP, "--name", "people", "in.jsonl", "out.jsonl")
    done = call(retry_command, "people", *HOP[:2], "--workers", "2")
    assert done.exit_code == 2
    assert "the retry of a submitted job is submitted" in done.output
    done = call(retry_command, "people", *HOP[:2])
    assert (done.exit_code, "has not succeeded" in done.output) == (1, True)


def test_name_of_a_target_and_of_a_job_means_the_same_to_every_command(tmp_path: Path) -> None:
    call(submit, *HOP, "--name", "people", "in.jsonl", "out.jsonl")
    WatchedJob.beside(tmp_path / "people").taken().let_go("interrupted")
    assert json.loads(call(status_command, "people", "--json").output)["job"] == "f0f0f0f0"
    assert "discarded" in call(discard_command, "people").output
    assert json.loads(call(status_command, "people", "--json").output)["name"] == "people"
