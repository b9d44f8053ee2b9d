"""The driver of a job, and the takeover by another process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.driver import SILENT_S, DriverWatch, this_process
from pyrmute_tasks.jobs.entries import Ended, JobResult, Leased, encode
from pyrmute_tasks.jobs.lease import take
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.view import JobView

ELSEWHERE: dict[str, str | int] = {
    "host": "there",
    "who": "ada",
    "place": "another boot",
    "pid": 7,
    "started": "1",
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched:
    def __init__(self, path: Path) -> None:
        self.storage = FolderStorage(path)
        self.clock = Clock()
        self.watch = DriverWatch(self.storage, self.clock)

    def why_not(self) -> str:
        return self.watch.why_not(JobView.of(History(self.storage)))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def ended_process() -> dict[str, str | int]:
    """The name of a process of this host that has ended."""
    program = "import json; from pyrmute_tasks.jobs.driver import this_process; "
    program += "print(json.dumps(this_process()))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    found: dict[str, str | int] = json.loads(ran.stdout)
    return found


def test_job_without_a_driver_is_free(watched: Watched) -> None:
    assert watched.why_not() == ""
    lease = take(watched.storage, ELSEWHERE, "code")
    lease.let_go("paused")
    assert watched.why_not() == ""
    lease = take(watched.storage, ELSEWHERE, "code")
    lease.log.log(Ended(JobResult.FAILED, 0, 0, 0))
    lease.log.commit()
    assert watched.why_not() == ""


def test_job_of_a_living_process_is_not_free(watched: Watched) -> None:
    me = this_process()
    take(watched.storage, me, "code")
    told = watched.why_not()
    assert told == f"process {me['pid']} of {me['who']} on host {me['host']} drives this job"


def test_job_of_a_process_that_ended_is_free_at_once(watched: Watched) -> None:
    holder = ended_process()
    take(watched.storage, holder, "code")
    assert watched.why_not() == ""
    again = this_process()  # the process id was given to another one
    take(watched.storage, {**again, "started": "1"}, "code")
    assert watched.why_not() == ""


def test_driver_of_another_host_is_watched(watched: Watched) -> None:
    lease = take(watched.storage, ELSEWHERE, "code")
    assert watched.why_not() == "process 7 of ada on host there drives this job"
    watched.clock.now = SILENT_S - 1
    assert watched.why_not().endswith("drives this job, silent for 19 s")
    lease.log.beat()
    assert watched.why_not() == "process 7 of ada on host there drives this job"
    watched.clock.now += SILENT_S
    assert watched.why_not() == ""


def test_process_that_is_taking_over_is_watched_too(watched: Watched) -> None:
    take(watched.storage, ELSEWHERE, "code").let_go("paused")
    line = encode(Leased(2, "token", {**ELSEWHERE, "host": "third"}), 1.0, 2, 0)
    (watched.storage.path / "log.2").write_bytes(line)
    assert watched.why_not() == "process 7 of ada on host third drives this job"
    (watched.storage.path / "log.2").write_bytes(line[:20])
    assert watched.why_not() == "process ? of ? on host ? drives this job"
    watched.clock.now = SILENT_S
    assert watched.why_not() == ""
