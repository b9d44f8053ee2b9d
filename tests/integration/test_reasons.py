"""The reasons that are told of submitted jobs, while real coordinators and workers come and go."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import ShownState, Wish
from pyrmute_tasks.jobs.want import Want
from pyrmute_tasks.service.beats import SILENT_S
from pyrmute_tasks.service.history import report_of
from pyrmute_tasks.service.status import JobStatus, JobWatch
from tests.conftest import ROOT
from tests.fleets import Fleet, kill_group
from tests.integration.service import Service, ended, fleet_of, loop, service_of, slow
from tests.people import person

pytestmark = pytest.mark.slow  # a job with a pause, a freeze and a kill takes 20 s
TOLD_WITHIN_S = 3.0
OLDER_STEP = """
from tests.people import *

@manager.migration("Person", "2.0.0", "3.0.0")
def add_adult(data):
    return {**data, "adult": data["age"] >= 21}
"""
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


def test_fleet_that_is_gone_is_told(service: Service) -> None:
    records = slow([person(index) for index in range(300)], 0.02)
    job = service.submit(records, by_reference="never", chunk_size=20)
    service.coordinator()
    service.wait_for_ranges(job, 2)
    watcher = Watcher(job)
    with service.fleet.without_workers():
        killed_at = time.time()
        gone = watcher.reason("no worker answers")
        assert gone.state is ShownState.WAITING
        watcher.until(lambda status: status.workers == 0, "they do not count any more")
        later = service.submit(records, by_reference="never", chunk_size=20)
        suspended = Watcher(later).reason("no worker answers on queue")
        assert (suspended.state, suspended.driver) == (ShownState.SUSPENDED, None)
    for each in (job, later):
        service.wait_for_end(each)
        assert service.output(each) == loop(records)
    (waited,) = (each for each in report_of(job).periods if each.why == "no worker answers")
    assert abs(waited.since - killed_at) < TOLD_WITHIN_S
    assert waited.until > killed_at


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
@pytest.mark.parametrize("server", ["store", "broker"])
def test_server_that_is_gone_is_told_and_kept_with_its_beginning(
    service: Service, server: str
) -> None:
    told = "broker or store have not answered"  # which one, is known once one of them does
    records = slow([person(index) for index in range(300)], 0.02)
    job = service.submit(records, chunk_size=20)
    service.coordinator(outage_s=12.0)
    service.wait_for_ranges(job, 2)
    watcher = Watcher(job)
    frozen = {"store": service.fleet.valkey, "broker": service.fleet.broker_server}[server]
    assert frozen is not None
    with frozen.frozen():
        began = time.time()
        watcher.reason(f"{told} for")
        suspended = watcher.until(
            lambda status: status.state is ShownState.SUSPENDED, "it is suspended", 30.0
        )
    assert "it is tried again in" in suspended.reason or "as soon as" in suspended.reason
    waited = [each for each in report_of(job).periods if each.kind == "waiting"]
    assert waited[0].why == told
    assert abs(waited[0].since - began) < TOLD_WITHIN_S
    service.wait_for_end(job)
    assert service.output(job) == loop(records)


def start_declining(fleet: Fleet, data: Path, what: str) -> None:
    """Start workers that take no chunk: with an older step, or without the files."""
    if what == "code":
        older = data / "older.py"
        older.write_text(OLDER_STEP)
        for name in ("first", "second"):
            fleet.start_worker("--root", str(data), manager=f"{older}:manager", name=name)
    else:
        elsewhere = data / "elsewhere"
        elsewhere.mkdir()
        fleet.start_worker("--root", str(elsewhere), name="first")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("code", "no worker takes chunks for {}: 2 workers hold other code"),
        ("files", "no worker takes chunks for {}: first@test"),
    ],
)
def test_workers_that_decline_are_counted_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with (
        fleet_of(tmp_path, workers=0, code_wait_s=60.0) as fleet,
        service_of(fleet, tmp_path) as service,
    ):
        start_declining(fleet, tmp_path, what)
        job = service.submit([person(index) for index in range(60)], by_reference="always")
        service.coordinator()
        before, after = told.split("{}")
        watcher = Watcher(job)
        found = watcher.until(
            lambda status: status.reason.startswith(before) and after in status.reason, what
        )
        assert found.state is ShownState.WAITING
        fleet.start_worker("--root", str(tmp_path))
        service.wait_for_end(job)


@pytest.mark.slow
def test_pauses_of_a_greatest_rate_are_told(service: Service) -> None:
    want = Want(max_rate=1.0, who="test@here", at=time.time())
    job = service.submit(
        [person(index) for index in range(40)], want=want, chunk_size=20, by_reference="never"
    )
    service.coordinator()
    Watcher(job).reason("the greatest rate is reached: nothing sent for", 10.0 + TOLD_WITHIN_S)
