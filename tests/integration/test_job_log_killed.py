"""A job whose drivers are killed and frozen by real signals, on a real disk."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.driver import DriverWatch
from pyrmute_tasks.jobs.entries import Range, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.output import Output
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.jobs.states import LoggedState
from tests.conftest import ROOT, is_alive, wait_until
from tests.integration.job_driver import OVERTAKEN, outputs_of

RECORDS = 1500


class Driver:
    """A process that drives the job, and the ranges it reported durable."""

    def __init__(self, path: Path, target: Path, seed: int) -> None:
        module = "tests.integration.job_driver"
        command = [sys.executable, "-m", module, str(path), str(target), str(seed)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.acknowledged: set[Range] = set()

    def read(self, most: int) -> None:
        """Read the process's output until it has settled that many ranges or ended."""
        assert self.process.stdout is not None
        while len(self.acknowledged) < most:
            line = self.process.stdout.readline()
            if not line:
                return
            kind, *numbers = line.split()
            if kind == "settled":
                self.acknowledged.add(Range(*map(int, numbers)))

    def end(self, how: signal.Signals) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.closed:
            return
        self.process.send_signal(how)
        self.read(RECORDS)
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    """The processes that a test starts, ended with the test."""
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.end(signal.SIGKILL)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_acknowledged_ranges_survive_real_signals(
    tmp_path: Path, drivers: list[Driver], seed: int
) -> None:
    rng = random.Random(seed)
    path, target = tmp_path / "job", tmp_path / "out"
    source = SourceFile("/in", RECORDS, "1", "")
    folder = JobFolder.create(path, Spec("job", (source,), str(target), ("M", "1", "2"), "code"))
    frozen = []
    for turn in range(6):
        driver = Driver(path, target, seed * 100 + turn)
        drivers.append(driver)
        driver.read(rng.randint(1, 40))
        if turn % 3 == 2:
            driver.process.send_signal(signal.SIGSTOP)
            frozen.append(driver)
        else:
            driver.end(signal.SIGKILL)
            watch = DriverWatch(folder.storage)
            wait_until(lambda: not is_alive(driver.process.pid), "it is gone")  # noqa: B023  # at once
            assert watch.why_not(folder.view()) == ""
    assert DriverWatch(folder.storage).why_not(folder.view())  # frozen is not gone
    last = Driver(path, target, seed)
    drivers.append(last)
    last.read(20)
    for woken in frozen:  # while another one drives
        woken.end(signal.SIGCONT)
        assert woken.process.returncode == OVERTAKEN
    last.end(signal.SIGCONT)
    assert last.process.returncode == 0

    counted = [each.entry for each in History(folder.storage) if isinstance(each.entry, Settled)]
    acknowledged = [each for driver in drivers for each in driver.acknowledged]
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= {entry.range for entry in counted}
    assert target.read_bytes() == outputs_of(Range(0, 0, RECORDS))
    proof = Output(folder).prove()
    Output(folder).compare(proof, target)
    assert proof.records == RECORDS
    assert folder.view().state is LoggedState.SUCCEEDED
