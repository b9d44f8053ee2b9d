import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel, ValidationError, model_validator

from pyrmute_tasks import InvalidRecordError, MigrationError, ModelData, ModelManager
from pyrmute_tasks.failures import Stage
from pyrmute_tasks.plans.plan import MigrationPlan
from tests.people import broken_step, invalid, manager, person


def plan() -> MigrationPlan:
    return manager.plan("Person", "1.0.0", "3.0.0")


KINDS: dict[str, Callable[[int], Any]] = {
    "good": person,
    "step 1 fails": lambda index: {"age": index},
    "step 2 fails": broken_step,
    "invalid": invalid,
}


def one_by_one(records: list[Any]) -> tuple[list[str], int | None, type | None]:
    """Return a plain loop's result: outputs, index and type of the first error."""
    outputs = []
    for index, record in enumerate(records):
        try:
            outputs.append(manager.migrate(record, "Person", "1.0.0", "3.0.0").model_dump_json())
        except Exception as error:
            return outputs, index, type(error)
    return outputs, None, None


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=12))
@settings(deadline=None)
def test_chunk_equals_a_plain_loop(kinds: list[str]) -> None:
    records = [KINDS[kind](index) for index, kind in enumerate(kinds)]
    outputs, index, kind = one_by_one(records)

    data, unmigrated = plan().migrate(records, 100)
    models, bad = plan().validate(data, 100)
    failure = bad or unmigrated
    assert [model.model_dump_json() for model in models] == outputs
    assert (failure.index - 100 if failure else None) == index
    assert (type(failure.error) if failure else None) is kind

    block = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    lines, count, failure = plan().migrate_lines(block, 100)
    assert lines.decode().splitlines() == outputs
    assert count == len(outputs)
    assert (failure.index - 100 if failure else None) == index


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not valid JSON: EOF while parsing an object at column 1"),
        (b'{"name": "Secret", }', "not valid JSON: trailing comma at column 20"),
        (b'{"a": 1} {"b": 2}', "not valid JSON: trailing characters at column 10"),
        (b"[1]", "not a JSON object but an array"),
        (b'"Secret"', "not a JSON object but a string"),
        (b"17", "not a JSON object but a number"),
        (b"null", "not a JSON object but null"),
        (b"true", "not a JSON object but a boolean"),
        (b"\xff{}", "not valid JSON: expected value at column 1"),
    ],
)
def test_a_line_that_is_not_an_object_ends_the_chunk_there(line: bytes, message: str) -> None:
    good = json.dumps(person(0)).encode()
    lines, count, failure = plan().migrate_lines(b"\n".join([good, line, good, b""]), 5)
    assert count == 1
    assert lines.endswith(b"}\n")
    assert failure is not None
    assert (failure.index, failure.stage) == (6, Stage.DECODE)
    assert str(failure.error) == message


def test_two_lines_that_are_only_valid_together_are_two_errors() -> None:
    _, count, failure = plan().migrate_lines(b'{"a":[{}\n{}]}\n{},{}\n', 0)
    assert (count, failure.index if failure else None) == (0, 0)


@pytest.mark.parametrize(("last", "passed"), [(json.dumps(person(1)).encode(), 2), (b"{", 1)])
def test_the_last_line_may_have_no_newline(last: bytes, passed: int) -> None:
    block = json.dumps(person(0)).encode() + b"\n" + last
    ended = plan().migrate_lines(block + b"\n", 7)
    lines, count, failure = plan().migrate_lines(memoryview(block), 7)
    assert (lines, count) == ended[:2]
    assert count == lines.count(b"\n") == passed
    assert str(failure) == str(ended[2])


def test_windows_line_ends_and_padding_are_fine() -> None:
    good = json.dumps(person(0)).encode()
    lines, count, failure = plan().migrate_lines(good + b"\r\n  " + good + b" \r\n", 0)
    assert (count, failure) == (2, None)
    assert b"\r" not in lines


@pytest.mark.parametrize("result", [None, [], "text"])
def test_a_step_must_return_a_dict(result: object) -> None:
    local = ModelManager()

    @local.model("M", "1.0.0")
    @local.model("M", "2.0.0")
    class M(BaseModel):
        n: int

    @local.migration("M", "1.0.0", "2.0.0")
    def step(data: ModelData) -> ModelData:
        return data if data["n"] < 2 else result  # type: ignore[return-value]  # on purpose

    records = [{"n": n} for n in range(4)]
    assert len(local.migrate_batch(records[:2], "M", "1.0.0", "2.0.0")) == 2
    with pytest.raises(InvalidRecordError, match="must return a dict") as caught:
        local.migrate_batch(records, "M", "1.0.0", "2.0.0")
    assert caught.value.record_index == 2
    with pytest.raises(InvalidRecordError):
        local.migrate(records[2], "M", "1.0.0", "2.0.0")


def same_version(model: type[BaseModel]) -> ModelManager:
    local = ModelManager()
    local.model("M", "1.0.0")(model)
    return local


def test_validator_raising_another_exception_is_found() -> None:
    class M(BaseModel):
        n: int

        @model_validator(mode="after")
        def check(self) -> "M":
            if self.n == 2:
                raise RuntimeError("not a ValueError")
            return self

    local = same_version(M)
    with pytest.raises(RuntimeError) as caught:
        local.migrate_batch([{"n": n} for n in range(5)], "M", "1.0.0", "1.0.0")
    assert caught.value.record_index == 2  # type: ignore[attr-defined]  # set on any exception


def test_custom_model_validate_is_called_each_time() -> None:
    class M(BaseModel):
        n: int

        @classmethod
        def model_validate(cls, obj: Any, **_: Any) -> "M":
            return cls(n=obj["n"] + 1)

        def model_dump_json(self, **_: Any) -> str:
            return f'{{"mine":{self.n}}}'

    local = same_version(M)
    assert local.migrate_batch([{"n": 1}], "M", "1.0.0", "1.0.0") == [M(n=2)]
    lines, _, _ = local.plan("M", "1.0.0", "1.0.0").migrate_lines(b'{"n": 1}\n')
    assert lines == b'{"mine":2}\n'


def test_a_record_that_cannot_be_written_is_a_failure() -> None:
    class M(BaseModel):
        value: Any

    local = ModelManager()
    local.model("M", "1.0.0")(M)
    local.model("M", "2.0.0")(M)

    @local.migration("M", "1.0.0", "2.0.0")
    def step(data: ModelData) -> ModelData:
        return {"value": object()} if data["value"] == 1 else data

    block = b"".join(b'{"value": %d}\n' % n for n in range(3))
    lines, count, failure = local.plan("M", "1.0.0", "2.0.0").migrate_lines(block)
    assert (lines, count) == (b'{"value":0}\n', 1)
    assert failure is not None
    assert (failure.index, failure.stage) == (1, Stage.ENCODE)


def test_a_root_model_is_wrapped_and_unwrapped() -> None:
    class Tags(RootModel[list[str]]):
        pass

    local = ModelManager()
    local.model("Tags", "1.0.0")(Tags)
    local.model("Tags", "2.0.0")(Tags)

    @local.migration("Tags", "1.0.0", "2.0.0")
    def upper(data: ModelData) -> ModelData:
        return {"root": [tag.upper() for tag in data["root"]]}

    assert local.migrate({"root": ["a"]}, "Tags", "1.0.0", "2.0.0") == Tags(["A"])
    assert local.migrate_batch([{"root": ["a"]}] * 2, "Tags", "1.0.0", "2.0.0") == [Tags(["A"])] * 2


def test_a_direct_step_is_preferred_to_the_chain() -> None:
    local = ModelManager()
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        local.model("M", version)(type("M", (BaseModel,), {"__annotations__": {"at": str}}))
    local.migration("M", "1.0.0", "2.0.0")(lambda _: {"at": "two"})
    local.migration("M", "2.0.0", "3.0.0")(lambda _: {"at": "chain"})
    assert local.migrate_data({}, "M", "1.0.0", "3.0.0") == {"at": "chain"}
    local.migration("M", "1.0.0", "3.0.0")(lambda _: {"at": "direct"})
    assert local.migrate_data({}, "M", "1.0.0", "3.0.0") == {"at": "direct"}
    local.migration("M", "3.0.0", "1.0.0")(lambda _: {"at": "down"})
    assert local.migrate_data({}, "M", "3.0.0", "1.0.0") == {"at": "down"}


def test_records_are_not_changed_by_failing() -> None:
    records = [person(0), {"age": 1}]
    with pytest.raises(MigrationError):
        manager.migrate_batch(records, "Person", "1.0.0", "3.0.0")
    assert records == [person(0), {"age": 1}]


def test_values_of_any_type_pass_through_steps() -> None:
    class M(BaseModel):
        at: dt.datetime

    local = same_version(M)
    with pytest.raises(ValidationError):
        local.migrate({"at": "never"}, "M", "1.0.0", "1.0.0")
    moment = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
    assert local.migrate_data({"at": moment}, "M", "1.0.0", "1.0.0") == {"at": moment}


def test_stop_iteration_of_a_step_is_a_failure() -> None:
    local = ModelManager()
    for version in ("1.0.0", "2.0.0"):
        local.model("M", version)(type("M", (BaseModel,), {"__annotations__": {"n": int}}))

    @local.migration("M", "1.0.0", "2.0.0")
    def step(data: ModelData) -> ModelData:
        return {"n": next(iter(data["numbers"]))}

    records: list[Any] = [{"numbers": [1]}, {"numbers": []}, {"numbers": [3]}]
    with pytest.raises(MigrationError, match="StopIteration") as caught:
        local.migrate_batch(records, "M", "1.0.0", "2.0.0")
    assert caught.value.record_index == 1
    lines, count, failure = local.plan("M", "1.0.0", "2.0.0").migrate_lines(
        b"".join(json.dumps(record).encode() + b"\n" for record in records)
    )
    assert (lines, count) == (b'{"n":1}\n', 1)
    assert failure is not None
    assert failure.index == 1
