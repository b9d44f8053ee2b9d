"""The functions generated for a plan: one record through everything, every exit as data."""

import gc
import linecache
import traceback
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from pyrmute_tasks import InvalidRecordError, MigrationError, ModelManager
from pyrmute_tasks.failures import Stage
from pyrmute_tasks.plans.codegen import Output, OutputKind
from pyrmute_tasks.plans.codegen_helpers import Interruption
from pyrmute_tasks.plans.garbage_collection import rare_collections
from pyrmute_tasks.plans.plan import DATA, MigrationPlan
from pyrmute_tasks.wire.frames import pack_record
from tests.people import manager, person


class Thing(BaseModel):
    n: int

    @model_validator(mode="before")
    @classmethod
    def note(cls, data: Any) -> Any:
        calls.append(("validate", data["n"]))
        return data


calls: list[tuple[str, int]] = []


def plan_of(*steps: Any) -> MigrationPlan:
    local = ModelManager()
    for number in range(len(steps) + 1):
        local.model("Thing", f"{number + 1}.0.0")(type(f"Thing{number}", (Thing,), {}))
    for number, step in enumerate(steps):
        local.migration("Thing", f"{number + 1}.0.0", f"{number + 2}.0.0")(step)
    return local.plan("Thing", "1.0.0", f"{len(steps) + 1}.0.0")


def noting(name: str) -> Any:
    def step(data: dict[str, Any]) -> dict[str, Any]:
        calls.append((name, data["n"]))
        return data

    return step


@pytest.fixture(autouse=True)
def forget_calls() -> None:
    calls.clear()


def test_record_is_finished_before_the_next_is_read() -> None:
    plan = plan_of(noting("first"), noting("second"))

    def source() -> Any:
        for n in range(3):
            calls.append(("read", n))
            yield {"n": n}

    plan.run(source(), Output(OutputKind.MODELS, plan.target))
    each = ("read", "first", "second", "validate")
    assert calls == [(what, n) for n in range(3) for what in each]


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Exception()]
)
@pytest.mark.parametrize("output", [DATA, Output(OutputKind.PACKED, pack=pack_record)])
def test_step_exceptions_become_failures(error: BaseException, output: Output) -> None:
    def step(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 1:
            raise error
        return data

    done, failure = plan_of(step).run([{"n": n} for n in range(3)], output, start=10)
    assert len(done) == 1
    assert failure is not None
    assert (failure.index, failure.stage, failure.step) == (11, Stage.STEP, "1.0.0 → 2.0.0")
    if isinstance(error, Exception):
        assert isinstance(failure.error, MigrationError)
        assert failure.error.__cause__ is error
    else:
        assert failure.error is error


def test_interruption_is_not_a_failure() -> None:
    def step(data: dict[str, Any]) -> dict[str, Any]:
        raise Interruption

    with pytest.raises(Interruption):
        plan_of(step).run([{"n": 1}], DATA)


def test_source_exceptions_are_raised_unchanged() -> None:
    def source() -> Any:
        yield {"n": 1}
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        plan_of(noting("first")).run(source(), DATA)


def test_a_traceback_shows_the_generated_line() -> None:
    with pytest.raises(MigrationError) as caught:
        plan_of(lambda data: data["missing"]).migrate_one({"n": 1})
    text = "".join(traceback.format_exception(caught.value))
    assert "data = step_1(record)" in text
    assert "pyrmute-tasks: Thing 1.0.0→2.0.0" in text


def test_the_source_can_be_read() -> None:
    source = manager.plan("Person", "1.0.0", "3.0.0").source
    assert "def migrate_one(record):" in source
    assert "def migrate_many(records, deliver):" in source
    compile(source, "shown", "exec")


def test_a_step_that_returns_no_dict_is_named() -> None:
    _, failure = plan_of(noting("first"), lambda _: None).run([{"n": 1}], DATA)
    assert failure is not None
    assert isinstance(failure.error, InvalidRecordError)
    assert "step 2.0.0 → 3.0.0 returned NoneType" in str(failure.error)


# --- the garbage collector ----------------------------------------------------------------


def test_threshold_is_restored_after_the_next_collection() -> None:
    gc.collect()  # that after the last test's batch
    usual = gc.get_threshold()
    manager.migrate_batch([person(n) for n in range(2000)], "Person", "1.0.0", "3.0.0")
    gc.collect()
    assert gc.get_threshold() == usual
    assert not any("collector" in repr(callback) for callback in gc.callbacks)


def test_cycles_are_collected_while_a_batch_runs() -> None:
    class Node:
        """An object that a step leaves in a cycle."""

        alive = 0

        def __init__(self) -> None:
            Node.alive += 1
            self.itself = self

        def __del__(self) -> None:
            Node.alive -= 1

    most = 0

    def step(data: dict[str, Any]) -> dict[str, Any]:
        nonlocal most
        Node()
        most = max(most, Node.alive)
        return data

    plan_of(step).run(({"n": n} for n in range(500_000)), DATA)
    gc.collect()
    assert most < 400_000
    assert Node.alive == 0


def test_threshold_set_during_a_batch_stays() -> None:
    usual = gc.get_threshold()
    try:
        with rare_collections():
            gc.set_threshold(900, 9, 9)
        gc.collect()
        assert gc.get_threshold() == (900, 9, 9)
    finally:
        gc.set_threshold(*usual)


def test_batches_within_batches_share_the_threshold() -> None:
    usual = gc.get_threshold()
    with rare_collections():
        raised = gc.get_threshold()
        with rare_collections():
            assert gc.get_threshold() == raised
        assert gc.get_threshold() == raised
    gc.collect()
    assert gc.get_threshold() == usual


def test_cleared_gc_callbacks_are_tolerated() -> None:
    usual = gc.get_threshold()
    others = gc.callbacks[:]

    def step(data: dict[str, Any]) -> dict[str, Any]:
        gc.callbacks.clear()
        return data

    try:
        for _ in range(2):
            outputs, failure = plan_of(step).run([{"n": 1}], DATA)
            assert (outputs, failure) == ([{"n": 1}], None)
            assert gc.get_threshold() == usual
    finally:
        gc.callbacks[:] = others


def test_generated_source_is_freed_with_its_functions() -> None:
    gc.collect()
    before = len(linecache.cache)
    for _ in range(5):
        plan_of(noting("step")).run([{"n": 1}], DATA)
    gc.collect()
    assert len(linecache.cache) <= before + 1
