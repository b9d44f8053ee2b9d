"""The flights with a step that keeps a core busy for 100 µs more."""

import time
from typing import Any, Final

from benchmarks.race import flights
from pyrmute_tasks import ModelManager

HOP: Final = flights.HOP
_BUSY_S: Final = 100e-6


def register(manager: Any) -> Any:
    """Register models and steps with a manager of either library, and return it."""
    flights.register(manager)
    split = flights.of_example("split_into_legs")

    def split_slowly(data: dict[str, Any]) -> dict[str, Any]:
        until = time.perf_counter() + _BUSY_S
        while time.perf_counter() < until:
            pass
        return split(data)  # type: ignore[no-any-return]  # a step of the example

    manager.migration("Flight", "2.0.0", "3.0.0")(split_slowly)
    return manager


manager: ModelManager = register(ModelManager())
