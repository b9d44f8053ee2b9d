"""The flights example, slow enough for a fault to come in the middle of a chunk.

A row may ask for more than time: a `tailnum` like ``exit:3|/path`` adds a line to the file
and then does the deed, one of those of `tests.people`. How long a row takes may be changed during a
job, by a file `PACE` in the folder for temporary files of its worker.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pyrmute_tasks import ModelData, ModelManager
from pyrmute_tasks.registry import load_attribute
from tests.conftest import ROOT
from tests.people import count, obey

PAUSE_S: Final = 0.002  # for each row
PACE: Final = "pace"
SEPARATOR: Final = "|"

_EXAMPLE: Final = ROOT / "examples" / "flights.py"


def example(attribute: str) -> Any:
    return load_attribute(f"{_EXAMPLE}:{attribute}")


give_times: Callable[[ModelData], ModelData] = example("give_times_a_date_and_an_offset")
split: Callable[[ModelData], ModelData] = example("split_into_legs")
manager = ModelManager()
manager.model("Flight", "1.0.0")(example("FlightV1"))
manager.model("Flight", "2.0.0")(example("FlightV2"))
manager.model("Flight", "3.0.0")(example("FlightV3"))


@manager.migration("Flight", "1.0.0", "2.0.0")
def give_times_slowly(row: ModelData) -> ModelData:
    time.sleep(_pause_s())
    deed, separator, path = row["tailnum"].partition(SEPARATOR)
    if separator:
        count(path)
        obey(deed)
    return give_times(row)


@manager.migration("Flight", "2.0.0", "3.0.0")
def split_into_legs(flight: ModelData) -> ModelData:
    return split(flight)


def _pause_s() -> float:
    try:
        return float((Path(tempfile.gettempdir()) / PACE).read_text())
    except FileNotFoundError:
        return PAUSE_S
