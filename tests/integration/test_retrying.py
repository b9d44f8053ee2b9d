"""Rejects that are retried once the step is mended, by command line, with real fleets."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from pyrmute_tasks.cli import main as cli
from pyrmute_tasks.jobs.folder import JobFolder, beside, beside_retry
from tests.conftest import ROOT, wait_until

pytestmark = pytest.mark.slow  # without a fleet in tests/unit/test_retried_job.py
RECORDS: Final = 2500
HOP: Final = ("--model", "Row", "--from", "1.0.0", "--to", "2.0.0")
WAYS: Final = {
    "producer": ("never", "out.jsonl"),
    "reference": ("always", "out.jsonl"),
    "parts": ("always", "out/"),
}

PROGRAM: Final = """
from pyrmute_tasks.engine import chunk_sizes
for name in ("_FIRST_RANGE_BYTES", "_MOST_RANGE_BYTES", "_LEAST_RANGE_BYTES"):
    setattr(chunk_sizes, name, 2000)
from pyrmute_tasks.cli.start import main; main()
"""

STEPS: Final = """
from pathlib import Path
from time import sleep
from pydantic import BaseModel
from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("Row", "1.0.0")
class RowV1(BaseModel):
    number: int


@manager.model("Row", "2.0.0")
class RowV2(BaseModel):
    number: int
    text: str


@manager.migration("Row", "1.0.0", "2.0.0")
def describe(data: ModelData) -> ModelData:
    number = data["number"]
    if FAILS:
        raise ValueError("no")
    SLEEP
    return {**data, "text": f"row {number}"}
"""


def is_bad(number: int) -> bool:
    """Whether the step of the first run fails: 100 records in five places."""
    return number // 100 % 5 == 2 and number % 5 == 3


class Retried:
    """A file that is migrated with a step that fails, and retried with mended ones."""

    def __init__(self, folder: Path, way: str) -> None:
        self.folder = folder
        self.by_reference, name = WAYS[way]
        self.is_parts = name.endswith("/")
        self.name = f"{folder}/{name}"
        self.target = Path(self.name)
        self.source, self.rejects = folder / "in.jsonl", folder / "bad.jsonl"
        self.steps = folder / "steps.py"
        with self.source.open("w") as file:
            for number in range(RECORDS):
                file.write(json.dumps({"number": number}) + "\n")
                file.write("\n" * (number % 70 == 69))
        self.write_step("number // 100 % 5 == 2 and number % 5 == 3")

    def write_step(self, fails: str, sleeps: str = "", text: str = "row") -> None:
        steps = STEPS.replace("FAILS", fails).replace("SLEEP", sleeps).replace("row {", text + " {")
        self.steps.write_text(steps)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, *words]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def status_of(self, command: str) -> int:
        """Call a command that neither migrates nor needs a fleet, in this process."""
        return CliRunner().invoke(cli._cli, [command, self.name]).exit_code

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        size = ("--chunk-size", "40") if self.by_reference == "never" else ()
        return self.call(
            "run",
            *("--manager", f"{self.steps}:manager", *HOP, "--workers", "1", *size),
            *("--by-reference", self.by_reference, "--on-error", "skip"),
            *("--rejects", str(self.rejects), *words, str(self.source), self.name),
        )

    def retry_words(self, *words: str) -> list[str]:
        fleet = ("--manager", f"{self.steps}:manager", "--workers", "2")
        return ["retry", *fleet, "--rejects", str(self.rejects), *words, self.name]

    def retry(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.call(*self.retry_words(*words))

    @property
    def output(self) -> str:
        if not self.is_parts:
            return self.target.read_text()
        return "".join((self.target / part["name"]).read_text() for part in self.manifest["parts"])

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.target / "_manifest.json").read_text())
        return found

    @property
    def rejected(self) -> list[int]:
        """Numbers of the rejected records, checked against index, line and offset."""
        lines, data = self.source.read_text().splitlines(), self.source.read_bytes()
        found = [json.loads(line) for line in self.rejects.read_text().splitlines()]
        for row in found:
            text = data[row["offset"] : row["offset"] + row["length"]]
            assert json.loads(lines[row["line"] - 1]) == json.loads(text)
            assert json.loads(text) == {"number": row["index"]}
        return [row["index"] for row in found]

    @property
    def left(self) -> set[str]:
        """What there is but for source, steps, output and rejects."""
        names = {self.source.name, self.steps.name, self.target.name, self.rejects.name}
        return {each.name for each in self.folder.iterdir()} - names - {"__pycache__"}


def outputs(*without: int) -> str:
    return "".join(
        f'{{"number":{number},"text":"row {number}"}}\n'
        for number in range(RECORDS)
        if number not in without
    )


@pytest.fixture
def retried(request: pytest.FixtureRequest, tmp_path: Path) -> Retried:
    """A run that has rejected a hundred records."""
    job = Retried(tmp_path, request.param)
    result = job.run()
    assert result.returncode == 3, result.stderr
    told = f"retry {job.name} --manager {job.steps}:manager --workers 1"
    assert result.stderr.splitlines()[-1].endswith(told)
    assert job.rejected == [number for number in range(RECORDS) if is_bad(number)]
    assert len(job.rejected) == 100
    assert job.output == outputs(*job.rejected)
    return job


@pytest.mark.parametrize(
    "retried",
    ["reference", "parts", "producer"],
    indirect=True,
)
def test_retry_with_a_mended_step_gives_the_output_of_a_run_without_failures(
    retried: Retried,
) -> None:
    assert retried.status_of("verify") == 0
    retried.write_step("False")
    result = retried.retry("--backup")
    assert result.returncode == 0, result.stderr
    assert retried.output == outputs()
    assert retried.rejected == []
    assert f"records  {RECORDS:,} (" in result.stdout
    (backup,) = retried.left
    assert backup.endswith(".backup")
    assert result.stderr.endswith(f"kept what was replaced: {retried.folder / backup}\n")
    if retried.is_parts:
        assert len(retried.manifest["jobs"]) == 2
        assert len({each["fingerprint"] for each in retried.manifest["jobs"]}) == 2


@pytest.mark.parametrize("retried", ["producer", "parts"], indirect=True)
def test_retry_that_leaves_rejects_can_be_retried(retried: Retried) -> None:
    retried.write_step("number in (213, 1788)")
    result = retried.retry("--json", "--stats", "0.01", "--max-rate", "1000000")
    assert result.returncode == 3, result.stderr
    report = json.loads(result.stdout)
    assert (report["state"], report["rejected"]) == ("succeeded", 2)
    shown = [json.loads(line) for line in result.stderr.splitlines()[:-1]]
    assert shown[-1]["records"] == RECORDS - 2
    assert "retry" in result.stderr.splitlines()[-1]
    assert retried.rejected == [213, 1788]
    assert retried.output == outputs(213, 1788)
    assert retried.left == {beside(retried.target).name}
    assert retried.status_of("verify") == 0
    retried.write_step("False")
    result = retried.retry("--hold")
    assert result.returncode == 0, result.stderr
    assert retried.output == outputs(213, 1788)
    assert "records were there already" in result.stderr
    assert result.stderr.splitlines()[-1].endswith(f"publish {retried.name}")
    assert retried.status_of("verify") == 0
    assert retried.status_of("publish") == 0
    assert retried.output == outputs()
    assert not retried.left


@pytest.mark.parametrize("retried", ["reference"], indirect=True)
def test_retry_that_is_killed_goes_on(retried: Retried) -> None:
    retried.write_step("False", "sleep(0.004)")
    process = subprocess.Popen(
        retried.command(*retried.retry_words()), cwd=ROOT, start_new_session=True
    )
    path = beside_retry(retried.target)
    spans = JobFolder(beside(retried.target)).view().fold.spans()
    passed = sum(span.records for span in spans if not span.rejected)

    def has_begun() -> bool:
        return path.is_dir() and JobFolder(path).view().fold.outputs > passed

    wait_until(has_begun, "it has taken over what had passed, and settled something")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = retried.run("--overwrite")
    assert "a retry to" in result.stderr
    result = retried.retry()
    assert result.returncode == 0, result.stderr
    assert retried.output == outputs()
    assert not retried.left


@pytest.mark.parametrize("retried", ["reference"], indirect=True)
def test_retry_that_would_change_what_had_passed_is_refused(retried: Retried) -> None:
    before = retried.output
    retried.write_step("False", text="line")
    result = retried.retry()
    assert result.returncode == 1
    told = f"record 0 ({retried.source}, line 1) had passed, and with today's code it gives another"
    assert told in result.stderr
    assert retried.output == before
    assert retried.left == {beside(retried.target).name}
    result = retried.retry("--accept-code")
    assert result.returncode == 0, result.stderr
    assert '"text":"row 0"' in retried.output
    assert '"text":"line 203"' in retried.output
    assert len(retried.output.splitlines()) == RECORDS


@pytest.mark.parametrize("retried", ["producer"], indirect=True)
def test_source_or_target_that_has_changed_is_refused(retried: Retried) -> None:
    retried.write_step("False")
    whole = retried.target.read_bytes()
    retried.target.write_bytes(whole.replace(b"row 7", b"row 8", 1))
    result = retried.retry()
    assert (result.returncode, "is not what its run has published" in result.stderr) == (1, True)
    retried.target.write_bytes(whole)
    with retried.source.open("a") as file:
        file.write('{"number": 2500}\n')
    result = retried.retry()
    assert (result.returncode, "cannot be retried" in result.stderr) == (1, True)
    assert retried.target.read_bytes() == whole
    assert retried.left == {beside(retried.target).name}
