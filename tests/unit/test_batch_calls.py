"""Common features of every batch call: signatures, observers, a progress bar, a report."""

import inspect
import io
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import RootModel

from pyrmute_tasks import (
    BatchMigrator,
    ChunkDelivered,
    ConfigurationError,
    Event,
    JobEnded,
    JobReport,
    JobState,
    Manager,
    Migrator,
    ModelManager,
    Stream,
)
from pyrmute_tasks.pyrmute_adapter import adapt
from tests.people import PersonV3, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
BAD = {"name": "No Age", "age": -1}
PARALLEL: list[dict[str, Any]] = [
    {},
    {"parallel": True, "max_workers": 2},
    {"parallel": True, "max_workers": 2, "use_processes": True},
]


def ended(events: list[Event]) -> JobReport:
    """Return the report of the one last event."""
    reports = [event.report for event in events if isinstance(event, JobEnded)]
    assert len(reports) == 1
    assert isinstance(events[-1], JobEnded)
    return reports[0]


def delivered(events: list[Event]) -> int:
    return sum(event.count for event in events if isinstance(event, ChunkDelivered))


# --- signatures ---------------------------------------------------------------------------


CALLS = [name for name in vars(BatchMigrator) if name.startswith("migrate")]
FILE_CALLS = ("migrate_file", "run_file")


def defaults(*functions: Callable[..., Any]) -> set[tuple[str, str, str]]:
    """Return name, default and type of each parameter of the functions."""
    return {
        (name, repr(each.default), str(each.annotation))
        for function in functions
        for name, each in inspect.signature(function).parameters.items()
    }


def test_there_are_six_batch_calls() -> None:
    assert len(CALLS) == 6


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [ModelManager, Migrator])
def test_managers_and_migrators_have_the_same_batch_calls(kind: type, call: str) -> None:
    assert getattr(kind, call) is getattr(BatchMigrator, call)


def test_argument_of_several_batch_calls_has_one_type_and_default() -> None:
    found = defaults(*(getattr(BatchMigrator, call) for call in CALLS))
    assert len(found) == len({name for name, *_ in found})


def test_file_calls_have_the_same_signature() -> None:
    migrate_file, run_file = (inspect.signature(getattr(Migrator, call)) for call in FILE_CALLS)
    assert migrate_file == run_file


@pytest.mark.parametrize("name", ["observers", "progress", "on_error", "on_reject"])
def test_file_calls_have_the_options_of_batch_calls(name: str) -> None:
    found = defaults(Migrator.migrate_batch, Migrator.migrate_file)
    assert len({each for each in found if each[0] == name}) == 1


class Ours:
    """A manager written by a user."""

    def list_models(self) -> list[str]:
        return manager.list_models()

    def list_versions(self, name: str) -> list[str]:
        return [str(version) for version in manager.list_versions(name)]

    def get(self, name: str, version: str) -> Any:
        return manager.get(name, version)

    def has_migration_path(self, name: str, from_version: str, to_version: str) -> bool:
        return manager.has_migration_path(name, from_version, to_version)

    def migrate_data(
        self, data: dict[str, Any], name: str, from_version: str, to_version: str
    ) -> dict[str, Any]:
        return manager.migrate_data(data, name, from_version, to_version)


def test_any_object_with_a_managers_methods_is_accepted() -> None:
    ours: Manager = Ours()
    plan = adapt(ours).plan(*HOP)
    assert plan.migrate_one(person(3)) == manager.migrate_data(person(3), *HOP)
    assert plan.target is PersonV3


# --- reports ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", PARALLEL)
def test_observers_get_all_records_and_the_end(options: dict[str, Any]) -> None:
    events: list[Event] = []
    manager.migrate_batch_data(map(person, range(500)), *HOP, observers=[events.append], **options)
    report = ended(events)
    assert delivered(events) == report.records == 500
    assert report.state is JobState.SUCCEEDED
    assert report.failure is None


@pytest.mark.parametrize("options", PARALLEL)
def test_report_of_a_failed_batch_names_the_record(options: dict[str, Any]) -> None:
    events: list[Event] = []
    records = [*map(person, range(300)), BAD, *map(person, range(300))]
    with pytest.raises(Exception, match="no age for No"):
        manager.migrate_batch(records, *HOP, observers=[events.append], **options)
    report = ended(events)
    assert report.state is JobState.FAILED
    assert report.failure is not None
    assert report.failure.index == 300
    assert delivered(events) == report.records == 300


def test_stream_has_the_report_of_its_own_call() -> None:
    one = manager.migrate_batch_streaming(map(person, range(5)), *HOP)
    other = manager.migrate_batch_data_streaming([*map(person, range(3)), BAD], *HOP)
    assert isinstance(one, Stream)
    assert one.report.state is JobState.PENDING
    next(one)
    next(one)
    assert (one.report.state, one.report.records) == (JobState.RUNNING, 1)
    with pytest.raises(Exception, match="no age"):
        list(other)
    assert (other.report.state, other.report.records) == (JobState.FAILED, 3)
    one.close()
    assert (one.report.state, one.report.records) == (JobState.CANCELLED, 1)
    assert one.report.job != other.report.job


def test_stream_of_nothing_succeeds() -> None:
    events: list[Event] = []
    stream = manager.migrate_batch_streaming([], *HOP, observers=[events.append])
    assert list(stream) == []
    assert stream.report.state is ended(events).state is JobState.SUCCEEDED


def test_stream_is_a_generator() -> None:
    stream = manager.migrate_batch_data_streaming(map(person, range(3)), *HOP)
    assert stream.send(None) == next(manager.migrate_batch_data_streaming([person(0)], *HOP))
    with pytest.raises(KeyError, match="thrown"):
        stream.throw(KeyError("thrown"))
    assert list(stream) == []
    other = manager.migrate_batch_data_streaming([person(0)], *HOP)
    with pytest.raises(ValueError, match="old"):
        other.throw(ValueError, ValueError("old"), None)


@pytest.mark.parametrize("watched", [False, True])
def test_source_of_a_stream_is_read_on_demand_and_closed(watched: bool) -> None:
    read: list[int] = []
    closed = threading.Event()

    def source() -> Iterator[dict[str, Any]]:
        try:
            for index in range(10):
                read.append(index)
                yield person(index)
        finally:
            closed.set()

    observers = [lambda _: None] if watched else []
    stream = manager.migrate_batch_streaming(source(), *HOP, observers=observers)
    assert read == []
    next(stream)
    assert read == [0]
    stream.close()
    assert closed.is_set()


def test_observer_that_raises_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Event) -> None:
        raise RuntimeError

    assert len(manager.migrate_batch([person(0)], *HOP, observers=[broken])) == 1
    assert caplog.text.count("an observer raised and was dropped") == 1  # told nothing more


@dataclass
class Counting:
    """An observer that equals others."""

    fails: bool = field(compare=False)
    events: int = field(default=0, compare=False)

    def __call__(self, event: Event) -> None:
        self.events += 1
        if self.fails:
            raise OSError


class Incomparable(Counting):
    __hash__ = Counting.__hash__

    def __eq__(self, other: object) -> bool:
        raise OSError


@pytest.mark.parametrize("kind", [Counting, Incomparable])
def test_only_the_observer_that_raises_is_dropped(kind: type[Counting]) -> None:
    good, bad = kind(fails=False), kind(fails=True)
    manager.migrate_batch([person(0)], *HOP, observers=[good, bad])
    assert (good.events, bad.events) == (2, 1)


@pytest.mark.parametrize("observers", [print, "x", [3]])
@pytest.mark.parametrize("call", ["migrate_batch", "migrate_batch_streaming"])
def test_observers_that_are_not_functions_are_reported(call: str, observers: Any) -> None:
    with pytest.raises(ConfigurationError, match="observers must be a list of functions"):
        getattr(manager, call)([person(0)], *HOP, observers=observers)


@pytest.mark.parametrize("one", [person(0), manager.migrate(person(0), *HOP), "in.jsonl", b"{}"])
@pytest.mark.parametrize("call", ["migrate_batch", "migrate_batch_streaming"])
def test_single_record_is_not_a_batch(call: str, one: Any) -> None:
    """Skipping would silently reject each of its fields."""
    with pytest.raises(ConfigurationError, match="takes an iterable of records"):
        getattr(manager, call)(one, *HOP, on_error="skip")


def test_root_model_that_iterates_over_records_is_a_batch() -> None:
    class People(RootModel[list[dict[str, Any]]]):
        def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # as pydantic's guide shows
            return iter(self.root)

    assert len(manager.migrate_batch(People([person(0)]), *HOP)) == 1


# --- the progress bar ---------------------------------------------------------------------


def eager(records: Any, **options: Any) -> None:
    manager.migrate_batch(records, *HOP, **options)


def lazy(records: Any, **options: Any) -> None:
    list(manager.migrate_batch_streaming(records, *HOP, **options))


@pytest.mark.parametrize("call", [eager, lazy])
@pytest.mark.parametrize("is_sized", [True, False])
def test_progress_bar_counts_the_records(
    call: Callable[..., None], is_sized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    records = [person(index) for index in range(1200)]
    call(records if is_sized else iter(records), progress=True)
    assert "1,200 records" in shown.getvalue()
    assert "100%" in shown.getvalue()


def test_no_bar_is_shown_unless_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    eager([person(0)])
    assert capsys.readouterr().err == ""
