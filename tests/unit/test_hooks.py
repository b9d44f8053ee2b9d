from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from pyrmute_tasks import (
    MetricsHook,
    MigrationError,
    MigrationHook,
    ModelData,
    ModelManager,
    ModelVersion,
)
from tests.people import broken_step, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
WAYS: dict[str, dict[str, Any]] = {
    "one by one": {},
    "threads": {"parallel": True, "max_workers": 2},
    "processes": {"parallel": True, "max_workers": 2, "use_processes": True},
}


class Recorder(MigrationHook):
    """Records every call, and tries to change its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def before_migrate(
        self, name: str, from_version: ModelVersion, to_version: ModelVersion, data: Any
    ) -> None:
        with pytest.raises(TypeError):
            data["name"] = "changed"
        self.calls.append(("before", name, str(from_version), str(to_version), dict(data)))

    def after_migrate(
        self,
        name: str,
        from_version: ModelVersion,
        to_version: ModelVersion,
        original_data: Mapping[str, Any],
        migrated_data: Mapping[str, Any],
    ) -> None:
        self.calls.append(("after", dict(original_data), dict(migrated_data)))

    def on_error(
        self,
        name: str,
        from_version: ModelVersion,
        to_version: ModelVersion,
        data: Mapping[str, Any],
        error: Exception,
    ) -> None:
        self.calls.append(("error", dict(data), type(error)))


@pytest.fixture
def recorder() -> Any:
    hook = Recorder()
    manager.add_hook(hook)
    yield hook
    manager.remove_hook(hook)


@pytest.fixture
def metrics() -> Any:
    hook = MetricsHook()
    manager.add_hook(hook)
    yield hook
    manager.remove_hook(hook)


def test_a_hook_sees_the_whole_migration_of_a_record(recorder: Recorder) -> None:
    migrated = manager.migrate_data(person(3), *HOP)
    assert recorder.calls == [
        ("before", "Person", "1.0.0", "3.0.0", person(3)),
        ("after", person(3), migrated),
    ]


def test_a_hook_sees_an_error(recorder: Recorder) -> None:
    with pytest.raises(MigrationError):
        manager.migrate(broken_step(1), *HOP)
    assert recorder.calls[1:] == [("error", broken_step(1), MigrationError)]


def test_the_same_version_is_not_a_migration(recorder: Recorder) -> None:
    manager.migrate(person(3), "Person", "1.0.0", "1.0.0")
    assert recorder.calls == []


def test_hooks_do_not_change_results(recorder: Recorder) -> None:
    records = [person(index) for index in range(20)]
    with_hooks = manager.migrate_batch(records, *HOP)
    manager.clear_hooks()
    assert manager.migrate_batch(records, *HOP) == with_hooks
    assert len(recorder.calls) == 40


@pytest.mark.parametrize("way", WAYS)
def test_counts_are_right_wherever_records_are_migrated(way: str, metrics: MetricsHook) -> None:
    manager.migrate_batch([person(index) for index in range(100)], *HOP, **WAYS[way])
    assert (metrics.total_count, metrics.error_count, metrics.success_rate) == (100, 0, 1.0)


@pytest.mark.parametrize("way", WAYS)
def test_hook_counts_stop_at_the_first_failure(way: str, metrics: MetricsHook) -> None:
    records = [person(index) for index in range(100)]
    for bad in range(59, 100):
        records[bad] = broken_step(bad)
    with pytest.raises(MigrationError):
        manager.migrate_batch_data(records, *HOP, **WAYS[way])
    assert (metrics.total_count, metrics.error_count) == (60, 1)
    assert metrics.migrations_by_model == {"Person": 60}
    assert metrics.errors_by_model == {"Person": 1}
    assert metrics.success_rate == pytest.approx(59 / 60)


def test_streaming_counts_requested_records(metrics: MetricsHook) -> None:
    stream = manager.migrate_batch_streaming(
        (person(index) for index in range(100)), *HOP, chunk_size=10
    )
    next(iter(stream))
    assert metrics.total_count == 1


def test_no_migration_has_no_success_rate() -> None:
    assert MetricsHook().success_rate == 0.0


@pytest.mark.parametrize("way", ["one by one", "threads"])
def test_a_hook_that_does_more_than_count_is_called(way: str) -> None:
    class Noisy(MetricsHook):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def before_migrate(self, name: str, *rest: Any) -> None:
            super().before_migrate(name, *rest)
            self.seen.append(name)

    noisy = Noisy()
    manager.add_hook(noisy)
    try:
        manager.migrate_batch([person(index) for index in range(30)], *HOP, **WAYS[way])
    finally:
        manager.remove_hook(noisy)
    assert len(noisy.seen) == 30
    assert noisy.total_count == 30


def test_nested_migrations_are_counted_as_pyrmute_counts_them() -> None:
    local = ModelManager()

    @local.model("Part", "1.0.0")
    class PartV1(BaseModel):
        n: int

    @local.model("Part", "2.0.0")
    class PartV2(BaseModel):
        m: int

    @local.migration("Part", "1.0.0", "2.0.0")
    def rename(data: ModelData) -> ModelData:
        return {"m": data["n"]}

    @local.model("Whole", "1.0.0")
    class WholeV1(BaseModel):
        parts: list[PartV1]

    @local.model("Whole", "2.0.0", backward_compatible=True)
    class WholeV2(BaseModel):
        parts: list[PartV2]

    metrics = MetricsHook()
    local.add_hook(metrics)
    records = [{"parts": [{"n": 1}, {"n": 2}]}] * 3
    local.migrate_batch(records, "Whole", "1.0.0", "2.0.0")
    assert metrics.migrations_by_model == {"Whole": 3, "Part": 6}
    with pytest.raises(MigrationError):
        local.migrate({"parts": [{"n": 1}, {}]}, "Whole", "1.0.0", "2.0.0")
    assert metrics.errors_by_model == {"Part": 1, "Whole": 1}


@pytest.mark.parametrize("way", WAYS)
def test_migrations_within_a_step_are_counted(way: str) -> None:
    local = ModelManager()
    for version in ("1.0.0", "2.0.0"):
        local.model("Count", version)(type(f"Count{version[0]}", (BaseModel,), {}))

    @local.migration("Count", "1.0.0", "2.0.0")
    def count_down(data: ModelData) -> ModelData:
        if data["n"]:
            local.migrate({"n": data["n"] - 1}, "Count", "1.0.0", "2.0.0")
            local.migrate_batch_data([{"n": 0}], "Count", "1.0.0", "2.0.0")
        return data

    metrics = MetricsHook()
    local.add_hook(metrics)
    local.migrate_batch([{"n": n} for n in range(4)], "Count", "1.0.0", "2.0.0", **WAYS[way])
    assert metrics.total_count == 16


def test_a_hook_that_was_added_twice_is_removed_once() -> None:
    local, metrics = ModelManager(), MetricsHook()
    local.add_hook(metrics)
    local.add_hook(metrics)
    local.remove_hook(metrics)
    assert local.hooks.all == (metrics,)
