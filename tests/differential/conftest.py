"""How many cases there are, and one fleet for all that need one."""

import os
from collections.abc import Iterator
from typing import Final

import pytest

from pyrmute_tasks import Migrator, Settings
from pyrmute_tasks.distributed import EmbeddedFleet

CASES: Final = int(os.environ.get("DIFFERENTIAL_CASES", "700"))
"""About how many there are over all ways to run a batch."""


@pytest.fixture(scope="session")
def fleet() -> Iterator[Migrator]:
    """A fleet that runs all chains of the catalogue that it can."""
    records, lines = max(20, CASES // 10), max(20, CASES // 20)
    manager = f"tests.differential.catalogue:cases_{records}_{lines}"
    with (
        EmbeddedFleet(manager, 2, Settings()) as workers,
        Migrator(manager, settings=workers.settings) as migrator,
    ):
        yield migrator
