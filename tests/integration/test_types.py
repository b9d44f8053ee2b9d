"""Values of all types, and odd exceptions, through processes and through a real worker."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from pyrmute_tasks import Migrator
from pyrmute_tasks.failures import causes_of
from tests.fleets import private_fleet
from tests.integration.typed import HOP, ODD, manager
from tests.unit.test_values import assert_same
from tests.wire_values import KEPT

Run: TypeAlias = Callable[[list[Any]], list[Any]]


@pytest.fixture(scope="module", params=["processes", "fleet"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    if request.param == "processes":
        options: Any = {"parallel": True, "max_workers": 2, "use_processes": True}
        yield lambda records: manager.migrate_batch_data(records, *HOP, **options)
        return
    with (
        private_fleet("tests.integration.typed:manager") as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        fleet.start_worker()
        yield lambda records: migrator.migrate_batch_data(records, *HOP, chunk_size=7)


def test_values_are_those_of_a_loop(run: Run) -> None:
    records = [{"name": name, "value": make()} for name, make in KEPT.items()]
    expected = [manager.migrate_data(record, *HOP) for record in records]
    for one, other in zip(run(records), expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("odd", ODD)
def test_odd_exceptions_are_those_of_a_loop(run: Run, odd: str) -> None:
    records: list[Any] = [{"name": "`int`"} for _ in range(9)]
    records[8] = {"fail": odd}
    caught: list[Exception] = []
    for each in (lambda: [manager.migrate_data(record, *HOP) for record in records], None):
        try:
            (each or (lambda: run(records)))()
        except Exception as error:
            caught.append(error)
    looped, remote = caught
    assert remote.record_index == 8  # type: ignore[attr-defined]  # set on any exception
    assert (type(remote), remote.args) == (type(looped), looped.args)
    assert list(map(repr, causes_of(remote))) == list(map(repr, causes_of(looped)))
