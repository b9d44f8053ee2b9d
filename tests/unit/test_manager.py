from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pyrmute_tasks import (
    InvalidVersionError,
    MigrationError,
    ModelManager,
    ModelNotFoundError,
    ModelVersion,
    RegistrationError,
)
from tests.people import PersonV3, broken_step, invalid, manager, person

PEOPLE = [person(index) for index in range(10)]
HOP: tuple[str, str, str] = ("Person", "1.0.0", "3.0.0")
MIGRATED = [manager.migrate(record, *HOP) for record in PEOPLE]


class Slim(BaseModel):
    first_name: str


def test_registry_lookups() -> None:
    assert manager.list_models() == ["Person"]
    assert manager.list_versions("Person") == [ModelVersion(n, 0, 0) for n in (1, 2, 3)]
    assert manager.get("Person", "3.0.0") is PersonV3
    assert manager.get("Person", ModelVersion(3, 0, 0)) is PersonV3
    assert manager.get_latest("Person") is PersonV3
    assert manager.has_migration_path(*HOP)
    assert not manager.has_migration_path("Person", "3.0.0", "1.0.0")
    assert not manager.has_migration_path("Person", "1.0.0", "9.0.0")
    assert not manager.has_migration_path("Nobody", "1.0.0", "2.0.0")


@pytest.mark.parametrize("version", ["1", "1.0", "1.0.0.0", "a.b.c", "-1.0.0", "", "1.0.x"])
def test_invalid_version_is_refused(version: str) -> None:
    with pytest.raises(InvalidVersionError) as caught:
        manager.get("Person", version)
    assert caught.value.version_string == version
    with pytest.raises(InvalidVersionError):
        manager.model("Person", version)


def test_versions_order_as_numbers() -> None:
    assert ModelVersion.parse("1.10.0") > ModelVersion.parse("1.9.9")
    assert str(ModelVersion.parse("1.2.3")) == "1.2.3"


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("Nobody", "1.0.0", "Model 'Nobody' not found in registry"),
        ("Person", "9.0.0", "Model 'Person' version '9.0.0' not found in registry"),
    ],
)
def test_missing_model_is_named(name: str, version: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        manager.migrate(person(0), name, "1.0.0", version)
    assert str(caught.value) == message


def test_a_missing_step_is_named() -> None:
    with pytest.raises(MigrationError, match="No migration path found") as caught:
        manager.migrate({}, "Person", "3.0.0", "1.0.0")
    assert (caught.value.from_version, caught.value.to_version) == ("3.0.0", "2.0.0")


def test_all_ways_to_migrate_agree() -> None:
    data = [model.model_dump() for model in MIGRATED]
    assert manager.migrate_batch(PEOPLE, *HOP) == MIGRATED
    assert manager.migrate_batch_as(PEOPLE, *HOP, PersonV3) == MIGRATED
    assert manager.migrate_batch_data(PEOPLE, *HOP) == data
    assert [manager.migrate_data(record, *HOP) for record in PEOPLE] == data
    assert list(manager.migrate_batch_streaming(PEOPLE, *HOP, chunk_size=3)) == MIGRATED
    assert list(manager.migrate_batch_streaming_as(PEOPLE, *HOP, PersonV3)) == MIGRATED
    assert list(manager.migrate_batch_data_streaming(PEOPLE, *HOP, chunk_size=1)) == data
    assert manager.migrate_as(PEOPLE[0], *HOP, Slim) == Slim(first_name="First0")
    assert manager.migrate_batch_as(PEOPLE, *HOP, Slim)[9] == Slim(first_name="First9")


def test_empty_batch_returns_nothing() -> None:
    assert manager.migrate_batch([], "Nobody", "1.0.0", "2.0.0") == []
    assert list(manager.migrate_batch_streaming(iter(()), "Nobody", "1.0.0", "2.0.0")) == []


def test_the_first_bad_record_is_raised_after_everything_before_it() -> None:
    records = [*PEOPLE[:4], invalid(4), broken_step(5), *PEOPLE[6:]]
    outputs = []
    with pytest.raises(ValidationError) as caught:
        for model in manager.migrate_batch_streaming(records, *HOP, chunk_size=3):
            outputs.append(model)
    assert outputs == MIGRATED[:4]
    assert caught.value.record_index == 4  # type: ignore[attr-defined]  # set on any exception
    assert caught.value.__notes__ == ["record 4"]
    with pytest.raises(ValidationError):
        manager.migrate_batch(records, *HOP)
    with pytest.raises(MigrationError) as failed:
        manager.migrate_batch_data(records, *HOP)
    assert failed.value.record_index == 5
    assert isinstance(failed.value.__cause__, LookupError)


def test_streaming_is_lazy_and_closes_its_source() -> None:
    read: list[int] = []
    closed = False

    def source() -> Iterator[dict[str, Any]]:
        nonlocal closed
        try:
            for index in range(100):
                read.append(index)
                yield person(index)
        finally:
            closed = True

    stream = manager.migrate_batch_streaming(source(), *HOP, chunk_size=10)
    assert not read
    next(iter(stream))
    assert len(read) == 1
    stream.close()
    assert closed


def test_registering_makes_plans_stale() -> None:
    local = ModelManager()
    for version in ("1.0.0", "2.0.0"):
        local.model("M", version)(type(f"M{version[0]}", (BaseModel,), {}))
    local.migration("M", "1.0.0", "2.0.0")(lambda _: {"step": 1})
    assert local.migrate_data({}, "M", "1.0.0", "2.0.0") == {"step": 1}
    local.migration("M", "1.0.0", "2.0.0")(lambda _: {"step": 2})
    assert local.migrate_data({}, "M", "1.0.0", "2.0.0") == {"step": 2}


def test_one_version_has_one_class() -> None:
    local = ModelManager()

    def define(name: str) -> type[BaseModel]:
        return type(name, (BaseModel,), {"__module__": "m", "__qualname__": name})

    local.model("M", "1.0.0")(define("A"))
    again = local.model("M", "1.0.0")(define("A"))
    assert local.get("M", "1.0.0") is again
    with pytest.raises(RegistrationError, match=r"m\.A already and cannot become m\.B"):
        local.model("M", "1.0.0")(define("B"))
