"""Two hundred jobs at once: none waits longer than its share, and what they cost."""

import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.terms import Priority
from tests.integration.service import ENDS, Service, fleet_of, loop, service_of, slow, view_of
from tests.people import person

JOBS: Final = 200
LARGE_EVERY: Final = 25  # of every so many jobs one is large
SMALL_RECORDS: Final = 20
LARGE_RECORDS: Final = 1000
RECORD_S: Final = 0.008  # of the large ones
MOST_RUNNING: Final = 8
SLICE_S: Final = 2.0
SLACK_S: Final = 10.0  # for the small ones themselves, and a busy machine
LEAD_S: Final = 1200.0  # of a high job before a low one
PRIORITIES: Final = (Priority.LOW, Priority.NORMAL, Priority.HIGH)


@dataclass
class Costs:
    """What coordinators took at most, or in all."""

    threads: int = 0
    descriptors: int = 0
    peak_mb: float = 0.0
    cpu_s: float = 0.0
    clients: int = 0
    surveys: int = 0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with fleet_of(tmp_path) as fleet, service_of(fleet, tmp_path) as service:
        yield service


def begun_at(job: JobFolder) -> float:
    return next(iter(History(job.storage))).at


def way_of(job: JobFolder) -> str:
    assert job.spec.terms is not None
    return job.spec.terms.by_reference


def look(process: subprocess.Popen[bytes], costs: Costs) -> None:
    """Take down what a coordinator takes."""
    proc = Path(f"/proc/{process.pid}")
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    costs.threads = max(costs.threads, int(status["Threads"]))
    costs.peak_mb = max(costs.peak_mb, int(status["VmHWM"].split()[0]) / 1024)
    costs.descriptors = max(costs.descriptors, len(os.listdir(proc / "fd")))


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("coordinators", [1, 2])
def test_none_of_many_jobs_waits_longer_than_its_share(service: Service, coordinators: int) -> None:
    """Jobs begin in the documented order, and no later than their turn comes.

    With A jobs ahead by that order and R driven at a time, a job begins within ⌈A/R⌉ turns. What
    overtakes it is at most what is begun in the same moment.
    """
    small: list[Any] = [person(index) for index in range(SMALL_RECORDS)]
    large = slow([person(index) for index in range(LARGE_RECORDS)], RECORD_S)
    submitted = time.time()
    jobs, order = [], {}
    for number in range(JOBS):
        priority = PRIORITIES[number % 3]
        is_large = number % LARGE_EVERY == LARGE_EVERY - 1
        # The oldest low ones are due before high ones that were submitted later.
        is_old = priority is Priority.LOW and number < JOBS // 10
        job = service.submit(
            large if is_large else small,
            by_reference="always" if is_large else "never",
            priority=priority,
            created_at=submitted - (LEAD_S + 60 if is_old else 0),
        )
        jobs.append(job)
        order[job.spec.job] = 3 if is_old else PRIORITIES.index(priority)
    began = time.time()
    processes = [
        service.coordinator_of_short_turns(MOST_RUNNING, SLICE_S) for _ in range(coordinators)
    ]
    costs, commands = Costs(), service.fleet.store
    left = list(jobs)
    while left:
        assert time.time() - began < 300, f"{len(left)} jobs are left"
        for process in processes:
            look(process, costs)
        costs.clients = max(costs.clients, len(commands.client_list()))
        left = [job for job in left if view_of(job).state not in ENDS]
        time.sleep(0.2)
    took_s = time.time() - began
    costs.cpu_s = sum(map(cpu_s, processes))
    costs.surveys = commands.info("commandstats")["cmdstat_eval"]["calls"]
    for job in jobs:
        assert view_of(job).state is LoggedState.SUCCEEDED
    wanted = {"always": loop(large), "never": loop(small)}
    assert all(service.output(job) == wanted[way_of(job)] for job in jobs)
    at_once = MOST_RUNNING * coordinators
    begun = {job.spec.job: begun_at(job) for job in jobs}
    overtaken = {
        name: sum(begun[other] < at and order[other] < order[name] for other in begun)
        for name, at in begun.items()
    }
    ahead = {name: sum(other >= order[name] for other in order.values()) for name in begun}
    late = {
        name: at - began - SLICE_S * math.ceil(ahead[name] / at_once) for name, at in begun.items()
    }
    turns = [view_of(job).epoch for job in jobs]
    print(
        f"{coordinators}: {took_s:.1f} s, {costs}, {costs.surveys / took_s:.1f} surveys/s, "
        f"overtaken by {max(overtaken.values())}, late by {max(late.values()):.1f} s, "
        f"most turns {max(turns)}, last began after {max(begun.values()) - began:.1f} s"
    )
    assert max(overtaken.values()) <= at_once
    assert max(late.values()) <= SLACK_S
    assert not service.fleet.store.keys("pt:{*")
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
