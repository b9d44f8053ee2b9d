"""`pyrmute-tasks` from outside: a command with arguments, output and a status."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyrmute_tasks.cli import main as cli
from pyrmute_tasks.cli import run_job
from pyrmute_tasks.settings import Settings
from tests.acceptance.conftest import Options
from tests.conftest import ROOT, descendants, is_alive, wait_until
from tests.people import broken_step, invalid, manager, person

MANAGER = ("--manager", "tests.people:manager")
HOP = ("--model", "Person", "--from", "1.0.0", "--to", "3.0.0")
SECRET = "Secret"


def command(*arguments: object) -> list[str]:
    return [
        sys.executable,
        "-c",
        "from pyrmute_tasks.cli.start import main; main()",
        *map(str, arguments),
    ]


def call(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def call_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Call the command in this process, which is faster."""
    result = CliRunner().invoke(cli._cli, [*map(str, arguments)], prog_name="pyrmute-tasks")
    assert isinstance(result.exception, SystemExit | None), result.exception
    return subprocess.CompletedProcess((), result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(person(index)) + "\n" for index in range(1000)))
    return path


def expected(records: list[dict[str, object]]) -> str:
    models = manager.migrate_batch(records, "Person", "1.0.0", "3.0.0")
    return "".join(model.model_dump_json() + "\n" for model in models)


@pytest.mark.slow
def test_a_run_writes_the_file_and_reports(source: Path, tmp_path: Path, private_tmp: Path) -> None:
    target = tmp_path / "out.jsonl"
    result = call("run", *MANAGER, *HOP, "--workers", 2, "--chunk-size", 100, source, target)
    assert result.returncode == 0, result.stderr
    assert target.read_text() == expected([person(index) for index in range(1000)])
    assert "records  1,000" in result.stdout
    assert "workers  " in result.stdout
    assert "1,000 records" in result.stderr  # the bar's last state
    assert "Traceback" not in result.stderr


def raising_line() -> int:
    source = (ROOT / "tests" / "people.py").read_text().splitlines()
    return next(n for n, line in enumerate(source, 1) if "raise LookupError" in line)


@pytest.mark.parametrize("bad", [0, 500, 999])
def test_a_record_whose_step_raises_ends_the_run_at_its_line(
    source: Path, tmp_path: Path, private_tmp: Path, bad: int, on_fleet: Options
) -> None:
    lines = source.read_text().splitlines()
    lines[bad] = json.dumps(broken_step(bad))
    source.write_text("\n" + "\n".join(lines))
    target = tmp_path / "out.jsonl"
    result = call_here(
        "run",
        *MANAGER,
        *HOP,
        *on_fleet,
        "--chunk-size",
        10,
        "--keep-partial",
        source,
        target,
        "--quiet",
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"kept the output until then: {target}.partial",
        f"error: {source}, line {bad + 2} (record {bad}): step Person 2.0.0 → 3.0.0 raised "
        f"LookupError at people.py:{raising_line()} in add_adult",
    ]
    assert not target.exists()
    partial = tmp_path / "out.jsonl.partial"
    assert partial.read_text() == expected([person(index) for index in range(bad)])


def test_record_contents_are_shown_only_on_request(
    source: Path, tmp_path: Path, on_fleet: Options
) -> None:
    source.write_text(json.dumps(broken_step(7)))
    arguments = ("run", *MANAGER, *HOP, *on_fleet, source, tmp_path / "out.jsonl")
    silent = call_here(*arguments)
    assert "First7" not in silent.stderr + silent.stdout
    assert re.search(
        r"^failed after \d+\.\d\d s and 0 records$",
        silent.stderr,
        re.MULTILINE,
    )
    told = call_here(*arguments, "--include-records")
    assert "LookupError: no age for First7" in told.stderr


BAD_INPUT: dict[str, tuple[list[str], int, str]] = {
    "missing file": (["run", *MANAGER, *HOP, "none.jsonl", "out"], 1, "cannot read none.jsonl: No"),
    "unknown model": (
        ["run", *MANAGER, "--model", "X", "--from", "1.0.0", "--to", "2.0.0", "IN", "out"],
        1,
        "error: Model 'X' not found in registry; registered models: Person",
    ),
    "unknown version": (
        ["run", *MANAGER, "--model", "Person", "--from", "1.0.0", "--to", "9.0.0", "IN", "out"],
        1,
        "error: Model 'Person' version '9.0.0' not found in registry; registered versions: 1",
    ),
    "no version": (
        ["run", *MANAGER, "--model", "Person", "--from", "one", "--to", "9.0.0", "IN", "out"],
        2,
        "error: Invalid version string: 'one'",
    ),
    "no path": (
        ["run", *MANAGER, "--model", "Person", "--from", "3.0.0", "--to", "1.0.0", "IN", "out"],
        1,
        "error: Migration failed for 'Person': 3.0.0 → 2.0.0 Reason: No migration path found",
    ),
    "empty broker": (
        ["run", *MANAGER, *HOP, "--broker", "", "IN", "out"],
        2,
        "error: broker_url (--broker) is empty: give the URL of a running fleet's broker, as",
    ),
    "no time to wait": (
        ["run", *MANAGER, *HOP, "--wait", "-1", "IN", "out"],
        2,
        "Error: Invalid value for '--wait': -1.0 is not in the range x>0.",
    ),
    "no module": (
        ["run", "--manager", "tests.none:manager", *HOP, "IN", "out"],
        1,
        "error: cannot import 'tests.none:manager': ModuleNotFoundError",
    ),
    "no attribute": (
        ["run", "--manager", "tests.people:none", *HOP, "IN", "out"],
        1,
        "error: 'tests.people' has no attribute 'none'",
    ),
    "no manager": (
        ["run", "--manager", "tests.people:person", *HOP, "IN", "out"],
        1,
        "error: 'tests.people:person' is a function and not a ModelManager",
    ),
    "no directory": (["run", *MANAGER, *HOP, "IN", "none/out"], 1, "error: cannot write none/out"),
    "no broker": (
        ["run", *MANAGER, *HOP, "--broker", "redis://127.0.0.1:1/0", "IN", "out"],
        1,
        "error: no store answers at redis://127.0.0.1:1/0",
    ),
    "not a broker": (
        ["run", *MANAGER, *HOP, "--broker", "http://127.0.0.1:1/0", "IN", "out"],
        2,
        "error: broker_url http://127.0.0.1:1/0 must begin with redis://, rediss://",
    ),
    "store alone": (
        ["run", *MANAGER, *HOP, "--store", "redis://h", "IN", "out"],
        2,
        "need --broker",
    ),
    "retry of nothing": (
        ["run", *MANAGER, *HOP, "--retry-on", "nosuch:Error", "IN", "out"],
        1,
        "error: cannot import 'nosuch:Error'",
    ),
    "retry of no exception": (
        ["run", *MANAGER, *HOP, "--retry-on", "os:path", "IN", "out"],
        1,
        "error: 'os:path' is no class of exceptions",
    ),
    "throttle": (
        ["run", *MANAGER, *HOP, "--throttle", "os:curdir", "IN", "out"],
        1,
        "error: 'os:curdir' is no function that returns a reason to wait",
    ),
    "log of a stream": (
        ["run", *MANAGER, *HOP, "--resume", "-", "out"],
        2,
        "error: only a run from a file to a file has a log",
    ),
    "no option": (["run", *MANAGER, "IN", "out"], 2, "Missing option '--model'"),
    "no chunk": (["run", *MANAGER, *HOP, "--chunk-size", "0", "IN", "out"], 2, "0 is not in the"),
    "no such command": (["walk"], 2, "No such command 'walk'"),
    "worker without manager": (["worker"], 1, "error: a worker needs to know its manager"),
    "worker with an empty broker": (["worker", *MANAGER, "--broker", ""], 2, "is empty: give"),
    "no name of a manager": (
        ["run", "--manager", "people.py", *HOP, "IN", "out"],
        2,
        "error: 'people.py' names no object: write package.module:attribute or path/to",
    ),
    "no name of a retried manager": (["retry", "--manager", "m.py", "out"], 2, "names no object"),
    "no name of a listed manager": (["info", "--manager", "m.py"], 2, "names no object"),
    "no name of a throttle": (
        ["run", *MANAGER, *HOP, "--throttle", "os", "IN", "out"],
        2,
        "error: 'os' names no object",
    ),
    "no name of an exception": (
        ["run", *MANAGER, *HOP, "--retry-on", "os", "IN", "out"],
        2,
        "error: 'os' must be written module:QualifiedName",
    ),
    "existing output": (["run", *MANAGER, *HOP, "IN", "old"], 1, "it exists; add --overwrite"),
    "existing rejects": (
        ["run", *MANAGER, *HOP, "--on-error", "skip", "--rejects", "old", "IN", "out"],
        1,
        "it exists; add --overwrite",
    ),
    "source as output": (["run", *MANAGER, *HOP, "IN", "IN"], 2, "it is the same file as"),
    "limit by reference": (
        ["run", *MANAGER, *HOP, "--by-reference", "always", "--limit", "2", "IN", "out"],
        2,
        "error: this run cannot go by reference: a limit counts records",
    ),
    "parts through the producer": (
        ["run", *MANAGER, *HOP, "--by-reference", "never", "IN", "parts/"],
        2,
        "error: a folder of parts can only go by reference, but by_reference is never",
    ),
    "hold without a log": (
        ["run", *MANAGER, *HOP, "--hold", "--no-log", "IN", "out"],
        2,
        "leave out --no-log",
    ),
    "hold of a stream": (
        ["run", *MANAGER, *HOP, "--hold", "IN", "-"],
        2,
        "leave out --hold and --backup",
    ),
    "limit of a retry": (["retry", *MANAGER, "--max-errors", "x", "out"], 2, "must be a number"),
    "retry on an empty broker": (["retry", *MANAGER, "--broker", "", "out"], 2, "is empty: give"),
    "retry with attempts of nothing": (["retry", *MANAGER, "--attempts", "2", "out"], 2, "needs"),
    "rejects of a retry without a file": (
        ["retry", *MANAGER, "--rejects-with-records", "out"],
        2,
        "the records of rejects need a file",
    ),
    "nothing to retry": (["retry", *MANAGER, "out"], 1, "there is nothing to retry for"),
}


# Of these a process of their own is seen to end; the others are called in this one.
AS_A_PROCESS = ("missing file", "no option", "worker without manager")


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_with_one_sentence(
    name: str, source: Path, tmp_path: Path, private_tmp: Path
) -> None:
    arguments, status, message = BAD_INPUT[name]
    target = tmp_path / "target.jsonl"
    old = tmp_path / "old.jsonl"
    old.touch()
    places = {"IN": source, "out": target, "none/out": tmp_path / "none" / "out", "old": old}
    given = [str(places.get(argument, argument)) for argument in arguments]
    result = call(*given) if name in AS_A_PROCESS else call_here(*given)
    assert result.returncode == status, result.stderr
    assert message.replace("none/out", str(places["none/out"])) in result.stderr
    assert "Traceback" not in result.stderr
    assert not target.exists()
    if status == 1:
        assert len([line for line in result.stderr.splitlines() if line.startswith("error")]) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{{"name": "{SECRET}"', "not valid JSON: EOF while parsing an object"),
        (f'["{SECRET}"]', "not a JSON object but an array"),
    ],
)
def test_invalid_line_is_reported_without_its_contents(
    source: Path, tmp_path: Path, line: str, message: str, on_fleet: Options
) -> None:
    lines = source.read_text().splitlines()
    lines[123] = line
    source.write_text("\n".join(lines))
    result = call_here("run", *MANAGER, *HOP, *on_fleet, source, tmp_path / "out.jsonl")
    assert result.returncode == 1
    assert f"error: {source}, line 124 (record 123): {message}" in result.stderr
    assert SECRET not in result.stderr
    assert list(tmp_path.iterdir()) == [source]


# --- records that are skipped -------------------------------------------------------------------

BAD_LINES = (3, 500, 501, 999)


@pytest.fixture
def source_with_bad_lines(source: Path) -> Path:
    lines = source.read_text().splitlines()
    lines[3], lines[500] = json.dumps(broken_step(3)), json.dumps(broken_step(500))
    lines[501], lines[999] = f"no json: {SECRET}", json.dumps(invalid(999))
    source.write_text("\n".join(lines))
    return source


def test_a_run_that_skips_records_has_a_status_of_its_own(
    source_with_bad_lines: Path, tmp_path: Path, private_tmp: Path, on_fleet: Options
) -> None:
    target, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    skip = (*on_fleet, "--on-error", "skip", "--rejects", rejects)
    arguments = (*skip, "--chunk-size", 90, source_with_bad_lines, target)
    result = call_here("run", *MANAGER, *HOP, *arguments)
    assert result.returncode == 3, result.stderr
    good = [person(index) for index in range(1000) if index not in BAD_LINES]
    assert target.read_text() == expected(good)
    rows = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(row["index"], row["line"]) for row in rows] == [(n, n + 1) for n in BAD_LINES]
    assert [row["type"] for row in rows] == [
        "LookupError",
        "LookupError",
        "InvalidRecordError",
        "ValidationError",
    ]
    assert f"rejected 4 (see {rejects})" in result.stdout
    assert "         2 × step 2.0.0 → 3.0.0: LookupError\n" in result.stdout
    assert "records  996" in result.stdout
    assert SECRET not in result.stdout + result.stderr + rejects.read_text()
    again = call_here(
        "run",
        *MANAGER,
        *HOP,
        *skip,
        "--rejects-with-records",
        "--overwrite",
        "--quiet",
        source_with_bad_lines,
        target,
    )
    assert again.returncode == 3, again.stderr
    assert [json.loads(line)["record"] for line in rejects.read_text().splitlines()] == [
        broken_step(3),
        broken_step(500),
        f"no json: {SECRET}",
        invalid(999),
    ]


@pytest.mark.parametrize("limit", ["2", "0.2%"])
def test_a_run_ends_at_the_first_record_too_many(
    source_with_bad_lines: Path, tmp_path: Path, limit: str, on_fleet: Options
) -> None:
    target, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    result = call_here(
        *("run", *MANAGER, *HOP, *on_fleet, "--on-error", "skip", "--max-errors", limit),
        *("--rejects", rejects, "--chunk-size", 50),
        *(source_with_bad_lines, target),
    )
    assert result.returncode == 1
    assert not target.exists()
    left, line = (2, 502) if limit == "2" else (3, 1000)
    assert len(rejects.read_text().splitlines()) == left
    assert f"records; {left} rejected" in result.stderr
    why = "more than 2 records failed" if limit == "2" else "4 of 1,000 records failed, more than"
    assert why in result.stderr
    assert f"error: {source_with_bad_lines}, line {line} (record {line - 1}): " in result.stderr
    assert SECRET not in result.stderr


def test_a_run_without_bad_records_has_an_empty_file_of_rejects(
    source: Path, tmp_path: Path, on_fleet: Options
) -> None:
    target, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    skip = (*on_fleet, "--on-error", "skip", "--rejects", rejects)
    result = call_here("run", *MANAGER, *HOP, *skip, source, target)
    assert result.returncode == 0, result.stderr
    assert rejects.read_bytes() == b""
    assert "rejected" not in result.stdout


def test_rejects_on_standard_output_are_alone_there(
    source_with_bad_lines: Path, tmp_path: Path, on_fleet: Options
) -> None:
    target = tmp_path / "out.jsonl"
    skip = ("--on-error", "skip", "--rejects", "-", "--chunk-size", 1000)
    result = call("run", *MANAGER, *HOP, *on_fleet, *skip, source_with_bad_lines, target)
    assert result.returncode == 3, result.stderr
    rejects = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rejects) == len(BAD_LINES)
    assert f"rejected {len(rejects)}" in result.stderr
    assert "(1 chunk, job " in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rejects", "rejects.jsonl"), "add --on-error skip"),
        (("--max-errors", "5"), "add --on-error skip"),
        (("--on-error", "skip", "--max-errors", "some"), "max_errors must be a number"),
        (("--on-error", "skip", "--rejects-with-records"), "need a file"),
        (("--on-error", "skip", "--rejects", "out.jsonl"), "it is the output"),
        (("--on-error", "skip", "--rejects", "in.jsonl"), "it is the same file"),
    ],
)
def test_options_for_rejects_that_make_no_sense(
    tmp_path: Path,
    source: Path,
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call_here("run", *MANAGER, *HOP, *options, "in.jsonl", "out.jsonl")
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_outputs_and_rejects_cannot_share_standard_output(tmp_path: Path, source: Path) -> None:
    people = f"{ROOT / 'tests' / 'people.py'}:manager"
    dashes = ("--on-error", "skip", "--rejects", "-", "in.jsonl", "-")
    result = call("run", "--manager", people, *HOP, *dashes, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "stdout: it is the output" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def size_of_partial(target: Path) -> int:
    found = [
        *target.parent.glob(f".{target.name}.job/stream.*"),
        *target.parent.glob(f".{target.name}.*.partial"),
    ]
    return sum(path.stat().st_size for path in found)


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_leaves_nothing_behind(
    how: signal.Signals, tmp_path: Path, private_tmp: Path
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"name": "sleep:0.01", "age": 1}\n' * 10_000)
    arguments = ("run", *MANAGER, *HOP, "--workers", 1, "--chunk-size", 10, source, target)
    with running(*arguments) as process:
        wait_until(lambda: size_of_partial(target), "the job has begun")
        below = descendants(process.pid)
        assert len(below) == 4
        # What a terminal sends on Ctrl-C goes to the whole foreground process group.
        os.killpg(process.pid, how)
        process.wait(timeout=20)
    wait_until(lambda: not [pid for pid in below if is_alive(pid)], "every process has ended")
    wait_until(lambda: not list(private_tmp.iterdir()), "every file is gone")
    assert not target.exists()
    if how is not signal.SIGKILL:
        assert process.returncode == 128 + how
        assert list(tmp_path.iterdir()) == [source]


def test_a_signal_that_was_ignored_stays_ignored(
    tmp_path: Path, private_tmp: Path, on_fleet: Options
) -> None:
    """Run under ``nohup``: a run outlives its terminal."""
    source, target, go_on = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "go-on"))
    source.write_text(f'{{"name": "wait-for:{go_on} 0", "age": 1}}\n')
    arguments = ("run", *MANAGER, *HOP, *on_fleet, source, target)
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    nohup = f"{ignore}; os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", nohup, *command(*arguments)], cwd=ROOT)
    try:
        wait_until(lambda: list(tmp_path.glob(".*.job")), "the job has begun")
        process.send_signal(signal.SIGHUP)
        go_on.touch()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    assert len(target.read_text().splitlines()) == 1


@pytest.mark.parametrize("existed", [True, False])
def test_interrupt_after_the_end_reports_a_whole_output(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool, on_fleet: Options
) -> None:
    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(run_job, "tell_losses", interrupt)
    target = tmp_path / "out.jsonl"
    if existed:
        target.write_text("old")
    arguments = ["run", *MANAGER, *HOP, *on_fleet, "--overwrite", str(source), str(target)]
    result = CliRunner().invoke(cli._cli, arguments)
    assert result.exit_code == 128 + signal.SIGTERM
    assert f"interrupted; {target} is whole" in result.stderr
    assert len(target.read_text().splitlines()) == 1000


def test_unreadable_source_is_reported(tmp_path: Path, on_fleet: Options) -> None:
    result = call_here("run", *MANAGER, *HOP, *on_fleet, "/proc/self/mem", tmp_path / "out")
    assert result.returncode == 1
    assert "error: cannot read /proc/self/mem: Input/output error" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source in (pipe, "/dev/stdin"):
        result = subprocess.run(
            command("run", *MANAGER, *HOP, source, tmp_path / "out"),
            cwd=ROOT,
            input="x\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 1
        assert f"error: cannot read {source}: it is a pipe or a device" in result.stderr
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.slow
def test_a_fleet_that_is_running_serves_a_run(source: Path, tmp_path: Path) -> None:
    """Two `pyrmute-tasks worker` processes and a server of the test's own."""
    from pyrmute_tasks.distributed.embedded import EmbeddedFleet

    target = tmp_path / "out.jsonl"
    with EmbeddedFleet("tests.people:manager", 1, Settings()) as fleet:
        url = fleet.settings.broker_url
        run = ("run", *MANAGER, *HOP, "--broker", url, "--queue", "own", source, target)
        alone = call(*run, "--wait", 0.5)
        assert alone.returncode == 1
        assert "error: no worker answers on queue 'own'" in alone.stderr
        worker = ("worker", *MANAGER, "--broker", url, "--queue", "own", "--concurrency", 1)
        with running(*worker) as first, running(*worker, "--name", "second@test") as second:
            result = call(*run, "--wait", 30, "--chunk-size", 50)
            assert result.returncode == 0, result.stderr
            for process in (first, second):
                os.kill(process.pid, signal.SIGTERM)
                assert process.wait(timeout=40) == 0
    assert target.read_text() == expected([person(index) for index in range(1000)])
