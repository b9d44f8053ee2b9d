"""Records skipped by workers that read files themselves: as through the producer, to the byte."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrmute_tasks import (
    ConfigurationError,
    ErrorPolicy,
    JobReport,
    Migrator,
    ProcessDiedError,
    RecordFailure,
)
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.engine.events import ChunkSettled, Event
from tests.conftest import descendants, shorten_ranges
from tests.people import broken_step, invalid, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
WAYS = ("never", "always")


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_ranges(monkeypatch, 700)


@pytest.fixture(scope="module")
def fleet(limited_fleet: EmbeddedFleet) -> EmbeddedFleet:
    return limited_fleet


@pytest.fixture(scope="module")
def migrator(fleet: EmbeddedFleet) -> Iterator[Migrator]:
    with Migrator(manager, settings=fleet.settings) as migrator:
        yield migrator


@pytest.fixture(
    scope="module", params=[2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))]
)
def migrator_of_any_size(request: pytest.FixtureRequest, migrator: Migrator) -> Iterator[Migrator]:
    if request.param == 2:
        yield migrator
        return
    with Migrator(manager, workers=request.param) as other:
        yield other


@dataclass(frozen=True)
class Result:
    """All that a run of a file tells, and leaves in its folder."""

    report: JobReport
    told: list[tuple[Any, ...]]
    files: dict[str, bytes]

    @property
    def facts(self) -> tuple[Any, ...]:
        report = self.report
        ended = report.failure and facts_of(report.failure)
        counts = (report.state, report.records, report.rejected, dict(report.rejected_by_cause))
        return (*counts, report.exceeded, ended, self.told, self.files)


def facts_of(failure: RecordFailure) -> tuple[Any, ...]:
    return (
        *(failure.index, failure.stage, failure.step, failure.source, failure.place),
        *(type(failure.error), str(failure.error), failure.raised_at),
    )


def run(migrator: Migrator, source: Path, way: str, **options: Any) -> Result:
    """Run a file into a new folder."""
    folder = source.parent / way
    folder.mkdir()
    told: list[RecordFailure] = []
    report = migrator.run_file(
        source,
        folder / "out",
        *HOP,
        by_reference=way,
        rejects=folder / "rejects",
        keep_partial=True,
        on_reject=told.append,
        **options,
    )
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return Result(report, [facts_of(failure) for failure in told], files)


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def loop(records: list[Any]) -> bytes:
    models = (manager.migrate(record, *HOP) for record in records)
    return b"".join(model.model_dump_json().encode() + b"\n" for model in models)


def rows_of(rejects: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rejects.splitlines()]


KINDS: dict[str, Callable[[int], bytes]] = {
    "good": lambda at: json.dumps(person(at)).encode(),
    "long": lambda at: json.dumps({"name": "x" * 900, "age": at % 90}).encode(),
    "step": lambda at: json.dumps(broken_step(at)).encode(),
    "invalid": lambda at: json.dumps(invalid(at)).encode(),
    "list": lambda _: b" [1, 2] ",
    "text": lambda _: b'{"name": "\xff\xfe", "age": 1}',
    "blank": lambda _: b"  \t",
    "exit": lambda _: b'{"name": "leave:", "age": 1}',
}
POLICIES = st.sampled_from([ErrorPolicy.skip(limit) for limit in (None, 0, 1, 4, "0.1%")])


@given(
    kinds=st.lists(st.sampled_from([*KINDS, *["good"] * 6]), min_size=8, max_size=60),
    repeated=st.integers(0, 4),
    policy=POLICIES,
    bom=st.booleans(),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    ends=st.booleans(),
    with_records=st.booleans(),
)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_file_gives_the_same_both_ways(
    migrator: Migrator,
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    repeated: int,
    policy: ErrorPolicy,
    bom: bool,
    ending: bytes,
    ends: bool,
    with_records: bool,
) -> None:
    lines = [KINDS[kind](at) for at, kind in enumerate(kinds * repeated)]
    source = tmp_path_factory.mktemp("both") / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" * bom + ending.join(lines) + ending * ends)
    through, by_reference = (
        run(migrator, source, way, on_error=policy, rejects_with_records=with_records)
        for way in WAYS
    )
    assert by_reference.facts == through.facts


@pytest.mark.parametrize("max_errors", [98, "0.85%"])
def test_job_ends_at_the_same_record_on_any_number_of_workers(
    migrator_of_any_size: Migrator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_errors: int | str,
) -> None:
    shorten_ranges(monkeypatch, 4000)
    records = [person(index) for index in range(12_000)]
    bad = [59 + 119 * number for number in range(100)]
    for number, index in enumerate(bad):
        records[index] = invalid(index) if number % 2 else broken_step(index)
    records[1200:1210] = [broken_step(index) for index in range(1200, 1210)]
    source = write(tmp_path / "in.jsonl", records)
    policy = ErrorPolicy.skip(max_errors)
    through, by_reference = (
        run(migrator_of_any_size, source, way, on_error=policy) for way in WAYS
    )
    assert by_reference.facts == through.facts
    failure = by_reference.report.failure
    assert failure is not None
    assert by_reference.report.chunks > 10
    rejected = [row["index"] for row in rows_of(by_reference.files["rejects"])]
    good = [at for at in range(failure.index) if at not in rejected]
    assert by_reference.files["out.partial"] == loop([records[at] for at in good])
    assert set(by_reference.files) == {"out.partial", "rejects"}


def test_rejects_name_the_bytes_of_their_lines(migrator: Migrator, tmp_path: Path) -> None:
    records = [person(index) for index in range(300)]
    bad = (0, 1, 40, 123, 299)
    for index in bad:
        records[index] = broken_step(index)
    source = write(tmp_path / "in.jsonl", records)
    result = run(migrator, source, "always", on_error="skip", rejects_with_records=True)
    whole = source.read_bytes()
    rows = rows_of(result.files["rejects"])
    assert [(row["index"], row["line"]) for row in rows] == [(at, at + 1) for at in bad]
    for row in rows:
        text = whole[row["offset"] : row["offset"] + row["length"]]
        assert json.loads(text) == row["record"] == records[row["index"]]
    assert result.files["out"] == loop([each for at, each in enumerate(records) if at not in bad])


def test_file_is_named_as_through_the_producer(
    migrator: Migrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", [person(0), broken_step(1)])
    monkeypatch.chdir(tmp_path)
    rejects = []
    for way in WAYS:
        migrator.migrate_file(
            "./in.jsonl", way, *HOP, by_reference=way, on_error="skip", rejects=f"{way}-rejects"
        )
        rejects.append(Path(f"{way}-rejects").read_bytes())
    assert rejects[0] == rejects[1]
    assert rows_of(rejects[0])[0]["file"] == "in.jsonl"


def test_lines_that_are_too_long_are_skipped(migrator: Migrator, tmp_path: Path) -> None:
    records = [person(index) for index in range(60)]
    records[7] = {"name": "x" * 5000, "age": 3}
    source = write(tmp_path / "in.jsonl", records)
    result = run(
        migrator,
        source,
        "always",
        on_error="skip",
        max_line_bytes=1000,
        rejects_with_records=True,
    )
    [row] = rows_of(result.files["rejects"])
    assert (row["index"], row["type"], row["record"]) == (7, "InvalidRecordError", records[7])
    assert "the limit is 1000 (max_line_bytes)" in row["message"]
    del records[7]
    assert result.files["out"] == loop(records)


@pytest.mark.slow
def test_records_that_end_their_process_are_skipped(migrator: Migrator, tmp_path: Path) -> None:
    records = [person(index) for index in range(60)]
    records[7] = {"name": "kill:", "age": 1}
    records[8] = broken_step(8)
    records[31] = {"name": "sleep:60 x", "age": 1}
    records[45] = {"name": "allocate:4000000000", "age": 1}
    source = write(tmp_path / "in.jsonl", records)
    through, by_reference = (run(migrator, source, way, on_error="skip") for way in WAYS)
    assert by_reference.facts == through.facts
    rows = rows_of(by_reference.files["rejects"])
    assert [(row["index"], row["type"]) for row in rows] == [
        (7, "ProcessDiedError"),
        (8, "LookupError"),
        (31, "ProcessDiedError"),
        (45, "MemoryError"),
    ]


@pytest.mark.slow
def test_job_ends_after_too_many_records_that_kill(migrator: Migrator, tmp_path: Path) -> None:
    records = [person(index) for index in range(40)]
    for index in (2, 5, 29):
        records[index] = {"name": "exit:3", "age": 1}
    source = write(tmp_path / "in.jsonl", records)
    policy = ErrorPolicy.skip(max_crashes=2)
    through, by_reference = (run(migrator, source, way, on_error=policy) for way in WAYS)
    assert by_reference.facts == through.facts
    failure = by_reference.report.failure
    assert failure is not None
    assert isinstance(failure.error, ProcessDiedError)
    assert failure.index == 29
    assert "more than 2 records ended the process" in by_reference.report.exceeded


def test_workers_killed_during_a_run_change_nothing(
    fleet: EmbeddedFleet, migrator: Migrator, tmp_path: Path
) -> None:
    records = [person(index) for index in range(2000)]
    for index in range(0, 2000, 7):
        records[index] = broken_step(index)
    source = write(tmp_path / "in.jsonl", records)
    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, ChunkSettled) and event.chunk in (5, 20, 40):
            [pid, *_] = descendants(fleet.process_ids[1 + event.chunk % 2])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    by_reference = run(migrator, source, "always", on_error="skip", observers=(kill,))
    assert killed
    assert by_reference.facts == run(migrator, source, "never", on_error="skip").facts
    assert by_reference.report.rejected == 286


def test_folder_of_files_becomes_parts_and_rejects(migrator: Migrator, tmp_path: Path) -> None:
    folder, target, rejects = tmp_path / "in", tmp_path / "out", tmp_path / "rejects"
    folder.mkdir()
    for number in range(3):
        records = [person(index) for index in range(50)]
        records[number] = broken_step(number)
        write(folder / f"{number}.jsonl", records)

    def start(**options: Any) -> JobReport:
        return migrator.run_file(folder, f"{target}/", *HOP, on_error="skip", **options)

    report = start(rejects=rejects)
    assert (report.records, report.rejected) == (147, 3)
    assert [(row["index"], row["file"], row["line"]) for row in rows_of(rejects.read_bytes())] == [
        (0, f"{folder}/0.jsonl", 1),
        (51, f"{folder}/1.jsonl", 2),
        (102, f"{folder}/2.jsonl", 3),
    ]
    manifest = json.loads((target / "_manifest.json").read_text())
    assert manifest["records"] == 147
    good = [person(index) for index in range(50)]
    expected = b"".join(loop(good[:number] + good[number + 1 :]) for number in range(3))
    parts = b"".join((target / part["name"]).read_bytes() for part in manifest["parts"])
    assert parts == expected
    with pytest.raises(ConfigurationError, match="it is in the output's folder"):
        start(rejects=target / "rejects")
    with pytest.raises(ConfigurationError, match="it is the same file as"):
        start(rejects=folder / "1.jsonl")
    with pytest.raises(ConfigurationError, match="it exists; add --overwrite"):
        start(rejects=rejects, overwrite=False)
    kept = {path.name: path.read_bytes() for path in target.iterdir()}
    policy = ErrorPolicy.skip(max_errors=1)
    report = migrator.run_file(folder, f"{target}/", *HOP, on_error=policy, rejects=rejects)
    assert report.failure is not None
    assert (report.failure.index, report.records, report.rejected) == (51, 50, 1)
    assert [row["index"] for row in rows_of(rejects.read_bytes())] == [0]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == kept
