"""Workers that read and write files themselves: the bytes of a loop, whatever happens."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks import (
    ByReference,
    ConfigurationError,
    InvalidRecordError,
    JobChangedError,
    MigrationError,
    Migrator,
    ProcessDiedError,
    PyrmuteTasksError,
    StorageUnreachableError,
    Window,
)
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.protocol import STORAGE
from pyrmute_tasks.engine.events import ChunkDelivered, ChunkSettled, ChunkSubmitted, Event
from pyrmute_tasks.io import passing_faults
from pyrmute_tasks.jobs.folder import beside
from pyrmute_tasks.settings import Settings
from tests.conftest import shorten_ranges, wait_until
from tests.fleets import private_fleet
from tests.people import broken_step, invalid, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
SECRET = "s" * 32
RANGE_BYTES = 2000
LIMITS = Settings(code_wait_s=1.5, memory_limit_bytes=2 * 1024**3)


@pytest.fixture(scope="module")
def fleet() -> Iterator[EmbeddedFleet]:
    with EmbeddedFleet("tests.people:manager", 2, LIMITS) as fleet:
        yield fleet


@pytest.fixture
def migrator(fleet: EmbeddedFleet) -> Iterator[Migrator]:
    with Migrator(manager, settings=fleet.settings) as migrator:
        yield migrator


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_ranges(monkeypatch, RANGE_BYTES)


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def loop(records: list[Any]) -> bytes:
    models = (manager.migrate(record, *HOP) for record in records)
    return b"".join(model.model_dump_json().encode() + b"\n" for model in models)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def people(count: int) -> list[Any]:
    return [person(index) for index in range(count)]


def test_file_equals_that_of_a_loop(migrator: Migrator, tmp_path: Path) -> None:
    records = people(2000)
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    delivered: list[Event] = []
    report = migrator.migrate_file(
        source, target, *HOP, by_reference="always", observers=(delivered.append,)
    )
    assert target.read_bytes() == loop(records)
    assert report.records == len(records)
    assert report.chunks > 20
    progress = [each.size_bytes for each in delivered if isinstance(each, ChunkDelivered)]
    assert sum(progress) == source.stat().st_size
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_odd_lines_are_read_as_through_the_producer(
    migrator: Migrator, tmp_path: Path, bom: bytes, ending: bytes
) -> None:
    lines = [json.dumps(record).encode() for record in people(500)]
    lines[7] = json.dumps({"name": "x" * 10_000, "age": 3}).encode()
    for place in (0, 3, 4, 200, 499):
        lines.insert(place, b"  \t")
    source = tmp_path / "in.jsonl"
    source.write_bytes(bom + ending.join(lines))  # without a last newline
    for way in ("never", "always"):
        migrator.migrate_file(source, tmp_path / way, *HOP, by_reference=way)
    assert (tmp_path / "always").read_bytes() == (tmp_path / "never").read_bytes()
    assert (tmp_path / "always").read_bytes().count(b"\n") == 500


def test_folder_of_files_becomes_a_folder_of_parts(migrator: Migrator, tmp_path: Path) -> None:
    records = people(900)
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(3):
        write(source / f"{number}.jsonl", records[300 * number : 300 * number + 300])
    (source / "empty.jsonl").touch()
    (source / "README").write_text("no records")
    report = migrator.migrate_file(source, f"{target}/", *HOP)
    assert report.records == 900
    manifest = json.loads((target / "_manifest.json").read_text())
    parts = [part["name"] for part in manifest["parts"]]
    assert names_in(target) == ["_manifest.json", *parts]
    assert parts == sorted(parts)
    assert b"".join((target / name).read_bytes() for name in parts) == loop(records)
    assert sum(part["records"] for part in manifest["parts"]) == manifest["records"] == 900
    assert names_in(tmp_path) == ["in", "out"]
    # Again, in place of what an earlier run has written, and into one file.
    migrator.migrate_file(source, target, *HOP)
    assert sum(path.stat().st_size for path in target.glob("part-*")) == len(loop(records))
    migrator.migrate_file(str(source / "[12].jsonl"), tmp_path / "two.jsonl", *HOP)
    assert (tmp_path / "two.jsonl").read_bytes() == loop(records[300:])
    with pytest.raises(ConfigurationError, match="the source is in it"):
        migrator.migrate_file(target, target, *HOP)
    with pytest.raises(ConfigurationError, match="it is the same file as"):
        migrator.migrate_file(source, source / "1.jsonl", *HOP)
    with pytest.raises(ConfigurationError, match=r"new\.jsonl: it would be read as one of the fil"):
        migrator.migrate_file(source, source / "new.jsonl", *HOP)
    with pytest.raises(ConfigurationError, match=r"new/: it would be read as one of the files of"):
        migrator.migrate_file(tmp_path / "*" / "*.jsonl", f"{tmp_path}/new/", *HOP)
    with pytest.raises(ConfigurationError, match="it is not empty; add --overwrite"):
        migrator.migrate_file(source, target, *HOP, overwrite=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(ConfigurationError, match=r"holds other files and no _manifest\.json"):
        migrator.migrate_file(source, tmp_path / "other", *HOP)
    assert names_in(tmp_path) == ["in", "other", "out", "two.jsonl"]


@pytest.mark.parametrize("bad", [broken_step, invalid, lambda _: [1, 2]])
@pytest.mark.parametrize("place", [0, 321, 999])
def test_failure_is_that_of_the_producer_and_what_is_before_it_kept(
    migrator: Migrator, tmp_path: Path, bad: Callable[[int], Any], place: int
) -> None:
    records = people(1000)
    records[place] = bad(place)
    records[min(place + 300, 999)] = bad(place)
    source = write(tmp_path / "in.jsonl", records)
    source.write_bytes(b"\n\n" + source.read_bytes())
    failures, kept = [], []
    for way in ("never", "always"):
        report = migrator.run_file(
            source, tmp_path / way, *HOP, by_reference=way, keep_partial=True
        )
        assert report.failure is not None
        failures.append(report.failure)
        kept.append(Path(report.partial_path).read_bytes())
    through, by_reference = failures
    assert str(by_reference.error) == str(through.error)
    assert type(by_reference.error) is type(through.error)
    assert (by_reference.index, by_reference.source) == (place, f"{source}, line {place + 3}")
    assert (through.index, through.source) == (by_reference.index, by_reference.source)
    assert (through.stage, through.step) == (by_reference.stage, by_reference.step)
    assert through.raised_at == by_reference.raised_at
    assert kept == [loop(records[:place])] * 2
    assert names_in(tmp_path) == ["always.partial", "in.jsonl", "never.partial"]


def test_invalid_text_and_lines_that_are_too_long_are_named(
    migrator: Migrator, tmp_path: Path
) -> None:
    lines = [json.dumps(record).encode() for record in people(300)]
    lines[123] = b'{"name": "\xff\xfe", "age": 1}'
    lines[124] = b'{"name": "' + b"x" * 300_000 + b'", "age": 1}'
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    told = []
    for way in ("never", "always"):
        with pytest.raises(InvalidRecordError) as caught:
            migrator.migrate_file(source, tmp_path / way, *HOP, by_reference=way)
        told.append((str(caught.value), caught.value.record_source))
    assert told[0] == told[1]
    assert told[0][1] == f"{source}, line 124"
    lines[123] = lines[0]
    source.write_bytes(b"\n".join(lines) + b"\n")
    migrator.migrate_file(source, tmp_path / "out", *HOP, by_reference="always")
    with pytest.raises(InvalidRecordError, match="limit is 100000 ") as caught:
        migrator.migrate_file(
            source, tmp_path / "out", *HOP, by_reference="always", max_line_bytes=100_000
        )
    assert caught.value.record_source == f"{source}, line 125"


def test_worker_killed_in_mid_range_costs_nothing(migrator: Migrator, tmp_path: Path) -> None:
    records = people(1000)
    records[500] = {"name": f"kill-once:{tmp_path / 'killed'}", "age": 30}
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    migrator.migrate_file(source, target, *HOP, by_reference="always")
    assert (tmp_path / "killed").exists()
    assert target.read_bytes() == loop(records)
    assert names_in(tmp_path) == ["in.jsonl", "killed", "out.jsonl"]


def test_record_that_kills_is_found_by_halving(migrator: Migrator, tmp_path: Path) -> None:
    records = people(600)
    records[333] = {"name": "kill:", "age": 30}
    source = write(tmp_path / "in.jsonl", records)
    report = migrator.run_file(
        source, tmp_path / "out.jsonl", *HOP, by_reference="always", keep_partial=True
    )
    assert report.failure is not None
    assert isinstance(report.failure.error, ProcessDiedError)
    assert report.failure.error.how == "signal 9 (SIGKILL)"
    assert (report.failure.index, report.failure.source) == (333, f"{source}, line 334")
    assert Path(report.partial_path).read_bytes() == loop(records[:333])
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl.partial"]


@pytest.mark.parametrize("place", [0, 250, 499])
def test_record_that_needs_too_much_memory_raises_its_own_error(
    migrator: Migrator, tmp_path: Path, place: int
) -> None:
    records = people(500)
    records[place] = {"name": "allocate:4000000000", "age": 1}
    source = write(tmp_path / "in.jsonl", records)
    with pytest.raises(MigrationError, match="raised: MemoryError") as caught:
        migrator.migrate_file(source, tmp_path / "out", *HOP, by_reference="always")
    assert caught.value.record_index == place


@pytest.mark.slow
def test_straggler_lets_the_others_run(migrator: Migrator, tmp_path: Path) -> None:
    records = people(700)
    records[0] = {"name": f"wait-for:{tmp_path / 'go'} 0", "age": 30}
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    sent: set[int] = set()
    done: set[int] = set()

    def release(event: Event, /) -> None:
        if isinstance(event, ChunkSubmitted):
            sent.add(event.chunk)
        elif isinstance(event, ChunkSettled):
            done.add(event.chunk)
            if 0 not in done and len(done) == -(-source.stat().st_size // RANGE_BYTES) - 1:
                (tmp_path / "go").touch()

    # The step waits for the file for 30 s at most: all others must have been sent and settled.
    report = migrator.migrate_file(
        source, target, *HOP, by_reference="always", observers=(release,)
    )
    assert report.chunks > 10 > Window.for_slots(2).chunks
    assert (tmp_path / "go").exists()
    assert target.read_bytes() == loop(records)


@pytest.mark.parametrize("at_end", [False, True])
def test_source_that_changes_publishes_nothing(
    migrator: Migrator, tmp_path: Path, at_end: bool
) -> None:
    records = people(2000)
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    size = source.stat().st_size
    delivered_bytes = 0

    def grow(event: Event, /) -> None:
        nonlocal delivered_bytes
        if not isinstance(event, ChunkDelivered):
            return
        delivered_bytes += event.size_bytes
        if source.stat().st_size == size and (not at_end or delivered_bytes == size):
            with source.open("a") as file:
                file.write(json.dumps(person(1)) + "\n")

    with pytest.raises(JobChangedError, match=r"changed while it was read: .*in\.jsonl had"):
        migrator.migrate_file(source, target, *HOP, by_reference="always", observers=(grow,))
    assert names_in(tmp_path) == ["in.jsonl"]


def test_storage_that_is_away_for_a_moment_is_waited_for(
    migrator: Migrator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = people(1500)
    records[0] = {"name": f"wait-for:{tmp_path / 'go'} 0", "age": 30}
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    settled = 0
    threads: list[threading.Thread] = []

    def bring_back(folder: Path, away: Path) -> None:
        wait_until(lambda: "cannot write in" in caplog.text, "a worker declines")
        away.rename(folder)
        (tmp_path / "go").touch()

    def take_away(event: Event, /) -> None:
        nonlocal settled
        settled += isinstance(event, ChunkSettled)
        if settled != 3 or threads:
            return  # nothing is delivered as long as the first range waits
        folder = beside(target) / "parts"
        away = tmp_path / "away"
        folder.rename(away)
        threads.append(threading.Thread(target=bring_back, args=(folder, away)))
        threads[0].start()

    migrator.migrate_file(source, target, *HOP, by_reference="always", observers=(take_away,))
    threads[0].join()
    assert target.read_bytes() == loop(records)
    assert names_in(tmp_path) == ["go", "in.jsonl", "out.jsonl"]


def test_source_that_disappears_is_named(
    migrator: Migrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing_faults, "WAIT_S", 0.5)
    source = write(tmp_path / "in.jsonl", people(2000))

    def remove(event: Event, /) -> None:
        if isinstance(event, ChunkDelivered):
            source.unlink(missing_ok=True)

    with pytest.raises(ConfigurationError, match=r"cannot read .*in\.jsonl any more: No such file"):
        migrator.migrate_file(
            source, tmp_path / "out", *HOP, by_reference="always", observers=(remove,)
        )
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("way", list(ByReference))
def test_a_chunk_size_and_pipes_go_through_the_producer(
    migrator: Migrator, tmp_path: Path, way: ByReference
) -> None:
    source = write(tmp_path / "in.jsonl", people(100))
    if way is ByReference.ALWAYS:
        with pytest.raises(ConfigurationError, match="a chunk size counts records"):
            migrator.migrate_file(source, tmp_path / "o", *HOP, chunk_size=7, by_reference=way)
        with pytest.raises(ConfigurationError, match="is a pipe or a device"):
            migrator.migrate_file(source, "/dev/null", *HOP, by_reference=way)
        return
    report = migrator.migrate_file(source, tmp_path / "o", *HOP, chunk_size=7, by_reference=way)
    assert report.chunks == 15


def test_unknown_value_of_by_reference_is_refused(migrator: Migrator, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", people(1))
    with pytest.raises(ConfigurationError, match="must be auto, always or never, not 'maybe'"):
        migrator.migrate_file(source, tmp_path / "out", *HOP, by_reference="maybe")


# --- fleets that run elsewhere --------------------------------------------------------------


@pytest.mark.slow
def test_workers_with_roots_take_ranges_and_others_do_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = people(1000)
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    source = write(data / "in.jsonl", records)
    with private_fleet("tests.people:manager", secret=SECRET, code_wait_s=1.5) as fleet:
        fleet.start_worker("--root", str(elsewhere))
        with Migrator(manager, settings=fleet.settings) as migrator:
            with pytest.raises(StorageUnreachableError) as caught:
                migrator.migrate_file(source, data / "out", *HOP, by_reference="always")
            assert f"none of its roots holds {data}" in str(caught.value)
            assert "--root DIR" in str(caught.value)
            assert STORAGE not in str(caught.value)
            assert names_in(data) == ["in.jsonl"]
            # It says that it has roots, so it is tried, and nothing was settled.
            write(source, records * 30)
            assert source.stat().st_size > 1024 * 1024
            report = migrator.migrate_file(source, data / "out", *HOP)
            assert report.records == 30_000
            assert "through the producer instead" in caplog.text
            assert "range_declined" in [getattr(each, "action", "") for each in caplog.records]
            write(source, records)
            fleet.start_worker("--root", str(elsewhere), "--root", str(data))
            report = migrator.migrate_file(source, data / "out", *HOP, by_reference="always")
            assert {name.partition("@")[0] for name in report.chunks_by_worker} == {"worker-2"}
    assert (data / "out").read_bytes() == loop(records)
    assert names_in(data) == ["in.jsonl", "out"]


def test_worker_that_cannot_write_is_named_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = people(1000)
    data = tmp_path / "data"
    data.mkdir()
    source = write(data / "in.jsonl", records)
    mounted = f"mount --bind {data} {data} && mount -o remount,bind,ro {data}"
    trial = ["unshare", "-m", "sh", "-c", mounted]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs rights that tests rarely have; see also test_range_runner.py")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'{mounted} && exec {sys.executable} "$@"\' - "$@"\n'
    )
    python.chmod(0o700)
    with private_fleet("tests.people:manager", secret=SECRET) as fleet:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(python))
            fleet.start_worker("--root", str(data))
        with Migrator(manager, settings=fleet.settings) as migrator:
            settled = 0

            def join(event: Event, /) -> None:
                nonlocal settled
                settled += isinstance(event, ChunkSettled)

            def start_another() -> None:
                wait_until(lambda: "takes no range" in caplog.text, "the worker is named")
                assert settled == 0
                fleet.start_worker("--root", str(data))

            helper = threading.Thread(target=start_another)
            helper.start()
            report = migrator.migrate_file(
                source, data / "out", *HOP, by_reference="always", observers=(join,)
            )
            helper.join()
    assert {name.partition("@")[0] for name in report.chunks_by_worker} == {"worker-2"}
    [told] = [each.getMessage() for each in caplog.records if "takes no range" in each.getMessage()]
    assert told.startswith("worker worker-1@test")
    assert f"it cannot write in {data}/.out." in told
    assert "Read-only file system; does it run as another user?" in told
    assert (data / "out").read_bytes() == loop(records)
    assert names_in(data) == ["in.jsonl", "out"]


def test_forged_range_is_not_read(tmp_path: Path) -> None:
    records = people(1000)
    (tmp_path / "secrets").write_text('{"name": "Top Secret", "age": 1}\n')
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out"
    with private_fleet("tests.people:manager", secret=SECRET) as fleet:
        fleet.start_worker("--root", str(tmp_path))
        forged = 0

        def forge(event: Event, /) -> None:
            """Let the waiting ranges name another file, as anyone may who writes to the store."""
            nonlocal forged
            if not isinstance(event, ChunkSettled) or event.chunk != 2:
                return
            with fleet.valkey.client() as client:
                store: Any = client
                [job] = store.keys("pt:{*}:in")
                for part, sealed in store.hgetall(job).items():
                    frame = sealed[sealed.index(b"PMT") :].replace(b"in.jsonl", b"secrets\0"[:8])
                    store.hset(job, part, frame)
                    forged += 1

        with Migrator(manager, settings=fleet.settings) as migrator:
            migrator.migrate_file(source, target, *HOP, by_reference="always", observers=(forge,))
        assert "a message is rejected" in fleet.workers[0].log
    assert forged
    assert target.read_bytes() == loop(records)


def test_ranges_elsewhere_need_a_secret(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", people(10))
    with pytest.raises(ConfigurationError, match=r"roots \(--root\) need a secret"):
        Settings(roots=str(tmp_path))
    with (
        Migrator(manager, settings=Settings()) as migrator,
        pytest.raises(ConfigurationError, match="a secret in PYRMUTE_TASKS_SECRET"),
    ):
        migrator.migrate_file(source, tmp_path / "out", *HOP, by_reference="always")


@pytest.mark.slow
def test_fleet_that_is_killed_leaves_no_output(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", people(3000))
    with EmbeddedFleet("tests.people:manager", 1, Settings(outage_s=1.0)) as own:

        def kill(event: Event, /) -> None:
            if isinstance(event, ChunkDelivered) and event.chunk == 3:
                os.kill(own.process_ids[0], signal.SIGKILL)

        with Migrator(manager, settings=own.settings) as migrator:
            with pytest.raises(PyrmuteTasksError):
                migrator.migrate_file(
                    source, tmp_path / "out", *HOP, by_reference="always", observers=(kill,)
                )
            wait_until(lambda: names_in(tmp_path) == ["in.jsonl"], "nothing is left")
