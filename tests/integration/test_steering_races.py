"""Wishes that meet what coordinators do in the same moment: one of both wins, and says so."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.entries import Publishing, Wished
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.want import WANT
from pyrmute_tasks.service import steering
from tests.fleets import Fleet, kill_group
from tests.integration.service import (
    ENDS,
    Service,
    entries_of,
    fleet_of,
    loop,
    service_of,
    slow,
    view_of,
)
from tests.people import person

ROUNDS = 60
SEED = 15


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def fleet(data: Path) -> Iterator[Fleet]:
    with fleet_of(data) as fleet:
        yield fleet


@pytest.fixture
def service(fleet: Fleet, tmp_path: Path, data: Path) -> Iterator[Service]:
    with service_of(fleet, data / tmp_path.name) as service:
        yield service


def people(count: int, seconds: float = 0.0) -> list[Any]:
    records = [person(index) for index in range(count)]
    return slow(records, seconds) if seconds else records


def wishes_of(job: JobFolder) -> list[str]:
    return [str(each.want["wish"]) for each in entries_of(job) if isinstance(each, Wished)]


def all_at_once(calls: list[Callable[[], Any]]) -> list[JobError | None]:
    """Call all in one moment, in threads; return what each raised."""
    barrier = threading.Barrier(len(calls))
    raised: list[JobError | None] = [None] * len(calls)

    def call(number: int) -> None:
        barrier.wait()
        try:
            calls[number]()
        except JobError as error:
            raised[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.slow
def test_cancel_is_obeyed_or_refused_however_near_the_end_it_comes(service: Service) -> None:
    rng = random.Random(SEED)
    records = people(120, 0.005)  # 0.3 s on two workers
    wanted = loop(records)
    service.coordinator()
    service.wait_for_end(service.submit(records))  # it is there
    job = service.submit(records)
    service.wait(lambda: view_of(job).epoch >= 1, "it is driven")
    began = time.monotonic()
    service.wait_for_end(job)
    took_s = time.monotonic() - began
    cancelled = refused = 0
    for _ in range(ROUNDS):
        way = rng.choice(["always", "never"])
        job = service.submit(records, by_reference=way, chunk_size=20 if way == "never" else None)
        service.wait(lambda job=job: view_of(job).epoch >= 1, "it is driven")
        time.sleep(rng.uniform(0.0, 1.5 * took_s))  # some in the moment in which it ends
        [error] = all_at_once([partial(steering.cancel, job, "wrong file")])
        if error is None:
            cancelled += 1
            assert service.wait_for_end(job).state is LoggedState.CANCELLED
            assert not Path(job.spec.target).exists()
            assert not any(isinstance(each, Publishing) for each in entries_of(job))
            continue
        refused += 1
        assert "being published" in str(error) or "has ended: succeeded" in str(error)
        assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
        assert service.output(job) == wanted
        assert wishes_of(job) == ["run"]
    print(f"{cancelled} cancelled, {refused} refused")
    assert cancelled
    assert refused


@pytest.mark.slow
def test_pause_while_a_job_is_taken_over_is_obeyed(service: Service) -> None:
    records = people(1500, 0.01)
    job = service.submit(records, by_reference="always")
    process = service.coordinator()
    rng = random.Random(SEED)
    for ranges in (2, 5, 8):
        service.wait_for_ranges(job, ranges)
        kill_group(process, signal.SIGKILL)
        process.wait()
        settled = view_of(job).fold.ranges
        process = service.coordinator()
        other = service.coordinator()
        time.sleep(rng.uniform(0.5, 2.5))  # before, while and after one of them takes it
        steering.pause(job, "release freeze")
        service.wait(lambda: view_of(job).state is LoggedState.STOPPED, "it is paused")
        assert "release freeze" in view_of(job).stopped
        assert view_of(job).fold.ranges >= settled
        service.wait(lambda: not service.fleet.store.keys("pt:{*"), "the store holds nothing of it")
        epoch = view_of(job).epoch
        resumed = all_at_once([partial(steering.resume, job, why) for why in ("a", "b")])
        told = [error for error in resumed if error is not None]
        assert len(told) == 1, "one of two resumes wins"
        assert "there is nothing to resume" in str(told[0])
        service.wait(lambda epoch=epoch: view_of(job).epoch > epoch, "it goes on")
        kill_group(other, signal.SIGKILL)
        other.wait()
    (job.path / WANT).write_text('{"wish": "can')  # torn
    with pytest.raises(
        JobError, match=r"pause, resume or cancel the job to write a new want\.json"
    ):
        steering.set_limits(job, steering.Limits(window=4))
    steering.resume(job, "the wishes were torn")
    steering.set_limits(job, steering.Limits(window=4))
    service.wait(lambda: view_of(job).state in ENDS, "it has ended")
    assert view_of(job).state is LoggedState.SUCCEEDED
    assert service.output(job) == loop(records)
    assert wishes_of(job).count("pause") == 3
