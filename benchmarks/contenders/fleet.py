"""This package's embedded fleet, with its server and its processes in the open."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks import processes
from benchmarks.processes import ServerMemory
from benchmarks.workloads import Workload
from pyrmute_tasks import Migrator, Settings, Window
from pyrmute_tasks.distributed.embedded import EmbeddedFleet

__all__ = ["OurFleet", "our_fleet"]


@dataclass(frozen=True, slots=True)
class OurFleet:
    """What ``Migrator(manager, workers=…)`` starts.

    Attributes:
        migrator: It uses the fleet.
        server: What the Valkey server takes.
        server_pid: Process id of the server.
        workers: Process ids of the workers' main processes.
        spent: What `timed` has found: processor seconds by process.
    """

    migrator: Migrator
    server: ServerMemory
    server_pid: int
    workers: list[int]
    spent: dict[str, float] = field(default_factory=dict)

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

    def _cpu_s(self) -> dict[str, float]:
        children = [child for pid in self.workers for child in processes.children_of(pid)]
        return {
            "producer": time.process_time(),  # finer than what /proc tells
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
        yield OurFleet(migrator, server, server_pid, worker_pids)
