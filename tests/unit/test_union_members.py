"""Choosing the member of a union for a value, with validators of any habit."""

import copy
import enum
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    RootModel,
    Tag,
    TypeAdapter,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticOmit, PydanticUseDefault

from pyrmute_tasks import MigrationError, ModelManager
from pyrmute_tasks.pydantic_internals import calls_users_code

HOP = ("Holder", "1.0.0", "2.0.0")


class Cat2(BaseModel):
    lives: int
    mark: str = "cat"


class Dog2(BaseModel):
    legs: int
    mark: str = "dog"


def holder(old: Any, new: Any, *members: tuple[str, type[BaseModel], type[BaseModel]]) -> Any:
    """Return a manager with a field that was `old` and becomes `new`, and generated steps."""
    manager = ModelManager()
    for name, first, last in members:
        manager.model(name, "1.0.0")(first)
        manager.model(name, "2.0.0", backward_compatible=True)(last)

    @manager.model("Holder", "1.0.0")
    class Holder1(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        pet: old

    @manager.model("Holder", "2.0.0", backward_compatible=True)
    class Holder2(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        pet: new

    return manager


def migrated(manager: Any, pet: Any) -> Any:
    """Migrate a pet; require that it stays unchanged."""
    record = {"pet": pet}
    before = repr(record)
    result = manager.migrate_data(record, *HOP)["pet"]
    assert repr(record) == before
    assert record["pet"] is pet
    return result


class Popping(BaseModel):
    lives: int

    @model_validator(mode="before")
    @classmethod
    def pop(cls, data: Any) -> Any:
        data["lives"] = data.pop("lives") + 1
        data["note"] = "seen"
        return data


class Dog1(BaseModel):
    legs: int


def test_before_validator_of_a_union_modifies_no_record() -> None:
    manager = holder(Popping | Dog1, Cat2 | Dog2, ("Cat", Popping, Cat2), ("Dog", Dog1, Dog2))
    assert migrated(manager, {"lives": 9}) == {"lives": 9, "mark": "cat"}


def append(value: Any) -> Any:
    value.append("x")
    return value


def append_around(value: Any, handler: Any) -> Any:
    value.append("x")
    return handler(value)


class Missing(enum.Enum):
    A = 1

    @classmethod
    def _missing_(cls, value: object) -> "Missing":
        value.append("x")  # type: ignore[attr-defined]  # a list, in this test
        return cls.A


class Initiated(BaseModel):
    inner: Any

    def __init__(self, **data: Any) -> None:
        data["inner"].append("x")
        super().__init__(**data)


class PostInit(BaseModel):
    inner: Any

    def model_post_init(self, _: Any) -> None:
        self.inner.append("x")


class Validated(BaseModel):
    inner: Any

    @field_validator("inner", mode="plain")
    @classmethod
    def append(cls, value: Any) -> Any:
        return append(value)


class Finished(BaseModel):
    inner: Any

    @model_validator(mode="after")
    def append(self) -> "Finished":
        self.inner.append("x")
        return self


class FromOthers(BaseModel):
    inner: Any
    other: Any = Field(default_factory=lambda data: append(data["inner"]))


def made(kind: Any) -> type[BaseModel]:
    class Made(BaseModel):
        inner: kind

    return Made


class Deep1(BaseModel):
    inner: Any


class Deep2(BaseModel):
    inner: Any
    mark: str = "deep"


@pytest.mark.parametrize(
    "model",
    [
        Initiated,
        PostInit,
        Validated,
        Finished,
        FromOthers,
        made(Annotated[Any, BeforeValidator(append)]),
        made(Annotated[Any, AfterValidator(append)]),
        made(Annotated[Any, WrapValidator(append_around)]),
        made(Missing),
        made(made(Annotated[Any, AfterValidator(append)]) | list[Annotated[Any, str]]),
    ],
)
def test_nothing_a_model_runs_modifies_the_record(model: type[BaseModel]) -> None:
    manager = holder(model | Dog1, Deep2 | Dog2, ("Deep", model, Deep2), ("Dog", Dog1, Dog2))
    assert migrated(manager, {"inner": [1]}) == {"inner": [1], "mark": "deep"}


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        Odd(),
        StopIteration(3),
        PydanticOmit(),
        PydanticUseDefault(),
        PydanticCustomError("odd", "odd"),
        ExceptionGroup("two", [ValueError(), KeyError()]),
        RecursionError(),
    ],
)
def test_raising_validator_rules_out_a_member(error: Exception) -> None:
    def fail(value: Any) -> Any:
        raise error

    class Failing(BaseModel):
        legs: Annotated[int, BeforeValidator(fail)]

    manager = holder(Failing | Dog1, Cat2 | Dog2, ("Cat", Failing, Cat2), ("Dog", Dog1, Dog2))
    assert migrated(manager, {"legs": 4})["mark"] in ("cat", "dog")
    assert migrated(manager, {"legs": 4, "lives": 1})["legs"] == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_exits_and_interrupts_are_raised(error: BaseException) -> None:
    def fail(_: Any) -> Any:
        raise error

    class Failing(BaseModel):
        legs: Annotated[int, BeforeValidator(fail)]

    manager = holder(Failing | Dog1, Cat2 | Dog2, ("Cat", Failing, Cat2), ("Dog", Dog1, Dog2))
    with pytest.raises(type(error)):
        migrated(manager, {"legs": 4})


def test_memory_error_is_raised() -> None:
    def fail(_: Any) -> Any:
        raise MemoryError

    class Failing(BaseModel):
        legs: Annotated[int, BeforeValidator(fail)]

    manager = holder(Failing | Dog1, Cat2 | Dog2, ("Cat", Failing, Cat2), ("Dog", Dog1, Dog2))
    with pytest.raises(MigrationError) as caught:
        migrated(manager, {"legs": 4})
    assert type(caught.value.__cause__) is MemoryError


# --- discriminating functions -------------------------------------------------------------


def popping(value: Any) -> Any:
    return value.pop("kind")


def popping_deep(value: Any) -> Any:
    return value["inner"].pop() if "inner" in value else "dog"


def unhashable(_: Any) -> Any:
    return []


def tagged(function: Callable[[Any], Any]) -> Any:
    class Kitty(BaseModel):
        kind: str = "cat"

    old = Annotated[Dog1, Tag("dog")] | Annotated[Kitty, Tag("cat")]
    new = Annotated[Dog2, Tag("dog")] | Annotated[Cat2, Tag("cat")]
    chosen = Discriminator(function)
    return holder(
        Annotated[old, chosen], Annotated[new, chosen], ("Cat", Kitty, Cat2), ("Dog", Dog1, Dog2)
    )


def test_a_discriminating_function_modifies_no_record() -> None:
    assert migrated(tagged(popping), {"kind": "cat"}) == {"kind": "cat", "mark": "cat"}
    found = migrated(tagged(popping_deep), {"inner": [1, "cat"]})
    assert found == {"inner": [1, "cat"], "mark": "cat"}


def test_a_discriminating_function_that_raises_finds_the_first_member() -> None:
    assert migrated(tagged(popping), {"legs": 4}) == {"legs": 4, "mark": "dog"}


def test_unhashable_tag_leaves_the_value() -> None:
    assert migrated(tagged(unhashable), {"legs": 4}) == {"legs": 4}


# --- copying only where it is needed ------------------------------------------------------


def test_nothing_is_copied_without_user_functions() -> None:
    class Uncopyable(dict[str, Any]):
        def __deepcopy__(self, _: Any) -> Any:
            raise AssertionError("copied")

    class Cat1(BaseModel):
        lives: int

    plain = TypeAdapter(Cat1 | Dog1 | list[dict[str, float]] | Literal["a"])
    assert not calls_users_code(plain)
    manager = holder(Cat1 | Dog1, Cat2 | Dog2, ("Cat", Cat1, Cat2), ("Dog", Dog1, Dog2))
    assert migrated(manager, Uncopyable(legs=4)) == {"legs": 4, "mark": "dog"}


def test_uncopyable_value_is_validated_as_it_is() -> None:
    class Counting(BaseModel):
        inner: Annotated[Any, AfterValidator(lambda value: value)]

    manager = holder(Dog1 | Counting, Dog2 | Deep2, ("Dog", Dog1, Dog2), ("Deep", Counting, Deep2))
    items = iter([1, 2])
    assert migrated(manager, {"inner": items}) == {"inner": items, "mark": "deep"}
    assert list(items) == [1, 2]


class Stranger:
    """A class unknown to pydantic."""


def test_a_union_may_hold_a_class_that_its_model_allows() -> None:
    class Cat1(BaseModel):
        lives: int

    old, new = Cat1 | Dog1 | Stranger, Cat2 | Dog2 | Stranger
    manager = holder(old, new, ("Cat", Cat1, Cat2), ("Dog", Dog1, Dog2))
    assert migrated(manager, {"legs": 4}) == {"legs": 4, "mark": "dog"}


def test_a_root_model_of_a_union_is_validated_with_its_own_configuration() -> None:
    class Cat1(BaseModel):
        lives: int

    class Old(RootModel[Cat1 | Dog1]):
        pass

    class New(RootModel[Cat2 | Dog2]):
        pass

    manager = holder(Old, New, ("Cat", Cat1, Cat2), ("Dog", Dog1, Dog2))
    assert migrated(manager, {"legs": 4}) == {"legs": 4, "mark": "dog"}


def test_model_with_private_attributes_is_a_union_member() -> None:
    class Private(BaseModel):
        lives: int
        _seen: list[int] = PrivateAttr(default_factory=list)

    manager = holder(Dog1 | Private, Dog2 | Cat2, ("Dog", Dog1, Dog2), ("Cat", Private, Cat2))
    assert migrated(manager, {"lives": 4}) == {"lives": 4, "mark": "cat"}


# --- no generated step modifies what it gets, or shares what it makes ---------------------


def mutable_parts(value: Any) -> Iterator[Any]:
    """Return every dict, list and object in a value."""
    if isinstance(value, BaseModel):
        yield value
        yield from mutable_parts(vars(value))
    elif isinstance(value, dict):
        yield value
        for item in value.values():
            yield from mutable_parts(item)
    elif isinstance(value, (list, tuple, set)):
        if not isinstance(value, tuple):
            yield value
        for item in value:
            yield from mutable_parts(item)


class Meddling1(BaseModel):
    inner: Any = None
    note: list[Any] = []

    @model_validator(mode="before")
    @classmethod
    def meddle(cls, data: Any) -> Any:
        if isinstance(data, dict) and "legs" not in data:
            data["met"] = True
            for part in list(mutable_parts(list(data.values()))):
                part.clear() if isinstance(part, (dict, list)) else None
            return data
        raise KeyError("legs")


class Meddling2(BaseModel):
    inner: Any = None
    note: list[Any] = []
    made: list[Any] = [[1], {"k": [2]}]
    built: Any = Dog2(legs=3)
    factory: dict[str, Any] = Field(default_factory=lambda: {"k": [1]})


# What stands in their brackets below is chosen at run time.
LIST: Any = list
DICT: Any = dict
TUPLE: Any = tuple
PLACES: dict[str, Callable[[Any], Any]] = {
    "itself": lambda kind: kind,
    "optional": lambda kind: kind | None,
    "list": lambda kind: LIST[kind],
    "values": lambda kind: DICT[str, kind],
    "deep": lambda kind: DICT[str, LIST[kind | None]],
    "or list": lambda kind: kind | LIST[kind],
    "slots": lambda kind: TUPLE[kind, int],
    "or values": lambda kind: kind | DICT[str, list[int]],
}
LEAVES = st.sampled_from([0, 1, None, "x", 2.5, True])
INNER = st.recursive(
    LEAVES,
    lambda some: st.one_of(
        st.lists(some, max_size=3),
        st.dictionaries(st.sampled_from(["legs", "inner", "note", "made"]), some, max_size=3),
        st.tuples(some, some),
    ),
    max_leaves=8,
)
PETS = st.one_of(
    st.fixed_dictionaries({"legs": LEAVES}, optional={"inner": INNER}),
    st.fixed_dictionaries({}, optional={"inner": INNER, "note": st.lists(INNER, max_size=2)}),
    INNER,
)
VALUES = st.one_of(
    PETS,
    st.lists(PETS, max_size=3),
    st.dictionaries(st.sampled_from("ab"), PETS, max_size=2),
    st.dictionaries(st.sampled_from("ab"), st.lists(PETS, max_size=2), max_size=2),
    st.tuples(PETS, LEAVES),
)


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(place=st.sampled_from(sorted(PLACES)), meddler=st.booleans(), value=VALUES)
def test_generated_step_keeps_its_record(place: str, meddler: bool, value: Any) -> None:
    shape = PLACES[place]
    first = Meddling1 if meddler else Deep1
    manager = holder(
        shape(Dog1 | first), shape(Dog2 | Meddling2), ("Dog", Dog1, Dog2), ("It", first, Meddling2)
    )
    record = {"pet": value, "beside": [value]}
    before = copy.deepcopy(record)
    results = [manager.migrate_data(record, *HOP) for _ in range(2)]
    assert repr(record) == repr(before)
    assert repr(results[0]) == repr(results[1])
    # What a step made is its record's alone; only what the record had can be in both.
    given_parts = {id(part) for part in mutable_parts(record)}
    made = [{id(part) for part in mutable_parts(result)} - given_parts for result in results]
    assert not made[0] & made[1]
