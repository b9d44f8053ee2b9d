"""Submitted jobs whose coordinators, workers and store are harmed at random moments.

Coordinators are killed or frozen, the store is emptied, workers are scaled to zero; each job ends
with the bytes of a loop all the same. For each moment it is shown how long it took until the
job's status told a reason, or the job went on.
"""

import enum
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.service.status import JobWatch
from tests.conftest import wait_until
from tests.fleets import Fleet, kill_group
from tests.integration.service import Service, fleet_of, loop, service_of, slow, view_of
from tests.people import person

__all__ = ["run_submitted"]

_RECORDS: Final = 8000
_RECORD_S: Final = 0.01
_PATIENCE_S: Final = 300.0


class Harm(enum.StrEnum):
    """What happens at a moment."""

    KILL = "coordinator killed"
    FREEZE = "coordinator frozen"
    EMPTY = "store emptied"
    ZERO = "no workers"


@dataclass
class _Chaos:
    """A jobs root under fire."""

    service: Service
    zero_s: float
    rng: random.Random
    coordinators: list[subprocess.Popen[bytes]] = field(default_factory=list)
    job: JobFolder | None = None
    records: list[Any] = field(default_factory=list)
    done: int = 0

    @property
    def fleet(self) -> Fleet:
        return self.service.fleet

    def running(self) -> JobFolder:
        """Return a job that is driven, and came further just now."""
        if self.job is not None and view_of(self.job).state.has_ended:
            self.check()
        if self.job is None:
            self.records = slow([person(index) for index in range(_RECORDS)], _RECORD_S)
            self.job = self.service.submit(self.records, by_reference="always")
        job, before = self.job, view_of(self.job).fold.ranges
        wait_until(
            lambda: view_of(job).fold.ranges > before or view_of(job).state.has_ended,
            "the job goes on",
            _PATIENCE_S,
        )
        return job

    def check(self) -> None:
        """Wait for the end of the job, and compare its bytes with those of a loop."""
        assert self.job is not None
        view = self.service.wait_for_end(self.job, _PATIENCE_S)
        assert view.state == "succeeded", view.ended
        assert self.service.output(self.job) == loop(self.records)
        self.done += 1
        self.job = None

    def harm(self, harm: Harm, job: JobFolder) -> float:
        """Do harm, mend it, and return how long it took until the job's status told of it."""
        epoch, watch, began = view_of(job).epoch, JobWatch(job), time.monotonic()
        victim = self._driver(job)
        match harm:
            case Harm.KILL:
                kill_group(victim, signal.SIGKILL)
            case Harm.FREEZE:
                kill_group(victim, signal.SIGSTOP)
            case Harm.EMPTY:
                self.fleet.store.flushall()
            case Harm.ZERO:
                for worker in self.fleet.living:
                    worker.is_wanted = False
                    worker.kill()
        wait_until(
            lambda: watch.look().reason or view_of(job).epoch > epoch or view_of(job).ended,
            f"the status tells of: {harm}",
            _PATIENCE_S,
        )
        told_s = time.monotonic() - began
        self._mend(harm, job, victim, epoch)
        return told_s

    def _mend(
        self, harm: Harm, job: JobFolder, victim: subprocess.Popen[bytes], epoch: int
    ) -> None:
        if harm is Harm.KILL:
            victim.wait()
            self.coordinators.remove(victim)
            self.coordinators.append(self.service.coordinator())
        elif harm is Harm.FREEZE:
            wait_until(
                lambda: view_of(job).epoch > epoch or view_of(job).ended, "taken over", _PATIENCE_S
            )
            time.sleep(self.rng.uniform(0, 2))
            kill_group(victim, signal.SIGCONT)
        elif harm is Harm.ZERO:
            time.sleep(self.zero_s)
            for _ in range(2):
                self.fleet.launch_worker("--root", str(self.service.data))

    def _driver(self, job: JobFolder) -> subprocess.Popen[bytes]:
        leased = view_of(job).leased
        assert leased is not None
        return next(each for each in self.coordinators if each.pid == leased.holder["pid"])


def run_submitted(moments: int, seed: int, zero_s: float = 60.0) -> None:
    """Harm submitted jobs at random moments; show each, and fail if a byte is wrong.

    Args:
        moments: How many.
        seed: Of all that is random.
        zero_s: How long there are no workers.
    """
    rng = random.Random(seed)
    with TemporaryDirectory(prefix="pt-submitted-", dir="/tmp") as path:
        data = Path(path)
        with (
            fleet_of(data, outage_s=10.0, heartbeat_s=1.0) as fleet,
            service_of(fleet, data) as service,
        ):
            chaos = _Chaos(service, zero_s, rng)
            chaos.coordinators += [service.coordinator() for _ in range(2)]
            for moment in range(moments):
                job = chaos.running()
                time.sleep(rng.uniform(0, 1))
                if view_of(job).state.has_ended:
                    continue
                harm = rng.choice(list(Harm))
                told_s = chaos.harm(harm, job)
                print(f"{moment + 1:3} {harm:20} told after {told_s:5.1f} s", flush=True)
            if chaos.job is not None:
                chaos.check()
            print(f"{chaos.done} jobs with the bytes of a loop; seed {seed}")
