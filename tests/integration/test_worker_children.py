"""A worker's children: frozen ones cost seconds, and their steps may start processes."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrmute_tasks import MigrationError, Migrator, Retry
from pyrmute_tasks.distributed.worker.children import process_state
from tests.conftest import wait_until
from tests.fleets import Fleet, private_fleet

HOP = ("Sum", "1.0.0", "2.0.0")
SPEC = "tests.integration.worker_children:manager"
TOTAL = sum(n * n for n in range(4))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with private_fleet(SPEC) as fleet:
        fleet.start_worker()
        yield fleet


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started; not those of its steps."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver", "executor", "billiard"])
def test_steps_may_start_processes(fleet: Fleet, way: str) -> None:
    with Migrator(SPEC, settings=fleet.settings) as migrator:
        outputs = migrator.migrate_batch_data([{"way": way, "value": 4}], *HOP)
    assert outputs == [{"way": way, "value": TOTAL}]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_frozen_child_costs_seconds(fleet: Fleet) -> None:
    worker = fleet.workers[0]
    records = [{"way": "slowly", "value": 4}]
    found: list[object] = []

    def run() -> None:
        with Migrator(SPEC, settings=fleet.settings) as migrator:
            found.extend(migrator.migrate_batch_data(records, *HOP))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: any(fleet.store.scan_iter("pt:{*}:claims")), "the chunk is claimed")
    (child,) = children(worker.pid)
    os.kill(child, signal.SIGSTOP)
    frozen_at = time.monotonic()
    wait_until(lambda: process_state(child) in {"", "Z"}, "the frozen child is killed", 10)
    assert time.monotonic() - frozen_at < 6
    thread.join(20)
    assert found == [{"way": "slowly", "value": TOTAL}]
    assert time.monotonic() - frozen_at < 10 + 4  # the chunk itself takes four
    assert worker.log.count("a frozen child is killed") == 1


@pytest.mark.slow
def test_waiting_child_is_not_frozen(fleet: Fleet) -> None:
    worker = fleet.workers[0]
    before = children(worker.pid)
    with Migrator(SPEC, settings=fleet.settings) as migrator:
        migrator.migrate_batch_data([{"way": "slowly", "value": 4}], *HOP)
    assert children(worker.pid) == before


def test_children_import_nothing_after_the_fork(tmp_path: Path) -> None:
    spec = "tests.integration.imports_after_fork:manager"
    lines, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines.write_text("{}\n" * 3)
    with private_fleet(spec) as fleet:
        fleet.start_worker()
        retry = Retry(on=(ConnectionError,), attempts=2, first_wait_s=0)
        with Migrator(spec, settings=fleet.settings, retry=retry) as migrator:
            # What chunks of every kind come to, before the one that tells.
            migrator.migrate_file(lines, out, "Loaded", "1.0.0", "3.0.0")
            with pytest.raises(MigrationError, match="as asked"):
                migrator.migrate_batch([{"fail": True}], "Loaded", "1.0.0", "2.0.0")
            (told,) = migrator.migrate_batch_data([{}], "Loaded", "1.0.0", "3.0.0")
    assert told["modules"] == []
