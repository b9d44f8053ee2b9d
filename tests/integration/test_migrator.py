"""Whole jobs through real workers: equal to the sequential loop, whatever happens."""

import json
import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel, ValidationError
from redis import Redis

from pyrmute_tasks import ConfigurationError, JobState, MigrationError, Migrator, ModelManager
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import (
    InvalidRecordError,
    ManagerImportError,
    NoWorkersError,
    StoreUnavailableError,
    UnsupportedValueError,
)
from pyrmute_tasks.registry import load_attribute
from pyrmute_tasks.settings import Compress, Settings
from tests.conftest import ROOT, descendants, is_alive, wait_until
from tests.people import PersonV3, broken_step, invalid, manager, person

FLIGHTS = f"{ROOT / 'examples' / 'flights.py'}:manager"
SAMPLE = ROOT / "examples" / "data" / "flights-sample.jsonl"
HOP = ("Person", "1.0.0", "3.0.0")


class Slim(BaseModel):
    first_name: str


def sequential(lines: bytes) -> bytes:
    """Return the lines that a plain loop writes for a file of flights."""
    flights: Any = load_attribute(FLIGHTS)
    return b"".join(
        flights.migrate(json.loads(line), "Flight", "1.0.0", "3.0.0").model_dump_json().encode()
        + b"\n"
        for line in lines.split(b"\n")
        if line.strip()
    )


@pytest.fixture(scope="module")
def people() -> Iterator[Migrator]:
    with Migrator(manager, workers=2, window=Window(8)) as migrator:
        yield migrator


@pytest.fixture(scope="module")
def flights() -> Iterator[Settings]:
    """Settings of a fleet of two workers."""
    with EmbeddedFleet(FLIGHTS, 2, Settings()) as fleet:
        yield fleet.settings


def test_compressed_frames_round_trip(flights: Settings, tmp_path: Path) -> None:
    content = SAMPLE.read_bytes()
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content)
    settings = replace(flights, compress=Compress.ALWAYS)
    with Migrator(FLIGHTS, settings=settings) as migrator:
        migrator.migrate_file(source, target, "Flight", "1.0.0", "3.0.0")
        rows = [json.loads(line) for line in content.splitlines()[:100]]
        models = migrator.migrate_batch(rows, "Flight", "1.0.0", "3.0.0")
    assert target.read_bytes() == sequential(content)
    dumped = "".join(model.model_dump_json() + "\n" for model in models)
    assert sequential(content).startswith(dumped.encode())


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_a_file_equals_the_plain_loop(workers: int, flights: Settings, tmp_path: Path) -> None:
    content = SAMPLE.read_bytes()
    expected = sequential(content)
    untidy = b"\n  \n" + content.replace(b"\n", b"\n\n", 700).replace(b"\n", b"\r\n", 50)
    own, shared = Migrator(FLIGHTS, workers=workers), Migrator(FLIGHTS, settings=flights)
    with shared if workers == 2 else own as migrator:
        for name, data, chunk_size in (
            ("whole", content, None),
            ("small", content, 333),
            ("tiny", b"".join(content.splitlines(keepends=True)[:100]), 7),
            ("no-newline", content.rstrip(b"\n"), 1000),
            ("untidy", untidy, 500),
            ("empty", b"", None),
            ("blank", b"\n \n", None),
        ):
            source, target = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.out"
            source.write_bytes(data)
            report = migrator.migrate_file(
                source, target, "Flight", "1.0.0", "3.0.0", chunk_size=chunk_size
            )
            output = target.read_bytes()
            assert output == (expected if len(data) > 30_000 else sequential(data)), name
            assert report.records == output.count(b"\n")


def test_the_six_batch_calls_equal_the_managers(people: Migrator) -> None:
    records = [person(index) for index in range(250)]
    models = manager.migrate_batch(records, *HOP)
    data = manager.migrate_batch_data(records, *HOP)
    slim = manager.migrate_batch_as(records, *HOP, Slim)
    assert people.migrate_batch(records, *HOP) == models
    assert people.migrate_batch(iter(records), *HOP, chunk_size=7) == models
    assert people.migrate_batch_as(records, *HOP, PersonV3) == models
    assert people.migrate_batch_as(records, *HOP, Slim, chunk_size=100) == slim
    assert people.migrate_batch_data(records, *HOP, chunk_size=1000) == data
    assert list(people.migrate_batch_streaming(iter(records), *HOP, chunk_size=99)) == models
    assert list(people.migrate_batch_streaming_as(records, *HOP, Slim, 50)) == slim
    assert list(people.migrate_batch_data_streaming(records, *HOP)) == data
    assert people.migrate_batch([], "Nobody", "1.0.0", "2.0.0") == []


@pytest.mark.parametrize("bad", [0, 57, 99])
@pytest.mark.parametrize("kind", [broken_step, invalid])
def test_the_first_bad_record_is_raised_as_the_manager_raises_it(
    people: Migrator, bad: int, kind: Any
) -> None:
    records = [person(index) for index in range(100)]
    records[bad] = kind(bad)
    for later in range(bad + 1, 100, 3):
        records[later] = broken_step(later)
    local: list[Any] = []
    with pytest.raises((MigrationError, ValidationError)) as expected:
        for model in manager.migrate_batch_streaming(records, *HOP, chunk_size=10):
            local.append(model)
    remote: list[Any] = []
    with pytest.raises((MigrationError, ValidationError)) as caught:
        for model in people.migrate_batch_streaming(records, *HOP, chunk_size=10):
            remote.append(model)
    assert remote == local == manager.migrate_batch(records[:bad], *HOP)
    assert type(caught.value) is type(expected.value)
    assert str(caught.value) == str(expected.value)
    assert caught.value.record_index == bad  # type: ignore[attr-defined]  # set on any exception
    assert caught.value.__notes__ == [f"record {bad}"]


def test_error_of_a_source_comes_after_its_records(people: Migrator) -> None:
    def source() -> Iterator[Any]:
        yield from (person(index) for index in range(35))
        raise OSError("the cursor died")

    outputs: list[Any] = []
    with pytest.raises(OSError, match="the cursor died"):
        for model in people.migrate_batch_streaming(source(), *HOP, chunk_size=10):
            outputs.append(model)
    assert len(outputs) == 35


def test_leaving_early_stops_reading_and_leaves_no_key(people: Migrator) -> None:
    read = 0
    closed = False

    def source() -> Iterator[Any]:
        nonlocal read, closed
        try:
            for index in range(100_000):
                read += 1
                yield person(index)
        finally:
            closed = True

    stream: Any = people.migrate_batch_streaming(source(), *HOP, chunk_size=10)
    next(stream)
    stream.close()
    assert closed
    assert read <= 80
    assert job_keys(people) == []


def job_keys(migrator: Migrator) -> list[bytes]:
    assert migrator._jobs.session is not None
    store = migrator._jobs.session.store
    keys: list[Any] = store._redis.keys("pt:*")
    return [key for key in keys if not key.startswith(b"pt:workers:")]


def test_a_job_leaves_no_key_and_no_message(people: Migrator) -> None:
    people.migrate_batch([person(index) for index in range(500)], *HOP, chunk_size=10)
    assert job_keys(people) == []
    with pytest.raises(MigrationError):
        people.migrate_batch_data([broken_step(0)] * 500, *HOP, chunk_size=10)
    assert job_keys(people) == []
    assert people._jobs.session is not None
    store = people._jobs.session.store
    wait_until(
        lambda: not store._redis.exists("pyrmute-tasks", "unacked"), "the queue has been drained"
    )


def test_error_wastes_less_than_a_window_of_chunks(people: Migrator, tmp_path: Path) -> None:
    """10,000 chunks of input remain when chunk 3 fails; each one that runs leaves a mark."""
    marks = tmp_path / "marks"

    def records() -> Iterator[Any]:
        for index in range(10_000):
            yield broken_step(3) if index == 3 else {"name": f"count:{marks}", "age": 1}

    outputs: list[Any] = []
    with pytest.raises(MigrationError) as caught:
        for data in people.migrate_batch_data_streaming(records(), *HOP, chunk_size=1):
            outputs.append(data)
    assert caught.value.record_index == 3
    assert len(outputs) == 3
    ran = marks.read_text().count("x")
    assert 3 <= ran < 3 + 8
    report = people.last_report
    assert report is not None
    assert (report.state, report.records) == (JobState.FAILED, 3)
    assert ran - 3 <= report.wasted_chunks < 8
    # Nothing starts any more: a job that comes after all that was queued finds no new mark.
    people.migrate_batch([person(index) for index in range(50)], *HOP, chunk_size=1)
    assert marks.read_text().count("x") < 3 + 8


def test_unsupported_value_is_reported_before_sending(people: Migrator) -> None:
    records = [person(0), {**person(1), "extra": {"deep": object()}}]
    with pytest.raises(UnsupportedValueError, match=r"builtins\.object at extra\.deep") as caught:
        people.migrate_batch(records, *HOP)
    assert caught.value.record_index == 1


def test_records_before_an_unsupported_value_are_migrated(people: Migrator) -> None:
    records = [person(index) for index in range(40)]
    records[25] = {**person(25), "extra": object()}
    outputs: list[Any] = []
    with pytest.raises(UnsupportedValueError):
        for model in people.migrate_batch_streaming(records, *HOP, chunk_size=10):
            outputs.append(model)
    assert outputs == manager.migrate_batch(records[:25], *HOP)
    records[24] = invalid(24)
    with pytest.raises(ValidationError) as caught:
        people.migrate_batch(records, *HOP, chunk_size=10)
    assert caught.value.record_index == 24  # type: ignore[attr-defined]  # set on any exception


def test_kill_minus_nine_of_a_child_changes_nothing(people: Migrator, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    records = [{"name": f"sleep:0.001 {index}", "age": 30} for index in range(400)]
    records[222] = {"name": f"kill-once:{marker}", "age": 5}
    outputs = people.migrate_batch_data(records, *HOP, chunk_size=20)
    assert marker.exists()
    assert outputs == manager.migrate_batch_data(records, *HOP)


@pytest.mark.slow
def test_kill_minus_nine_from_outside_changes_no_byte(tmp_path: Path) -> None:
    content = SAMPLE.read_bytes() * 4
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content)
    killed: list[int] = []
    with Migrator(FLIGHTS, workers=2) as migrator:
        assert migrator._jobs.session is not None
        fleet = migrator._jobs.session.fleet
        assert fleet is not None

        def kill_once(_: object) -> None:
            if not killed:
                [child] = descendants(fleet.process_ids[1])
                killed.append(child)
                os.kill(child, signal.SIGKILL)

        migrator.migrate_file(
            source, target, "Flight", "1.0.0", "3.0.0", chunk_size=250, observers=(kill_once,)
        )
    assert killed
    assert target.read_bytes() == sequential(content)


def test_nothing_is_left_behind(private_tmp: Path) -> None:
    before = set(descendants(os.getpid()))
    with Migrator(manager, workers=1) as migrator:
        migrator.migrate_batch([person(0)], *HOP)
        assert list(private_tmp.iterdir()) != []
        processes = set(descendants(os.getpid())) - before
        assert len(processes) == 4  # Valkey, the guard, a worker and its child
    assert not [pid for pid in processes if is_alive(pid)]


def test_error_names_the_bad_line(people: Migrator, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = json.dumps(person(0))
    source.write_text(f"{good}\n\n{good}\n[1]\n")
    with pytest.raises(InvalidRecordError) as caught:
        people.migrate_file(source, target, *HOP)
    assert caught.value.record_source == f"{source}, line 4"
    assert caught.value.record_index == 2
    assert not target.exists()


def test_unreachable_fleet_is_reported(tmp_path: Path) -> None:
    socket = tmp_path / "none.sock"
    with (
        pytest.raises(StoreUnavailableError, match="no store answers at unix://"),
        Migrator(manager, broker_url=f"unix://{socket}") as migrator,
    ):
        migrator.migrate_batch([person(0)], *HOP)


def test_queue_without_workers_is_reported(people: Migrator) -> None:
    url = people._jobs.settings.broker_url
    settings = Settings(broker_url=url, queue="nobody-listens", worker_wait_s=0.5)
    with (
        pytest.raises(NoWorkersError, match="no worker answers on queue 'nobody-listens'"),
        Migrator(manager, settings=settings) as migrator,
    ):
        migrator.migrate_batch([person(0)], *HOP)


def test_contradicting_options_are_reported() -> None:
    with pytest.raises(ConfigurationError, match="store_url needs broker_url"):
        Migrator(manager, store_url="redis://h")
    with pytest.raises(ConfigurationError, match="workers is the size of the embedded fleet"):
        Migrator(manager, broker_url="redis://h", workers=2)
    for workers in (0, "2"):
        with pytest.raises(ConfigurationError, match=f"workers must be 1 or more, not {workers!r}"):
            Migrator(manager, workers=cast("int", workers))
    with pytest.raises(ManagerImportError, match="not an attribute of any module"):
        Migrator(ModelManager())
    with pytest.raises(ManagerImportError, match="is a function and not a ModelManager"):
        Migrator("tests.people:person")


def test_full_store_is_reported_without_contents(people: Migrator) -> None:
    assert people._jobs.session is not None
    store = people._jobs.session.store
    marker = "MARKER-OF-A-RECORD"
    store._redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailableError, match="has no memory left") as caught:
            people.migrate_batch([{"name": marker * 50, "age": 1}], *HOP)
    finally:
        store._redis.config_set("maxmemory", "0")
    shown = "".join(traceback.format_exception(caught.value))
    assert marker not in shown
    assert people.migrate_batch([person(0)], *HOP) == manager.migrate_batch([person(0)], *HOP)


def test_wrong_password_is_reported(people: Migrator) -> None:
    assert people._jobs.session is not None
    store = people._jobs.session.store
    store._redis.config_set("requirepass", "right")
    try:
        with pytest.raises(StoreUnavailableError, match="refused the user or the password"):
            Store(people._jobs.settings).check()
    finally:
        Redis.from_url(people._jobs.settings.redis_store_url, password="right").config_set(
            "requirepass", ""
        )
