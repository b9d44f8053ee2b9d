"""Undocumented behaviour of pydantic that plans, fingerprints and the wire rely on."""

import dataclasses
import enum
import inspect
import warnings
from datetime import timedelta
from typing import Any

import pydantic
import pydantic.networks
import pydantic_core
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo, ModelPrivateAttr
from pydantic_core import PydanticUndefined, TzInfo

from tests.unit.canaries.table import internal

SPEED = "when going through the class costs no more"
FINGERPRINT = "when pydantic describes a model completely, without its documentation"


class Sample(BaseModel):
    model_config = ConfigDict(extra="allow")
    number: int = 1
    _own: int = PrivateAttr(2)

    @field_validator("number", mode="before")
    @classmethod
    def check_number(cls, value: Any) -> Any:
        return value


class Shade(enum.Enum):
    RED = "red"

    @classmethod
    def _missing_(cls, value: object) -> "Shade | None":
        return cls.RED if value else None


# --- running plans ------------------------------------------------------------------------


@internal(
    "pydantic",
    "`__pydantic_validator__`, `__pydantic_serializer__` in a class's dict",
    r"__pydantic_(validator|serializer)__",
    purpose="Generated code validates and writes records without the calls in between.",
    until=SPEED,
)
def check_validator() -> None:
    own = vars(Sample)
    assert own["__pydantic_complete__"] is True
    model = own["__pydantic_validator__"].validate_python({"number": "5"})
    assert type(model) is Sample
    assert model.number == 5
    assert own["__pydantic_serializer__"].to_json(model) == b'{"number":5}'


@internal(
    "pydantic",
    "`__pydantic_complete__` is false until a model's forward references are known",
    r"__pydantic_complete__",
    purpose="Models are rebuilt before their fields are read, and looked up again for each run.",
    until="when pydantic has a public name for it",
)
def check_complete() -> None:
    namespace: dict[str, Any] = {"__annotations__": {"at": "Later"}, "__module__": __name__}
    metaclass: Any = type(BaseModel)
    model: Any = metaclass("Waiting", (BaseModel,), namespace)
    assert model.__pydantic_complete__ is False
    before = vars(model).get("__pydantic_validator__")
    model.model_rebuild(_types_namespace={"Later": int})
    assert vars(model)["__pydantic_complete__"] is True
    assert vars(model)["__pydantic_validator__"] is not before


@internal(
    "pydantic",
    "`BaseModel.model_validate.__func__`",
    r"model_validate\.__func__|model_validate, \"__func__\"",
    purpose="Tells a model with a `model_validate` of its own, which is then called.",
    until=SPEED,
)
def check_model_validate() -> None:
    pydantics: Any = BaseModel.model_validate
    inherited: Any = Sample.model_validate
    assert inherited.__func__ is pydantics.__func__

    class Own(BaseModel):
        @classmethod
        def model_validate(cls, *args: Any, **options: Any) -> Any:
            return super().model_validate(*args, **options)

    own: Any = Own.model_validate
    assert own.__func__ is not pydantics.__func__


@internal(
    "pydantic",
    "text of JSON errors: `… at line 1 column 3`",
    r"at line 1 column",
    purpose="The line's number is removed: it is ours, of a part of the input.",
    until="when the error has the place as attributes",
)
def check_json_text() -> None:
    with pytest.raises(ValueError, match=r" at line 1 column \d+$") as caught:
        pydantic_core.from_json(b'{"secret" 1}')
    assert "secret" not in str(caught.value)


@internal(
    "pydantic",
    "text `Pydantic serializer warnings` (filtered for the worker's process)",
    r"Pydantic serializer warnings",
    purpose="The warning quotes values of records, and workers log warnings.",
    until="when the warning has a class of its own",
)
def check_serializer_warning() -> None:
    unchecked: Any = "secret"
    wrong = Sample.model_construct(number=unchecked)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrong.model_dump_json()
    assert [str(each.message).startswith("Pydantic serializer warnings") for each in caught] == [
        True
    ]


# --- shapes, unions and steps -------------------------------------------------------------


@internal(
    "pydantic",
    "`TypeAdapter.core_schema`: nodes with `type`, `cls`, `function`, `custom_init`, `post_init`…",
    r"adapter\.core_schema",
    purpose="Whether validating a union member calls the user's functions, which may modify the "
    "input: then it is copied.",
    until="when pydantic promises not to modify its input",
)
def check_core_schema() -> None:
    text = str(TypeAdapter(Sample).core_schema)
    assert "'type': 'function-before'" in text
    assert "check_number" in text
    schema: Any = TypeAdapter(Shade).core_schema
    assert (schema["type"], schema["cls"]) == ("enum", Shade)

    class WithInit(BaseModel):
        def __init__(self, **values: Any) -> None:
            super().__init__(**values)

        def model_post_init(self, context: Any, /) -> None:
            return None

    found: Any = TypeAdapter(WithInit).core_schema
    assert found["custom_init"] is True
    assert found["post_init"] == "model_post_init"


@internal(
    "pydantic",
    "`FieldInfo.default_factory_takes_validated_data`",
    r"default_factory_takes_validated_data",
    purpose="Whether a generated step can call a default's factory.",
    until="never: it is public, and missing below 2.10.6",
)
def check_factory() -> None:
    plain, dependent = FieldInfo(default_factory=list), FieldInfo(default_factory=lambda data: data)
    assert not plain.default_factory_takes_validated_data
    assert dependent.default_factory_takes_validated_data


@internal(
    "pydantic",
    "`FieldInfo.metadata`; unset parts are `None` or `PydanticUndefined`",
    r"info\.metadata",
    purpose="Discriminators of fields; constraints, for the fingerprint.",
    until=FINGERPRINT,
)
def check_metadata() -> None:
    info = FieldInfo(gt=3)
    assert [type(each).__name__ for each in info.metadata] == ["Gt"]
    assert info.default is PydanticUndefined
    assert info.alias is None


# --- fingerprints -------------------------------------------------------------------------


@internal(
    "pydantic",
    "`__pydantic_decorators__`: a dataclass of dicts; each entry has `info`",
    r"__pydantic_decorators__",
    purpose="Validators and serializers, in their order, for the fingerprint.",
    until=FINGERPRINT,
)
def check_decorators() -> None:
    decorators: Any = vars(Sample)["__pydantic_decorators__"]
    kinds = [kind.name for kind in dataclasses.fields(decorators)]
    assert "field_validators" in kinds
    found = decorators.field_validators["check_number"]
    assert (tuple(found.info.fields), found.info.mode) == (("number",), "before")


@internal(
    "pydantic",
    "`__private_attributes__`: names with their `ModelPrivateAttr`",
    r"__private_attributes__",
    purpose="Private attributes and their defaults: in fingerprints, and of models in records.",
    until=FINGERPRINT,
)
def check_private() -> None:
    private: Any = Sample.__private_attributes__
    assert list(private) == ["_own"]
    assert type(private["_own"]) is ModelPrivateAttr
    own: Any = private["_own"]
    assert (own.default, own.default_factory) == (2, None)


@internal(
    "pydantic",
    "`TypeAdapter._type`",
    r"adapter\._type\b",
    purpose="The type of an adapter that a step uses, for the fingerprint.",
    until="when the adapter has a public name for it",
)
def check_adapter_type() -> None:
    assert TypeAdapter(list[int])._type == list[int]


@internal(
    "pydantic",
    "names that start with `__pydantic_` in a class's dict are pydantic's",
    r'startswith\("__pydantic_"\)',
    purpose="They are left out of fingerprints, except for the two hooks of users.",
    until=FINGERPRINT,
)
def check_own_names() -> None:
    made = set(vars(Sample)) - set(vars(type("Plain", (), {})))
    ours = {"number", "check_number", "model_config", "__private_attributes__", "_own"}
    left = {name for name in made - ours if not name.startswith("__pydantic_")}
    assert left <= {
        "__abstractmethods__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__class_vars__",
        "__signature__",
        "_abc_impl",
        "__firstlineno__",
        "__static_attributes__",
        "model_post_init",
        "model_fields",
        "model_computed_fields",
    }


@internal(
    "pydantic",
    "classes of pydantic's own have a module `pydantic.…` in which they are found",
    r'startswith\(\("pydantic\.",',
    purpose="Told from generic models that pydantic makes for a user.",
    until=FINGERPRINT,
)
def check_own_classes() -> None:
    for kind in (BaseModel, RootModel):
        module = inspect.getmodule(kind)
        assert kind.__module__.startswith("pydantic.")
        assert kind.__name__ in vars(module)
    made = RootModel[int]
    assert made.__name__ not in vars(inspect.getmodule(RootModel))


# --- the wire -----------------------------------------------------------------------------


@internal(
    "pydantic",
    "`__pydantic_fields_set__`, `__pydantic_extra__`, `__pydantic_private__`: slots of `BaseModel`",
    r"__pydantic_extra__",
    purpose="Models in records are taken apart and built without running their code.",
    until="when pydantic can set a model's state without validation, private attributes included",
)
def check_slots() -> None:
    model = Sample(number=5, more=[1])
    made: Any = object.__new__(Sample)
    made.__dict__.update(model.__dict__)
    for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        vars(BaseModel)[name].__set__(made, getattr(model, name))
    assert made == model
    assert made.model_fields_set == {"number", "more"}
    assert (made.more, made._own) == ([1], 2)


@internal(
    "pydantic",
    "`__pydantic_fields__`",
    r"__pydantic_fields__",
    purpose="A class's fields, for models in records; `model_fields` may be a field of the user's.",
    until="never: it is what `model_fields` returns",
)
def check_fields() -> None:
    assert list(Sample.__pydantic_fields__) == ["number"]
    assert Sample.__pydantic_fields__ == Sample.model_fields


@internal(
    "pydantic",
    "`ValidationError.__reduce__`: title, lines, kind of input, `hide_input`",
    r"error\.__reduce__\(\)",
    purpose="An error arrives at the producer with all its lines.",
    until="when the parts can be read publicly, `hide_input` included",
)
def check_validation_error() -> None:
    with pytest.raises(ValidationError) as caught:
        Sample(number="x")
    reduced: Any = caught.value.__reduce__()
    title, lines, input_type, hide_input = reduced[1]
    assert (title, input_type, hide_input) == ("Sample", "python", False)
    assert (lines[0]["type"], tuple(lines[0]["loc"]), lines[0]["input"]) == (
        "int_parsing",
        ("number",),
        "x",
    )
    assert lines[0]["msg"] == caught.value.errors()[0]["msg"]


@internal(
    "pydantic",
    "`pydantic_core.TzInfo(seconds)`",
    r"TzInfo\(",
    purpose="The time zones of parsed times, in records.",
    until="never: it is public; its argument is not documented",
)
def check_zone() -> None:
    parsed = TypeAdapter(pydantic.AwareDatetime).validate_python("2024-01-01T00:00:00+02:30")
    assert type(parsed.tzinfo) is TzInfo
    assert parsed.tzinfo == TzInfo(9000)
    assert TzInfo(9000).utcoffset(None) == timedelta(seconds=9000)


@internal(
    "pydantic",
    "the base classes of URLs: `AnyUrl.__mro__[1]`, `PostgresDsn.__mro__[1]`",
    r"__mro__\[1\]",
    purpose="Finds the documented URL types among `pydantic.networks.__all__`.",
    until="when the base classes have public names",
)
def check_urls() -> None:
    assert issubclass(pydantic.HttpUrl, pydantic.AnyUrl.__mro__[1])
    assert issubclass(pydantic.KafkaDsn, pydantic.AnyUrl.__mro__[1])
    multi = pydantic.PostgresDsn.__mro__[1]
    assert not issubclass(pydantic.AnyUrl, multi)
    assert multi not in (object, BaseModel)


# --- the standard library -----------------------------------------------------------------


@internal(
    "python",
    "`Enum._member_map_`, `_value2member_map_`, `_name_`, `_value_`, `Flag._missing_`",
    r"_member_map_|_value2member_map_",
    purpose="Members in records are found without running the user's `_missing_`.",
    until="never: pickle relies on most of it",
)
def check_enum() -> None:
    class Right(enum.Flag):
        READ = 1
        WRITE = 2

    flags: Any = Right
    assert flags._member_map_["READ"] is Right.READ
    assert flags._value2member_map_[2] is Right.WRITE
    assert (Right.READ._name_, Right.READ._value_) == ("READ", 1)
    missing: Any = vars(enum.Flag)["_missing_"].__func__
    assert flags._missing_.__func__ is missing
    assert missing(Right, 3) is Right.READ | Right.WRITE
    shades: Any = Shade
    base: Any = enum.Enum
    assert shades._missing_.__func__ is not base._missing_.__func__
