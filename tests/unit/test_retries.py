"""Retries of steps: which failures, how often, and after which waits."""

from typing import Any

import pytest

from pyrmute_tasks import ConfigurationError, MigrationError, ModelData, ModelManager, Retry
from tests.people import PersonV1, PersonV2, PersonV3

AWAY = Retry(on=(ConnectionError,), attempts=4, first_wait_s=1.0, max_wait_s=3.0)


class Service:
    """A service that fails some times and then answers; records its calls."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.asked: list[ModelData] = []
        self.waits: list[float] = []

    def step(self, record: ModelData) -> ModelData:
        self.asked.append(dict(record))
        record["half"] = "done"  # a failing step may leave its input changed
        if self.errors:
            raise self.errors.pop(0)
        return record


def retried(service: Service, retry: Retry = AWAY) -> Any:
    return retry.wrap(service.step, service.waits.append)


def test_a_step_runs_until_it_succeeds() -> None:
    service = Service([ConnectionError(), ConnectionResetError()])
    assert retried(service)({"a": 1}) == {"a": 1, "half": "done"}
    assert len(service.asked) == 3


def test_every_retry_gets_the_original_record() -> None:
    service = Service([ConnectionError(), ConnectionError()])
    retried(service)({"a": 1})
    assert service.asked == [{"a": 1}] * 3


def test_the_first_try_gets_the_record_itself() -> None:
    sentinel = object()
    seen: list[ModelData] = []

    def see(record: ModelData) -> ModelData:
        seen.append(record)
        return record

    AWAY.wrap(see)(record := {"it": sentinel})
    assert seen[0] is record
    assert seen[0]["it"] is sentinel


def test_uncopyable_record_is_retried_as_it_is() -> None:
    service = Service([ConnectionError()])
    result = retried(service)({"items": (number for number in range(2))})
    assert list(result["items"]) == [0, 1]
    assert len(service.asked) == 2


def test_the_last_error_is_raised_after_all_attempts() -> None:
    errors = [ConnectionError(str(number)) for number in range(9)]
    service = Service(list(errors))
    with pytest.raises(ConnectionError) as caught:
        retried(service)({})
    assert caught.value is errors[3]
    assert len(service.asked) == 4


def test_other_errors_are_final() -> None:
    service = Service([KeyError("x")])
    with pytest.raises(KeyError):
        retried(service)({})
    assert len(service.asked) == 1
    assert service.waits == []


def test_retry_considers_causes() -> None:
    error = MigrationError("Inner", "1.0.0", "2.0.0")
    error.__cause__ = TimeoutError()
    service = Service([error])
    assert retried(service, Retry(on=(TimeoutError,)))({}) == {"half": "done"}


def test_circular_causes_are_examined_once() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    calls: list[int] = []

    def step(record: ModelData) -> ModelData:
        calls.append(1)
        raise first

    for kind, tries in ((KeyError, 4), (OSError, 1)):
        calls.clear()
        with pytest.raises(ValueError, match="first"):
            Retry(on=(kind,)).wrap(step, lambda _: None)({})
        assert len(calls) == tries


def test_waits_double_up_to_the_limit_with_jitter() -> None:
    many = Retry(on=(ConnectionError,), attempts=6, first_wait_s=1.0, max_wait_s=3.0)
    for _ in range(50):
        service = Service([ConnectionError() for _ in range(5)])
        retried(service, many)({})
        for wait_s, longest in zip(service.waits, [1.0, 2.0, 3.0, 3.0, 3.0], strict=True):
            assert longest / 2 <= wait_s <= longest


def test_classes_travel_as_names() -> None:
    sent = Retry(on=(ConnectionError, "elsewhere:Away"), attempts=2, first_wait_s=0.0)
    rebuilt = Retry.from_wire(sent.to_wire())
    assert rebuilt.names == {"builtins:ConnectionError", "elsewhere:Away"}
    assert rebuilt.names == sent.names
    service = Service([ConnectionRefusedError()])
    retried(service, rebuilt)({})
    assert len(service.asked) == 2


def test_neighbours_are_not_retried() -> None:
    manager = ModelManager()
    for version, model in (("1.0.0", PersonV1), ("2.0.0", PersonV2), ("3.0.0", PersonV3)):
        manager.model("Person", version)(model)
    calls: list[str] = []

    @manager.migration("Person", "1.0.0", "2.0.0")
    def first(data: ModelData) -> ModelData:
        calls.append(data["name"])
        if data["name"] == "b" and calls.count("b") < 3:
            raise ConnectionError
        return {"first_name": data["name"], "last_name": "", "age": data["age"]}

    @manager.migration("Person", "2.0.0", "3.0.0")
    def second(data: ModelData) -> ModelData:
        return {**data, "adult": True}

    plan = manager.plan("Person", "1.0.0", "3.0.0")
    retrying = plan.with_retry(Retry(on=(ConnectionError,), first_wait_s=0.0))
    done, failure = retrying.migrate([{"name": name, "age": 1} for name in "abc"])
    assert [record["first_name"] for record in done] == ["a", "b", "c"]
    assert failure is None
    assert calls == ["a", "b", "b", "b", "c"]
    assert retrying.fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {"on": ()},
        {"on": ("ConnectionError",)},
        {"on": (OSError,), "attempts": 0},
        {"on": (OSError,), "first_wait_s": 2.0, "max_wait_s": 1.0},
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Retry(**options)
