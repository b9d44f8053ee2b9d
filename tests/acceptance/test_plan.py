"""`pyrmute-tasks plan` and `run --dry-run`: what a run will do, before it does anything."""

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pyrmute_tasks import ConfigurationError, Migrator
from pyrmute_tasks.cli.plan import render
from pyrmute_tasks.dry_run import DryRun
from tests.acceptance.conftest import Options
from tests.acceptance.test_run import HOP, MANAGER, call, call_here, command, expected
from tests.conftest import ROOT
from tests.people import broken_step, invalid, person

FLIGHTS = ROOT / "examples" / "data" / "flights-sample.jsonl"
FLIGHT = ("--manager", f"{ROOT}/examples/flights.py:manager", "--model", "Flight")
FLIGHT_HOP = ("--from", "1.0.0", "--to", "3.0.0")
PLAN = ("plan", *MANAGER, *HOP)


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [person(index) for index in range(1000)])


def planned(*arguments: object, status: int = 0) -> dict[str, Any]:
    result = call_here("plan", *arguments, "--json")
    assert (result.returncode, result.stderr) == (status, "")
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.slow
def test_plan_of_the_flights_shows_path_sample_room_and_times(tmp_path: Path) -> None:
    result = call("plan", *FLIGHT, *FLIGHT_HOP, FLIGHTS, tmp_path / "out.jsonl")
    assert (result.returncode, result.stderr) == (0, "")
    text = result.stdout
    assert "Flight 1.0.0 → 3.0.0: ran 1,000 of about " in text
    assert "give_times_a_date_and_an_offset  examples/flights.py:" in text
    assert "~ tailnum: str → str | None" in text
    assert "+ departure: Leg" in text
    assert "− scheduled_departure: AwareDatetime" in text
    assert "0 of 1,000: under 0.3 % at 95 % confidence" in text
    assert "no field gets lost" in text
    assert "fits: " in text
    assert [line.split()[0] for line in text.splitlines()[-7:-3]] == ["1", "4", "16", "64"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_numbers_of_the_flights_are_near_the_truth(tmp_path: Path) -> None:
    report = planned(*FLIGHT, *FLIGHT_HOP, FLIGHTS, tmp_path / "out.jsonl")
    assert report["size_bytes"] == FLIGHTS.stat().st_size
    assert report["total"] == pytest.approx(5000, rel=0.02)
    assert report["bytes_per_byte"] == pytest.approx(1.10, rel=0.02)
    assert report["failed_at_most"] == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert report["by_reference"] is True
    assert report["fits"] is True
    times = {each["workers"]: each["seconds"] for each in report["timings"]}
    assert list(times) == [1, 4, 16, 64]
    assert times[1] == pytest.approx(5000 * report["seconds_per_record"], rel=0.1)
    assert times[1] > times[4] >= times[16] >= times[64] > 0


def test_dry_run_of_a_run_takes_its_options_and_starts_nothing(
    source: Path, tmp_path: Path, private_tmp: Path
) -> None:
    run = ("run", "--dry-run", *MANAGER, *HOP)
    options = ("--limit", 40, "--on-error", "skip", "--resume")  # there is nothing to resume
    result = call_here(*run, *options, source, tmp_path / "out.jsonl")
    assert (result.returncode, result.stderr) == (0, "")
    assert "ran 40 of 40 records" in result.stdout
    assert "chunks" in result.stdout  # a limit counts records, and so does not go by reference
    (tmp_path / "out.jsonl").touch()
    refused = call_here(*run, source, tmp_path / "out.jsonl")
    assert refused.returncode == 1
    assert "it exists; add --overwrite" in refused.stderr


FAULTY = """
from pydantic import BaseModel
from pyrmute_tasks import ModelManager

manager = ModelManager()

@manager.model("Order", "1.0.0")
class OrderV1(BaseModel):
    id: int
    total: str

@manager.model("Order", "2.0.0")
class OrderV2(BaseModel):
    id: int
    cents: int

@manager.migration("Order", "1.0.0", "2.0.0")
def to_cents(data):
    if data["total"] == "exit":
        import os
        os._exit(3)
    return {"id": data["id"], "cents": int(float(data["total"]) * 100)}
"""
ORDERS = ("--model", "Order", "--from", "1.0.0", "--to", "2.0.0")


@pytest.fixture
def faulty(tmp_path: Path) -> tuple[object, ...]:
    path = tmp_path / f"faulty_{tmp_path.name}.py".replace("-", "_")
    path.write_text(FAULTY)
    return ("--manager", f"{path}:manager", *ORDERS)


def orders(count: int) -> list[dict[str, Any]]:
    return [
        {"id": number, "total": "n/a" if number % 400 == 399 else "12.5", "legacy": "Secret"}
        for number in range(count)
    ]


def test_failures_are_counted_by_cause_and_losses_named(
    faulty: tuple[object, ...], tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", orders(5000))
    with source.open("a") as file:
        file.write("[1]\n")
    report = planned(*faulty, source, tmp_path / "out.jsonl", status=1)
    causes = {each["cause"]: each for each in report["failures"]}
    assert list(causes) == ["step 1.0.0 → 2.0.0: ValueError", "decode: InvalidRecordError"]
    found = causes["step 1.0.0 → 2.0.0: ValueError"]
    assert "raised ValueError at faulty_" in found["described"]
    assert found["first"].startswith(f"{source}, ")
    assert report["failed"] == found["records"] + 1
    assert report["failed"] / 1000 < report["failed_at_most"] < 0.03
    assert [each["field"] for each in report["losses"]] == ["legacy"]
    assert report["losses"][0]["first"] == f"{source}, line 1"
    assert "Secret" not in json.dumps(report)
    skipping = call_here(
        "run", "--dry-run", *faulty, "--on-error", "skip", source, tmp_path / "out.jsonl"
    )
    assert skipping.returncode == 3


def test_record_that_ends_its_process_is_named(faulty: tuple[object, ...], tmp_path: Path) -> None:
    records = orders(100)
    records[6]["total"] = "exit"
    source = write(tmp_path / "in.jsonl", records)
    result = call_here("plan", *faulty, source, tmp_path / "out.jsonl")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: the record at {source}, line 7 ended its process (exit status 3); look for a "
        "step that calls os._exit or needs more memory than there is\n"
    )


@pytest.mark.slow
def test_sample_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"name": "sleep:60 x", "age": 1}])
    result = call_here(*PLAN, "--timeout", 3, source, tmp_path / "out.jsonl")
    assert result.returncode == 1
    assert "error: the dry run took longer than 3 s; it was at the record at " in result.stderr
    assert "in.jsonl, line 1" in result.stderr


def test_whole_source_has_no_bound(tmp_path: Path) -> None:
    records = [person(index) for index in range(100)]
    records[3], records[4] = broken_step(3), invalid(4)
    report = planned(*PLAN[1:], write(tmp_path / "in.jsonl", records), tmp_path / "o", status=1)
    assert (report["total"], report["failed"], report["failed_at_most"]) == (100, 2, 0.02)


def test_empty_source_has_a_plan(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    result = call_here(*PLAN, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert result.returncode == 0
    assert "nothing was run: there are no records" in result.stdout


def test_pipe_is_planned_by_its_first_records(source: Path, tmp_path: Path) -> None:
    with source.open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=-1) as cat:
        result = subprocess.run(
            command(*PLAN, "--sample", 50, "-", tmp_path / "out.jsonl"),
            stdin=cat.stdout,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stderr) == (0, "")
    assert "ran the first 50 records of a pipe" in result.stdout
    assert "0 of 50: under 5.9 % at 95 % confidence" in result.stdout
    assert "workers" not in result.stdout  # nothing is known of the rest


def test_folder_is_planned_into_parts(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source.rename(folder / "a.jsonl")
    write(folder / "b.jsonl", [person(index) for index in range(500)])
    report = planned(*PLAN[1:], folder, f"{tmp_path}/out/")
    assert report["by_reference"] is True
    assert report["total"] == pytest.approx(1500, rel=0.02)
    assert report["room"]["likely_bytes"] == report["room"]["most_bytes"]


@pytest.mark.parametrize(
    ("hop", "told"),
    [
        (
            ("--model", "Persons", *HOP[2:]),
            "Model 'Persons' not found in registry; registered models: Person",
        ),
        (
            ("--model", "Person", "--from", "1.0.0", "--to", "9.0.0"),
            "Model 'Person' version '9.0.0' not found in registry; registered versions: 1.0.0, "
            "2.0.0, 3.0.0",
        ),
    ],
)
def test_unknown_model_or_version_is_told_with_what_there_is(
    source: Path, tmp_path: Path, hop: Options, told: str
) -> None:
    result = call_here("plan", *MANAGER, *hop, source, tmp_path / "out.jsonl")
    assert (result.returncode, result.stderr) == (1, f"error: {told}\n")


def test_manager_of_pyrmutes_and_deep_records_are_planned(source: Path, tmp_path: Path) -> None:
    deep = f'{{"name": "Ada L", "age": 3, "more": {"[" * 150}{"]" * 150}}}\n'
    source.write_text(source.read_text() + deep)
    pyrmutes = ("--manager", "tests.pyrmute_people:manager", *HOP)
    report = planned(*pyrmutes, source, tmp_path / "out.jsonl")
    assert [hop["function"] for hop in report["hops"]] == ["migrate_data"]
    assert (report["records"], report["failed"]) == (1000, 0)
    assert "more" in [each["field"] for each in report["losses"]]


def test_plan_is_called_from_python(source: Path, tmp_path: Path) -> None:
    migrator = Migrator("tests.people:manager")
    report = migrator.dry_run(source, tmp_path / "o", "Person", "1.0.0", "3.0.0", sample=30)
    assert isinstance(report, DryRun)
    assert (report.records, report.failed) == (30, 0)
    with source.open("rb") as file:
        opened = migrator.dry_run(file, tmp_path / "o", "Person", "1.0.0", "3.0.0", sample=30)
    assert (opened.total, opened.timings, opened.room) == (None, (), None)
    with pytest.raises(ConfigurationError, match="a sample needs 1 record or more"):
        migrator.dry_run(source, tmp_path / "o", "Person", "1.0.0", "3.0.0", sample=0)


# --- as people see it ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    folder = tmp_path_factory.mktemp("plan")
    source = write(folder / "in.jsonl", [person(index) | {"legacy": 1} for index in range(2000)])
    with source.open("a") as file:
        file.write(json.dumps(broken_step(1)) + "\n")
    return Migrator("tests.people:manager").dry_run(
        source, folder / "out.jsonl", "Person", "1.0.0", "3.0.0"
    )


@pytest.mark.parametrize("width", [50, 80, 120])
def test_plan_fits_its_width_and_leaves_nothing_out(report: DryRun, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    render(report, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= min(width, 100)
    text = " ".join(" ".join(lines).split())
    for part in (
        "split_name",
        "+ first_name: str",
        "1 of 1,000: under 0.5 % at 95 % confidence",
        "raised LookupError at people.py:",
        "legacy: not declared by the source's model",
        "the coordinator",
    ):
        assert part in text
    assert "…" not in text


# --- a first part of a file ---------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--chunk-size", 7), ("--no-log",)])
def test_limited_run_migrates_the_first_records_only(
    source: Path, tmp_path: Path, on_fleet: Options, options: tuple[object, ...]
) -> None:
    run = ("run", *MANAGER, *HOP, *on_fleet, *options, "--limit", 25, "--quiet")
    target = tmp_path / "out.jsonl"
    result = call_here(*run, source, target)
    assert (result.returncode, result.stderr) == (0, "")
    assert target.read_text() == expected([person(index) for index in range(25)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_limited_run_cannot_go_by_reference(source: Path, tmp_path: Path) -> None:
    run = ("run", *MANAGER, *HOP, "--limit", 25, "--by-reference", "always")
    result = call_here(*run, source, tmp_path / "out.jsonl")
    assert result.returncode == 2
    assert "this run cannot go by reference: a limit counts records" in result.stderr


def test_limited_run_reads_a_pipe_no_further(tmp_path: Path, on_fleet: Options) -> None:
    _, url, _, store = on_fleet
    with subprocess.Popen(["yes", json.dumps(person(1))], stdout=-1) as endless:
        try:
            assert endless.stdout is not None
            with Migrator.connect("tests.people:manager", url, store) as migrator:
                report = migrator.migrate_file(
                    endless.stdout, tmp_path / "o", "Person", "1.0.0", "3.0.0", limit=70
                )
        finally:
            endless.kill()
    assert report.records == 70
    assert (tmp_path / "o").read_text() == expected([person(1)] * 70)


# --- a disk without room ------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB with 40 inodes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "tmpfs", folder)
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs rights that tests rarely have; see also test_preflight.py")
    yield folder
    subprocess.run(("umount", folder), check=True)


@pytest.mark.slow
def test_output_that_surely_does_not_fit_is_refused_before_a_fleet_is_there(
    small_disk: Path, tmp_path: Path, private_tmp: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [person(index) for index in range(100_000)])
    run = ("run", *MANAGER, *HOP, "--quiet")
    for target, ask in ((f"{small_disk}/out.jsonl", call_here), (f"{small_disk}/out/", call)):
        result = ask(*run, source, target)
        assert result.returncode == 1
        assert result.stderr.startswith(
            f"error: cannot write {target}: the file system of {small_disk} has 1.0 MiB free, and "
            "the output takes 2."
        )
        assert list(small_disk.iterdir()) == []
    report = planned(*PLAN[1:], source, small_disk / "out.jsonl", status=1)
    assert report["fits"] is False
    shown = call_here(*PLAN, source, small_disk / "out.jsonl")
    assert "does not fit: 1.0 MiB free in " in shown.stdout


def test_output_that_fits_is_written_without_a_word(
    small_disk: Path, source: Path, on_fleet: Options
) -> None:
    run = ("run", *MANAGER, *HOP, *on_fleet, "--quiet")
    result = call_here(*run, source, small_disk / "out.jsonl")
    assert (result.returncode, result.stderr) == (0, "")


def test_disk_without_inodes_is_told(small_disk: Path, source: Path) -> None:
    for number in range(34):
        (small_disk / str(number)).touch()
    result = call_here("run", *MANAGER, *HOP, "--workers", 1, source, small_disk / "out.jsonl")
    assert result.returncode == 1
    assert "has inodes left for " in result.stderr
