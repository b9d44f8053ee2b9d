"""Fleets that modules share, whose tests leave them as they were."""

from collections.abc import Iterator
from typing import Final

import pytest

from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.settings import Settings

LIMITS: Final = Settings(soft_time_limit_s=0.5, time_limit_s=1.5, memory_limit_bytes=2 * 1024**3)


@pytest.fixture(scope="session")
def people_fleet() -> Iterator[EmbeddedFleet]:
    """Two workers that migrate people."""
    with EmbeddedFleet("tests.people:manager", 2, Settings()) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def limited_fleet() -> Iterator[EmbeddedFleet]:
    """Two such workers with limits of time and memory; tests kill their children."""
    with EmbeddedFleet("tests.people:manager", 2, LIMITS) as fleet:
        yield fleet
