"""Users' inputs on a fleet: records of every kind, open files, settings, threads."""

import gzip
import io
import json
import os
import subprocess
import sys
from collections import UserDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from pyrmute_tasks import (
    ConfigurationError,
    Event,
    FrameError,
    InvalidRecordError,
    JobEnded,
    JobState,
    Migrator,
    Settings,
    record_index,
)
from tests import people, record_kinds
from tests.people import person
from tests.record_kinds import ALL

HOP = ("Order", "1.0.0", "2.0.0")
PERSON_HOP = ("Person", "1.0.0", "3.0.0")
LINES = b"".join(json.dumps(person(n)).encode() + b"\n" for n in range(50))
MIGRATED = b"".join(
    people.manager.migrate(person(n), *PERSON_HOP).model_dump_json().encode() + b"\n"
    for n in range(50)
)


@pytest.fixture(scope="module")
def orders() -> Iterator[Migrator]:
    with Migrator.embedded(record_kinds.manager, workers=1) as migrator:
        yield migrator


@pytest.fixture(scope="module")
def migrator() -> Iterator[Migrator]:
    settings = Settings(queue="people", secret="a secret of enough characters", stall_s=30)
    with Migrator.embedded(people.manager, workers=1, settings=settings) as migrator:
        yield migrator


# --- records ------------------------------------------------------------------------------


def test_every_kind_of_record_equals_a_loop(orders: Migrator) -> None:
    looped = [record_kinds.manager.migrate_data(make(), *HOP) for make in ALL.values()]
    assert orders.migrate_batch_data([make() for make in ALL.values()], *HOP) == looped
    models = [record_kinds.manager.migrate(make(), *HOP) for make in ALL.values()]
    assert orders.migrate_batch([make() for make in ALL.values()], *HOP) == models


def test_record_that_cannot_be_made_a_dict_is_named(orders: Migrator) -> None:
    class Broken(UserDict[str, Any]):
        def __iter__(self) -> Any:
            raise RuntimeError

    with pytest.raises(InvalidRecordError, match="a record is Broken") as caught:
        orders.migrate_batch([record_kinds.plain(), Broken()], *HOP)
    assert record_index(caught.value) == 1


class Row(NamedTuple):
    """Of a module that no worker loads."""

    size: int


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_record_of_a_class_that_no_worker_has_loaded_is_named(
    orders: Migrator, on_error: Literal["raise", "skip"]
) -> None:
    plain = record_kinds.plain
    records = [*(plain() for _ in range(5)), plain() | {"item": Row(1)}, plain()]
    stream = orders.migrate_batch_data_streaming(records, *HOP, on_error=on_error)
    got: list[Any] = []
    with pytest.raises(FrameError, match=r"Row' is not loaded .* import its module") as caught:
        got.extend(stream)  # keeps what came before the error
    assert record_index(caught.value) == 5
    assert got == record_kinds.manager.migrate_batch_data([plain() for _ in range(5)], *HOP)


# --- files --------------------------------------------------------------------------------


def test_open_files_are_read_and_written(migrator: Migrator, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"not JSON\n" + LINES)
    with source.open("rb") as read, target.open("wb") as written:
        read.readline()
        written.write(b"head\n")
        report = migrator.migrate_file(read, written, *PERSON_HOP)
        assert not read.closed
        assert not written.closed
    assert target.read_bytes() == b"head\n" + MIGRATED
    assert report.records == 50


def test_files_of_text_in_memory_and_compressed_are_files(
    migrator: Migrator, tmp_path: Path
) -> None:
    text, packed, memory = io.StringIO(), tmp_path / "in.gz", io.BytesIO()
    with gzip.open(packed, "wb") as file:
        file.write(b"\xef\xbb\xbf\n" + LINES)
    with gzip.open(packed, "rb") as file:
        migrator.migrate_file(file, text, *PERSON_HOP)
    assert text.getvalue().encode() == MIGRATED
    migrator.migrate_file(io.StringIO(LINES.decode()), memory, *PERSON_HOP, chunk_size=7)
    assert memory.getvalue() == MIGRATED


def test_record_of_an_open_file_is_named_with_its_line(migrator: Migrator) -> None:
    source = io.BytesIO(LINES + b"\n{}\n")
    target = io.BytesIO()
    report = migrator.run_file(source, target, *PERSON_HOP)
    assert report.failure is not None
    assert report.failure.source == "<BytesIO>, line 52"
    assert target.getvalue() == MIGRATED


def test_file_that_is_read_is_not_written_to(migrator: Migrator, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINES)
    with path.open("r+b") as file:
        for source, target in ((file, path), (path, file), (file, file)):
            with pytest.raises(ConfigurationError, match="it is the file that is read"):
                migrator.migrate_file(source, target, *PERSON_HOP)
    assert path.read_bytes() == LINES


def test_lines_of_a_pipe_leave_while_the_next_one_is_awaited(migrator: Migrator) -> None:
    (their_end, read_end), (result_end, write_end) = os.pipe()[::-1], os.pipe()
    with (  # the pipes are closed first, so that the job ends whatever happens
        ThreadPoolExecutor(1) as thread,
        os.fdopen(their_end, "wb", buffering=0) as given,
        os.fdopen(read_end, "rb") as source,
        os.fdopen(result_end, "rb") as results,
        os.fdopen(write_end, "wb", buffering=0) as target,
    ):
        job = thread.submit(migrator.migrate_file, source, target, *PERSON_HOP)
        for line, migrated in zip(
            LINES.splitlines(True)[:3], MIGRATED.splitlines(True), strict=False
        ):
            given.write(line)
            assert results.readline() == migrated
        given.close()
        assert job.result().records == 3


# --- reports and progress -----------------------------------------------------------------


def test_each_call_has_its_own_report_in_four_threads(migrator: Migrator) -> None:
    def run(count: int) -> tuple[int, int]:
        events: list[Event] = []
        migrator.migrate_batch_data(
            map(person, range(count)), *PERSON_HOP, observers=[events.append]
        )
        stream = migrator.migrate_batch_data_streaming(map(person, range(count)), *PERSON_HOP)
        assert len(list(stream)) == count
        (report,) = [event.report for event in events if isinstance(event, JobEnded)]
        assert stream.report.job != report.job
        assert stream.report.state is report.state is JobState.SUCCEEDED
        return report.records, stream.report.records

    counts = [10, 200, 30, 400]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(run, counts)) == [(count, count) for count in counts]


def test_report_of_failed_and_abandoned_streams(migrator: Migrator) -> None:
    records = [*map(person, range(20)), {"name": "No Age", "age": -1}]
    failing = migrator.migrate_batch_streaming(records, *PERSON_HOP, chunk_size=5)
    with pytest.raises(Exception, match="no age"):
        list(failing)
    assert failing.report.failure is not None
    assert (failing.report.state, failing.report.failure.index) == (JobState.FAILED, 20)
    left = migrator.migrate_batch_streaming(map(person, range(500)), *PERSON_HOP)
    next(left)
    left.close()
    assert left.report.state is JobState.CANCELLED
    broken = migrator.migrate_batch_streaming(iter([object()]), *PERSON_HOP)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(Exception, match="object"):
        next(broken)
    assert broken.report.state is JobState.FAILED


def test_bar_is_shown_over_files_and_records(
    migrator: Migrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(LINES)
    for call in ("file", "records"):
        shown = io.StringIO()
        monkeypatch.setattr(sys, "stderr", shown)
        if call == "file":
            migrator.migrate_file(source, io.BytesIO(), *PERSON_HOP, progress=True)
        else:
            migrator.migrate_batch(map(person, range(50)), *PERSON_HOP, progress=True)
        assert "50 records" in shown.getvalue(), call
        assert "100%" in shown.getvalue(), call


# --- ways to start ------------------------------------------------------------------------


def test_running_fleet_is_found_by_url_and_by_variables(migrator: Migrator) -> None:
    migrator.start()
    settings = migrator._jobs.settings
    url = settings.broker_url.replace("unix://", "redis+socket://")
    with Migrator.connect(people.manager, url, settings=settings) as connected:
        assert len(connected.migrate_batch([person(1)], *PERSON_HOP)) == 1
    env = settings.to_env() | {"PYRMUTE_TASKS_MANAGER": "tests.people:manager"}
    with Migrator.from_env(env=env) as found:
        assert len(found.migrate_batch([person(1)], *PERSON_HOP)) == 1


def test_without_a_broker_variables_are_the_options_of_an_own_fleet() -> None:
    env = {"PYRMUTE_TASKS_QUEUE": "mine", "PYRMUTE_TASKS_FUTURE": "1"}
    with pytest.raises(ConfigurationError, match="there is no setting PYRMUTE_TASKS_FUTURE"):
        Migrator.from_env(people.manager, env)
    with pytest.warns(UserWarning, match="there is no setting PYRMUTE_TASKS_FUTURE"):
        own = Migrator.from_env(people.manager, env, workers=1, ignore_unknown=True)
    with own:
        assert own._jobs.settings.queue == "mine"
        assert own._jobs.settings.broker_url.startswith("unix://")
        assert len(own.migrate_batch([person(1)], *PERSON_HOP)) == 1


def test_variables_of_this_process_are_read_when_asked_for() -> None:
    program = """
import pyrmute_tasks, os
os.environ["PYRMUTE_TASKS_MANAGER"] = "tests.people:manager"
os.environ["PYRMUTE_TASKS_STALL_S"] = "7"
migrator = pyrmute_tasks.Migrator.from_env(workers=1)
assert migrator._jobs.settings.stall_s == 7
assert pyrmute_tasks.Migrator("tests.people:manager", workers=1)._jobs.settings.stall_s == 60
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ))


def test_constructors_refuse_contradicting_arguments() -> None:
    with pytest.raises(ConfigurationError, match="which manager"):
        Migrator.from_env(env={})
    with pytest.raises(ConfigurationError, match="workers must be 1 or more"):
        Migrator.embedded(people.manager, workers=0)
    with pytest.raises(ConfigurationError, match="must begin with"):
        Migrator.connect(people.manager, "http://localhost")
    with pytest.raises(
        ConfigurationError, match=r"URL of a running fleet's broker, not None; Migrator\.embedded"
    ):
        Migrator.connect(people.manager, os.environ.get("NO_SUCH_URL"))  # type: ignore[arg-type]  # on purpose
    wrong: Any = {"broker_url": "redis://localhost"}
    with pytest.raises(ConfigurationError, match=r"settings must be a Settings, as .*, not a dict"):
        Migrator(people.manager, settings=wrong)
    with pytest.raises(ConfigurationError, match=r"window must be a Window, as .*, not a dict"):
        Migrator.embedded(people.manager, window=wrong)
    with pytest.raises(ConfigurationError, match=r"retry must be a Retry, as .*, not a dict"):
        Migrator.connect(people.manager, "redis://localhost", retry=wrong)
