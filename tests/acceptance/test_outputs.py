"""`pyrmute-tasks run` and its output: one writer, replaced files, streams."""

import json
import os
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.settings import Settings
from tests.acceptance.conftest import Options
from tests.acceptance.test_run import (
    HOP,
    MANAGER,
    call,
    call_here,
    command,
    expected,
    running,
    size_of_partial,
)
from tests.conftest import ROOT, wait_until
from tests.people import person

COUNT = 200
RUN = ("run", *MANAGER, *HOP, "--chunk-size", 50)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(person(index)) + "\n" for index in range(COUNT)))
    return path


OUTPUT = expected([person(index) for index in range(COUNT)])


@pytest.mark.parametrize("first_is_killed", [True, False])
def test_second_run_on_an_output_is_refused(
    tmp_path: Path, source: Path, private_tmp: Path, first_is_killed: bool, on_fleet: Options
) -> None:
    slow, target = tmp_path / "slow.jsonl", tmp_path / "out.jsonl"
    go_on = tmp_path / "go-on"
    rows = [{"name": f"wait-for:{go_on} 0", "age": 1} if n == 60 else person(n) for n in range(99)]
    slow.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = ("--workers", 1) if first_is_killed else on_fleet
    with running("run", *MANAGER, *HOP, *where, "--chunk-size", 1, slow, target) as first:
        wait_until(lambda: target.with_name(".out.jsonl.lock").exists(), "the first one writes")
        began = time.monotonic()
        second = call_here(*RUN, *on_fleet, source, target)
        seconds = time.monotonic() - began
        assert second.returncode == 1
        [told] = [line for line in second.stderr.splitlines() if line.startswith("error")]
        assert "error: another run (job " in told
        assert f"process {first.pid}, since 2" in told
        assert f"is writing {target}" in told
        assert seconds < 10.0  # no fleet is started for it
        if first_is_killed:
            os.killpg(first.pid, signal.SIGKILL)
        else:
            go_on.touch()
        first.wait(timeout=30)
        first.communicate()
    if not first_is_killed:
        assert first.returncode == 0
        assert len(target.read_text().splitlines()) == len(rows)
    third = call_here(*RUN, *on_fleet, "--overwrite", "--restart", source, target)
    assert third.returncode == 0, third.stderr
    assert target.read_text() == OUTPUT
    go_on.unlink(missing_ok=True)
    assert sorted(tmp_path.iterdir()) == [source, target, slow]
    # The guard of the killed run's fleet may be cleaning up still.
    wait_until(lambda: not list(private_tmp.iterdir()), "every file is gone")


def test_existing_target_needs_overwrite(source: Path, tmp_path: Path, on_fleet: Options) -> None:
    target, link = tmp_path / "out.jsonl", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    refused = call_here(*RUN, *on_fleet, source, link)
    assert refused.returncode == 1
    assert f"error: cannot write {link}: it exists; add --overwrite" in refused.stderr
    assert target.read_text() == "old"
    replaced = call_here(*RUN, *on_fleet, "--overwrite", source, link)
    assert replaced.returncode == 0, replaced.stderr
    assert link.is_symlink()
    assert target.read_text() == OUTPUT
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    same = call_here(*RUN, *on_fleet, "--overwrite", source, source)
    assert same.returncode == 2  # plain to see from the arguments
    assert f"it is the same file as {source}" in same.stderr
    assert len(source.read_text().splitlines()) == COUNT
    assert sorted(tmp_path.iterdir()) == [source, link, target]


def test_standard_output_gets_the_lines_and_nothing_else(
    source: Path, tmp_path: Path, on_fleet: Options
) -> None:
    piped = call(*RUN, *on_fleet, source, "-", cwd=ROOT)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == OUTPUT
    assert "records  200" in piped.stderr
    assert not (ROOT / "-").exists()
    log = tmp_path / "redirected"
    log.write_text("before\n")
    with log.open("a") as file:
        process = subprocess.run(
            command(*RUN, *on_fleet, source, "/dev/stdout"),
            cwd=ROOT,
            stdout=file,
            timeout=60,
            check=False,
        )
    assert process.returncode == 0
    assert log.read_text() == "before\n" + OUTPUT
    assert sorted(tmp_path.iterdir()) == [source, log]


@pytest.mark.parametrize(("stream", "status"), [("stdout", 1), ("stderr", 0)])
def test_unwritable_report_is_reported(
    source: Path, tmp_path: Path, stream: str, status: int, on_fleet: Options
) -> None:
    target = tmp_path / "out.jsonl"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            command(*RUN, *on_fleet, source, target),
            cwd=ROOT,
            text=True,
            timeout=60,
            check=False,
            **(pipes | {stream: full}),  # type: ignore[call-overload]  # of these two
        )
    assert process.returncode == status
    assert target.read_text() == OUTPUT
    if stream == "stdout":
        assert f"No space left on device; {target} is whole" in process.stderr
        assert "Traceback" not in process.stderr


def test_a_run_without_standard_streams_writes_its_file(
    source: Path, tmp_path: Path, on_fleet: Options
) -> None:
    target = tmp_path / "out.jsonl"
    closed = 'exec "$@" <&- >&- 2>&-'
    run = ["sh", "-c", closed, "sh", *command(*RUN, *on_fleet, source, target)]
    assert subprocess.run(run, cwd=ROOT, timeout=60, check=False).returncode == 0
    assert target.read_text() == OUTPUT


def test_missing_directory_is_reported(tmp_path: Path, on_fleet: Options) -> None:
    source, directory, go_on = tmp_path / "in.jsonl", tmp_path / "there", tmp_path / "go-on"
    directory.mkdir()
    source.write_text(f'{{"name": "wait-for:{go_on} 0", "age": 1}}\n')
    with running(*RUN, *on_fleet, source, directory / "out.jsonl") as process:
        wait_until(lambda: list(directory.glob(".*.job")), "the job has begun")
        directory.rename(tmp_path / "gone")
        go_on.touch()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    target, job = directory / "out.jsonl", directory / ".out.jsonl.job"  # either is missed first
    answered = (f"cannot write {target}: No such file or directory", f"there is no job in {job}")
    assert any(each in err for each in answered)
    assert not directory.exists()


def test_a_named_pipe_gets_the_lines_in_order(
    source: Path, tmp_path: Path, on_fleet: Options
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    result = call_here(*RUN, *on_fleet, source, pipe)
    reader.join()
    assert result.returncode == 0, result.stderr
    assert read == [OUTPUT]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_closed_output_pipe_ends_the_run(source: Path, on_fleet: Options) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = call_here(*RUN, *on_fleet, source, f"/dev/fd/{writing}")
    os.close(writing)
    assert result.returncode == 1
    assert f"error: cannot write /dev/fd/{writing}: Broken pipe" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("log", ["--restart", pytest.param("--no-log", marks=pytest.mark.slow)])
def test_files_of_a_killed_run_are_removed_by_the_next_one(
    source: Path, tmp_path: Path, private_tmp: Path, on_fleet: Options, log: str
) -> None:
    target = tmp_path / "out.jsonl"
    slow = tmp_path / "slow.jsonl"
    slow.write_text('{"name": "sleep:0.01", "age": 1}\n' * 10_000)
    with running(
        "run", *MANAGER, *HOP, log, "--workers", 1, "--chunk-size", 10, slow, target
    ) as process:
        wait_until(lambda: size_of_partial(target), "it has written")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert size_of_partial(target)
    result = call_here(*RUN, *on_fleet, log, source, target)
    assert result.returncode == 0, result.stderr
    assert target.read_text() == OUTPUT
    assert sorted(tmp_path.iterdir()) == [source, target, slow]
    wait_until(lambda: not list(private_tmp.iterdir()), "every file is gone")


def test_an_output_that_cannot_be_written_leaves_no_key(source: Path) -> None:
    from pyrmute_tasks.distributed.store import Store

    with EmbeddedFleet("tests.people:manager", 1, Settings()) as fleet:
        url = fleet.settings.broker_url
        arguments = ("run", *MANAGER, *HOP, "--broker", url, "--chunk-size", 1)
        result = call_here(*arguments, source, "/dev/full")
        assert result.returncode == 1
        assert "error: cannot write /dev/full: No space left on device" in result.stderr
        store = Store(fleet.settings)
        assert list(store._redis.scan_iter("pt:{*")) == []
        store.stop_job("feedbeef", 3, ["3", "4"])
        assert list(store._redis.scan_iter("pt:{*")) == []
        store.close()
