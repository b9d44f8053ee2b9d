"""Records that are no dicts: the same outputs everywhere, from the dict that each becomes."""

import dataclasses
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import attrs
import pytest

from pyrmute_tasks import InvalidRecordError, MigrationError, record_index
from pyrmute_tasks.records import as_record
from tests.record_kinds import (
    ALL,
    KINDS,
    OrderRow,
    OrderV1,
    OrderV2,
    TagsV1,
    TagsV2,
    manager,
    plain,
)

HOP = ("Order", "1.0.0", "2.0.0")
KEPT = {
    "`OrderedDict`, `defaultdict`, `Counter`": "OrderedDict",
    "a default dict": "defaultdict",
}
WAYS: dict[str, Callable[[Iterable[Any]], list[Any]]] = {
    "one": lambda records: [manager.migrate(record, *HOP) for record in records],
    "batch": lambda records: manager.migrate_batch(records, *HOP),
    "stream": lambda records: list(manager.migrate_batch_streaming(records, *HOP)),
    "threads": lambda records: manager.migrate_batch(records, *HOP, parallel=True, max_workers=2),
    "processes": lambda records: manager.migrate_batch(
        records, *HOP, parallel=True, max_workers=1, use_processes=True
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_record_equals_its_dict(way: str) -> None:
    expected = WAYS[way]([plain()])[0]
    found = WAYS[way]([make() for make in ALL.values()])
    for name, model in zip(ALL, found, strict=True):
        assert isinstance(model, OrderV2)
        assert model.kinds[0] == KEPT.get(name, "dict"), name
        assert model.model_copy(update={"kinds": expected.kinds}) == expected, name


@pytest.mark.parametrize("name", [name for name in ALL if name not in KEPT and name != "`dict`"])
def test_record_of_the_caller_is_not_changed_by_steps(name: str) -> None:
    record = ALL[name]()
    before = as_record(record)
    manager.migrate_data(record, *HOP)
    assert as_record(record) == before


def test_root_models_are_records_with_a_root() -> None:
    record = TagsV1(["a", "b"])
    assert manager.migrate_data(record, "Tags", "1.0.0", "2.0.0") == {"root": ["A", "B"]}
    assert manager.migrate_as(record, "Tags", "1.0.0", "2.0.0", TagsV2).root == ["A", "B"]


def test_computed_fields_are_not_part_of_a_record() -> None:
    assert "label" in OrderV1(**plain()).model_dump()
    assert "label" not in as_record(OrderV1(**plain()))


def test_record_within_one_version_is_validated_as_a_dict() -> None:
    row = OrderRow("tea", plain()["placed"])
    assert isinstance(manager.migrate(row, "Order", "1.0.0", "1.0.0"), OrderV1)
    assert manager.validate_data(row, "Order", "1.0.0")
    assert not manager.validate_data(row, "Order", "2.0.0")


@dataclass
class Unconvertible:
    lock: Any


@pytest.mark.parametrize("way", WAYS)
def test_record_that_cannot_be_made_a_dict_is_named(way: str) -> None:
    records = [plain(), Unconvertible(threading.Lock())]
    with pytest.raises(
        InvalidRecordError, match="a record is Unconvertible and cannot be made"
    ) as e:
        WAYS[way](records)
    assert record_index(e.value) == (None if way == "one" else 1)
    assert isinstance(e.value.__cause__, TypeError)


def test_non_dict_record_reaches_the_step() -> None:
    for way in ("one", "batch", "stream", "threads"):
        with pytest.raises(InvalidRecordError, match="a record is int and must be a dict"):
            WAYS[way]([5])


def test_index_of_a_record_is_found_on_any_error() -> None:
    with pytest.raises(Exception, match="validation error") as invalid:
        manager.migrate_batch([plain(), {**plain(), "item": None}], *HOP)
    assert record_index(invalid.value) == 1
    with pytest.raises(MigrationError) as failed:
        manager.migrate_batch([plain(), plain(), {}], *HOP)
    assert record_index(failed.value) == 2
    assert record_index(ValueError("no record")) is None


BECOMES: dict[str, Callable[[Any], Any]] = {
    "the record itself": lambda record: record,
    "`dict(record)`": dict,
    "`record.model_dump(round_trip=True)`": lambda record: record.model_dump(round_trip=True),
    "`dataclasses.asdict(record)`": dataclasses.asdict,
    "`attrs.asdict(record)`": attrs.asdict,
}


@pytest.mark.parametrize("name", KINDS)
def test_record_becomes_the_documented_dict(name: str) -> None:
    make, becomes = KINDS[name]
    record = make()
    found = as_record(record)
    assert found == BECOMES[becomes](record)
    assert (found is record) == (becomes == "the record itself")
