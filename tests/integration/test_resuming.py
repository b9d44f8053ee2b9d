"""Runs that are killed and go on, by command line, with real fleets and real signals."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from pyrmute_tasks import JobChangedError, JobNotFoundError, Migrator
from pyrmute_tasks.jobs.folder import JobFolder, beside
from tests.conftest import ROOT, descendants, is_alive, wait_until
from tests.fleets import Fleet, private_fleet

MANAGER: Final = "tests.integration.numbered:manager"
HOP: Final = ("Entry", "1.0.0", "2.0.0")
CHUNK: Final = 10
RECORDS: Final = 3000
SECONDS: Final = 0.002
LATE: Final = 2 * CHUNK * 8  # records of two windows: one in flight, one delivered and not settled


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with private_fleet(MANAGER, 2) as fleet:
        yield fleet


# Ranges of some records, so that a small file has many.
SMALL_RANGES: Final = """
from pyrmute_tasks.engine import chunk_sizes
for name in ("_FIRST_RANGE_BYTES", "_MOST_RANGE_BYTES", "_LEAST_RANGE_BYTES"):
    setattr(chunk_sizes, name, 2000)
"""


class Resumed:
    """A file that is migrated by a run that is killed again and again."""

    def __init__(
        self,
        folder: Path,
        records: int = RECORDS,
        seconds: float = SECONDS,
        *,
        refers: bool = False,
    ) -> None:
        self.refers = refers
        self.source, self.target = folder / "in.jsonl", folder / "out.jsonl"
        self.rejects, self.notes = folder / "bad.jsonl", folder / "notes"
        self.records = records
        with self.source.open("w") as file:
            for number in range(records):
                entry = {"number": number, "notes": str(self.notes), "seconds": seconds}
                file.write(json.dumps(entry) + "\n")
                file.write("\n" * (number % 50 == 49))
        self.notes.touch()

    def command(self, *options: str) -> list[str]:
        program = "from pyrmute_tasks.cli.main import main; main()"
        way = ("--chunk-size", str(CHUNK))
        if self.refers:
            program, way = SMALL_RANGES + program, ("--by-reference", "always")
        hop = ("--model", HOP[0], "--from", HOP[1], "--to", HOP[2])
        given = ("--manager", MANAGER, *hop, *way, "--on-error", "skip")
        files = ("--rejects", str(self.rejects), str(self.source), str(self.target))
        return [sys.executable, "-c", program, "run", *given, *options, *files]

    def begin(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*options),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*options)
        work_s = self.records * SECONDS  # of one worker, if nothing was settled before
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60 + work_s, check=False
        )

    @property
    def settled(self) -> int:
        """Records that are settled."""
        path = beside(self.target)
        return JobFolder(path).view().fold.records if path.is_dir() else 0

    @property
    def settled_numbers(self) -> set[int]:
        """Numbers of the records that are settled, also behind gaps."""
        path = beside(self.target)
        if not path.is_dir():
            return set()
        ranges = [span.range for span in JobFolder(path).view().fold.spans()]
        found, offset, number = set(), 0, 0
        for line in self.source.read_bytes().splitlines(keepends=True):
            if line.strip():
                if any(each.start <= offset < each.end for each in ranges):
                    found.add(number)
                number += 1
            offset += len(line)
        return found

    @property
    def seen(self) -> list[int]:
        """Records that the step has seen, in its order."""
        return [int(line) for line in self.notes.read_text().split()]

    def expected(self) -> str:
        return "".join(
            f'{{"number":{number},"text":"entry {number}"}}\n'
            for number in range(self.records)
            if number % 97 != 13
        )

    def check(self, result: subprocess.CompletedProcess[str]) -> None:
        """Check what a run to the end has left."""
        assert result.returncode == 3, result.stderr
        assert self.target.read_text() == self.expected()
        rejects = [json.loads(line) for line in self.rejects.read_text().splitlines()]
        lines = self.source.read_text().splitlines()
        bad = [number for number in range(self.records) if number % 97 == 13]
        assert [reject["index"] for reject in rejects] == bad
        assert [json.loads(lines[reject["line"] - 1])["number"] for reject in rejects] == bad
        data = self.source.read_bytes()
        texts = [data[r["offset"] : r["offset"] + r["length"]] for r in rejects]
        assert [json.loads(text)["number"] for text in texts] == bad
        mine = {self.source, self.target, self.rejects, self.notes, beside(self.target)}
        assert set(self.source.parent.iterdir()) == mine


def kill_at(job: Resumed, process: subprocess.Popen[str], delay_s: float) -> bool:
    """Kill a run, its fleet and all, some time after its job was created; False if it ended."""
    wait_until(lambda: beside(job.target).is_dir() or process.poll() is not None, "it has begun")
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def is_begun(job: Resumed, earlier: str) -> bool:
    """Whether another job than an earlier one has settled something."""
    with contextlib.suppress(FileNotFoundError, JobNotFoundError):
        return JobFolder(beside(job.target)).spec.job != earlier and job.settled > 0
    return False


def kill_often(job: Resumed, workers: Sequence[str], kills: int, seed: int) -> None:
    """Kill a run until it has been killed so often, and let it come to its end."""
    rng = random.Random(seed)
    done = 0
    while done < kills:
        begun = ("--resume",) if done else ()
        before, noted = job.settled_numbers, len(job.seen)
        process = job.begin(*workers, *begun, "--quiet")
        if job.refers:  # its own fleet is starting first
            wait_until(lambda: len(job.seen) > noted or process.poll() is not None, "it runs")  # noqa: B023  # at once
        if not kill_at(job, process, rng.uniform(0.0, 0.6 + job.records * SECONDS / kills)):
            break
        done += 1
        assert job.settled_numbers >= before
        assert not before.intersection(job.seen[noted:]), "what is settled is not run again"
    assert done >= min(kills, 5)
    job.check(job.end(*workers, "--resume"))
    again = len(job.seen) - job.records
    # Of what is not settled at a kill: a window in flight, and what was delivered in a second.
    assert again <= done * (LATE + int(1.0 / SECONDS) * 2)


def connected_to(fleet: Fleet) -> list[str]:
    return ["--broker", fleet.settings.broker_url, "--store", fleet.settings.store_url]


def test_run_that_is_killed_goes_on(tmp_path: Path, fleet: Fleet) -> None:
    job = Resumed(tmp_path, RECORDS * 2 // 3)
    process = job.begin(*connected_to(fleet), "--quiet")
    wait_until(lambda: job.settled, "something is settled")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before, noted = job.settled_numbers, len(job.seen)
    job.check(job.end(*connected_to(fleet), "--resume"))
    assert not before.intersection(job.seen[noted:]), "what is settled is not run again"


@pytest.mark.slow
def test_run_killed_at_random_points_goes_on(tmp_path: Path, fleet: Fleet) -> None:
    kill_often(Resumed(tmp_path), connected_to(fleet), 2, 1)
    wait_until(lambda: not list(fleet.store.scan_iter("pt:{*}:claims")), "no claims are left")


@pytest.mark.slow
def test_run_by_reference_killed_at_random_points_goes_on(tmp_path: Path) -> None:
    kill_often(Resumed(tmp_path, refers=True), ["--workers", "2"], 2, 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("refers", [False, True])
def test_run_killed_thirty_times_goes_on(tmp_path: Path, fleet: Fleet, refers: bool) -> None:
    workers = ["--workers", "2"] if refers else connected_to(fleet)
    kill_often(Resumed(tmp_path, 6 * RECORDS, refers=refers), workers, 30, 2)


@pytest.mark.slow
def test_own_fleet_that_is_killed_with_its_run_leaves_nothing(
    tmp_path: Path, private_tmp: Path
) -> None:
    job = Resumed(tmp_path, RECORDS // 3)
    process = job.begin("--workers", "1")
    wait_until(lambda: job.settled, "something is settled")
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    settled, seen = job.settled, len(job.seen)
    wait_until(lambda: not [pid for pid in below if is_alive(pid)], "its fleet has ended")
    found = job.end("--workers", "1")
    assert found.returncode == 1
    assert "--resume goes on with it, --restart begins again" in found.stderr
    assert len(job.seen) == seen
    resumed = job.end("--workers", "1", "--resume")
    job.check(resumed)
    assert "of them by earlier runs)" in resumed.stdout
    assert min(job.seen[seen:]) >= settled
    wait_until(lambda: not list(private_tmp.iterdir()), "every file is gone")


@pytest.mark.slow
def test_interrupted_run_prints_the_command_that_resumes_it(tmp_path: Path, fleet: Fleet) -> None:
    job = Resumed(tmp_path)
    urls = ("--broker", fleet.settings.broker_url, "--store", fleet.settings.store_url)
    begun = job.end(*urls, "--resume", "--max-errors", "0")
    assert begun.returncode == 1
    assert f"nothing to resume for {job.target}: the run begins" in begun.stderr
    assert "to go on: " in begun.stderr
    job.rejects.unlink()
    refused = job.end(*urls, "--resume", "--max-errors", "1")
    assert refused.returncode == 1
    assert "max_errors was 0, and is 1. --restart begins again" in refused.stderr
    left = JobFolder(beside(job.target)).spec.job
    process = job.begin(*urls, "--restart")
    wait_until(lambda: is_begun(job, left), "it has begun again")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert "nothing was left behind" in told  # it ran for less than ten seconds
    assert not beside(job.target).exists()


def test_failure_behind_a_resumed_part_names_its_record(tmp_path: Path, fleet: Fleet) -> None:
    job = Resumed(tmp_path, 400, 0.0)
    with Migrator.connect(MANAGER, fleet.settings.broker_url, fleet.settings.store_url) as migrator:
        report = migrator.run_file(
            job.source, job.target, *HOP, chunk_size=CHUNK, resume=True, on_error="raise"
        )
        again = migrator.run_file(
            job.source, job.target, *HOP, chunk_size=CHUNK, resume=True, on_error="raise"
        )
        assert report.failure is not None
        assert again.failure is not None
        assert (again.failure.index, again.failure.source) == (13, f"{job.source}, line 14")
        assert (report.restored, again.restored, again.records) == (0, 10, 13)
        job.source.write_text(job.source.read_text() + "\n")
        with pytest.raises(JobChangedError, match=r"in\.jsonl had .* bytes, and has"):
            migrator.migrate_file(job.source, job.target, *HOP, resume=True)
        migrator.migrate_file(
            job.source, job.target, *HOP, restart=True, on_error="skip", overwrite=False
        )
    assert job.target.read_text() == job.expected()
