"""Jobs that share a queue: a small one does not wait behind a window of each large one."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks import Migrator, Window
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.wire.frames import FrameKind
from tests.conftest import wait_until
from tests.fleets import QUEUE, Fleet, private_fleet
from tests.integration.shared_queue import begun, manager

HOP: Final = ("Work", "1.0.0", "2.0.0")
LARGE_JOBS: Final = 20
SMALL: Final = 5
JOBS_KEY: Final = f"pt:jobs:{QUEUE}"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with private_fleet("tests.integration.shared_queue:manager") as found:
        yield found


def under_way(fleet: Fleet) -> int:
    """Return the number of chunks that wait or run, at the broker and at workers."""
    return int(fleet.broker.llen(QUEUE)) + int(fleet.broker.hlen("unacked"))


@contextmanager
def large_jobs(
    fleet: Fleet, count: int, chunk_s: float, log: Path, **options: Any
) -> Iterator[None]:
    """Run jobs without end in threads that share a `Migrator`; one chunk is one record."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(migrator: Migrator, job: str) -> None:
        record = {"job": job, "log": str(log), "seconds": chunk_s}
        records = itertools.repeat(record)
        try:
            with closing(
                migrator.migrate_batch_data_streaming(records, *HOP, chunk_size=1)
            ) as stream:
                for _ in stream:
                    if stop.is_set():
                        return
        except BaseException as error:
            errors.append(error)

    with ExitStack() as stack:
        migrator = stack.enter_context(Migrator(manager, settings=fleet.settings, **options))
        names = [f"large-{number}" for number in range(count)]
        threads = [threading.Thread(target=run, args=(migrator, name)) for name in names]
        for thread in threads:
            stack.callback(thread.join)
        stack.callback(stop.set)
        for thread in threads:
            thread.start()
        wait_until(lambda: errors or set(begun(log)) == set(names), "all of them run")
        yield
    assert errors == []


def begun_before_a_small_job_ends(fleet: Fleet, chunk_s: float, log: Path) -> int:
    """Run a job of five records; return the number of others' chunks begun meanwhile."""
    record = {"job": "small", "log": str(log), "seconds": chunk_s / SMALL}
    with Migrator(manager, settings=fleet.settings) as migrator:
        for _ in range(2):  # the first one connects, which is no waiting for others
            before = len(begun(log))
            assert len(migrator.migrate_batch_data([record] * SMALL, *HOP)) == SMALL
    return len([job for job in begun(log)[before:] if job != "small"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slots_a_worker", "chunk_s", "most_chunk_times"),
    [
        pytest.param(11, 0.3, 8, id="no-more-jobs-than-slots"),
        # Then it waits for one chunk of each of them; some begin while it runs.
        pytest.param(1, 0.05, 1.5 * LARGE_JOBS / 2, id="ten-times-as-many-jobs-as-slots"),
    ],
)
def test_small_job_does_not_wait_behind_large_jobs(
    fleet: Fleet,
    tmp_path: Path,
    slots_a_worker: int,
    chunk_s: float,
    most_chunk_times: float,
) -> None:
    slots = 2 * slots_a_worker
    for _ in range(2):
        fleet.start_worker("--concurrency", str(slots_a_worker))
    log = tmp_path / "log"
    with large_jobs(fleet, LARGE_JOBS, chunk_s, log):
        most = max(4 * slots, LARGE_JOBS) + LARGE_JOBS  # a share is rounded up
        wait_until(lambda: under_way(fleet) <= most, "they share a window")
        waited = begun_before_a_small_job_ends(fleet, chunk_s, log)
    print(f"others began {waited} chunks, {waited / slots:.1f} a slot")
    assert waited <= most_chunk_times * slots
    assert fleet.store.keys("pt:*") == [f"pt:workers:{QUEUE}".encode()]


@pytest.mark.slow
def test_a_window_shrinks_and_grows_as_jobs_come_and_go(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_worker()
    log = tmp_path / "log"
    with large_jobs(fleet, 1, 0.05, log):
        wait_until(lambda: under_way(fleet) == 8, "it has the whole default")
        with closing(Store(fleet.settings)) as store:
            for number in range(3):
                store.open_job(JobSpec(f"{number}", *HOP, FrameKind.OBJECTS, "0"))
            wait_until(lambda: under_way(fleet) == 2, "it has a quarter", 4)
            for number in range(3):
                store.end_job(f"{number}")
        wait_until(lambda: under_way(fleet) == 8, "it has all of it again")


def test_an_explicit_window_is_a_maximum(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_worker()
    log = tmp_path / "log"
    with large_jobs(fleet, 1, 0.05, log, window=Window(chunks=12)):
        wait_until(lambda: under_way(fleet) == 12, "it has what was given")
        with closing(Store(fleet.settings)) as store:
            store.open_job(JobSpec("another", *HOP, FrameKind.OBJECTS, "0"))
            wait_until(lambda: under_way(fleet) == 4, "it has half of the default", 4)


def test_silent_and_idle_jobs_do_not_share_the_window(fleet: Fleet) -> None:
    first, second = (JobSpec(name, *HOP, FrameKind.OBJECTS, "0") for name in ("a", "b"))
    with closing(Store(fleet.settings)) as store:
        assert store.open_job(first) == 0
        assert store.open_job(second) == 1
        assert store.survey("a", is_busy=True).others == 1
        assert store.survey("b").others == 1
        assert store.survey("a", is_busy=True).others == 0
        fleet.store.zadd(JOBS_KEY, {"of a producer that was killed": 1})
        assert store.survey("b", is_busy=True).others == 1
        assert set(fleet.store.zrange(JOBS_KEY, 0, -1)) == {b"a", b"b"}
        for name in ("a", "b"):
            store.end_job(name)
            assert not store.survey(name).is_known
        # One that was on its way when the job ended counts it no more.
        assert not store.survey("a", is_busy=True).is_known
    assert fleet.store.keys("pt:*") == []


def test_foreign_key_in_the_jobs_counter_ends_no_job(fleet: Fleet) -> None:
    fleet.store.set(JOBS_KEY, "no sorted set")
    with closing(Store(fleet.settings)) as store:
        assert store.open_job(JobSpec("a", *HOP, FrameKind.OBJECTS, "0")) == 0
        assert store.survey("a", is_busy=True).others == 0
