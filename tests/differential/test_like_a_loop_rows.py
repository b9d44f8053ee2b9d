"""Every habit that once made a batch differ from a loop, with every way to run a batch."""

import json
from pathlib import Path
from typing import Any, Final

import pyrmute
import pytest
from pydantic import BaseModel

from pyrmute_tasks import Migrator, ModelManager, Retry, Settings
from tests.differential import catalogue, test_across_processes, test_in_process, unions
from tests.differential.chains import Chain, is_local, records_of
from tests.differential.conftest import MANAGER
from tests.differential.oracle import bounded, call_of, loop
from tests.differential.test_across_processes import by_file, on_workers, parallel

ROWS: Final = list(catalogue.ROWS)
# What a record becomes depends on the record alone, though the step has a memo or a dict.
LOCAL: Final = [name for name, spec in catalogue.ROWS.items() if is_local(spec)]
SPREAD: Final = [name for name in LOCAL if catalogue.ROWS[name].source != "reusing"]
IN_THREADS: Final = [name for name in SPREAD if name != "step returns the same dict"]
# What JSON has no word for is no difference of ours.
AS_LINES: Final = [
    name for name in SPREAD if name not in ("memoryview", "enum key", "a zone without a name")
]


def chain_of(row: str) -> Chain:
    return Chain(catalogue.ROWS[row], "Row")


def on_fleet(row: str) -> Chain:
    return catalogue.CHAINS["rows"][ROWS.index(row)]


@pytest.mark.parametrize("way", test_in_process.WAYS)
@pytest.mark.parametrize("row", ROWS)
def test_habit_in_this_process(row: str, way: str) -> None:
    test_in_process.check(chain_of(row), way)


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
@pytest.mark.parametrize("row", IN_THREADS)
def test_habit_in_threads(row: str, call: str) -> None:
    chain = chain_of(row)
    got = parallel(chain, call, use_processes=False)
    assert test_across_processes.differences(loop(chain, call), got) == []


@pytest.mark.parametrize("call", ["migrate", pytest.param("migrate_data", marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", SPREAD)
def test_habit_in_processes(row: str, call: str) -> None:
    chain = chain_of(row)
    got = parallel(chain, call, use_processes=True)
    assert test_across_processes.differences(loop(chain, call), got) == []


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
@pytest.mark.parametrize("row", LOCAL)
def test_habit_on_workers(fleet: Migrator, row: str, call: str) -> None:
    chain = on_fleet(row)
    got = on_workers(fleet, chain, call)
    assert test_across_processes.differences(loop(chain, call), got, streams=True) == []


@pytest.mark.parametrize("row", AS_LINES)
def test_habit_in_a_file(fleet: Migrator, tmp_path: Path, row: str) -> None:
    chain = on_fleet(row)
    got = by_file(fleet, chain, tmp_path)
    assert test_across_processes.differences(loop(chain, "lines"), got) == []


def test_self_caused_error_with_retried_steps(
    fleet_settings: Settings,
) -> None:
    chain = on_fleet("an error causes itself")
    retry = Retry(on=(ConnectionError,), first_wait_s=0)
    with Migrator(MANAGER, settings=fleet_settings, retry=retry) as migrator:
        got = on_workers(migrator, chain, "migrate")
    assert test_across_processes.differences(loop(chain, "migrate"), got, streams=True) == []


# --- unions -------------------------------------------------------------------------------

UNIONS_LOCALLY: Final[dict[str, tuple[Any, ...]]] = {
    "migrate_batch": (),
    "migrate_batch_streaming": (),
    "migrate_batch threads": (True, 2, False),
    "migrate_batch processes": (True, 2, True),
}


def check_unions(migrator: Any, way: str, *options: Any) -> None:
    call, given = way.split(maxsplit=1)[0], unions.records()
    data_call = call.replace("batch", "batch_data")
    with bounded():
        models = list(getattr(migrator, call)(given, *unions.HOP, *options))
        data = list(getattr(migrator, data_call)(given, *unions.HOP, *options))
    assert models == list(map(unions.Holder2.model_validate, unions.MIGRATED))
    assert data == unions.MIGRATED
    assert given == unions.records()


@pytest.mark.parametrize("way", UNIONS_LOCALLY)
def test_unions_habit_on_this_machine(way: str) -> None:
    manager = ModelManager()
    unions.register(manager)
    check_unions(manager, way, *UNIONS_LOCALLY[way])


@pytest.mark.parametrize("way", ["migrate_batch", "migrate_batch_streaming"])
def test_unions_habit_on_workers(fleet: Migrator, way: str) -> None:
    check_unions(fleet, way)


def test_unions_habit_in_a_file(fleet: Migrator, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in unions.records()))
    with bounded():
        fleet.migrate_file(source, target, *unions.HOP)
    expected = [unions.Holder2(**data).model_dump_json() for data in unions.MIGRATED]
    assert target.read_text().splitlines() == expected


# --- models that the first step builds ----------------------------------------------------


@pytest.mark.parametrize("way", test_in_process.WAYS)
def test_a_model_may_be_built_by_a_step(way: str) -> None:
    def register(manager: Any) -> Chain:
        class Built(BaseModel):
            id: "Later"  # type: ignore[name-defined]  # noqa: F821  # that is the point

        def build(record: Any) -> Any:
            Built.model_rebuild(_types_namespace={"Later": int})
            return record

        chain = Chain(catalogue.ROWS["enum"], "Built")
        chain.models[-1] = Built
        manager.model("Built", "1.0.0")(chain.models[0])
        manager.model("Built", "2.0.0")(Built)
        manager.migration("Built", "1.0.0", "2.0.0")(build)
        return chain

    call, deliver = test_in_process.WAYS[way]
    theirs, ours = pyrmute.ModelManager(), ModelManager()
    chain = register(theirs)
    expected = [call_of(theirs, chain, call)(record) for record in records_of(chain.spec)]
    chain = register(ours)
    got: list[Any] = []
    deliver(ours, chain, records_of(chain.spec), got.append)
    assert list(map(dict, got)) == list(map(dict, expected))
