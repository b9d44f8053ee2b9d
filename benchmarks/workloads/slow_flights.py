"""The flights, with a step that keeps a core busy for 100 µs more; the outputs are the same."""

import time
from typing import Any, Final

from benchmarks.workloads import flights
from pyrmute_tasks import ModelManager

HOP: Final = flights.HOP

_BUSY_S: Final = 100e-6
_split: Final = flights.example("split_into_legs")


def split_slowly(data: dict[str, Any]) -> dict[str, Any]:
    """2.0.0 → 3.0.0, with work for 100 µs.

    By this thread's own clock, not the wall's: on that the time would also pass while
    another process has the core.
    """
    until = time.thread_time() + _BUSY_S
    while time.thread_time() < until:
        pass
    migrated: dict[str, Any] = _split(data)
    return migrated


def register(manager: Any) -> Any:
    """Register models and steps with a manager of either library, and return it."""
    for major in (1, 2, 3):
        manager.model("Flight", f"{major}.0.0")(flights.example(f"FlightV{major}"))
    give_times = flights.example("give_times_a_date_and_an_offset")
    manager.migration("Flight", "1.0.0", "2.0.0")(give_times)
    manager.migration("Flight", "2.0.0", "3.0.0")(split_slowly)
    return manager


manager: ModelManager = register(ModelManager())
