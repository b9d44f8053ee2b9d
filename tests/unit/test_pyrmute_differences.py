"""Cases that pyrmute 0.11.0 gets wrong, and our results.

One test for each row of ``docs/differences-from-pyrmute.md``, in its order.
"""

import pickle
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from types import MappingProxyType
from typing import Annotated, Any, Literal

import pyrmute
import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    ValidationError,
    create_model,
)
from typing_extensions import TypeAliasType

from pyrmute_tasks import (
    ConfigurationError,
    InvalidRecordError,
    InvalidVersionError,
    MetricsHook,
    MigrationError,
    MigrationHook,
    ModelData,
    ModelNotFoundError,
    RegistrationError,
)
from tests.unit.both import Both

HOP = ("1.0.0", "2.0.0")


class City1(BaseModel):
    name: str


class City2(BaseModel):
    name: str
    country: str


OLD = {"name": "Rome"}
NEW = {"name": "Rome", "country": "?"}


class Cat1(BaseModel):
    kind: Literal["cat"]


class Cat2(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog1(BaseModel):
    kind: Literal["dog"]


class Dog2(BaseModel):
    kind: Literal["dog"]
    legs: int


def kind_of(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else value.kind


@pytest.fixture
def both() -> Both:
    both = Both()
    for name, old, new, added in (
        ("City", City1, City2, {"country": "?"}),
        ("Cat", Cat1, Cat2, {"lives": 9}),
        ("Dog", Dog1, Dog2, {"legs": 4}),
    ):
        both.model(name, "1.0.0")(old)
        both.model(name, "2.0.0")(new)
        both.migration(name, *HOP)(lambda data, added=added: {**data, **added})
    return both


def holder(both: Both, old: Any, new: Any) -> None:
    """Register a model with one field of the given types."""

    class Holder1(BaseModel):
        held: old

    class Holder2(BaseModel):
        held: new

    both.model("Holder", "1.0.0")(Holder1)
    both.model("Holder", "2.0.0", backward_compatible=True)(Holder2)


def held(both: Both, value: Any) -> tuple[Any, Any]:
    """Migrate a value in a holder, with pyrmute and with this package."""
    theirs = both.theirs.migrate_data({"held": value}, "Holder", *HOP)["held"]
    return theirs, both.ours.migrate_data({"held": value}, "Holder", *HOP)["held"]


def pair(both: Both, old: type[BaseModel], new: type[BaseModel]) -> None:
    both.model("Holder", "1.0.0")(old)
    both.model("Holder", "2.0.0", backward_compatible=True)(new)


# --- where nested models are found ----------------------------------------------------------


def test_a_dict_of_models_is_not_a_model(both: Both) -> None:
    holder(both, dict[str, City1], dict[str, City2])
    theirs, ours = held(both, {"it": OLD})
    assert theirs == {"it": OLD, "country": "?"}  # not a city, but one more entry
    assert ours == {"it": NEW}

    both.model("Atlas", "1.0.0")(create_model("Atlas1", pages=list[dict[str, City1]]))
    atlas = create_model("Atlas2", pages=list[dict[str, City2]])
    both.model("Atlas", "2.0.0", backward_compatible=True)(atlas)
    record = {"pages": [{"it": OLD}]}
    assert both.theirs.migrate_data(record, "Atlas", *HOP) == {
        "pages": [{"it": OLD, "country": "?"}]
    }
    assert both.ours.migrate_data(record, "Atlas", *HOP) == {"pages": [{"it": NEW}]}


CityList1 = TypeAliasType("CityList1", list[City1])
CityList2 = TypeAliasType("CityList2", list[City2])


@pytest.mark.parametrize(
    ("old", "new", "value", "migrated"),
    [
        (list[City1] | None, list[City2] | None, [OLD], [NEW]),
        (list[list[City1]], list[list[City2]], [[OLD], []], [[NEW], []]),
        (dict[str, list[City1]], dict[str, list[City2]], {"it": [OLD]}, {"it": [NEW]}),
        (Sequence[City1], Sequence[City2], [OLD], [NEW]),
        (tuple[City1, ...], tuple[City2, ...], [OLD, OLD], [NEW, NEW]),
        (tuple[City1, ...], tuple[City2, ...], (OLD,), (NEW,)),
        (tuple[str, City1], tuple[str, City2], ["x", OLD], ["x", NEW]),
        (tuple[City1, City1], list[City2], [OLD, OLD], [NEW, NEW]),
        (Annotated[City1, "note"] | None, Annotated[City2, "note"] | None, OLD, NEW),
        (CityList1, CityList2, [OLD], [NEW]),
        (RootModel[list[City1]], RootModel[list[City2]], [OLD], [NEW]),
    ],
)
def test_models_are_found_wherever_the_type_has_them(
    both: Both, old: Any, new: Any, value: Any, migrated: Any
) -> None:
    holder(both, old, new)
    theirs, ours = held(both, value)
    assert theirs == value  # as it was
    assert ours == migrated
    assert type(ours) is type(value)


def test_models_are_found_in_unregistered_models(both: Both) -> None:
    class Trip1(BaseModel):
        stops: list[City1] = Field(alias="Stops")
        note: str = ""

    class Trip2(BaseModel):
        stops: list[City2] = Field(alias="Stops")

    holder(both, list[Trip1], list[Trip2])
    theirs, ours = held(both, [{"note": "n", "Stops": [OLD], "extra": 1}])
    assert theirs == [{"note": "n", "Stops": [OLD], "extra": 1}]
    assert ours == [{"note": "n", "Stops": [NEW], "extra": 1}]


class Cities1(RootModel[list[City1]]):
    pass


class Cities2(RootModel[list[City2]]):
    pass


class ByCode1(RootModel[dict[str, City1]]):
    pass


class ByCode2(RootModel[dict[str, City2]]):
    pass


def test_a_nested_root_model_is_migrated(both: Both) -> None:
    both.model("Cities", "1.0.0")(Cities1)
    both.model("Cities", "2.0.0", backward_compatible=True)(Cities2)
    holder(both, Cities1, Cities2)
    theirs, ours = held(both, [OLD])
    assert theirs == [OLD]
    assert ours == [NEW]


def test_nested_root_steps_get_the_input_of_record_steps(both: Both) -> None:
    both.model("ByCode", "1.0.0")(ByCode1)
    both.model("ByCode", "2.0.0", backward_compatible=True)(ByCode2)
    holder(both, ByCode1, ByCode2)
    with pytest.raises(pyrmute.MigrationError, match="must contain 'root' key"):
        both.theirs.migrate_data({"held": {"it": OLD}}, "Holder", *HOP)
    assert both.ours.migrate_data({"held": {"it": OLD}}, "Holder", *HOP) == {"held": {"it": NEW}}


def test_a_default_that_is_a_model_is_migrated_by_later_steps(both: Both) -> None:
    class Holder1(BaseModel):
        pass

    class Holder2(BaseModel):
        held: City1 = City1(name="Rome")

    class Holder3(BaseModel):
        held: City2

    pair(both, Holder1, Holder2)
    both.model("Holder", "3.0.0", backward_compatible=True)(Holder3)
    with pytest.raises(ValidationError):
        both.theirs.migrate({}, "Holder", "1.0.0", "3.0.0")
    assert both.ours.migrate({}, "Holder", "1.0.0", "3.0.0") == Holder3(held=City2(**NEW))


class Left1(BaseModel):
    rights: list["Right1"]


class Left2(BaseModel):
    rights: list["Right2"]


class Right1(BaseModel):
    n: int


class Right2(BaseModel):
    n: int
    m: int = 0


def test_a_model_may_be_defined_after_the_one_that_holds_it(both: Both) -> None:
    pair(both, Left1, Left2)
    both.model("Right", "1.0.0")(Right1)
    both.model("Right", "2.0.0", backward_compatible=True)(Right2)
    record = {"rights": [{"n": 1}]}
    # Until pydantic has built the model, which it does when it is first used.
    assert both.theirs.migrate_data(record, "Holder", *HOP) == record
    assert both.ours.migrate_data(record, "Holder", *HOP) == {"rights": [{"n": 1, "m": 0}]}


# --- which member of a union ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Cat1 | Dog1, Cat2 | Dog2),
        (list[Cat1 | Dog1], list[Cat2 | Dog2]),
        (
            Annotated[Cat1 | Dog1, Discriminator("kind")],
            Annotated[Cat2 | Dog2, Discriminator("kind")],
        ),
    ],
)
def test_value_is_not_always_the_first_member(both: Both, old: Any, new: Any) -> None:
    holder(both, old, new)
    is_list = getattr(old, "__origin__", None) is list
    value = [{"kind": "dog"}] if is_list else {"kind": "dog"}
    theirs, ours = held(both, value)
    theirs, ours = (theirs[0], ours[0]) if is_list else (theirs, ours)
    assert theirs == {"kind": "dog", "lives": 9}
    assert ours == {"kind": "dog", "legs": 4}


PETS1 = Annotated[Cat1, Tag("cat")] | Annotated[Dog1, Tag("dog")]
PETS2 = Annotated[Cat2, Tag("cat")] | Annotated[Dog2, Tag("dog")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            Annotated[Cat1 | Dog1, Field(discriminator="kind")] | None,
            Annotated[Cat2 | Dog2, Field(discriminator="kind")] | None,
        ),
        (
            Annotated[PETS1, Discriminator(kind_of)],
            Annotated[PETS2, Discriminator(kind_of)],
        ),
        (
            Annotated[PETS1, Field(discriminator=Discriminator(kind_of))],
            Annotated[PETS2, Field(discriminator=Discriminator(kind_of))],
        ),
        (
            Annotated[PETS1, Discriminator(kind_of)] | None,
            Annotated[PETS2, Discriminator(kind_of)] | None,
        ),
    ],
)
def test_discriminators_are_found_in_any_annotation(both: Both, old: Any, new: Any) -> None:
    holder(both, old, new)
    theirs, ours = held(both, {"kind": "dog"})
    assert theirs == {"kind": "dog"}
    assert ours == {"kind": "dog", "legs": 4}


def test_an_unknown_tag_is_not_a_member(both: Both) -> None:
    class Holder1(BaseModel):
        held: Cat1 | Dog1 = Field(discriminator="kind")

    class Holder2(BaseModel):
        held: Cat2 | Dog2 = Field(discriminator="kind")

    pair(both, Holder1, Holder2)
    theirs, ours = held(both, {"kind": "bird"})
    assert theirs == {"kind": "bird", "lives": 9}
    assert ours == {"kind": "bird"}


def test_unregistered_member_is_left(both: Both) -> None:
    class Fish(BaseModel):
        kind: Literal["fish"]

    class Holder1(BaseModel):
        held: Cat1 | Fish = Field(discriminator="kind")

    class Holder2(BaseModel):
        held: Cat2 | Fish = Field(discriminator="kind")

    pair(both, Holder1, Holder2)
    theirs, ours = held(both, {"kind": "fish"})
    assert theirs == {"kind": "fish", "lives": 9}
    assert ours == {"kind": "fish"}


def test_a_tag_is_looked_up_in_the_version_that_the_value_has(both: Both) -> None:
    class Wolf1(BaseModel):
        kind: Literal["wolf"]

    class Wolf2(BaseModel):
        kind: Literal["canis lupus"]

    both.model("Wolf", "1.0.0")(Wolf1)
    both.model("Wolf", "2.0.0")(Wolf2)
    both.migration("Wolf", *HOP)(lambda _: {"kind": "canis lupus"})

    class Holder1(BaseModel):
        held: Cat1 | Wolf1 = Field(discriminator="kind")

    class Holder2(BaseModel):
        held: Cat2 | Wolf2 = Field(discriminator="kind")

    pair(both, Holder1, Holder2)
    theirs, ours = held(both, {"kind": "wolf"})
    assert theirs == {"kind": "wolf", "lives": 9}
    assert ours == {"kind": "canis lupus"}


# --- fields, keys and defaults --------------------------------------------------------------


def test_alias_choices_are_keys_of_a_field(both: Both) -> None:
    class Holder1(BaseModel):
        held: City1 = Field(City1(name="?"), validation_alias=AliasChoices("held", "town"))

    class Holder2(BaseModel):
        held: City2 = Field(City2(**NEW), validation_alias=AliasChoices("held", "town"))

    pair(both, Holder1, Holder2)
    record = {"town": {"name": "Oslo"}}
    theirs = both.theirs.migrate(record, "Holder", *HOP)
    assert theirs == Holder2(held=City2(**NEW))  # the record's value is lost
    assert both.ours.migrate_data(record, "Holder", *HOP) == {
        "town": {"name": "Oslo", "country": "?"}
    }


def test_alias_paths_are_followed(both: Both) -> None:
    where = AliasChoices("held", AliasPath("cities", 1))

    class Holder1(BaseModel):
        held: City1 = Field(City1(name="?"), validation_alias=where)

    class Holder2(BaseModel):
        held: City2 = Field(City2(**NEW), validation_alias=where)

    pair(both, Holder1, Holder2)
    record = {"cities": ["none", OLD]}
    theirs = both.theirs.migrate_data(record, "Holder", *HOP)
    assert theirs == {"held": City2(**NEW), "cities": ["none", OLD]}  # the default wins
    assert both.ours.migrate_data(record, "Holder", *HOP) == {"cities": ["none", NEW]}
    assert record == {"cities": ["none", OLD]}


def test_a_default_does_not_replace_a_value(both: Both) -> None:
    class Holder1(BaseModel):
        size: int

    class Holder2(BaseModel):
        size: int
        width: int = Field(0, serialization_alias="size")

    pair(both, Holder1, Holder2)
    assert both.theirs.migrate_data({"size": 3}, "Holder", *HOP) == {"size": 0}
    assert both.ours.migrate_data({"size": 3}, "Holder", *HOP) == {"size": 3}


def test_a_default_is_not_shared_between_records(both: Both) -> None:
    class Holder1(BaseModel):
        pass

    class Holder2(BaseModel):
        tags: list[Any] = ["new"]
        deep: dict[str, list[int]] = {"a": [1]}

    pair(both, Holder1, Holder2)
    first, second = both.theirs.migrate_batch_data([{}, {}], "Holder", *HOP)
    assert first["tags"] is second["tags"] is Holder2.model_fields["tags"].default
    first, second = both.ours.migrate_batch_data([{}, {}], "Holder", *HOP)
    first["tags"].append("changed")
    first["deep"]["a"].append(2)
    assert second == {"tags": ["new"], "deep": {"a": [1]}}
    assert Holder2() == Holder2(tags=["new"], deep={"a": [1]})


def test_raising_default_factory_fails_the_record(both: Both) -> None:
    def fail() -> int:
        raise RuntimeError("no more numbers")

    class Holder1(BaseModel):
        pass

    class Holder2(BaseModel):
        number: int = Field(default_factory=fail)

    pair(both, Holder1, Holder2)
    assert both.theirs.migrate_data({}, "Holder", *HOP) == {}
    with pytest.raises(MigrationError, match="Auto-migration failed: RuntimeError: no more"):
        both.ours.migrate_data({}, "Holder", *HOP)


@pytest.mark.parametrize("alias", [{"serialization_alias": "n"}, {"validation_alias": "n"}])
def test_a_default_does_not_make_a_record_invalid(both: Both, alias: dict[str, Any]) -> None:
    class Holder1(BaseModel):
        pass

    class Holder2(BaseModel):
        model_config = ConfigDict(extra="forbid")
        number: int = Field(5, **alias)

    pair(both, Holder1, Holder2)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        both.theirs.migrate({}, "Holder", *HOP)
    assert both.ours.migrate({}, "Holder", *HOP) == Holder2()


def test_plain_values_are_passed_on_and_not_copied(both: Both) -> None:
    holder(both, dict[str, Any], dict[str, Any])
    value = {"deep": {"er": [1]}}
    theirs, ours = held(both, value)
    assert theirs == ours == value
    assert theirs is not value
    assert ours is value


# --- errors and batches ---------------------------------------------------------------------


def numbers(both: Both) -> None:
    class Number1(BaseModel):
        n: Any

    class Number2(BaseModel):
        n: int

    both.model("Number", "1.0.0")(Number1)
    both.model("Number", "2.0.0", backward_compatible=True)(Number2)


def test_streaming_gives_the_records_before_the_failing_one(both: Both) -> None:
    numbers(both)
    records: list[Any] = [{"n": n} for n in (0, 1, "bad", 3)]
    managers: list[tuple[Any, list[int]]] = [(both.theirs, []), (both.ours, [0, 1])]
    for manager, expected in managers:
        got: list[int] = []
        with pytest.raises(ValidationError):
            got.extend(item.n for item in manager.migrate_batch_streaming(records, "Number", *HOP))
        assert got == expected


def test_an_error_says_which_record_it_is_about(both: Both) -> None:
    numbers(both)
    records: list[Any] = [{"n": 0}, {"n": "bad"}]
    with pytest.raises(ValidationError) as theirs:
        both.theirs.migrate_batch(records, "Number", *HOP)
    assert not hasattr(theirs.value, "record_index")
    with pytest.raises(ValidationError) as ours:
        both.ours.migrate_batch(records, "Number", *HOP)
    assert ours.value.record_index == 1  # type: ignore[attr-defined]  # set on any exception
    assert ours.value.errors() == theirs.value.errors()


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301  # made a moment ago


def test_errors_survive_pickling() -> None:
    theirs = pickled(pyrmute.ModelNotFoundError("User", "1.0.0"))
    assert str(theirs).count("not found in registry") == 2
    ours = pickled(ModelNotFoundError("User", "1.0.0"))
    assert (ours.name, ours.version) == ("User", "1.0.0")
    assert str(ours) == "Model 'User' version '1.0.0' not found in registry"

    with pytest.raises(TypeError):
        pickled(pyrmute.MigrationError("User", "1.0.0", "2.0.0", "why"))
    error = pickled(MigrationError("User", "1.0.0", "2.0.0", "why"))
    assert (error.name, error.reason) == ("User", "why")


def fail(data: Any) -> Any:
    raise ValueError(data["name"])


in_processes = Both()
in_processes.model("City", "1.0.0")(City1)
in_processes.model("City", "2.0.0")(City2)
in_processes.migration("City", *HOP)(fail)
ours_in_processes = in_processes.ours


def test_an_error_comes_out_of_another_process() -> None:
    options: dict[str, Any] = {"parallel": True, "use_processes": True, "max_workers": 1}
    with pytest.raises(BrokenProcessPool):
        in_processes.theirs.migrate_batch([OLD], "City", *HOP, **options)
    with pytest.raises(MigrationError, match="ValueError: Rome"):
        ours_in_processes.migrate_batch([OLD], "City", *HOP, **options)


def test_a_record_must_be_a_dict(both: Both) -> None:
    numbers(both)
    record: Any = 7
    with pytest.raises(pyrmute.MigrationError, match="argument of type 'int' is not iterable"):
        both.theirs.migrate_data(record, "Number", *HOP)
    with pytest.raises(InvalidRecordError, match="a record is int and must be a dict"):
        both.ours.migrate_data(record, "Number", *HOP)


def test_a_record_may_be_a_mapping_or_an_instance(both: Both) -> None:
    class Note(BaseModel):
        text: str

    for version in ("1.0.0", "2.0.0"):
        both.model("Note", version)(Note)
    both.migration("Note", *HOP)(lambda data: {"text": type(data).__name__})
    records: list[Any] = [MappingProxyType({"text": "a"}), Note(text="a")]
    managers: list[Any] = [both.theirs, both.ours]
    found = [[each.migrate_data(r, "Note", *HOP) for r in records] for each in managers]
    assert found == [[{"text": "mappingproxy"}, {"text": "Note"}], [{"text": "dict"}] * 2]


def test_a_step_must_return_a_record(both: Both) -> None:
    both.model("Note", "1.0.0")(type("Note1", (BaseModel,), {}))
    both.model("Note", "2.0.0")(type("Note2", (BaseModel,), {}))
    both.migration("Note", *HOP)(lambda data: data.update(done=True))
    assert both.theirs.migrate_data({}, "Note", *HOP) is None
    with pytest.raises(InvalidRecordError, match="returned NoneType"):
        both.ours.migrate_data({}, "Note", *HOP)


def test_a_missing_step_is_found_before_any_record_is_touched(both: Both) -> None:
    touched: list[Any] = []
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        both.model("Note", version)(type("Note", (BaseModel,), {}))

    @both.migration("Note", *HOP)
    def touch(data: ModelData) -> ModelData:
        touched.append(data)
        return data

    for manager, error in ((both.theirs, pyrmute.MigrationError), (both.ours, MigrationError)):
        touched.clear()
        with pytest.raises(error, match=r"2\.0\.0 → 3\.0\.0\nReason: No migration path found"):
            manager.migrate_batch([{}, {}], "Note", "1.0.0", "3.0.0")
        assert len(touched) == (1 if manager is both.theirs else 0)


def test_hooks_are_not_called_if_there_is_no_plan(both: Both) -> None:
    ours, theirs = MetricsHook(), pyrmute.MetricsHook()
    both.ours.add_hook(ours)
    both.theirs.add_hook(theirs)
    found = both.call("migrate", {}, "Nobody", *HOP)
    assert found[0] == found[1]
    assert (theirs.total_count, theirs.error_count) == (1, 1)
    assert (ours.total_count, ours.error_count) == (0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_registration_during_a_batch_applies_to_the_next(both: Both, stream: bool) -> None:
    both.model("City", "1.0.0")(City1)
    both.model("City", "2.0.0")(City2)
    both.migration("City", *HOP)(lambda city: {**city, "country": "old"})

    def source(manager: Any) -> Any:
        yield OLD
        manager.migration("City", *HOP)(lambda city: {**city, "country": "new"})
        yield OLD

    theirs = [both.theirs.migrate(city, "City", *HOP) for city in source(both.theirs)]
    call = both.ours.migrate_batch_streaming if stream else both.ours.migrate_batch
    ours = call(source(both.ours), "City", *HOP)
    assert [city.country for city in theirs] == ["old", "new"]  # type: ignore[attr-defined]  # a City2
    assert [city.country for city in ours] == ["old", "new" if stream else "old"]  # type: ignore[attr-defined]  # the same


def test_a_hook_cannot_change_records(both: Both) -> None:
    both.model("City", "1.0.0")(City1)
    both.model("City", "2.0.0", backward_compatible=True)(City2)
    for manager, base in ((both.theirs, pyrmute.MigrationHook), (both.ours, MigrationHook)):

        class Filling(base):  # type: ignore[misc, valid-type]  # one for each
            def before_migrate(self, name: str, first: Any, last: Any, data: Any) -> None:
                data["country"] = "?"

        manager.add_hook(Filling())
    assert both.theirs.migrate_data(dict(OLD), "City", *HOP) == NEW
    with pytest.raises(TypeError):
        both.ours.migrate_data(dict(OLD), "City", *HOP)


def test_a_version_is_not_registered_twice(both: Both) -> None:
    both.theirs.model("City", "1.0.0")(City2)
    assert both.theirs.get("City", "1.0.0") is City2
    with pytest.raises(RegistrationError):
        both.ours.model("City", "1.0.0")(City2)


def test_a_step_is_a_plain_function(both: Both) -> None:
    async def asynchronous(data: Any) -> Any:
        return data

    step: Any = asynchronous
    both.theirs.model("City", "1.0.0")(City1)
    both.theirs.migration("City", "1.0.0", "2.0.0")(step)
    with pytest.raises(RegistrationError, match="is asynchronous; register a plain function"):
        both.ours.migration("City", "1.0.0", "2.0.0")(step)


def test_a_target_type_is_a_model(both: Both) -> None:
    both.model("City", "1.0.0")(City1)
    same: Any = ([], "City", "1.0.0", "1.0.0", None)
    assert both.theirs.migrate_batch_as(*same) == []
    with pytest.raises(ConfigurationError, match="target_type must be a class"):
        both.ours.migrate_batch_as(*same)


def test_what_is_registered_is_listed(both: Both) -> None:
    both.model("City", "1.0.0")(City1)
    with pytest.raises(pyrmute.ModelNotFoundError) as theirs:
        both.theirs.get("Town", "1.0.0")
    with pytest.raises(ModelNotFoundError) as ours:
        both.ours.get("Town", "1.0.0")
    assert str(ours.value) == str(theirs.value)
    assert ours.value.__notes__ == ["registered models: City, Cat, Dog"]


def test_a_name_or_a_version_holds_no_control_characters(both: Both) -> None:
    both.theirs.model("City\n", "1.0.0\n")(City1)
    assert both.theirs.get("City\n", "1.0.0") is City1
    with pytest.raises(RegistrationError):
        both.ours.model("City\n", "1.0.0")(City1)
    with pytest.raises(InvalidVersionError):
        both.ours.model("City", "1.0.0\n")(City1)


def test_all_nested_models_are_listed(both: Both) -> None:
    class Owner(BaseModel):
        pet: Cat1 | Dog1
        homes: list[City1] | None

    both.model("Owner", "1.0.0")(Owner)
    assert [info.name for info in both.theirs.get_nested_models("Owner", "1.0.0")] == ["Cat"]
    ours = both.ours.get_nested_models("Owner", "1.0.0")
    assert [info.name for info in ours] == ["Cat", "Dog", "City"]


def test_lone_dict_reaches_a_validator_that_wraps_it(both: Both) -> None:
    """Not a difference: pyrmute's rule for a lone dict is kept, since validators use it."""
    wrap = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
    holder(both, City1, Annotated[list[City2], wrap])
    theirs, ours = held(both, OLD)
    assert theirs == ours == NEW
