"""This package's embedded fleet, with its server and its processes in the open."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from benchmarks import processes
from benchmarks.processes import ServerMemory
from benchmarks.workloads import Workload
from pyrmute_tasks import Migrator, Settings, Window
from pyrmute_tasks.distributed.embedded import EmbeddedFleet

__all__ = ["OurFleet", "our_fleet"]

_START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class OurFleet:
    """What ``Migrator(manager, workers=…)`` starts.

    Attributes:
        workload: What its workers can migrate.
        settings: How to reach it.
        migrator: It uses the fleet.
        server: What the Valkey server takes.
        server_pid: Process id of the server.
        workers: Process ids of the workers' main processes.
        spent: What `timed` has found: processor seconds by process.
        coordinators: Process ids of coordinators, which count as the producer.
    """

    workload: Workload
    settings: Settings
    migrator: Migrator
    server: ServerMemory
    server_pid: int
    workers: list[int]
    spent: dict[str, float] = field(default_factory=dict)
    coordinators: list[int] = field(default_factory=list)

    @property
    def coordinator_share(self) -> float:
        """The producer's processor time, as a share of its workers'."""
        workers = self.spent["workers, main"] + self.spent["workers, children"]
        return self.spent["producer"] / max(workers, processes.TICK_S)

    def timed(self, run: Callable[[], int]) -> int:
        """Run a job and take down what processor time it cost whom."""
        before = self._cpu_s()
        count = run()
        after = self._cpu_s()
        self.spent.update({name: after[name] - before[name] for name in before})
        return count

    @contextmanager
    def coordinated(self, jobs: Path, source: Path) -> Iterator[None]:
        """Run a coordinator of a jobs root, in a process of its own, for a block.

        Args:
            jobs: The jobs root, which is made.
            source: It is there when it has run a job of the first record of this.
        """
        jobs.mkdir()
        settings = replace(self.settings, manager="", jobs_root=str(jobs))
        process = subprocess.Popen(
            [sys.executable, "-m", "pyrmute_tasks", "coordinator"],
            env=os.environ | settings.to_env(),
            stderr=subprocess.DEVNULL,
        )
        self.coordinators.append(process.pid)
        try:
            first, hop = jobs.with_name("first.jsonl"), self.workload.hop
            self.migrator.submit(source, first, *hop, jobs=jobs, limit=1).wait(_START_S)
            yield
        finally:
            process.terminate()
            process.wait()

    def _cpu_s(self) -> dict[str, float]:
        children = [child for pid in self.workers for child in processes.children_of(pid)]
        return {
            # Its own time is finer than what /proc tells.
            "producer": time.process_time() + sum(map(processes.cpu_s, self.coordinators)),
            "server": processes.cpu_s(self.server_pid),
            "workers, main": sum(map(processes.cpu_s, self.workers)),
            "workers, children": sum(map(processes.cpu_s, children)),
        }


@contextmanager
def our_fleet(workload: Workload, workers: int, window: Window | None = None) -> Iterator[OurFleet]:
    """Start a fleet.

    Args:
        workload: What its workers can migrate.
        workers: How many.
        window: Of the migrator's jobs; None for the default.

    Yields:
        It, for as long as the block lasts.
    """
    name = workload.manager_name
    with (
        EmbeddedFleet(name, workers, Settings()) as fleet,
        Migrator(name, settings=fleet.settings, window=window) as migrator,
    ):
        server = ServerMemory(fleet.settings.redis_store_url)
        server_pid, *worker_pids = fleet.process_ids
        yield OurFleet(workload, fleet.settings, migrator, server, server_pid, worker_pids)
