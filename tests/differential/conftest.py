"""The number of cases, and the one fleet for all of them."""

import os
from collections.abc import Iterator
from typing import Final

import pytest

from pyrmute_tasks import Migrator, Settings
from pyrmute_tasks.distributed.embedded import EmbeddedFleet

CASES: Final = int(os.environ.get("DIFFERENTIAL_CASES", "120"))
"""About how many there are over all ways to run a batch."""

SLOW_CASES: Final = max(700, CASES)
"""The same in `make test-slow`, for the ways within this process."""


_RECORDS, _LINES = max(20, CASES // 10), max(20, CASES // 20)
MANAGER: Final = f"tests.differential.catalogue:cases_{_RECORDS}_{_LINES}"


@pytest.fixture(scope="session")
def fleet_settings() -> Iterator[Settings]:
    """Settings of a fleet that runs all suitable chains of the catalogue."""
    with EmbeddedFleet(MANAGER, 2, Settings()) as workers:
        yield workers.settings


@pytest.fixture(scope="session")
def fleet(fleet_settings: Settings) -> Iterator[Migrator]:
    """A client of the shared fleet."""
    with Migrator(MANAGER, settings=fleet_settings) as migrator:
        yield migrator
