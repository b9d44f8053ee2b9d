"""Submitted jobs while coordinators, workers and servers go and come back."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.jobs.entries import Note
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import LoggedState, Wish
from tests.fleets import Fleet, RabbitMQ, kill_group, rabbitmq_fleet
from tests.integration.service import (
    SECRET,
    Service,
    end_of,
    ended,
    fleet_of,
    loop,
    notes_of,
    service_of,
    slow,
    view_of,
)
from tests.people import person

# A takeover takes 20 s, and there are several waits.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
FROZEN_S = 20.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, outage_s=8.0) as fleet:
        yield fleet


@pytest.fixture
def service(fleet: Fleet, tmp_path: Path) -> Iterator[Service]:
    with service_of(fleet, tmp_path) as service:
        yield service


def long_job(service: Service, count: int = 1200, **terms: Any) -> tuple[JobFolder, list[Any]]:
    records = slow([person(index) for index in range(count)], 0.01)
    return service.submit(records, **{"by_reference": "always", **terms}), records


def check_bytes(service: Service, job: JobFolder, records: list[Any]) -> None:
    assert service.wait_for_end(job).state is LoggedState.SUCCEEDED, end_of(job).why
    assert service.output(job) == loop(records)


@pytest.mark.parametrize("way", ["always", "never"])
def test_killed_coordinator_is_replaced_at_once(service: Service, way: str) -> None:
    chunk_size = 20 if way == "never" else None
    job, records = long_job(service, by_reference=way, chunk_size=chunk_size)
    first = service.coordinator()
    service.wait_for_ranges(job, 3)
    kill_group(first, signal.SIGKILL)
    first.wait()
    began, settled = time.monotonic(), view_of(job).fold.records
    service.coordinator()
    service.wait(lambda: view_of(job).epoch == 2, "another one has taken it over")
    assert time.monotonic() - began < FROZEN_S
    service.wait(lambda: len(service.fleet.store.keys("pt:{*}:job")) == 1, "old keys are gone")
    assert view_of(job).fold.records >= settled > 0
    check_bytes(service, job, records)


def test_coordinators_that_end_hand_their_jobs_over(service: Service) -> None:
    job, records = long_job(service)
    first = service.coordinator()
    service.wait_for_ranges(job, 3)
    second = service.coordinator()
    began = time.monotonic()
    assert ended(first) == 0
    assert time.monotonic() - began < 10
    assert notes_of(job, Note.STOPPED) == ["the coordinator was told to end"]
    service.wait(lambda: view_of(job).epoch == 2, "the other one goes on")
    check_bytes(service, job, records)
    assert ended(second) == 0


def test_frozen_coordinator_is_replaced_and_writes_nothing_that_counts(service: Service) -> None:
    job, records = long_job(service, 3000)
    first = service.coordinator()
    service.wait_for_ranges(job, 3)
    kill_group(first, signal.SIGSTOP)
    began = time.monotonic()
    second = service.coordinator()
    service.wait(lambda: view_of(job).epoch == 2, "another one has taken it over")
    assert FROZEN_S - 6 < time.monotonic() - began < 2 * FROZEN_S
    settled = view_of(job).fold.ranges
    service.wait_for_ranges(job, settled + 3)
    kill_group(first, signal.SIGCONT)
    service.wait(lambda: "lost" in service.logs(), "the first one knows that it lost the job")
    assert f"pt:{{{job.spec.job}.2}}:job".encode() in service.fleet.store.keys("pt:*")
    assert view_of(job).epoch == 2
    check_bytes(service, job, records)
    assert view_of(job).epoch == 2
    assert ended(first) == ended(second) == 0


def test_emptied_store_suspends_a_job_for_moments(service: Service) -> None:
    job, records = long_job(service)
    service.coordinator()
    for epoch in (1, 2):
        service.wait(lambda epoch=epoch: view_of(job).epoch >= epoch, "it is driven")
        # What is settled now may be of the epoch before, whose end is not that of the store.
        service.wait_for_ranges(job, view_of(job).fold.ranges + 3)
        service.fleet.store.flushall()
    service.wait(lambda: len(notes_of(job, Note.SUSPENDED)) >= 2, "it was suspended")
    assert all("no longer knows job" in why for why in notes_of(job, Note.SUSPENDED))
    check_bytes(service, job, records)


def test_fleet_scaled_to_zero_suspends_jobs(service: Service) -> None:
    job, records = long_job(service)
    service.coordinator()
    service.wait_for_ranges(job, 3)
    for worker in service.fleet.living:
        worker.is_wanted = False
        worker.kill()
    queued, others = long_job(service, 20)
    for each in (job, queued):
        service.wait(lambda each=each: view_of(each).is_suspended, "it is suspended", 120)
    assert "no worker answers on queue" in view_of(queued).stopped
    epochs = view_of(queued).epoch
    time.sleep(6)
    assert view_of(queued).epoch == epochs  # waiting costs none
    service.fleet.start_worker("--root", str(service.data))
    check_bytes(service, queued, others)
    check_bytes(service, job, records)


def test_server_that_is_away_is_waited_for(service: Service) -> None:
    job, records = long_job(service)
    service.fleet.valkey.kill()
    service.coordinator()
    service.wait(lambda: view_of(job).is_suspended, "it is suspended")
    assert "the store" in view_of(job).stopped
    service.fleet.valkey.start()
    service.wait_for_ranges(job, 3)
    service.fleet.valkey.kill()
    began = time.monotonic()
    service.wish(job, wish=Wish.PAUSE)
    service.wait(lambda: view_of(job).state is LoggedState.STOPPED, "it is paused")
    assert time.monotonic() - began < 15
    service.fleet.valkey.start()
    service.wish(job, wish=Wish.RUN)
    check_bytes(service, job, records)


def test_job_without_a_fleet_is_given_up_in_the_end(tmp_path: Path) -> None:
    with fleet_of(tmp_path, 0) as fleet, service_of(fleet, tmp_path) as service:
        job, records = long_job(service, 20, give_up_s=3.0)
        service.coordinator()
        assert service.wait_for_end(job).state is LoggedState.FAILED
        assert end_of(job).why.startswith("given up after ")
        assert "no worker answers" in end_of(job).why
        fleet.start_worker("--root", str(tmp_path))
        service.wish(job, wish=Wish.RUN)
        service.wait(lambda: view_of(job).state is LoggedState.SUCCEEDED, "it has succeeded")
        assert service.output(job) == loop(records)


def test_workers_with_other_code_suspend_a_job(tmp_path: Path) -> None:
    with fleet_of(tmp_path, 0) as fleet, service_of(fleet, tmp_path) as service:
        other = fleet.start_worker(
            "--root", str(tmp_path), manager="tests.integration.typed:manager"
        )
        job, records = long_job(service, 20)
        service.coordinator()
        service.wait(lambda: view_of(job).is_suspended, "it is suspended")
        assert "Deploy the same code" in view_of(job).stopped
        other.is_wanted = False
        other.kill()
        fleet.start_worker("--root", str(tmp_path))
        check_bytes(service, job, records)


def test_jobs_through_rabbitmq_survive_its_restart_and_a_killed_coordinator(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "secret": SECRET,
        "worker_wait_s": 3.0,
        "heartbeat_s": 2.0,
        "outage_s": 30.0,
    }
    with rabbitmq_fleet(rabbitmq, 0, **options) as fleet, service_of(fleet, tmp_path) as service:
        for _ in range(2):
            fleet.start_worker("--root", str(tmp_path))
        jobs = [long_job(service), long_job(service, by_reference="never", chunk_size=20)]
        first = service.coordinator()
        for job, _ in jobs:
            service.wait_for_ranges(job, 3)
        kill_group(first, signal.SIGKILL)
        first.wait()
        service.coordinator()
        service.wait(lambda: all(view_of(job).epoch >= 2 for job, _ in jobs), "they were taken")
        rabbitmq.restart()
        for job, records in jobs:
            check_bytes(service, job, records)
        service.wait(lambda: not fleet.store.keys("pt:{*"), "nothing is left in the store")
