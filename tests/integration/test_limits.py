"""Time and memory limits, and temporary failures, on a real fleet."""

from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks import MigrationError, Migrator, ProcessDiedError, Retry
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.store import Store
from tests.conftest import descendants, wait_until
from tests.integration.conftest import LIMITS
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")


@pytest.fixture(scope="module")
def fleet(limited_fleet: EmbeddedFleet) -> EmbeddedFleet:
    return limited_fleet


def migrate_until_failure(
    fleet: EmbeddedFleet, records: list[Any], **options: Any
) -> tuple[list[Any], ProcessDiedError]:
    outputs: list[Any] = []
    with (
        Migrator(manager, settings=fleet.settings, **options) as migrator,
        pytest.raises(ProcessDiedError) as caught,
    ):
        for data in migrator.migrate_batch_data_streaming(records, *HOP, chunk_size=8):
            outputs.append(data)
    return outputs, caught.value


@pytest.mark.parametrize(
    ("deed", "how"),
    [
        ("loop:", "time limit of 0.5 s"),
        pytest.param("stuck:", "time limit of 1.5 s", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("place", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 15))])
def test_a_record_beyond_a_limit_is_named(
    fleet: EmbeddedFleet, deed: str, how: str, place: int
) -> None:
    records = [person(index) for index in range(16)]
    records[place] = {"name": deed, "age": 1}
    outputs, error = migrate_until_failure(fleet, records)
    assert error.how == how
    assert error.record_index == place
    assert outputs == manager.migrate_batch_data(records[:place], *HOP)


@pytest.mark.parametrize("place", [0, 9, 15])
def test_a_record_that_needs_too_much_memory_raises_its_own_error(
    fleet: EmbeddedFleet, place: int
) -> None:
    records = [person(index) for index in range(16)]
    records[place] = {"name": "allocate:4000000000", "age": 1}
    outputs: list[Any] = []
    with (
        Migrator(manager, settings=fleet.settings) as migrator,
        pytest.raises(MigrationError, match="raised: MemoryError") as caught,
    ):
        for data in migrator.migrate_batch_data_streaming(records, *HOP, chunk_size=8):
            outputs.append(data)
    assert isinstance(caught.value.__cause__, MemoryError)
    assert caught.value.record_index == place
    assert outputs == manager.migrate_batch_data(records[:place], *HOP)


@pytest.mark.slow
def test_a_chunk_given_up_at_the_soft_limit_keeps_its_process() -> None:
    records = [person(index) for index in range(8)]
    records[3] = {"name": "loop:", "age": 1}
    with EmbeddedFleet("tests.people:manager", 1, LIMITS) as fleet:
        before = children_of(fleet)
        migrate_until_failure(fleet, records)
        assert children_of(fleet) == before


def test_chunk_over_the_time_limit_succeeds_in_halves(fleet: EmbeddedFleet) -> None:
    """Eight records of 0.1 s are more than the limit, four of them are not."""
    records = [{"name": "sleep:0.1 x", "age": index} for index in range(8)]
    with Migrator(manager, settings=fleet.settings) as migrator:
        outputs = migrator.migrate_batch_data(records, *HOP, chunk_size=8)
    assert [output["age"] for output in outputs] == list(range(8))


def test_step_is_retried_while_its_service_fails(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    records = [person(0), {"name": f"fail-often:{calls} 2", "age": 1}, person(2)]
    retry = Retry(on=(ConnectionError,), attempts=3, first_wait_s=0.01)
    with Migrator(manager, settings=fleet.settings, retry=retry) as migrator:
        outputs = migrator.migrate_batch_data(records, *HOP, chunk_size=3)
    assert len(outputs) == 3
    assert len(calls.read_text().splitlines()) == 3


def test_without_a_retry_every_error_is_final(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    records = [person(0), {"name": f"fail-often:{calls} 1", "age": 1}]
    with (
        Migrator(manager, settings=fleet.settings) as migrator,
        pytest.raises(Exception, match="ConnectionError") as caught,
    ):
        migrator.migrate_batch_data(records, *HOP, chunk_size=3)
    assert len(calls.read_text().splitlines()) == 1
    error: Any = caught.value
    assert isinstance(error.__cause__, ConnectionError)
    assert error.record_index == 1
    assert error.worker.startswith("worker-")
    assert "in fail_often" in error.worker_traceback


def children_of(fleet: EmbeddedFleet) -> list[list[int]]:
    return [descendants(pid) for pid in fleet.process_ids[1:]]


def test_fleet_is_healthy_afterwards(fleet: EmbeddedFleet) -> None:
    store = Store(fleet.settings)
    wait_until(lambda: len(store.workers()) == 2, "both workers beat")
    store.close()
    records = [person(index) for index in range(100)]
    with Migrator(manager, settings=fleet.settings) as migrator:
        outputs = migrator.migrate_batch_data(records, *HOP, chunk_size=5)
    assert outputs == manager.migrate_batch_data(records, *HOP)
