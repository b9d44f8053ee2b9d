"""How many cases there are, and one fleet for all that need one."""

import os
from collections.abc import Iterator
from typing import Final

import pytest

from pyrmute_tasks import Migrator, Settings
from pyrmute_tasks.distributed.embedded import EmbeddedFleet

CASES: Final = int(os.environ.get("DIFFERENTIAL_CASES", "700"))
"""About how many there are over all ways to run a batch."""


_RECORDS, _LINES = max(20, CASES // 10), max(20, CASES // 20)
MANAGER: Final = f"tests.differential.catalogue:cases_{_RECORDS}_{_LINES}"


@pytest.fixture(scope="session")
def fleet_settings() -> Iterator[Settings]:
    """Where a fleet is that runs all chains of the catalogue that it can."""
    with EmbeddedFleet(MANAGER, 2, Settings()) as workers:
        yield workers.settings


@pytest.fixture(scope="session")
def fleet(fleet_settings: Settings) -> Iterator[Migrator]:
    """That fleet's client."""
    with Migrator(MANAGER, settings=fleet_settings) as migrator:
        yield migrator
