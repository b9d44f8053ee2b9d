"""This package's embedded fleet, with its server and its processes in the open."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.memory import ServerMemory
from benchmarks.workloads import Workload
from pyrmute_tasks import Migrator, Settings, Window
from pyrmute_tasks.distributed import EmbeddedFleet

__all__ = ["OurFleet", "our_fleet"]


@dataclass(frozen=True, slots=True)
class OurFleet:
    """What ``Migrator(manager, workers=…)`` starts.

    Attributes:
        migrator: It uses the fleet.
        server: What the Valkey server takes.
        workers: Process ids of the workers' main processes.
    """

    migrator: Migrator
    server: ServerMemory
    workers: list[int]


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
        yield OurFleet(migrator, server, fleet.process_ids[1:])
