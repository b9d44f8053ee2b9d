"""The parts of an audit, in one process."""

import copy
import io
import itertools
import pickle
import random
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from functools import cached_property
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
)
from rich.console import Console

from pyrmute_tasks import ConfigurationError, ModelManager, UnsupportedValueError
from pyrmute_tasks.audit import AuditReport, Cause, Change, LossKind, audit
from pyrmute_tasks.audit.compare import Raised, differences, freeze, freeze_error
from pyrmute_tasks.audit.ledger import Ledger, Undeclared, path_of, sample_losses
from pyrmute_tasks.audit.passes import Spot, Stage, Tally, Walker, stages_of
from pyrmute_tasks.audit.runs import Run, cause_of
from pyrmute_tasks.audit.sample import choose, take_sample
from pyrmute_tasks.cli.audit import render

# --- comparing ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


class Color(Enum):
    RED = 1
    BLUE = 2


class Point(BaseModel):
    model_config = ConfigDict(extra="allow")

    x: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @cached_property
    def double(self) -> int:
        return 2 * self.x


class OddZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def tzname(self, _: datetime | None) -> str:
        return "odd"

    def dst(self, _: datetime | None) -> None:
        return None


def changes(one: object, other: object) -> list[tuple[str, Change]]:
    return [(item.field, item.change) for item in differences(freeze(one), freeze(other))]


@given(JSON)
def test_equal_values_do_not_differ(value: Any) -> None:
    copied = copy.deepcopy(value)
    assert changes(value, copied) == []
    assert freeze(value) == freeze(copied)


@given(JSON, JSON)
def test_different_values_compare_unequal(one: Any, other: Any) -> None:
    if repr(one) != repr(other):
        assert changes(one, other)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, True, [("", Change.TYPE)]),
        (1, 1.0, [("", Change.TYPE)]),
        (0.0, -0.0, [("", Change.VALUE)]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", Change.VALUE)]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, [("a[].b", Change.VALUE)]),
        ({"a": [1, 2]}, {"a": [2, 1]}, [("a", Change.ITEM_ORDER)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", Change.LENGTH)]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, [("", Change.KEY_ORDER)]),
        ({"a": 1}, {}, [("a", Change.PRESENCE)]),
        ({"c": {"no name": 1}}, {"c": {"no name": 2}}, [("c.<key>", Change.VALUE)]),
        ({1, 2}, {2, 1}, []),
        ({1, 2}, {2, 3}, [("", Change.VALUE)]),
        (Color.RED, Color.BLUE, [("", Change.VALUE)]),
        (Point(x=1), Point(x=2), [("x", Change.VALUE)]),
        (Point(x=1, y=1), Point(x=1, y=2), [("y", Change.VALUE)]),
        (random.Random(1), random.Random(1), []),
        (time, time, []),
        ([10**5000], [10**5000 + 1], [("[]", Change.VALUE)]),
        (["\ud800"], ["\ud801"], [("[]", Change.VALUE)]),
    ],
)
def test_difference_names_field_and_change(
    one: object, other: object, expected: list[tuple[str, Change]]
) -> None:
    assert changes(one, other) == expected


def test_cached_property_compares_equal() -> None:
    asked = Point(x=1)
    assert asked.double == 2
    assert changes(asked, Point(x=1)) == []


def test_time_zone_without_a_repr_compares_equal() -> None:
    moments = [datetime(2024, 1, 1, tzinfo=OddZone()) for _ in range(2)]
    assert changes(*moments) == []
    assert changes(moments[0], datetime(2024, 1, 1, tzinfo=UTC)) == [("", Change.VALUE)]


def test_recursive_value_is_compared() -> None:
    loops: list[list[Any]] = [[1], [1]]
    for loop in loops:
        loop.append(loop)
    assert changes(*loops) == []


def test_deeply_nested_value_can_be_compared() -> None:
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    assert changes(deep, copy.copy(deep)) == []
    assert pickle.dumps(freeze(deep))


def test_errors_differ_by_class_and_not_by_text() -> None:
    one, other = freeze_error(KeyError("a")), freeze_error(KeyError("b"))
    assert one == other == Raised("KeyError", ())
    assert changes(1, 2) != []
    assert [item.change for item in differences(one, freeze(1))] == [Change.FAILURE]


# --- passes -------------------------------------------------------------------------------

Step = Callable[[dict[str, Any]], dict[str, Any]]


def _rename(record: dict[str, Any]) -> dict[str, Any]:
    return {f"{key}_": value for key, value in record.items()}


def _drop(record: dict[str, Any]) -> dict[str, Any]:
    return dict(itertools.islice(record.items(), 1, None))


def _wrap(record: dict[str, Any]) -> dict[str, Any]:
    return {"inner": record, "count": len(record)}


def _same(record: dict[str, Any]) -> dict[str, Any]:
    return record


def _sort(record: dict[str, Any]) -> dict[str, Any]:
    return {"keys": sorted(set(record)), "set": set(record)}


RECORDS = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4), min_size=1, max_size=5)


def walk(
    steps: list[Step], records: list[dict[str, Any]]
) -> tuple[dict[Spot, set[int]], dict[Spot, set[int]]]:
    """Return the differences between outputs of two passes, and the changed inputs."""
    stages = [Stage(f"{number}", step) for number, step in enumerate(steps)]
    walker = Walker(stages, [pickle.dumps(record) for record in records])
    first = walker.first()
    visits = [index for index in range(len(records)) for _ in range(2)]
    found = walker.again([*visits, *visits[::-1]], first.reference)
    assert walker.skipped == 0
    return records_at(first.changed_later) | records_at(found), records_at(first.mutated)


def records_at(tallies: dict[Spot, Tally]) -> dict[Spot, set[int]]:
    return {spot: tally.records for spot, tally in tallies.items()}


@given(st.lists(st.sampled_from([_rename, _drop, _wrap, _same, _sort]), max_size=4), RECORDS)
@settings(deadline=None)
def test_pure_chain_gives_no_finding(steps: list[Step], records: list[dict[str, Any]]) -> None:
    assert walk(steps, records) == ({}, {})


def test_only_the_step_at_fault_is_named() -> None:
    def stamp(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "id": uuid.uuid4()}

    found, mutated = walk([_rename, stamp, _wrap, _rename], [{"a": 1}, {"a": 2}])
    assert found == {Spot(1, "id", Change.VALUE): {0, 1}}
    assert mutated == {}


def test_modified_input_is_found_at_any_depth() -> None:
    def modify(record: dict[str, Any]) -> dict[str, Any]:
        record["a"][0]["b"] = 2
        return {"a": 1}

    found, mutated = walk([modify], [{"a": [{"b": 1}]}, {"a": [{"b": 2}]}])
    assert found == {}
    assert mutated == {Spot(0, "a[].b", Change.VALUE): {0}}


def test_dict_shared_by_all_records_is_found() -> None:
    shared: dict[str, Any] = {}

    def fill(record: dict[str, Any]) -> dict[str, Any]:
        shared.update(record)
        return shared

    found, mutated = walk([fill, _wrap], [{"a": 1}, {"a": 2}, {"a": 3}])
    assert found == {Spot(0, "a", Change.VALUE): {0, 1}}
    assert mutated == {}


def test_shared_input_does_not_count_as_modified() -> None:
    assert walk([lambda record: {"new": record}, _same], [{"a": [1]}]) == ({}, {})


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, KeyError])
def test_exceptions_of_steps_are_compared(error: type[BaseException]) -> None:
    calls = itertools.count()

    def fail(record: dict[str, Any]) -> dict[str, Any]:
        if record["bad"] or next(calls) == 2:
            raise error
        return record

    found, _ = walk([fail, _same], [{"bad": True}, {"bad": False}])
    assert found == {Spot(0, "", Change.FAILURE): {1}}


def test_rebuilt_set_is_not_blamed_on_the_next_step() -> None:
    names = [f"name{number}" for number in range(40)]

    def stamp(record: dict[str, Any]) -> dict[str, Any]:
        shuffled = random.sample(names, len(names))
        return {"set": set(shuffled), "id": uuid.uuid4()}

    found, _ = walk([stamp, lambda record: {"list": list(record["set"])}], [{}, {}])
    assert {spot.stage for spot in found} == {0}


@pytest.mark.parametrize(
    ("runs", "cause"),
    [
        ({Run.AGAIN, Run.FRESH, Run.SEED, Run.ORDER}, Cause.NOT_DETERMINISTIC),
        ({Run.FRESH, Run.SEED, Run.ORDER}, Cause.PROCESS),
        ({Run.SEED}, Cause.PROCESS),
        ({Run.AGAIN, Run.ORDER}, Cause.STATE),
        ({Run.ORDER}, Cause.STATE),
        ({Run.AGAIN}, Cause.STATE),
    ],
)
def test_cause_follows_from_the_runs_that_differ(runs: set[Run], cause: Cause) -> None:
    assert cause_of(frozenset(runs)) is cause


# --- samples ------------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(1, 40))
def test_sample_is_first_last_and_between(size: int, count: int) -> None:
    chosen, total = choose(iter(range(size)), count)
    indexes = [index for index, _ in chosen]
    assert total == size
    assert indexes == sorted(set(indexes))
    assert len(indexes) == min(size, count)
    assert all(index == item for index, item in chosen)
    if size:
        assert indexes[0] == 0
    if size and count >= 3:
        assert indexes[-1] == size - 1


def test_sample_between_is_spread() -> None:
    indexes = [index for index, _ in choose(range(100_000), 30)[0]]
    between = indexes[10:-10]
    assert len(between) == 10
    assert max(b - a for a, b in itertools.pairwise([indexes[9], *between, indexes[-10]])) < 25_000


def test_sample_reports_lines_without_records(tmp_path: Any) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n[1]\nnonsense\n{"a": 2}')
    sample = take_sample(path, None)
    assert sample.records == (pickle.dumps({"a": 1}), pickle.dumps({"a": 2}))
    assert (sample.positions, sample.unreadable, sample.total) == ((0, 3), (1, 2), 4)


def test_record_that_cannot_travel_is_named() -> None:
    with pytest.raises(UnsupportedValueError, match="record 1"):
        take_sample([{}, {"a": (item for item in [1])}], 10)


# --- the ledger ---------------------------------------------------------------------------


class Inner(BaseModel):
    zip: str


class Other(BaseModel):
    street: str


class Outer(BaseModel):
    name: str = Field("", validation_alias=AliasChoices("fullName", AliasPath("names", 0)))
    inner: Inner | None = None
    many: list[Inner | Other] = []
    pair: tuple[Inner, int] | None = None
    by_key: dict[str, Inner] = {}
    free: dict[str, Any] = {}
    root: RootModel[list[Inner]] | None = None


class Keeps(BaseModel):
    model_config = ConfigDict(extra="allow")

    inner: Inner | None = None


class Tree(BaseModel):
    children: list["Tree"] = []


def paths(record: dict[str, Any], model: type[BaseModel], *, validated: bool) -> list[str]:
    found = (model.model_validate(record),) if validated else ()
    return [path_of(trail) for trail in Undeclared().find(record, model, *found)]


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"fullName": "a", "names": ["b"]}, []),
        ({"name": "a"}, ["name"]),  # validating does not look there
        ({"other": 1, "no name": 2}, ["other", "<key>"]),
        ({"inner": {"zip": "1", "zip4": "2"}}, ["inner.zip4"]),
        ({"inner": None}, []),
        ({"pair": [{"zip": "1", "zip4": "2"}, 3]}, ["pair[].zip4"]),
        ({"by_key": {"a b": {"zip": "1", "zip4": "2"}}}, ["by_key.<key>.zip4"]),
        ({"free": {"any": {"thing": 1}}}, []),
        ({"root": [{"zip": "1", "zip4": "2"}]}, ["root[].zip4"]),
        ({"many": [{"zip": "1"}, {"street": "2", "x": 3}]}, ["many[].x"]),
    ],
)
def test_undeclared_keys_are_found(
    record: dict[str, Any], expected: list[str], validated: bool
) -> None:
    assert paths(record, Outer, validated=validated) == expected


def test_validated_union_says_which_member_ignores_a_key() -> None:
    record = {"many": [{"zip": "1", "street": 2}]}
    assert paths(record, Outer, validated=True) == ["many[].street"]
    assert paths(record, Outer, validated=False) == []


def test_model_that_keeps_extra_fields_loses_only_inside() -> None:
    record = {"any": 1, "inner": {"zip": "1", "zip4": "2"}}
    assert paths(record, Keeps, validated=True) == ["inner.zip4"]


def test_recursive_model_is_searched() -> None:
    record = {"children": [{"children": [{"x": 1}]}]}
    assert paths(record, Tree, validated=False) == ["children[].children[].x"]


def test_root_model_is_searched() -> None:
    found = Undeclared().find({"root": [{"zip": "1", "zip4": "2"}]}, RootModel[list[Inner]])
    assert [path_of(trail) for trail in found] == ["root[].zip4"]


class Renamed(BaseModel):
    zip: str
    first: str = ""
    last: str = ""
    made: float = 0.0


def losses(step: Step, *records: dict[str, Any]) -> dict[str, LossKind]:
    plans = ModelManager()
    plans.model("Zip", "1.0.0")(Inner)
    plans.model("Zip", "2.0.0")(Renamed)
    plans.migration("Zip", "1.0.0", "2.0.0")(step)
    plan = plans.plan("Zip", "1.0.0", "2.0.0")
    walker = Walker(stages_of(plan), [pickle.dumps(record) for record in records])
    ledger = Ledger(Inner, Renamed, walker, lambda data: freeze(Renamed.model_validate(data)))
    for seen in walker.first().seen:
        ledger.add(seen)
    return {loss.field: loss.kind for loss in ledger.losses(range(len(records)))}


def _split(data: dict[str, Any]) -> dict[str, Any]:
    first, _, last = data.get("name", "").partition(" ")
    return {**data, "first": first, "last": last, "made": random.random()}


def test_field_that_a_step_drops_unread_is_lost() -> None:
    kept = losses(lambda data: {"zip": data["zip"]}, {"zip": "1", "name": "a b"}, {"zip": "1"})
    assert kept == {"name": LossKind.UNDECLARED}


def test_undeclared_field_added_by_a_step_is_lost() -> None:
    assert losses(lambda data: {**data, "new": 1}, {"zip": "1"}) == {"new": LossKind.IGNORED}


@pytest.mark.parametrize(
    "step",
    [
        _split,  # leaves what it has read
        lambda data: {"zip": data["zip"], "first": data["name"]},
        lambda data: {"zip": data["zip"], "first": data.pop("name")},
        lambda data: {"zip": data["zip"], "first": data.get("name", "Ada Lovelace")},
    ],
)
def test_field_that_a_step_reads_is_not_lost(step: Step) -> None:
    assert losses(step, {"zip": "1", "name": "Ada Lovelace"}, {"zip": "1", "name": "Al K"}) == {}


def test_undeclared_field_that_is_in_the_output_is_not_lost() -> None:
    assert losses(dict, {"zip": "1", "first": "Ada"}) == {}


def test_hint_names_undeclared_fields() -> None:
    lines = [b'{"zip": "1", "street": "2", "lost": 3}', b'{"zip": "1"}', b"nonsense"]
    (loss,) = sample_losses(lines, Inner, Other)
    assert (loss.field, loss.kind, loss.records) == ("lost", LossKind.UNDECLARED, 1)
    assert loss.share == 0.5


def test_hint_has_a_time_limit() -> None:
    lines = (b'{"lost": 1}' for _ in itertools.count())
    began = time.monotonic()
    assert sample_losses(lines, Inner, Other, within_s=0.01)
    assert time.monotonic() - began < 1


# --- what cannot be run -------------------------------------------------------------------

manager = ModelManager()
manager.model("Inner", "1.0.0")(Inner)


def test_stages_of_a_plan_without_steps() -> None:
    names = [stage.name for stage in stages_of(manager.plan("Inner", "1.0.0", "1.0.0"))]
    assert names == ["validation", "writing"]


def test_empty_sample_has_no_findings() -> None:
    report = audit(manager, [], "Inner", "1.0.0", "1.0.0")
    assert isinstance(report, AuditReport)
    assert (report.is_clean, report.records, report.total) == (True, 0, 0)
    console = Console(width=80, file=io.StringIO(), record=True)
    render(report, console)
    assert "nothing audited: there are no records" in console.export_text()


def test_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="1 record or more"):
        audit(manager, [], "Inner", "1.0.0", "1.0.0", sample=0)


def test_missing_file_is_reported(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        audit(manager, tmp_path / "none.jsonl", "Inner", "1.0.0", "1.0.0")
