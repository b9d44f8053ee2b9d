"""Generated steps: which fields they keep, add and migrate."""

import copy
import threading
from typing import Annotated, Any, Literal

import pyrmute
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    ValidationInfo,
    create_model,
    field_validator,
)

from pyrmute_tasks import MigrationError, ModelManager
from pyrmute_tasks.plans.converters import ConverterCompiler
from pyrmute_tasks.plans.field_shapes import Reader
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.plans.steps import StepCompiler
from tests.unit.both import Both

HOP = ("1.0.0", "2.0.0")


@pytest.fixture
def both() -> Both:
    return Both()


def register(both: Both, name: str, *models: type[BaseModel]) -> None:
    """Register versions 1.0.0, 2.0.0, … of a model, all backward compatible."""
    for number, model in enumerate(models, start=1):
        both.model(name, f"{number}.0.0", backward_compatible=True)(model)


class City1(BaseModel):
    name: str


class City2(BaseModel):
    name: str
    country: str = "?"


class City3(BaseModel):
    name: str
    country: str = "?"
    size: int = 0


OLD = {"name": "Rome"}
NEW = {"name": "Rome", "country": "?"}


@pytest.fixture
def cities(both: Both) -> Both:
    register(both, "City", City1, City2, City3)
    return both


# --- fields and keys ------------------------------------------------------------------------


def test_fields_come_in_the_target_s_order_and_extra_keys_last(both: Both) -> None:
    class User1(BaseModel):
        name: str
        age: int
        gone: str = ""

    class User2(BaseModel):
        note: str = "none"
        age: int
        name: str

    register(both, "User", User1, User2)
    record = {"extra": 1, "name": "Ada", "gone": "x", "age": 36}
    result = both.migrate_data(record, "User")
    assert list(result.items()) == [
        ("note", "none"),
        ("age", 36),
        ("name", "Ada"),
        ("extra", 1),
        ("gone", "x"),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"n": 1},
        {"N": 1},
        {"in": 1},
        {"out": 1},
        {"out": 1, "in": 2, "N": 3},
        {"N": 1, "n": 2},
        {"m": 1},
        {"M": 1, "M2": 2},
        {"n": None},
        {},
    ],
)
def test_a_field_is_found_under_every_alias(both: Both, record: dict[str, Any]) -> None:
    class User1(BaseModel):
        n: int = Field(alias="N", validation_alias="in", serialization_alias="out")
        m: int = 5

    class User2(BaseModel):
        m: int = Field(7, alias="M")
        n: int = Field(9, alias="N2", serialization_alias="out2")

    register(both, "User", User1, User2)
    both.migrate_data(record, "User")
    both.migrate_data({**record, "extra": 1}, "User")
    both.migrate_data({"out2": 0, **record}, "User")


def test_aliases_may_be_swapped(both: Both) -> None:
    class User1(BaseModel):
        a: int = Field(alias="b")
        b: int = Field(alias="c")

    class User2(BaseModel):
        b: int = Field(alias="a")
        a: int = Field(alias="b")

    register(both, "User", User1, User2)
    for record in ({"a": 1}, {"b": 1}, {"c": 1}, {"a": 1, "b": 2}, {"c": 3, "b": 2}, {}):
        both.migrate_data(record, "User")


def test_the_input_is_never_modified(cities: Both) -> None:
    old = create_model("Trip1", stops=list[City1])
    new = create_model("Trip2", stops=list[City2], tags=(list[str], []))
    register(cities, "Trip", old, new)
    record = {"stops": [dict(OLD)], "more": [1]}
    before = copy.deepcopy(record)
    result = cities.migrate_data(record, "Trip")
    result["stops"][0]["name"] = result["tags"] = "changed"
    assert record == before


# --- defaults -------------------------------------------------------------------------------


def test_defaults_are_copied_if_pydantic_copies_them(both: Both) -> None:
    class Point(BaseModel):
        x: int = 0

    class User1(BaseModel):
        pass

    class User2(BaseModel):
        empty: list[int] = []
        pairs: dict[str, int] = {"a": 1}
        flags: set[str] = {"b"}
        deep: list[list[int]] = [[1]]
        point: Point = Point(x=1)
        fixed: tuple[int, ...] = (1, 2)
        made: list[int] = Field(default_factory=lambda: [1])

    register(both, "User", User1, User2)
    both.migrate_data({}, "User")
    first, second = both.ours.migrate_batch_data([{}, {}], "User", *HOP)
    for name in ("empty", "pairs", "flags", "deep", "point", "made"):
        assert first[name] == second[name]
        assert first[name] is not second[name]
    first["deep"][0].append(2)
    assert second["deep"] == User2().deep == [[1]]
    assert first["fixed"] is second["fixed"]


def test_default_from_validated_data_is_left_to_validation(both: Both) -> None:
    class User1(BaseModel):
        name: str

    class User2(BaseModel):
        name: str
        slug: str = Field(default_factory=lambda data: data["name"].lower())

    register(both, "User", User1, User2)
    assert both.migrate_data({"name": "Ada"}, "User") == {"name": "Ada"}
    assert both.migrate_data({"slug": "x", "name": "Ada"}, "User") == {"name": "Ada", "slug": "x"}
    assert both.ours.migrate({"name": "Ada"}, "User", *HOP) == User2(name="Ada", slug="ada")


def test_a_default_is_of_the_new_version_and_not_migrated(cities: Both) -> None:
    old = create_model("Trip1", stop=(City1, City1(name="A")))
    new = create_model("Trip2", stop=(City2, {"name": "B"}), via=(City2 | None, None))
    register(cities, "Trip", old, new)
    assert cities.migrate_data({}, "Trip") == {"stop": {"name": "B"}, "via": None}


def test_validation_follows_all_steps(both: Both) -> None:
    class User2(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def never(cls, _: int, __: ValidationInfo) -> int:
            raise AssertionError

    register(both, "User", create_model("User1", n=int), User2, create_model("User3", n=int))
    assert both.ours.migrate({"n": 1}, "User", "1.0.0", "3.0.0").model_dump() == {"n": 1}


# --- nested models --------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["2.0.0", "3.0.0"])
def test_nested_models_are_migrated_over_all_versions_between(cities: Both, last: str) -> None:
    register(
        cities,
        "Trip",
        create_model("Trip1", start=City1, stops=list[City1], end=(City1 | None, None)),
        create_model("Trip2", start=City3, stops=list[City2], end=(City1 | None, None)),
        create_model("Trip3", start=City3, stops=list[City3], end=(City2 | None, None)),
    )
    record = {"start": OLD, "stops": [OLD, None, "?", OLD], "end": OLD}
    result = cities.migrate_data(record, "Trip", "1.0.0", last)
    assert result["start"] == {"name": "Rome", "country": "?", "size": 0}
    assert cities.migrate_data(result, "Trip", last, "1.0.0")["start"] == result["start"]


def test_a_field_without_versioned_models_costs_nothing(cities: Both) -> None:
    register(
        cities,
        "Trip",
        create_model("Trip1", same=City1, plain=dict[str, Any], other=City1),
        create_model("Trip2", same=City1, plain=dict[str, Any], other=Any),
    )
    record: dict[str, Any] = {"same": {}, "plain": {"a": [{}]}, "other": {}}
    result = cities.migrate_data(record, "Trip")
    assert all(result[key] is record[key] for key in record)


class Node1(BaseModel):
    value: int
    children: list["Node1"] = []
    next: "Node1 | None" = None


class Node2(BaseModel):
    value: int
    label: str = ""
    children: list["Node2"] = []
    next: "Node2 | None" = None


class Left1(BaseModel):
    rights: list["Right1"] = []


class Right1(BaseModel):
    left: Left1 | None = None


class Left2(BaseModel):
    rights: list["Right2"] = []
    added: int = 1


class Right2(BaseModel):
    left: Left2 | None = None


def test_a_model_may_hold_itself(both: Both) -> None:
    register(both, "Node", Node1, Node2)
    leaf = {"value": 3}
    record = {"value": 1, "children": [{"value": 2, "next": leaf}, leaf], "next": {"value": 4}}
    result = both.migrate_data(record, "Node")
    assert result["children"][0]["next"]["label"] == ""
    # The records have the defaults that they lack, at any depth.
    assert result["next"] == {"value": 4, "label": "", "children": [], "next": None}


def test_models_may_hold_each_other(both: Both) -> None:
    Left1.model_rebuild()  # which pyrmute needs
    Left2.model_rebuild()
    register(both, "Left", Left1, Left2)
    register(both, "Right", Right1, Right2)
    record: dict[str, Any] = {"rights": [{"left": {"rights": [{}]}}]}
    assert both.migrate_data(record, "Left")["rights"][0]["left"]["added"] == 1
    both.migrate_data({"left": record}, "Right")


class Loop1(BaseModel):
    inner: dict[str, "Loop1"] = {}
    city: City1 | None = None


class Loop2(BaseModel):
    inner: dict[str, "Loop2"] = {}
    city: City2 | None = None


def test_unregistered_model_may_hold_itself(cities: Both) -> None:
    register(cities, "Top", create_model("T1", loop=Loop1), create_model("T2", loop=Loop2))
    record = {"loop": {"inner": {"a": {"city": OLD, "inner": {"b": {"city": OLD}}}}}}
    result = cities.ours.migrate_data(record, "Top", *HOP)
    assert result == {"loop": {"inner": {"a": {"city": NEW, "inner": {"b": {"city": NEW}}}}}}


def test_model_objects_are_migrated_like_their_data(cities: Both) -> None:
    class Town1(BaseModel):
        model_config = ConfigDict(extra="allow", validate_by_name=True)
        name: str = Field(alias="Name")
        city: City1

    register(
        cities,
        "Town",
        Town1,
        create_model("Town2", name=(str, Field(alias="Name")), city=City2),
    )
    register(cities, "Top", create_model("T1", town=Town1), create_model("T2", town=Any))
    cities.model("Top", "3.0.0", backward_compatible=True)(
        create_model("T3", town=cities.ours.get("Town", "2.0.0"))
    )
    register(cities, "Pair", create_model("P1", town=Town1))
    cities.model("Pair", "2.0.0", backward_compatible=True)(
        create_model("P2", town=cities.ours.get("Town", "2.0.0"))
    )
    town = Town1(name="A", city=City1(name="B"), more=1)
    result = cities.ours.migrate_data({"town": town}, "Pair", *HOP)
    assert result["town"] == {
        "Name": "A",
        "city": {"name": "B", "country": "?"},
        "more": 1,
    }
    assert cities.ours.migrate_data({"town": town}, "Top", *HOP)["town"] is town


class Box:
    """A type of a value, a function that makes one, and its migrated form."""

    def __init__(self, old: Any, new: Any, make: Any) -> None:
        self.old, self.new, self.make = old, new, make


# What stands in their brackets below is chosen at run time.
LIST: Any = list
DICT: Any = dict
TUPLE: Any = tuple
ANNOTATED: Any = Annotated
ROOT_MODEL: Any = RootModel


def boxes() -> st.SearchStrategy[Box]:
    """Types that hold cities somewhere inside, nested at will."""
    plain = st.just(Box(City1, City2, lambda leaf: leaf))

    def around(inner: st.SearchStrategy[Box]) -> st.SearchStrategy[Box]:
        return st.one_of(
            inner.map(lambda b: Box(LIST[b.old], LIST[b.new], lambda x: [b.make(x), b.make(x)])),
            inner.map(lambda b: Box(b.old | None, b.new | None, b.make)),
            inner.map(
                lambda b: Box(DICT[str, b.old], DICT[str, b.new], lambda x: {"k": b.make(x)})
            ),
            inner.map(lambda b: Box(TUPLE[b.old, ...], TUPLE[b.new, ...], lambda x: (b.make(x),))),
            inner.map(
                lambda b: Box(TUPLE[int, b.old], TUPLE[int, b.new], lambda x: [1, b.make(x)])
            ),
            inner.map(lambda b: Box(ANNOTATED[b.old, "a"], ANNOTATED[b.new, "b"], b.make)),
            inner.map(lambda b: Box(b.old | int, b.new | int, b.make)),
            inner.map(
                lambda b: Box(
                    create_model("W1", x=b.old),
                    create_model("W2", x=b.new),
                    lambda x: {"x": b.make(x)},
                )
            ),
            inner.map(lambda b: Box(ROOT_MODEL[b.old], ROOT_MODEL[b.new], b.make)),
        )

    return st.recursive(plain, around, max_leaves=6)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(boxes())
def test_models_are_found_at_any_depth(box: Box) -> None:
    manager = ModelManager()
    manager.model("City", "1.0.0")(City1)
    manager.model("City", "2.0.0", backward_compatible=True)(City2)
    manager.model("Top", "1.0.0")(create_model("T1", held=box.old))
    manager.model("Top", "2.0.0", backward_compatible=True)(create_model("T2", held=box.new))
    record = {"held": box.make(OLD)}
    assert manager.migrate_data(record, "Top", *HOP) == {"held": box.make(NEW)}
    assert record == {"held": box.make(OLD)}


# --- unions ---------------------------------------------------------------------------------


class Cat1(BaseModel):
    kind: Literal["cat"] = Field("cat", alias="Kind")


class Cat2(BaseModel):
    kind: Literal["cat"] = Field("cat", alias="Kind")
    lives: int = 9


class Dog1(BaseModel):
    kind: Literal["dog", "hound"] = Field("dog", alias="Kind")


class Dog2(BaseModel):
    kind: Literal["dog", "hound"] = Field("dog", alias="Kind")
    legs: int = 4


@pytest.mark.parametrize("tag", ["kind", "Kind"])
@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize(("kind", "added"), [("cat", "lives"), ("dog", "legs"), ("hound", "legs")])
def test_the_discriminator_chooses(
    both: Both, tag: str, in_list: bool, kind: str, added: str
) -> None:
    register(both, "Cat", Cat1, Cat2)
    register(both, "Dog", Dog1, Dog2)
    old: Any = Annotated[Cat1 | Dog1, Field(discriminator="kind")]
    new: Any = Annotated[Cat2 | Dog2, Field(discriminator="kind")]
    if in_list:
        old, new = list[old], list[new]
    register(both, "Owner", create_model("O1", pet=old), create_model("O2", pet=new))
    pet = {tag: kind}
    result = both.migrate_data({"pet": [pet] if in_list else pet}, "Owner")["pet"]
    assert added in (result[0] if in_list else result)


class Fish(BaseModel):
    kind: Literal["fish"] = Field("fish", alias="Kind")


def is_cat(value: Any) -> str:
    return "cat" if value["kind"] == "cat" else "other"


@pytest.mark.parametrize("by_function", [False, True])
def test_unions_in_discriminated_unions(both: Both, by_function: bool) -> None:
    register(both, "Cat", Cat1, Cat2)
    register(both, "Dog", Dog1, Dog2)

    def pets(cat: Any, dog: Any) -> Any:
        others = Annotated[dog | Fish, Field(discriminator="kind")]
        if not by_function:
            return Annotated[cat | others, Field(discriminator="kind")]
        tagged = Annotated[cat, Tag("cat")] | Annotated[others, Tag("other")]
        return Annotated[tagged, Discriminator(is_cat)]

    old, new = pets(Cat1, Dog1), pets(Cat2, Dog2)
    register(both, "Owner", create_model("O1", pet=old), create_model("O2", pet=new))
    for kind, added in (("cat", {"lives": 9}), ("hound", {"legs": 4}), ("fish", {})):
        pet = {"kind": kind, "Kind": kind}
        result = both.ours.migrate_data({"pet": pet}, "Owner", *HOP)["pet"]
        assert {key: result[key] for key in result if key not in pet} == added


def test_missing_tag_means_the_first_member(both: Both) -> None:
    register(both, "Cat", Cat1, Cat2)
    register(both, "Dog", Dog1, Dog2)
    old = Annotated[Cat1 | Dog1, Field(discriminator="kind")]
    new = Annotated[Cat2 | Dog2, Field(discriminator="kind")]
    register(both, "Owner", create_model("O1", pet=old), create_model("O2", pet=new))
    assert both.migrate_data({"pet": {}}, "Owner")["pet"] == {"Kind": "cat", "lives": 9}
    assert both.migrate_data({"pet": {"kind": None}}, "Owner")["pet"]["lives"] == 9


def test_a_new_discriminator_tells_old_members_apart(both: Both) -> None:
    register(both, "Cat", Cat1, Cat2)
    register(both, "Dog", Dog1, Dog2)
    new = Annotated[Cat2 | Dog2, Field(discriminator="kind")]
    register(both, "Owner", create_model("O1", pet=Cat1 | Dog1), create_model("O2", pet=new))
    for kind in ("cat", "dog"):
        both.migrate_data({"pet": {"kind": kind, "Kind": kind}}, "Owner")


def test_old_value_beside_new_ones_is_recognised(cities: Both) -> None:
    class Strict1(BaseModel):
        a: int

    class Strict2(BaseModel):
        b: int = 0

    register(cities, "Strict", Strict1, Strict2)
    old, new = create_model("O1", x=Strict1 | Strict2), create_model("O2", x=Strict2)
    register(cities, "Owner", old, new)
    assert cities.ours.migrate_data({"x": {"a": 1}}, "Owner", *HOP)["x"] == {"b": 0, "a": 1}
    assert cities.ours.migrate_data({"x": {"b": 1}}, "Owner", *HOP)["x"] == {"b": 1}


# --- root models ----------------------------------------------------------------------------


def test_root_models(cities: Both) -> None:
    register(cities, "Route", RootModel[list[City1]], RootModel[list[City2]])
    record = {"root": [OLD], "extra": 1}
    assert cities.migrate_data(record, "Route") == {"root": [NEW]}
    assert cities.migrate_data({"root": None}, "Route") == {"root": None}
    theirs, ours = cities.call("migrate", {"root": [OLD]}, "Route", *HOP)
    assert theirs == ours
    theirs, ours = cities.call("migrate_data", {"no": 1}, "Route", *HOP)
    assert theirs == ours
    assert theirs[0] == "MigrationError"


def test_a_root_model_does_not_become_a_record(both: Both) -> None:
    register(both, "Mixed", RootModel[int], create_model("M2", n=int))
    theirs, ours = both.call("migrate_data", {"root": 1}, "Mixed", *HOP)
    assert theirs == ours
    assert "Cannot auto-migrate between RootModel and BaseModel" in theirs[-2]
    assert both.ours.has_migration_path("Mixed", *HOP)


class Price1(RootModel[float]):
    pass


class Price2(RootModel[float]):
    pass


def test_nested_root_models_of_numbers(both: Both) -> None:
    register(both, "Price", Price1, Price2)
    both.migration("Price", *HOP)(lambda data: {"root": data["root"] * 2})
    register(
        both,
        "Cart",
        create_model(
            "C1", total=Price1, parts=dict[str, Price1], maybe=(Price1 | str | None, None)
        ),
        create_model(
            "C2", total=Price2, parts=dict[str, Price2], maybe=(Price2 | str | None, None)
        ),
    )
    record = {"total": 1.5, "parts": {"a": 1.0, "b": None}, "maybe": 2.0}
    assert both.ours.migrate_data(record, "Cart", *HOP) == {
        "total": 3.0,
        "parts": {"a": 2.0, "b": None},
        "maybe": 4.0,
    }
    assert (
        both.ours.migrate_data({"total": 1, "parts": {}, "maybe": "x"}, "Cart", *HOP)["maybe"]
        == "x"
    )


# --- errors ---------------------------------------------------------------------------------


def test_errors_of_nested_steps_equal_pyrmutes(cities: Both) -> None:
    def fail(data: Any) -> Any:
        return data["missing"]

    cities.migration("City", *HOP)(fail)
    register(cities, "Trip", create_model("T1", stops=list[City1]))
    cities.model("Trip", "2.0.0", backward_compatible=True)(create_model("T2", stops=list[City2]))
    theirs, ours = cities.call("migrate_data", {"stops": [OLD]}, "Trip", *HOP)
    assert theirs == ours
    with pytest.raises(MigrationError) as caught:
        cities.ours.migrate_batch([{"stops": []}, {"stops": [OLD]}], "Trip", *HOP)
    assert caught.value.record_index == 1
    assert (caught.value.name, caught.value.from_version) == ("Trip", "1.0.0")
    assert caught.value.reason is not None
    assert caught.value.reason.startswith(
        "Auto-migration failed: MigrationError: Migration failed for 'City': 1.0.0 → 2.0.0"
    )
    causes = [type(cause).__name__ for cause in chain(caught.value)]
    assert causes == ["MigrationError", "MigrationError", "KeyError"]


def chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *chain(error.__cause__)]


def test_a_nested_hop_without_a_step_fails_only_records_that_need_it(both: Both) -> None:
    both.model("City", "1.0.0")(City1)
    both.model("City", "2.0.0")(City2)
    register(
        both,
        "Trip",
        create_model("T1", stop=City1 | None),
        create_model("T2", stop=City2 | None),
    )
    assert both.migrate_data({"stop": None}, "Trip") == {"stop": None}
    for _ in range(2):
        theirs, ours = both.call("migrate_data", {"stop": OLD}, "Trip", *HOP)
        assert theirs == ours
        assert "No migration path found" in theirs[-2]


def test_a_nested_step_may_return_anything(both: Both) -> None:
    for number, model in enumerate((City1, City2, City3), start=1):
        both.model("City", f"{number}.0.0", backward_compatible=number > 2)(model)
    both.migration("City", *HOP)(lambda _: None)
    old = create_model("T1", stop=City1 | None)
    register(both, "Trip", old, create_model("T2", stop=City2 | None))
    assert both.migrate_data({"stop": OLD}, "Trip") == {"stop": None}
    both.model("Trip", "3.0.0", backward_compatible=True)(create_model("T3", stop=City3))
    both.migrate_data({"stop": OLD}, "Trip", "1.0.0", "3.0.0")
    register(both, "Far", old, create_model("F2", stop=City3 | None))
    theirs, ours = both.call("migrate_data", {"stop": OLD}, "Far", *HOP)
    assert theirs == ours


# --- plans ----------------------------------------------------------------------------------


def test_plan_is_recompiled_when_a_nested_model_gets_a_step(both: Both) -> None:
    both.model("City", "1.0.0")(City1)
    both.model("City", "2.0.0", backward_compatible=True)(City2)
    register(both, "Trip", create_model("T1", stop=City1), create_model("T2", stop=City2))
    assert both.migrate_data({"stop": OLD}, "Trip")["stop"] == NEW
    both.migration("City", *HOP)(lambda data: {**data, "country": "IT"})
    assert both.migrate_data({"stop": OLD}, "Trip")["stop"]["country"] == "IT"


def test_plan_lists_all_hops_of_nested_models(cities: Both) -> None:
    register(cities, "Trip", create_model("T1", stop=City1), create_model("T2", stop=City3))
    plan = cities.ours.plan("Trip", *HOP)
    hops = [f"{hop.name} {hop.from_version}→{hop.to_version}" for hop in plan.hops]
    assert sorted(hops) == ["City 1.0.0→2.0.0", "City 2.0.0→3.0.0", "Trip 1.0.0→2.0.0"]


def test_a_plan_runs_in_many_threads(both: Both) -> None:
    register(both, "Node", Node1, Node2)
    plan: MigrationPlan = both.ours.plan("Node", *HOP)
    record = {"value": 1, "children": [{"value": 2, "next": {"value": 3}}]}
    expected = both.theirs.migrate_data(record, "Node", *HOP)
    wrong: list[Any] = []

    def work() -> None:
        wrong.extend(r for r in (plan.migrate_one(record) for _ in range(200)) if r != expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_lookups_equal_pyrmutes(cities: Both) -> None:
    class Trip(BaseModel):
        start: City1
        stops: list[City2]
        back: City1 | None = None
        number: int

    cities.model("Trip", "1.0.0")(Trip)
    cities.model("Route", "1.0.0")(RootModel[dict[str, City3]])
    for name in ("Trip", "Route"):
        theirs = cities.theirs.get_nested_models(name, "1.0.0")
        ours = cities.ours.get_nested_models(name, "1.0.0")
        assert [(info.name, str(info.version)) for info in ours] == [
            (info.name, str(info.version)) for info in theirs
        ]
    cases: list[tuple[Any, str]] = [
        ({"name": "x"}, "City"),
        ({"name": 1}, "City"),
        ({}, "Nobody"),
        ([], "Route"),
    ]
    for data, name in cases:
        theirs_say, ours_say = (
            manager.validate_data(data, name, "1.0.0") for manager in (cities.theirs, cities.ours)
        )
        assert theirs_say is ours_say
    with pytest.raises(pyrmute.ModelNotFoundError):
        cities.theirs.get_nested_models("Nobody", "1.0.0")


class Alias:
    """Stands for ``type Alias = …``, which Python has from 3.12 on."""

    __value__: Any


def test_a_type_alias_may_hold_itself(cities: Both) -> None:
    old, new = Alias(), Alias()
    for alias, city in ((old, City1), (new, City2)):
        alias.__value__ = dict[str, alias] | list[city | None] | list[int]  # type: ignore[valid-type]  # to us it is one
    shape = Reader(lambda _: True).shape(old)
    assert shape.values is shape
    assert shape.items is not None
    assert shape.items.models == [City1]

    registry = cities.ours._registry
    compiler = ConverterCompiler(registry, StepCompiler(registry).nested)
    convert = compiler._converter(compiler._reader.shape(old), compiler._reader.shape(new))
    assert convert is not None
    assert convert({"a": {"b": [OLD, 1, None]}, "c": [OLD]}) == {
        "a": {"b": [NEW, 1, None]},
        "c": [NEW],
    }
