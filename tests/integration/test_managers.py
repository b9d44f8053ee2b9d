"""Features of managers on a fleet: pyrmute's own managers, hooks, nested models."""

from collections.abc import Iterator
from typing import Any

import pyrmute
import pytest

from pyrmute_tasks import (
    ManagerImportError,
    MetricsHook,
    MigrationError,
    Migrator,
    ModelNotFoundError,
)
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.pyrmute_adapter import adapt
from tests import nested_orders, people, pyrmute_people

HOP = ("Person", "1.0.0", "3.0.0")


@pytest.fixture(scope="module")
def adopted() -> Iterator[Migrator]:
    with Migrator(pyrmute_people.manager, workers=1) as migrator:
        yield migrator


def test_pyrmute_manager_runs_on_workers_unchanged(adopted: Migrator) -> None:
    theirs = pyrmute_people.manager
    records = [people.person(index) for index in range(100)]
    assert adopted.migrate_batch(records, *HOP, chunk_size=9) == theirs.migrate_batch(records, *HOP)
    data = adopted.migrate_batch_data(records, *HOP)
    assert data == theirs.migrate_batch_data(records, *HOP)


def test_exceptions_of_a_pyrmute_manager_are_pyrmutes(adopted: Migrator) -> None:
    records: list[Any] = [people.person(0), {"age": 1}]
    with pytest.raises(pyrmute.MigrationError) as expected:
        pyrmute_people.manager.migrate_batch(records, *HOP)
    with pytest.raises(pyrmute.MigrationError) as caught:
        adopted.migrate_batch(records, *HOP)
    assert str(caught.value) == str(expected.value)
    assert getattr(caught.value, "record_index", None) == 1
    assert isinstance(caught.value.__cause__, KeyError)


def test_pyrmute_errors_are_caught_as_ours(adopted: Migrator) -> None:
    with pytest.raises(MigrationError) as caught:
        adopted.migrate_batch([{"age": 1}], *HOP)
    assert isinstance(caught.value, pyrmute.MigrationError)
    assert (caught.value.from_version, caught.value.to_version) == ("1.0.0", "2.0.0")
    assert caught.value.record_index == 0


def test_metrics_hook_of_a_pyrmute_manager_counts_on_workers(adopted: Migrator) -> None:
    theirs, hook = pyrmute_people.manager, pyrmute.MetricsHook()
    records = [people.person(index) for index in range(60)]
    theirs.add_hook(hook)
    try:
        adopted.migrate_batch(records, *HOP, chunk_size=7)
        assert (hook.total_count, hook.error_count) == (60, 0)
        assert hook.migrations_by_model == {"Person": 60}
        records[40]["name"] = ""
        with pytest.raises(pyrmute.MigrationError):
            list(adopted.migrate_batch_streaming(records, *HOP, chunk_size=7))
        assert (hook.total_count, hook.error_count) == (101, 1)
    finally:
        theirs.remove_hook(hook)


def test_unknown_models_and_managers_are_reported(adopted: Migrator) -> None:
    for name, version in (("Nobody", "2.0.0"), ("Person", "9.0.0")):
        with pytest.raises(ModelNotFoundError):
            adopted.migrate_batch([people.person(0)], name, "1.0.0", version)
    with pytest.raises(MigrationError, match="No migration path"):
        adopted.migrate_batch([people.person(0)], "Person", "2.0.0", "1.0.0")
    with pytest.raises(ManagerImportError, match="is a int and not a ModelManager"):
        adapt(7)


@pytest.fixture(scope="module")
def fleet(people_fleet: EmbeddedFleet) -> Iterator[Migrator]:
    with Migrator(people.manager, settings=people_fleet.settings) as migrator:
        yield migrator


@pytest.fixture
def metrics() -> Iterator[MetricsHook]:
    hook = MetricsHook()
    people.manager.add_hook(hook)
    yield hook
    people.manager.remove_hook(hook)


def test_workers_count_for_a_hook_of_the_producer(fleet: Migrator, metrics: MetricsHook) -> None:
    records = [people.person(index) for index in range(100)]
    fleet.migrate_batch(records, *HOP, chunk_size=7)
    assert (metrics.total_count, metrics.error_count) == (100, 0)
    records[60:] = [people.broken_step(index) for index in range(60, 100)]
    with pytest.raises(MigrationError):
        fleet.migrate_batch_data(records, *HOP, chunk_size=7)
    assert (metrics.total_count, metrics.error_count) == (161, 1)


def test_pyrmutes_arguments_are_accepted(fleet: Migrator) -> None:
    records = [people.person(0)]
    expected = people.manager.migrate_batch(records, *HOP)
    assert fleet.migrate_batch(records, *HOP, True, 4, True) == expected
    with pytest.raises(ValueError, match="max_workers"):
        fleet.migrate_batch(records, *HOP, parallel=True, max_workers=0)


def test_generated_steps_run_on_workers() -> None:
    manager, hop = nested_orders.manager, ("Order", "1.0.0", "3.0.0")
    records = [nested_orders.order(index) for index in range(60)]
    with Migrator(manager, workers=1) as migrator:
        assert migrator.migrate_batch(records, *hop, chunk_size=7) == manager.migrate_batch(
            records, *hop
        )
        assert migrator.migrate_batch_data(records, *hop) == manager.migrate_batch_data(
            records, *hop
        )
        records[33]["lines"][1] = {"product": "x"}
        with pytest.raises(MigrationError) as expected:
            manager.migrate_batch(records, *hop)
        with pytest.raises(MigrationError) as caught:
            migrator.migrate_batch(records, *hop, chunk_size=7)
    assert str(caught.value) == str(expected.value)
    assert caught.value.record_index == expected.value.record_index == 33
