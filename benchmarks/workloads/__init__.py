"""What is migrated. Each module here holds models and steps, for a manager of either library."""

import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pyrmute_tasks import ModelManager
from pyrmute_tasks.plans.plan import MigrationPlan

__all__ = ["NAMES", "Workload", "pyrmute_lines", "pyrmute_manager"]

NAMES: Final = ("small", "flights", "slow_flights")

Hop = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Workload:
    """Models and steps, and the hop that everybody migrates.

    Attributes:
        name: Name of the module in this package. Only the name travels to other processes.
    """

    name: str

    @property
    def hop(self) -> Hop:
        """The model's name and both versions."""
        hop: Hop = self._module.HOP
        return hop

    @property
    def manager_name(self) -> str:
        """The name under which our workers import the manager."""
        return f"{__name__}.{self.name}:manager"

    @property
    def plan(self) -> MigrationPlan:
        """What our workers run on a chunk."""
        manager: ModelManager = self._module.manager
        return manager.plan(*self.hop)

    def register(self, manager: Any) -> Any:
        """Register models and steps with a manager of either library, and return it."""
        return self._module.register(manager)

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.name}")


@cache
def pyrmute_manager(workload: str) -> Any:
    """Return this process's ``pyrmute.ModelManager`` for a workload."""
    # Our own workers import the workloads as well, and have no use for it.
    import pyrmute

    return Workload(workload).register(pyrmute.ModelManager())


def pyrmute_lines(workload: str, lines: Iterable[str | bytes]) -> Iterator[str]:
    """Migrate JSON lines with pyrmute, as its documentation shows.

    Args:
        workload: Name of the workload.
        lines: JSON objects, one a line.

    Yields:
        The validated models as JSON, without newlines.
    """
    manager = pyrmute_manager(workload)
    rows = map(json.loads, lines)
    for model in manager.migrate_batch_streaming(rows, *Workload(workload).hop):
        yield model.model_dump_json()
