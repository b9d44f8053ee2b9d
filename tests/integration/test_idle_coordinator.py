"""What a coordinator costs that has nothing to do."""

import os
import shutil
import time
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import Ended, Entry, JobResult, Publishing
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.jobs.want import Want
from tests.integration.service import Service, fleet_of, service_of
from tests.people import person

JOBS = 1000
FAILED = 100  # of them: these are looked at, since they may be resumed
MEASURED_S = 30.0
MOST_SHARE = 0.01


def add_ended_jobs(service: Service, job: str, count: int, ends: list[Entry]) -> None:
    folder = service.submit([person(1)], job=job, want=Want())
    lease = folder.take(this_process(), "code")
    for entry in ends:
        lease.log.log(entry)
    lease.log.commit()
    lease.log.close()
    shutil.rmtree(folder.parts_path)
    text = (folder.path / SPEC).read_text()
    for number in range(1, count):
        name = f"{job}{number:04x}"
        shutil.copytree(folder.path, service.root.path / name)
        (service.root.path / name / SPEC).write_text(text.replace(job, name))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_idle_coordinator_costs_at_most_a_hundredth_of_a_core(tmp_path: Path) -> None:
    with fleet_of(tmp_path, 0) as fleet, service_of(fleet, tmp_path) as service:
        succeeded: list[Entry] = [Publishing(0, "", ""), Ended(JobResult.SUCCEEDED, 1, 1, 0)]
        add_ended_jobs(service, "aaaaaaaa", JOBS - FAILED, succeeded)
        add_ended_jobs(service, "bbbbbbbb", FAILED, [Ended(JobResult.FAILED, 1, 1, 0)])
        process = service.coordinator()
        last = "it has failed (job="
        service.wait(lambda: service.logs().count(last) == FAILED, "it has seen all of them")
        time.sleep(5)
        before = cpu_s(process.pid)
        time.sleep(MEASURED_S)
        share = (cpu_s(process.pid) - before) / MEASURED_S
        print(f"{share:.2%} of a core with {JOBS} ended jobs")
        assert share <= MOST_SHARE
