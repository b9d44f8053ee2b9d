import asyncio
import json
import pickle
import socket
from collections.abc import Callable
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import pyrmute
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from pyrmute_tasks import MigrationHook, ModelManager
from pyrmute_tasks.errors import (
    InvalidRecordError,
    MigrationError,
    ModelNotFoundError,
    RemoteError,
)
from pyrmute_tasks.failures import (
    RecordFailure,
    Stage,
    attributes_of,
    causes_of,
    describe_safely,
)
from pyrmute_tasks.plans.steps import Step
from pyrmute_tasks.versions import ModelVersion
from pyrmute_tasks.wire.frames import pack, unpack
from pyrmute_tasks.wire.remote_failures import failure_from_wire, failure_to_wire
from tests.conftest import version_info


class Inner(BaseModel):
    size: int


class Item(BaseModel):
    count: int
    kind: Literal["a", "b"]
    inner: Inner
    label: str = ""

    @field_validator("label")
    @classmethod
    def check(cls, label: str) -> str:
        if label == "bad":
            raise ValueError("bad {label}")
        if label == "custom":
            raise PydanticCustomError("odd_label", "odd {what}", {"what": "thing"})
        return label


BAD_ITEMS: list[Any] = [
    {"count": "x", "kind": "c", "inner": {"size": "y"}, "label": "bad"},
    {"count": 1, "kind": "a", "inner": {}, "label": "custom"},
    {"count": 1},
    7,
]


def travel(failure: RecordFailure) -> RecordFailure:
    return failure_from_wire(unpack(pack(failure_to_wire(failure), lossy=True)))


def invalid(item: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Item.model_validate(item)
    return caught.value


@pytest.mark.parametrize("item", BAD_ITEMS)
def test_a_validation_error_travels_with_the_same_errors(item: object) -> None:
    error = invalid(item)
    back = travel(RecordFailure.of(1, Stage.VALIDATE, "", error)).error
    assert isinstance(back, ValidationError)
    assert repr(back.errors()) == repr(error.errors())
    assert str(back) == str(error)
    assert back.title == "Item"


class Bad(ValueError):
    def __str__(self) -> str:
        return f"<{self.args[0]}>"


class Guarded(BaseModel):
    model_config = ConfigDict(
        hide_input_in_errors=True, title="A title", validation_error_cause=True
    )
    count: int
    label: str = ""

    @field_validator("label")
    @classmethod
    def check(cls, label: str) -> str:
        if label == "known":
            raise PydanticKnownError("greater_than", {"gt": 5})
        if label == "custom":
            context = {"a": Stage.STEP, "b": Decimal(1), "m": "m"}
            raise PydanticCustomError("value_error", "of its own: {a} {m}", context)
        if label == "braces":
            raise PydanticCustomError("value_error", "{a} {m}", {"a": "A", "m": "{a}"})
        if label == "local":

            class Local(ValueError):
                pass

            raise Local("of a local class")
        raise Bad(label)


BRACES = pytest.param(
    "braces",
    marks=pytest.mark.skipif(
        version_info("pydantic") < (2, 14, 2), reason="it tells no templates before 2.14.2"
    ),
)


@pytest.mark.parametrize("label", ["bad", "known", "custom", BRACES])
@pytest.mark.parametrize("count", ["x", 1])
def test_validation_error_keeps_its_models_settings(label: str, count: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Guarded.model_validate({"count": count, "label": label})
    error, back = caught.value, travel(RecordFailure.of(1, Stage.VALIDATE, "", caught.value)).error
    assert isinstance(back, ValidationError)
    assert (str(back), back.title) == (str(error), "A title")
    assert "input_value" not in str(back)
    assert repr(back.errors()) == repr(error.errors())
    assert back.json(include_context=label != "custom") == error.json(
        include_context=label != "custom"
    )
    assert repr(back.__cause__) == repr(error.__cause__)
    if isinstance(back.__cause__, ExceptionGroup):
        assert back.__cause__.exceptions[0] is back.errors()[-1]["ctx"]["error"]


def test_a_validators_error_of_an_unknown_class_keeps_its_text() -> None:
    with pytest.raises(ValidationError) as caught:
        Guarded.model_validate({"count": 1, "label": "local"})
    back = travel(RecordFailure.of(1, Stage.VALIDATE, "", caught.value)).error
    assert isinstance(back, ValidationError)
    assert str(back) == str(caught.value)
    assert isinstance(back.errors()[0]["ctx"]["error"], RemoteError)


def caught_in_a_step(cause: Exception) -> MigrationError:
    def step() -> None:
        raise cause

    try:
        try:
            step()
        except Exception as error:
            raise MigrationError("User", "1.0.0", "2.0.0", f"it raised {error}") from error
    except MigrationError as error:
        return error
    raise AssertionError("it did not raise")


def test_a_migration_error_travels_with_attributes_message_and_cause() -> None:
    error = caught_in_a_step(KeyError("name"))
    failure = RecordFailure.of(5, Stage.STEP, "1.0.0 → 2.0.0", error)
    assert failure.raised_at.startswith("test_failures.py:")
    assert failure.raised_at.endswith(" in step")
    back = travel(failure)
    assert type(back.error) is MigrationError
    assert str(back.error) == str(error)
    assert (back.error.name, back.error.from_version) == ("User", "1.0.0")
    assert isinstance(back.error.__cause__, KeyError)
    assert back.error.__cause__.args == ("name",)
    assert back.raised_at == failure.raised_at


class Strict(Exception):
    def __init__(self, one: str, *, two: str) -> None:
        super().__init__(one)
        self.two = two


def test_loaded_class_is_rebuilt_without_calling_it() -> None:
    back = travel(RecordFailure.of(0, Stage.STEP, "", Strict("a", two="b"))).error
    assert isinstance(back, Strict)
    assert (back.args, back.two) == (("a",), "b")


def test_unknown_class_becomes_a_remote_error() -> None:
    class Local(Exception):
        pass

    back = travel(RecordFailure.of(0, Stage.STEP, "", Local("what happened"))).error
    assert isinstance(back, RemoteError)
    assert "Local" in back.type_name
    assert back.message == "what happened"


def raised(do: Callable[[], object]) -> Exception:
    try:
        do()
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


@pytest.mark.parametrize(
    "do",
    [
        lambda: "é".encode("ascii"),
        b"\xff".decode,
        lambda: Decimal("x"),
        Path("/no/such/file").read_text,
        lambda: dict[str, int]()["name"],
        lambda: int("x"),
        lambda: 1 / 0,
        lambda: None.name,  # type: ignore[attr-defined]  # it is to raise
        lambda: json.loads("{"),
        lambda: date(2024, 2, 30),
        lambda: socket.create_connection(("127.0.0.1", 0)),
    ],
)
def test_builtin_exceptions_round_trip(do: Callable[[], object]) -> None:
    error = raised(do)
    back = travel(RecordFailure.of(0, Stage.STEP, "", error)).error
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert repr(back) == repr(error) or type(error) is InvalidOperation


class Demanding(Exception):
    def __new__(cls, one: str, two: dict[str, str]) -> "Demanding":
        return super().__new__(cls, one, two)


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Leaving(BaseException):
    pass


class Fixed(Exception):
    __slots__ = ("worker",)

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("read only")

    def add_note(self, note: str, /) -> None:
        raise TypeError("no notes")


class Sealed(Exception):
    @property
    def __dict__(self) -> dict[str, object]:  # type: ignore[override]  # it is to be odd
        raise TypeError("nothing to see")


class Forgetful(Exception):
    def __init__(self, things: list[str]) -> None:
        super().__init__()
        self.things = things

    def __str__(self) -> str:
        return f"the things are {self.things}"


class Countable(Exception):
    def __init__(self, things: list[str]) -> None:
        super().__init__("; ".join(things))
        self.things = things

    def __len__(self) -> int:
        return len(self.things)


class Remote(OSError):
    def __init__(self, number: int, text: str, host: str) -> None:
        super().__init__(number, text, host)
        self.host = host


@pytest.mark.parametrize("error", [Countable([]), Countable(["a", "b"]), Remote(2, "text", "h")])
def test_unusual_exception_classes_round_trip(error: Exception) -> None:
    back = travel(RecordFailure.of(0, Stage.STEP, "", error)).error
    assert type(back) is type(error)
    assert str(back) == str(error)


class Holding(Exception):
    def __str__(self) -> str:
        return f"held by {self.holder!r}"[:8]

    def __init__(self, holder: object) -> None:
        super().__init__(holder, "x")
        self.holder = holder


@pytest.mark.parametrize(
    "error",
    [
        Demanding("a", {"b": "c"}),
        Forgetful(["key"]),
        RuntimeError(ValueError("inner"), {1: (2, Decimal(3))}),
        ImportError("no", name="a.b", path="/p"),
        StopIteration(4),
        PydanticCustomError("odd", "odd {what}", {"what": "thing"}),
    ],
)
def test_arguments_and_attributes_round_trip(error: Exception) -> None:
    back = travel(RecordFailure.of(0, Stage.STEP, "", error)).error
    assert type(back) is type(error)
    assert (repr(back), str(back)) == (repr(error), str(error))
    assert attributes_of(back) == attributes_of(error)


def test_unsupported_arguments_leave_the_text() -> None:
    error = Holding(object())
    back = travel(RecordFailure.of(0, Stage.STEP, "", error)).error
    assert isinstance(back, RemoteError)
    assert back.message == "held by "


def test_exception_groups_round_trip() -> None:
    shared = ValueError("one")
    inner = BaseExceptionGroup("inner", [shared, SystemExit(2)])
    error = BaseExceptionGroup("outer", [KeyError("k"), inner])
    error.__cause__ = shared
    back = travel(RecordFailure.of(0, Stage.STEP, "", error)).error
    assert isinstance(back, BaseExceptionGroup)
    assert repr(back) == repr(error)
    assert back.exceptions[1].exceptions[0] is back.__cause__


def test_malformed_notes_are_tolerated() -> None:
    error = ValueError("x")
    error.__notes__ = 5  # type: ignore[assignment]  # somebody may
    back = travel(RecordFailure.of(0, Stage.STEP, "", error)).error
    assert isinstance(back, ValueError)


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "builtins:int", "asyncio:run"])
def test_only_exceptions_are_made_from_a_name(name: str) -> None:
    wire = failure_to_wire(RecordFailure.of(0, Stage.STEP, "", ValueError("echo")))
    wire["errors"][0]["type"] = name
    assert isinstance(failure_from_wire(wire).error, RemoteError)


def test_raised_exception_has_its_record_index() -> None:
    error = ValueError("x")
    failure = RecordFailure(7, Stage.DECODE, "", error, "f.py:1 in f", "in.jsonl, line 9")
    assert failure.exception() is error
    assert failure.exception().__notes__ == ["record 7 (in.jsonl, line 9)"]
    assert error.record_index == 7  # type: ignore[attr-defined]  # set by exception()


@pytest.mark.parametrize(
    "error",
    [
        ModelNotFoundError("User", "1.0.0"),
        caught_in_a_step(ValueError("x")),
        InvalidRecordError("not valid JSON"),
        RemoteError("a.B", "text"),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    RecordFailure(3, Stage.STEP, "", error).exception()
    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert back.__notes__ == ["record 3"]


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit("x"),
        asyncio.CancelledError("stop"),
        Speechless("x"),
        Leaving("bye"),
    ],
)
def test_exits_from_steps_round_trip(error: BaseException) -> None:
    back = travel(RecordFailure.of(4, Stage.STEP, "", error))
    assert type(back.error) is type(error)
    assert back.error.args == error.args
    assert back.exception().record_index == 4  # type: ignore[attr-defined]  # set by exception()


def test_unknown_base_exception_becomes_a_remote_error() -> None:
    class Local(BaseException):
        pass

    back = travel(RecordFailure.of(0, Stage.STEP, "", Local("what happened"))).error
    assert isinstance(back, RemoteError)


@pytest.mark.parametrize("error", [Fixed("x"), Sealed("x")])
def test_exception_without_attributes_keeps_its_failure(error: Exception) -> None:
    attributes_of(error)["__notes__"] = 5  # somebody may
    failure = travel(RecordFailure.of(4, Stage.STEP, "", error))
    assert type(failure.exception()) is type(error)
    assert attributes_of(failure.error)["record_index"] == 4


def from_itself() -> Exception:
    error = ValueError("round")
    try:
        raise error from error
    except ValueError:
        return error


def from_each_other() -> Exception:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first


@pytest.mark.parametrize(("make", "length"), [(from_itself, 1), (from_each_other, 2)])
def test_circular_causes_round_trip(make: Callable[[], Exception], length: int) -> None:
    outer = MigrationError("User", "1.0.0", "2.0.0", "x")
    outer.__cause__ = make()
    back = travel(RecordFailure.of(0, Stage.STEP, "", outer)).error
    causes = causes_of(back)
    assert list(map(type, causes)) == list(map(type, causes_of(outer)))
    assert len(causes) == 1 + length
    assert causes[-1].__cause__ is causes[1]


class Leaver(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")


@pytest.mark.parametrize("kind", [Speechless, Leaver])
def test_a_step_whose_exception_has_no_text_fails_as_in_pyrmute(kind: type[Exception]) -> None:
    theirs = pyrmute.ModelManager()

    @theirs.migration("User", "1.0.0", "2.0.0")
    def step(_: Any) -> Any:
        raise kind("x")

    for version in ("1.0.0", "2.0.0"):
        theirs.model("User", version)(Inner)
    expected = BaseException()
    try:
        theirs.migrate_data({}, "User", "1.0.0", "2.0.0")
    except BaseException as raised:
        expected = raised
    error = BaseException()
    step_ = Step(ModelVersion(1, 0, 0), ModelVersion(2, 0, 0), step)
    try:
        try:
            step({})
        except Exception as cause:
            raise step_.error("User", cause)  # noqa: B904  # it has its cause already
    except BaseException as raised:
        error = raised
    assert (type(error).__name__, error.args) == (type(expected).__name__, expected.args)
    assert repr(error.__cause__) == repr(expected.__cause__)
    inner = (error.__cause__ or error).__context__
    assert type(inner) is kind
    back = travel(RecordFailure.of(6, Stage.STEP, "", error)).exception()
    assert (type(back), back.args) == (type(error), error.args)
    assert back.record_index == 6  # type: ignore[attr-defined]  # set by exception()


SECRET = "Secret"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            caught_in_a_step(ValueError(SECRET)),
            "in.jsonl, line 9 (record 7): step User 1.0.0 → 2.0.0 raised ValueError",
        ),
        (
            invalid({"count": SECRET, "kind": "a", "inner": {"size": 1}}),
            "in.jsonl, line 9 (record 7): the migrated record is not a valid Item "
            "(count: int_parsing)",
        ),
        (
            InvalidRecordError("not valid JSON"),
            "in.jsonl, line 9 (record 7): not valid JSON",
        ),
        (RuntimeError(SECRET), "in.jsonl, line 9 (record 7): RuntimeError"),
    ],
)
def test_description_omits_record_contents(error: Exception, expected: str) -> None:
    failure = RecordFailure(7, Stage.STEP, "", error, "", "in.jsonl, line 9")
    text = describe_safely(failure.exception())
    assert text == expected
    assert SECRET not in text


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("frozen")


class Holder(Exception):
    __slots__ = ("code", "itself", "nothing")

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code, self.itself = code, self


def test_slots_round_trip_also_with_a_self_reference() -> None:
    back = travel(RecordFailure.of(0, Stage.STEP, "", Holder(3))).error
    assert isinstance(back, Holder)
    assert back.code == 3
    assert back.itself is back
    assert not hasattr(back, "nothing")


def test_error_that_is_its_own_argument_is_sent_as_text() -> None:
    error = Holder(4)
    error.args = (error, 4)
    error.args = (ValueError(error), 4)
    back = travel(RecordFailure.of(0, Stage.STEP, "", error)).error
    assert type(back) in (Holder, RemoteError)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("observe", [False, True])
def test_an_error_that_refuses_attributes_is_raised_itself(stream: bool, observe: bool) -> None:
    class Strict(Inner):
        @classmethod
        def model_validate(cls, *_: Any, **__: Any) -> Any:
            raise Frozen("x")

    manager = ModelManager()
    manager.model("Strict", "1.0.0")(Inner)
    manager.model("Strict", "2.0.0", backward_compatible=True)(Strict)
    if observe:
        manager.add_hook(MigrationHook())
    call = manager.migrate_batch_streaming if stream else manager.migrate_batch
    with pytest.raises(Frozen) as caught:
        list(call([{}], "Strict", "1.0.0", "2.0.0"))
    assert caught.value.record_index == 0  # type: ignore[attr-defined]  # set by exception()


def test_a_source_may_raise_an_error_that_refuses_attributes() -> None:
    def source() -> Any:
        yield {}
        raise Frozen("x")

    manager = ModelManager()
    manager.model("Inner", "1.0.0")(Inner)
    for call in (manager.migrate_batch_data, manager.migrate_batch_data_streaming):
        with pytest.raises(Frozen):
            list(call(source(), "Inner", "1.0.0", "1.0.0"))
