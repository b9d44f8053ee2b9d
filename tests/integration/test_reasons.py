"""The reasons that are told of submitted jobs, while real coordinators and workers come and go."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import ShownState, Wish
from pyrmute_tasks.service.beats import SILENT_S
from pyrmute_tasks.service.history import report_of
from pyrmute_tasks.service.status import JobStatus, JobWatch
from tests.fleets import kill_group
from tests.integration.service import Service, ended, fleet_of, loop, service_of, slow
from tests.people import person

TOLD_WITHIN_S = 3.0
LOAD_S = 10.0  # more, on a machine that is busy


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with fleet_of(tmp_path) as fleet, service_of(fleet, tmp_path) as service:
        yield service


class Watcher:
    """Looks at a job again and again, and says how long a reason took to be told."""

    def __init__(self, folder: JobFolder) -> None:
        self._watch = JobWatch(folder)

    def until(
        self, is_so: Callable[[JobStatus], bool], what: str, within_s: float = TOLD_WITHIN_S
    ) -> JobStatus:
        began, status = time.monotonic(), self._watch.look()
        while not is_so(status):
            assert time.monotonic() - began < within_s + LOAD_S, f"{what}: {status}"
            time.sleep(0.05)
            status = self._watch.look()
        print(f"{what}: told after {time.monotonic() - began:.1f} s: {status.reason}")
        return status

    def reason(self, part: str, within_s: float = TOLD_WITHIN_S) -> JobStatus:
        return self.until(lambda status: part in status.reason, part, within_s)


def test_reasons_are_those_of_what_happens(service: Service) -> None:
    records = slow([person(index) for index in range(1500)], 0.02)
    job = service.submit(records, by_reference="always", name="nightly")
    watcher = Watcher(job)
    watcher.reason("no coordinator was ever seen at this jobs root: start")
    first = service.coordinator()
    service.wait_for_ranges(job, 2)
    running = watcher.until(lambda status: status.is_live, "its driver tells")
    assert running.driver is not None
    assert running.driver.pid == first.pid
    assert running.way == "by reference"

    os.kill(first.pid, signal.SIGSTOP)
    frozen = watcher.reason("has been silent for")
    assert frozen.state is ShownState.WAITING
    os.kill(first.pid, signal.SIGCONT)
    watcher.until(lambda status: status.state is ShownState.RUNNING, "it goes on")

    service.wish(job, wish=Wish.PAUSE, why="release freeze")
    watcher.reason("paused by test@here: release freeze")
    service.wish(job, wish=Wish.RUN, why="")
    watcher.until(lambda status: status.state is ShownState.RUNNING, "it was resumed")

    kill_group(first, signal.SIGKILL)
    first.wait()
    watcher.reason(f"(process {first.pid} on host {os.uname().nodename}) has ended")
    service.coordinator()
    watcher.until(lambda status: status.epochs > running.epochs, "another one took over")
    service.wait_for_end(job)
    done = watcher.until(lambda status: status.has_ended, "it has ended")
    assert (done.state, done.fraction, done.reason) == (ShownState.SUCCEEDED, 1.0, "")
    assert (done.records, done.outputs) == (1500, 1500)
    assert service.output(job) == loop(records)


@pytest.mark.slow
def test_fleet_that_is_gone_is_told(service: Service) -> None:
    records = slow([person(index) for index in range(300)], 0.02)
    job = service.submit(records, by_reference="never", chunk_size=20)
    service.coordinator()
    service.wait_for_ranges(job, 2)
    watcher = Watcher(job)
    with service.fleet.without_workers():
        gone = watcher.reason("no worker answers")
        assert gone.state is ShownState.WAITING
        watcher.until(lambda status: status.workers == 0, "they do not count any more")
        later = service.submit(records, by_reference="never", chunk_size=20)
        suspended = Watcher(later).reason("no worker answers on queue")
        assert (suspended.state, suspended.driver) == (ShownState.SUSPENDED, None)
    for each in (job, later):
        service.wait_for_end(each)
        assert service.output(each) == loop(records)


@pytest.mark.slow
def test_job_behind_others_says_so_and_one_that_moves_does_not(service: Service) -> None:
    large = service.submit(slow([person(index) for index in range(16)], 4.0), chunk_size=1)
    service.coordinator()
    large_watcher = Watcher(large)
    large_watcher.until(lambda status: status.in_flight >= 4, "it fills the fleet")
    small = service.submit([person(index) for index in range(20)], chunk_size=10)
    watcher = Watcher(small)
    watcher.until(lambda status: status.is_live, "its driver tells")
    behind = watcher.reason("2 jobs share 2 workers; add workers, or pause a job")
    assert (behind.state, behind.reason[:21]) == (ShownState.WAITING, "no worker is free for")
    assert large_watcher.until(lambda status: status.is_live, "it runs").reason == ""
    service.wish(large, wish=Wish.PAUSE, why="let the small one go first")
    service.wait_for_end(small)


@pytest.mark.slow
def test_job_whose_coordinators_are_gone_says_so(service: Service) -> None:
    job = service.submit(slow([person(index) for index in range(400)], 0.02), chunk_size=20)
    watcher = Watcher(job)
    other = service.coordinator("--queue", "elsewhere")
    watcher.reason("coordinators run for queue 'elsewhere' only, and not for")
    assert ended(other) == 0
    only = service.coordinator()
    service.wait_for_ranges(job, 2)
    service.wish(job, wish=Wish.PAUSE, why="")
    watcher.reason("paused by")
    assert ended(only) == 0
    service.wish(job, wish=Wish.RUN, why="")
    watcher.reason("resumed by test@here; no coordinator runs for this jobs root", SILENT_S)
    service.coordinator()
    watcher.until(lambda status: status.state is ShownState.RUNNING, "one was started")
    service.wait_for_end(job)


@pytest.mark.slow
def test_store_that_is_gone_is_told_and_kept_with_its_beginning(service: Service) -> None:
    records = slow([person(index) for index in range(300)], 0.02)
    job = service.submit(records, chunk_size=20)
    service.coordinator(outage_s=12.0)
    service.wait_for_ranges(job, 2)
    watcher = Watcher(job)
    with service.fleet.valkey.frozen():
        began = time.time()
        watcher.reason("broker or store have not answered for")
        suspended = watcher.until(
            lambda status: status.state is ShownState.SUSPENDED, "it is suspended", 30.0
        )
    assert "it is tried again in" in suspended.reason or "as soon as" in suspended.reason
    waited = [each for each in report_of(job).periods if each.kind == "waiting"]
    assert [each.why for each in waited] == ["broker or store have not answered"]
    assert abs(waited[0].since - began) < TOLD_WITHIN_S
    service.wait_for_end(job)
    assert service.output(job) == loop(records)
