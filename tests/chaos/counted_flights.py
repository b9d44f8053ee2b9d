"""The flights example, whose first step notes each row that it sees: a byte in a file."""

import functools
import os
import tempfile
from pathlib import Path
from typing import Final

from pyrmute_tasks import ModelData, ModelManager
from tests.chaos.slow_flights import example, give_times, split

STEPS: Final = "steps"
"""The file, in the folder for temporary files of the worker."""

manager = ModelManager()
manager.model("Flight", "1.0.0")(example("FlightV1"))
manager.model("Flight", "2.0.0")(example("FlightV2"))
manager.model("Flight", "3.0.0")(example("FlightV3"))


@functools.cache
def _file() -> int:
    path = Path(tempfile.gettempdir()) / STEPS
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@manager.migration("Flight", "1.0.0", "2.0.0")
def give_times_and_count(row: ModelData) -> ModelData:
    os.write(_file(), b".")
    return give_times(row)


@manager.migration("Flight", "2.0.0", "3.0.0")
def split_into_legs(flight: ModelData) -> ModelData:
    return split(flight)
