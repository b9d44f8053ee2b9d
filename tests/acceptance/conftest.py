"""A fleet shared by the runs that do not need one of their own."""

from collections.abc import Iterator

import pytest

from tests.fleets import private_fleet

Options = tuple[str, ...]


@pytest.fixture(scope="session")
def on_fleet() -> Iterator[Options]:
    """Options of a run on a running fleet with two workers."""
    with private_fleet("tests.people:manager", 2) as fleet:
        yield ("--broker", fleet.settings.broker_url, "--store", fleet.settings.store_url)
