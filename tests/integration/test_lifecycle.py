"""Ownership and end of a fleet: forks, threads, streams left open, dropped ones."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks import Migrator, MigratorClosedError
from pyrmute_tasks.distributed.leftovers import FOLDER_PREFIX, remove_leftovers
from tests.conftest import ROOT, descendants, is_alive, wait_until
from tests.fleets import Fleet, private_fleet
from tests.people import manager, person

HOP: Final = ("Person", "1.0.0", "3.0.0")
SLOW: Final = [{"name": f"sleep:0.2 {index}", "age": 1} for index in range(200)]
PROMPT_S: Final = 1.0

HEADER: Final = """
import os, signal, sys, time
from pyrmute_tasks import Migrator
from pyrmute_tasks.errors import FleetError
from tests.people import manager, person
HOP = ("Person", "1.0.0", "3.0.0")
RECORDS = [person(index) for index in range(300)]
EXPECTED = manager.migrate_batch_data(RECORDS, *HOP)
"""


def start(code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", HEADER + code]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(code: str) -> str:
    """Run a program, which must succeed, and return its output."""
    with start(code) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Exception ignored" not in err, err
    assert "Traceback" not in err, err
    return out + err


@pytest.fixture
def people() -> Iterator[Migrator]:
    with Migrator(manager, workers=1) as migrator:
        yield migrator


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with private_fleet("tests.people:manager") as found:
        found.start_worker()
        yield found


def members(migrator: Migrator) -> list[int]:
    """Return the process ids of an embedded fleet."""
    assert migrator._jobs.session is not None
    assert migrator._jobs.session.fleet is not None
    return migrator._jobs.session.fleet.process_ids


# --- forks ----------------------------------------------------------------------------------


def test_forks_that_end_leave_the_fleet_and_its_job_alone(private_tmp: Path) -> None:
    run("""
def close_and_exit():
    migrator.close()
    sys.exit()

with Migrator(manager, workers=1) as migrator:
    stream = migrator.migrate_batch_data_streaming(iter(RECORDS), *HOP, chunk_size=10)
    outputs = []
    for end in (sys.exit, lambda: os._exit(0), close_and_exit):
        outputs.append(next(stream))
        if not (pid := os.fork()):
            end()
        assert os.waitpid(pid, 0)[1] == 0
    assert [*outputs, *stream] == EXPECTED
    assert migrator.migrate_batch_data(RECORDS, *HOP) == EXPECTED
""")


@pytest.mark.slow
def test_a_fork_cannot_read_a_stream_and_has_a_fleet_of_its_own(private_tmp: Path) -> None:
    out = run("""
with Migrator(manager, workers=1) as migrator:
    stream = migrator.migrate_batch_data_streaming(iter(RECORDS), *HOP, chunk_size=1)
    first = next(stream)
    if not (pid := os.fork()):
        try:
            list(stream)
        except FleetError as error:
            print(error, flush=True)
        assert migrator.migrate_batch_data(RECORDS, *HOP) == EXPECTED
        migrator.close()
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
    assert [first, *stream] == EXPECTED
""")
    assert "and not to its fork" in out


@pytest.mark.parametrize("fork", ["os.fork()", pytest.param("libc.fork()", marks=pytest.mark.slow)])
def test_a_fleet_ends_with_its_producer_though_a_fork_lives(fork: str, private_tmp: Path) -> None:
    process = start(f"""
import ctypes
libc = ctypes.PyDLL(None)
migrator = Migrator(manager, workers=1)
migrator.start()
if not (pid := {fork}):
    os.close(1), os.close(2)
    time.sleep(60)
    os._exit(0)
print(pid, *migrator._jobs.session.fleet.process_ids, flush=True)
time.sleep(60)
""")
    assert process.stdout is not None
    child, *pids = map(int, process.stdout.readline().split())
    try:
        process.kill()
        process.communicate()
        assert is_alive(child)
        wait_until(lambda: not any(map(is_alive, pids)), "the fleet ends", 5)
        wait_until(lambda: not list(private_tmp.iterdir()), "its folder goes", 5)
    finally:
        os.kill(child, signal.SIGKILL)


# --- threads --------------------------------------------------------------------------------


@pytest.mark.slow
def test_first_calls_from_four_threads_have_one_fleet(private_tmp: Path) -> None:
    records = [person(index) for index in range(100)]
    expected = manager.migrate_batch_data(records, *HOP)
    found: list[Any] = []
    before = set(descendants(os.getpid()))
    with Migrator(manager, workers=1) as migrator:
        migrator.close()
        gate = threading.Barrier(4)

        def call() -> None:
            gate.wait()
            found.append(migrator.migrate_batch_data(records, *HOP, chunk_size=10))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(private_tmp.glob(f"{FOLDER_PREFIX}*"))) == 1
        # What starts may have children of its own for a moment.
        wait_until(lambda: len(set(descendants(os.getpid())) - before) == 4, "one fleet is left")
    assert found == [expected] * 4
    assert not [pid for pid in set(descendants(os.getpid())) - before if is_alive(pid)]


# --- closing while something is open --------------------------------------------------------


@pytest.fixture
def open_one(request: pytest.FixtureRequest, fleet: Fleet) -> Migrator:
    """A migrator with a fleet of its own, or on a running one."""
    if request.param == "embedded":
        embedded: Migrator = request.getfixturevalue("people")
        return embedded
    return Migrator(manager, settings=fleet.settings)


@pytest.mark.parametrize("open_one", ["embedded", "running"], indirect=True)
def test_stream_of_a_closed_migrator_raises(open_one: Migrator, fleet: Fleet) -> None:
    migrator = open_one
    records = [person(index) for index in range(500)]
    stream = migrator.migrate_batch_data_streaming(iter(records), *HOP, chunk_size=10)
    outputs = [next(stream)]
    unread = migrator.migrate_batch_data_streaming(iter(records), *HOP)
    began = time.monotonic()
    migrator.close()
    with pytest.raises(MigratorClosedError, match="closed before this job had ended"):
        outputs.extend(iter(lambda: next(stream), None))
    with pytest.raises(MigratorClosedError, match="closed before this stream was read"):
        next(unread)
    assert time.monotonic() - began < PROMPT_S
    assert outputs == manager.migrate_batch_data(records[: len(outputs)], *HOP)
    assert len(outputs) < 500
    wait_until(lambda: not fleet.store.keys("pt:{*"), "no key is left")


@pytest.mark.parametrize(
    "open_one", [pytest.param("embedded", marks=pytest.mark.slow), "running"], indirect=True
)
def test_another_thread_closes_while_a_stream_waits(open_one: Migrator, fleet: Fleet) -> None:
    migrator = open_one
    stream = migrator.migrate_batch_data_streaming(iter(SLOW), *HOP, chunk_size=5)
    next(stream)
    closed: list[float] = []

    def close() -> None:
        closed.append(time.monotonic())
        migrator.close()
        closed.append(time.monotonic())

    timer = threading.Timer(0.3, close)
    timer.start()
    with pytest.raises(MigratorClosedError):
        list(stream)
    ended = time.monotonic()
    timer.join()
    assert max(ended, closed[1]) - closed[0] < PROMPT_S
    wait_until(lambda: not fleet.store.keys("pt:{*"), "no key is left")


@pytest.mark.parametrize(
    "open_one", [pytest.param("embedded", marks=pytest.mark.slow), "running"], indirect=True
)
def test_a_source_closes_its_own_migrator(open_one: Migrator, fleet: Fleet) -> None:
    migrator = open_one

    def source() -> Iterator[Any]:
        for index in range(500):
            if index == 150:
                migrator.close()
            yield person(index)

    began = time.monotonic()
    with pytest.raises(MigratorClosedError):
        list(migrator.migrate_batch_data_streaming(source(), *HOP, chunk_size=10))
    assert time.monotonic() - began < PROMPT_S
    wait_until(lambda: not fleet.store.keys("pt:{*"), "no key is left")


def test_a_file_whose_migrator_is_closed_is_not_published(people: Migrator, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text('{"name":"sleep:0.01 x","age":1}\n' * 2000)
    timer = threading.Timer(0.3, people.close)
    timer.start()
    with pytest.raises(MigratorClosedError):
        people.migrate_file(source, target, *HOP, chunk_size=10)
    timer.join()
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.slow
def test_a_stream_left_open_at_the_end_of_the_program_is_quiet(private_tmp: Path) -> None:
    run("""
with Migrator(manager, workers=1) as migrator:
    stream = migrator.migrate_batch_data_streaming(iter(RECORDS), *HOP, chunk_size=10)
    next(stream)
""")


# --- dropped, killed ------------------------------------------------------------------------


def test_a_migrator_that_is_dropped_ends_its_fleet(private_tmp: Path) -> None:
    holder = [Migrator(manager, workers=1)]
    holder[0].start()
    pids = members(holder[0])
    with pytest.warns(ResourceWarning, match=r"dropped without close\(\)"):
        holder.clear()
    assert not any(map(is_alive, pids))


@pytest.mark.slow
def test_unclosed_migrator_warns_and_leaves_nothing(private_tmp: Path) -> None:
    out = run("""
migrator = Migrator(manager, workers=1)
print(migrator.migrate_batch_data(RECORDS, *HOP) == EXPECTED)
""")
    assert "True" in out
    assert "ResourceWarning" in out


@pytest.mark.slow
def test_leftovers_of_killed_producers_are_removed(private_tmp: Path) -> None:
    process = start("""
migrator = Migrator(manager, workers=1)
migrator.start()
fleet = migrator._jobs.session.fleet
print(fleet._guard._process.pid, *fleet.process_ids, flush=True)
time.sleep(60)
""")
    assert process.stdout is not None
    guard, *pids = map(int, process.stdout.readline().split())
    (folder,) = private_tmp.iterdir()
    assert remove_leftovers(private_tmp) == []  # it is somebody's
    os.kill(guard, signal.SIGKILL)
    assert remove_leftovers(private_tmp) == []
    process.kill()
    process.communicate()
    assert all(map(is_alive, pids))
    foreign = private_tmp / f"{FOLDER_PREFIX}of-somebody"
    foreign.mkdir()
    with Migrator(manager, workers=1) as migrator:
        assert not folder.exists()
        wait_until(lambda: not any(map(is_alive, pids)), "its processes end", 5)
        assert len(migrator.migrate_batch_data([person(0)], *HOP)) == 1
    assert list(private_tmp.iterdir()) == [foreign]
    foreign.rmdir()


# --- surroundings -----------------------------------------------------------------------------


def test_too_long_temporary_folder_is_reported(private_tmp: Path) -> None:
    deep = private_tmp / ("x" * 90)
    deep.mkdir()
    out = run(f"""
import tempfile
tempfile.tempdir = {str(deep)!r}
try:
    Migrator(manager, workers=1).start()
except Exception as error:
    print(type(error).__name__, error)
""")
    assert "ConfigurationError" in out
    assert "set TMPDIR to a shorter one" in out
    assert list(deep.iterdir()) == []
    deep.rmdir()


@pytest.mark.slow
def test_a_migrator_works_in_children_of_multiprocessing_and_within_another(
    private_tmp: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""{HEADER}
import multiprocessing
def work(queue):
    with Migrator(manager, workers=1) as outer, Migrator(manager, workers=1) as inner:
        found = outer.migrate_batch_data(RECORDS, *HOP) + inner.migrate_batch_data(RECORDS, *HOP)
    queue.put(found == 2 * EXPECTED)
if __name__ == "__main__":
    for method in ("spawn", "forkserver", "fork"):
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        child = context.Process(target=work, args=(queue,), daemon=True)
        child.start()
        print(method, queue.get())
        child.join()
        assert child.exitcode == 0
""")
    command = [sys.executable, str(program)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split("\n")[:3] == ["spawn True", "forkserver True", "fork True"], (
        done.stderr
    )
