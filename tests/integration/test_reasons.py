"""The reasons that are told of submitted jobs, while real coordinators and workers come and go."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import ShownState, Wish
from pyrmute_tasks.service.status import JobStatus, JobWatch
from tests.fleets import kill_group
from tests.integration.service import Service, fleet_of, loop, service_of, slow
from tests.people import person

pytestmark = pytest.mark.slow  # a job with a pause, a freeze and a kill takes 20 s
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
    watcher.reason("no coordinator has taken it yet")
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
