"""An error ends a job at once and everywhere, and a hundred of them leave nothing behind."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks import MigrationError, Migrator
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.engine.window import Window
from tests.conftest import wait_until
from tests.fleets import Fleet, private_fleet
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
CHUNKS: Final = 10_000
JOBS: Final = 100
WINDOW: Final = 16
WORKERS: Final = 2


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with private_fleet("tests.people:manager") as fleet:
        for _ in range(WORKERS):
            fleet.start_worker("--loglevel", "WARNING")
        yield fleet


class Marks:
    """A file to which every step adds a line when it begins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def count(self) -> int:
        return len(self.path.read_text().splitlines()) if self.path.exists() else 0

    @property
    def changed_at(self) -> float:
        return self.path.stat().st_mtime


def broken(mark: Path) -> Any:
    """A manager whose first step records its start, and whose second one raises."""
    return {"name": f"count:{mark}", "age": -1}


def follow_up(fleet: Fleet, marks: Marks, count: int) -> None:
    """Check that nothing queued runs later: neither while the queue drains, nor with a new job.

    Each worker may have claimed one chunk before the error, and begin it after the raise.
    """
    wait_until(fleet.is_drained, "the queue is empty")
    with Migrator(manager, settings=fleet.settings) as migrator:
        migrator.migrate_batch([person(index) for index in range(40)], *HOP, chunk_size=1)
    assert count <= marks.count <= count + WORKERS


@pytest.mark.parametrize("window", [None, Window(1000)], ids=["default window", "window of 1000"])
def test_after_the_error_of_the_first_of_10000_chunks_none_starts(
    fleet: Fleet, tmp_path: Path, window: Window | None
) -> None:
    failed, marks = Marks(tmp_path / "failed"), Marks(tmp_path / "marks")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rest = json.dumps({"name": f"count:{marks.path}", "age": 1})
    source.write_text("\n".join([json.dumps(broken(failed.path)), *([rest] * (CHUNKS - 1))]))
    with (
        Migrator(manager, settings=fleet.settings, window=window) as migrator,
        pytest.raises(MigrationError) as caught,
    ):
        migrator.migrate_file(source, target, *HOP, chunk_size=1)
    took_s = time.time() - failed.changed_at
    started = marks.count
    print(f"{took_s:.3f} s from the error to the raise, {started} chunks started behind it")
    assert caught.value.record_index == 0
    assert took_s < 2
    assert started < (window.chunks if window else 4 * WORKERS)
    assert not target.exists()
    follow_up(fleet, marks, started)


@pytest.mark.slow
def test_an_error_is_raised_while_later_chunks_still_run(fleet: Fleet, tmp_path: Path) -> None:
    """The producer does not wait for unwanted chunks; running ones end, and none follows."""
    marks = Marks(tmp_path / "marks")

    def records() -> Iterator[Any]:
        yield {"name": "sleep:0.5 x", "age": -1}  # fails when the others have begun
        yield {"name": "sleep:4 x", "age": 1}
        for _ in range(CHUNKS - 2):
            yield {"name": f"count:{marks.path}", "age": 1}

    began = time.monotonic()
    with (
        Migrator(manager, settings=fleet.settings) as migrator,
        pytest.raises(MigrationError) as caught,
    ):
        migrator.migrate_batch_data(records(), *HOP, chunk_size=1)
    assert time.monotonic() - began < 0.5 + 2
    assert caught.value.record_index == 0
    assert not fleet.is_drained()
    follow_up(fleet, marks, marks.count)
    assert time.monotonic() - began > 4, "a chunk was running all the time"


@pytest.mark.slow
def test_100_failed_jobs_leave_nothing(fleet: Fleet) -> None:
    with (
        Migrator(manager, settings=fleet.settings, window=Window(WINDOW)) as migrator,
        create_app(fleet.settings) as app,
    ):
        fail(migrator)
        revoked_before = revoked(app)
        wait_until(fleet.is_drained, "the queue is empty")
        keys_before = keys_of(fleet)
        for _ in range(JOBS):
            fail(migrator)
        wait_until(fleet.is_drained, "the queue is empty")
        assert left_for_ever(fleet.store) == []
        assert keys_of(fleet) == keys_before
        held = {name: count - revoked_before[name] for name, count in revoked(app).items()}
    print(f"revokes held after {JOBS} failed jobs with a window of {WINDOW}: {held}")
    assert len(held) == WORKERS
    assert all(0 <= count <= JOBS * (WINDOW - 1) for count in held.values()), held
    assert all(worker.is_healthy() for worker in fleet.workers)


def fail(migrator: Migrator) -> None:
    records = ({"name": "First Last", "age": -1 if index == 2 else 1} for index in range(CHUNKS))
    with pytest.raises(MigrationError) as caught:
        migrator.migrate_batch_data(records, *HOP, chunk_size=1)
    assert caught.value.record_index == 2


def revoked(app: Any) -> dict[str, int]:
    """Return the number of revoked tasks that each worker remembers."""
    answers = app.control.inspect(timeout=5.0, limit=WORKERS).revoked()
    return {name: len(tasks) for name, tasks in answers.items()}


def left_for_ever(store: Any) -> list[bytes]:
    return [key for key in store.scan_iter("pt:{*") if store.ttl(key) == -1]


def keys_of(fleet: Fleet) -> dict[str, set[bytes]]:
    """Every key of both servers, but those of jobs, which expire."""
    found = {"broker": set(fleet.broker.keys("*")), "store": set(fleet.store.keys("*"))}
    return {name: {key for key in keys if b"{" not in key} for name, keys in found.items()}
