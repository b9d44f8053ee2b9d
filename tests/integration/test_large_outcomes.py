"""Outputs larger than one value of the store may be, on a real fleet."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.settings import Settings
from tests.conftest import ROOT

MANAGER = "tests.integration.small_frames:manager"
HOP = ("--model", "Seed", "--from", "1.0.0", "--to", "2.0.0")
COUNT = 100
SIZE_BYTES = 2000


def seed(index: int, size_bytes: int = SIZE_BYTES, letter: str = "") -> str:
    return json.dumps({"letter": letter or chr(97 + index % 26), "size_bytes": size_bytes})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a fleet with one worker."""
    with EmbeddedFleet(MANAGER, 1, Settings()) as fleet:
        yield fleet.settings.broker_url


def run(url: str, source: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    arguments = ["run", "--manager", MANAGER, *HOP, "--broker", url, "--chunk-size", str(COUNT)]
    arguments += ["--keep-partial", str(source), str(target)]
    return subprocess.run(
        [sys.executable, "-m", "pyrmute_tasks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def outputs(count: int) -> str:
    return "".join(f'{{"text":"{chr(97 + n % 26) * SIZE_BYTES}"}}\n' for n in range(count))


def test_chunk_with_too_large_outputs_succeeds_in_halves(url: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(seed(index) + "\n" for index in range(COUNT)))
    result = run(url, source, target)
    assert result.returncode == 0, result.stderr
    assert target.read_text() == outputs(COUNT)


@pytest.mark.parametrize(
    "place",
    [pytest.param(0, marks=pytest.mark.slow), 57, pytest.param(99, marks=pytest.mark.slow)],
)
def test_a_record_whose_output_is_too_large_is_named(url: str, tmp_path: Path, place: int) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [seed(index, 100_000 if index == place else SIZE_BYTES) for index in range(COUNT)]
    source.write_text("\n".join(rows))
    result = run(url, source, target)
    assert result.returncode == 1
    told = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert told == [
        f"error: {source}, line {place + 1} (record {place}): the record is 100012 bytes and the "
        "limit is 65536: it cannot travel; migrate it in one process, with ModelManager"
    ]
    assert (tmp_path / "out.jsonl.partial").read_text() == outputs(place)


def test_too_large_error_loses_only_its_text(url: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [seed(index) for index in range(10)]
    rows[7] = seed(7, 100_000, "!")
    source.write_text("\n".join(rows))
    result = run(url, source, target)
    assert result.returncode == 1
    assert f"error: {source}, line 8 (record 7)" in result.stderr
    assert (tmp_path / "out.jsonl.partial").read_text() == outputs(7)


RECORDS = """
import json, sys
from pyrmute_tasks import FrameTooLargeError, Migrator
from tests.integration.small_frames import manager

def seeds(sizes):
    return ({"letter": chr(97 + n % 26), "size_bytes": size} for n, size in enumerate(sizes))

HOP = ("Seed", "1.0.0", "2.0.0")
if __name__ == "__main__":
    with Migrator("tests.integration.small_frames:manager", workers=1) as migrator:
        sizes = [2000] * 100
        got = migrator.migrate_batch(seeds(sizes), *HOP, chunk_size=100)
        assert got == manager.migrate_batch(seeds(sizes), *HOP)
        sizes[57] = 100_000
        got = []
        try:
            for model in migrator.migrate_batch_streaming(seeds(sizes), *HOP, chunk_size=100):
                got.append(model)
        except FrameTooLargeError as error:
            assert error.record_index == 57, error.record_index
        else:
            raise AssertionError("nothing was raised")
        assert got == manager.migrate_batch(seeds(sizes[:57]), *HOP)
        got = []
        records = [*seeds([10] * 3), {"letter": "x" * 100_000, "size_bytes": 1}, *seeds([10])]
        try:
            for model in migrator.migrate_batch_streaming(records, *HOP, chunk_size=1):
                got.append(model)
        except FrameTooLargeError as error:
            assert error.record_index == 3, error.record_index
        else:
            raise AssertionError("nothing was raised")
        assert got == manager.migrate_batch(records[:3], *HOP)
"""


@pytest.mark.slow
def test_records_that_are_too_large_are_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(RECORDS)
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
