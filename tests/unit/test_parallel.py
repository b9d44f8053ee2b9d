import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pyrmute_tasks import (
    ConfigurationError,
    InvalidRecordError,
    MigrationError,
    ModelManager,
    ModelNotFoundError,
    UnsupportedValueError,
)
from tests.conftest import ROOT
from tests.people import PersonV3, broken_step, invalid, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
PARALLEL = [{"use_processes": False}, {"use_processes": True}]


@pytest.mark.parametrize("how", PARALLEL)
@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_parallel_equals_one_by_one(how: dict[str, Any], count: int) -> None:
    records = [person(index) for index in range(count)]
    options: Any = {"parallel": True, "max_workers": 2, **how}
    assert manager.migrate_batch(records, *HOP, **options) == manager.migrate_batch(records, *HOP)
    data = manager.migrate_batch_data(iter(records), *HOP, **options)
    assert data == manager.migrate_batch_data(records, *HOP)
    typed = manager.migrate_batch_as(records, *HOP, PersonV3, **options)
    assert typed == manager.migrate_batch(records, *HOP)


@pytest.mark.parametrize("how", PARALLEL)
@pytest.mark.parametrize("bad", [0, 250, 499])
@pytest.mark.parametrize("kind", [broken_step, invalid])
def test_the_first_bad_record_is_raised(how: dict[str, Any], bad: int, kind: Any) -> None:
    records = [person(index) for index in range(500)]
    records[bad] = kind(bad)
    for later in range(bad + 1, 500, 7):
        records[later] = invalid(later)
    with pytest.raises((MigrationError, ValidationError)) as expected:
        manager.migrate_batch(records, *HOP)
    with pytest.raises((MigrationError, ValidationError)) as caught:
        manager.migrate_batch(records, *HOP, parallel=True, max_workers=2, **how)
    assert type(caught.value) is type(expected.value)
    assert str(caught.value) == str(expected.value)
    assert caught.value.record_index == bad  # type: ignore[attr-defined]  # set on any exception
    assert type(caught.value.__cause__) is type(expected.value.__cause__)


def test_processes_carry_values_that_frames_cannot() -> None:
    records = [{**person(index), "extra": 1j} for index in range(20)]
    options: Any = {"parallel": True, "use_processes": True, "max_workers": 2}
    data = manager.migrate_batch_data(records, "Person", "2.0.0", "2.0.0", **options)
    assert data == records


def test_unsendable_record_fails_after_earlier_records() -> None:
    records = [person(index) for index in range(20)]
    records[13] = {**person(13), "extra": {"lock": threading.Lock()}}
    options: Any = {"parallel": True, "use_processes": True, "max_workers": 2}
    with pytest.raises(UnsupportedValueError, match=r"_thread\.lock at extra\.lock") as caught:
        manager.migrate_batch(records, *HOP, **options)
    assert caught.value.record_index == 13
    records[12] = broken_step(12)
    with pytest.raises(MigrationError):
        manager.migrate_batch(records, *HOP, **options)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_invalid_worker_count_is_refused(workers: Any) -> None:
    for call in (manager.migrate_batch, manager.migrate_batch_data):
        with pytest.raises(ConfigurationError, match="max_workers must be a positive integer"):
            call([person(0)], *HOP, parallel=True, max_workers=workers)
    with pytest.raises(ValueError, match="max_workers"):
        manager.migrate_batch_as([], *HOP, PersonV3, max_workers=workers)


@pytest.mark.parametrize("size", [0, -1])
def test_invalid_chunk_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match="chunk_size must be a positive integer"):
        manager.migrate_batch_streaming([person(0)], *HOP, chunk_size=size)


@pytest.mark.parametrize("how", [{}, {"parallel": True}, {"parallel": True, "use_processes": True}])
@pytest.mark.parametrize("record", [None, 7, ["name"], "name"])
def test_record_must_be_a_dict(record: Any, how: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError, match=f"a record is {type(record).__name__} and") as one:
        manager.migrate_batch([person(0), record], *HOP, **how)
    assert one.value.record_index == 1
    with pytest.raises(InvalidRecordError):
        manager.migrate(record, *HOP)


SPAWNED = """
import multiprocessing
from tests.people import manager, person
from pyrmute_tasks import ManagerImportError, MetricsHook, ModelManager

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    records = [person(index) for index in range(50)]
    hop = ("Person", "1.0.0", "3.0.0")
    metrics = MetricsHook()
    manager.add_hook(metrics)
    found = manager.migrate_batch(records, *hop, parallel=True, use_processes=True, max_workers=2)
    assert metrics.total_count == 50, metrics.total_count
    manager.clear_hooks()
    assert found == manager.migrate_batch(records, *hop)

    def hidden():
        from pydantic import BaseModel
        local = ModelManager()
        local.model("M", "1.0.0")(type("M", (BaseModel,), {}))
        local.model("M", "2.0.0", backward_compatible=True)(type("N", (BaseModel,), {}))
        return local

    try:
        hidden().migrate_batch([{}], "M", "1.0.0", "2.0.0", parallel=True, use_processes=True)
    except ManagerImportError as error:
        assert "cannot import this manager" in str(error), error
    else:
        raise AssertionError("not told")
"""


def test_spawned_processes_import_the_manager(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_missing_version_is_reported() -> None:
    local = ModelManager()
    local.model("M", "1.0.0")(type("M", (BaseModel,), {}))
    local.migration("M", "1.0.0", "9.0.0")(dict)
    with pytest.raises(ModelNotFoundError, match=r"Model 'M' version '9\.0\.0' not found"):
        local.migrate_data({}, "M", "1.0.0", "9.0.0")
    assert not local.has_migration_path("M", "1.0.0", "9.0.0")


@pytest.mark.parametrize("how", [{}, {"parallel": True}])
@pytest.mark.parametrize("was_on", [True, False])
def test_state_of_the_garbage_collector_is_restored(how: dict[str, Any], was_on: bool) -> None:
    (gc.enable if was_on else gc.disable)()
    try:
        manager.migrate_batch([person(index) for index in range(1500)], *HOP, **how)
        assert gc.isenabled() == was_on
        with pytest.raises(MigrationError):
            manager.migrate_batch([broken_step(0)], *HOP, **how)
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


class Unsized(list[Any]):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("options", [(), (True, 2, False), (True, 2, True)])
def test_source_with_a_wrong_length_is_read(options: tuple[Any, ...]) -> None:
    given = Unsized([person(0), person(1)])
    assert len(manager.migrate_batch_data(given, "Person", "1.0.0", "3.0.0", *options)) == 2
