"""The flights of ``examples/flights.py``, for a manager of either library."""

from pathlib import Path
from typing import Any, Final

from pyrmute_tasks import ModelManager
from pyrmute_tasks.registry import load_attribute

HOP: Final = ("Flight", "1.0.0", "3.0.0")

_EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "flights.py"


def example(name: str) -> Any:
    """Return a class or a function of the example."""
    return load_attribute(f"{_EXAMPLE}:{name}")


def register(manager: Any) -> Any:
    """Register models and steps with a manager of either library, and return it."""
    for major in (1, 2, 3):
        manager.model("Flight", f"{major}.0.0")(example(f"FlightV{major}"))
    give_times, split = example("give_times_a_date_and_an_offset"), example("split_into_legs")
    manager.migration("Flight", "1.0.0", "2.0.0")(give_times)
    manager.migration("Flight", "2.0.0", "3.0.0")(split)
    return manager


manager: ModelManager = register(ModelManager())
