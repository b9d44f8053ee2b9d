"""`pyrmute-tasks run` by reference: folders, interrupts, and unsupported uses."""

import json
import signal
from pathlib import Path

import pytest

from tests.acceptance.test_run import HOP, MANAGER, call, expected, running
from tests.conftest import wait_until
from tests.people import person

RUN = ("run", *MANAGER, *HOP, "--workers", 1, "--quiet")


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.mark.slow
def test_folder_of_files_becomes_a_folder_of_parts(tmp_path: Path, private_tmp: Path) -> None:
    records = [person(index) for index in range(400)]
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write(source / "a.jsonl", records[:150])
    write(source / "b.jsonl", records[150:])
    result = call(*RUN, source, f"{target}/")
    assert (result.returncode, result.stderr) == (0, "")
    manifest = json.loads((target / "_manifest.json").read_text())
    found = "".join((target / part["name"]).read_text() for part in manifest["parts"])
    assert found == expected(records)
    again = call(*RUN, source, f"{target}/")
    assert again.returncode == 1
    assert again.stderr.startswith(f"error: cannot write {target}/: it is not empty; add --overw")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interrupt_leaves_nothing(
    tmp_path: Path, private_tmp: Path, number: signal.Signals
) -> None:
    records = [person(index) for index in range(50)]
    records[30] = {"name": "sleep:60 x", "age": 1}
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    with running(*RUN, "--by-reference", "always", source, target) as process:
        wait_until(lambda: any(tmp_path.glob(".out.jsonl.job/parts/nonce")), "the job has begun")
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    wait_until(lambda: not any(tmp_path.glob(".out.jsonl.*")), "nothing is left")
    assert not target.exists()


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (
            ("--chunk-size", 10),
            2,
            "error: this run cannot go by reference: a chunk size counts records",
        ),
        (
            ("--broker", "redis://127.0.0.1:1/0"),
            1,
            "error: this run cannot go by reference: workers need",
        ),
    ],
)
def test_run_that_cannot_go_by_reference_is_refused_before_a_fleet_starts(
    tmp_path: Path, options: tuple[object, ...], status: int, told: str
) -> None:
    source = write(tmp_path / "in.jsonl", [person(1)])
    run = ("run", *MANAGER, *HOP, "--quiet", "--by-reference", "always", *options)
    result = call(*run, source, tmp_path / "out.jsonl")
    assert result.returncode == status
    assert result.stderr.startswith(told)
    assert not (tmp_path / "out.jsonl").exists()


def test_worker_with_roots_needs_a_secret(tmp_path: Path) -> None:
    result = call("worker", *MANAGER, "--root", tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: roots (--root) need a secret")
