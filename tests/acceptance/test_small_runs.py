"""Small files: migrated without a fleet, as if there had been one."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.conftest import Options
from tests.acceptance.test_run import HOP, MANAGER, call, call_here, command, expected
from tests.conftest import ROOT
from tests.people import broken_step, invalid, person

NO_FLEET: Final = "workers  none needed (1 chunk, job "


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def told(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return status and stderr of a run, without times."""
    lines = [
        re.sub(r"after \d+\.\d\d s", "after some time", line)
        for line in result.stderr.splitlines()
        if "/s, " not in line  # progress
    ]
    return result.returncode, "\n".join(lines)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [person(index) for index in range(100)])


def test_small_file_needs_no_fleet(source: Path, tmp_path: Path, private_tmp: Path) -> None:
    target = tmp_path / "out.jsonl"
    result = call("run", *MANAGER, *HOP, source, target)
    assert result.returncode == 0, result.stderr
    assert NO_FLEET in result.stdout
    assert target.read_text() == expected([person(index) for index in range(100)])
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_small_run_loads_nothing_of_servers(source: Path, tmp_path: Path) -> None:
    arguments = ["run", *MANAGER, *HOP, str(source), str(tmp_path / "out.jsonl")]
    program = f"""
import sys
from pyrmute_tasks.cli.start import main
sys.argv = ["pyrmute-tasks", *{arguments!r}]
main_module = sys.modules["pyrmute_tasks.cli.start"]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert not loaded & {
        *("celery", "kombu", "redis", "billiard", "rich", "subprocess", "ssl"),
        *("pyrmute_tasks.migrator", "pyrmute_tasks.settings", "pyrmute_tasks.jobs.log"),
        *("pyrmute_tasks.audit", "pyrmute_tasks.io.range_source"),
    }


@pytest.mark.parametrize(
    "options", [(), ("--on-error", "skip"), ("--on-error", "skip", "--max-errors", "1")], ids=str
)
def test_errors_and_rejects_are_those_of_a_fleet(
    options: tuple[str, ...], tmp_path: Path, private_tmp: Path, on_fleet: Options
) -> None:
    records = [person(index) for index in range(100)]
    records[7], records[50], records[99] = broken_step(7), invalid(50), broken_step(99)
    source = write(tmp_path / "in.jsonl", records)
    found = []
    for place, where in (("here", ()), ("fleet", on_fleet)):
        folder = tmp_path / place
        folder.mkdir()
        rejects = ("--rejects", folder / "rejects.jsonl") if options else ()
        arguments = (*options, *rejects, "--keep-partial", "--chunk-size", 20)
        called = ("run", *MANAGER, *HOP, *arguments, *where, source, folder / "out.jsonl")
        result = call_here(*called) if where else call(*called)
        status, stderr = told(result)
        # A job with rejects is kept for a retry; without a log there is none.
        files = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
        found.append((status, stderr.replace(str(folder), "FOLDER"), files))
    here, fleet = found
    # Chunks behind the failure were sent to workers, and are not run here.
    behind = r"; \d+ later chunks? discarded"
    here, fleet = ((status, re.sub(behind, "", e), files) for status, e, files in (here, fleet))
    fleet = (fleet[0], re.sub(r"\n?to retry what was rejected: .*", "", fleet[1]), fleet[2])
    assert here == fleet
    assert here[0] == (3 if options == ("--on-error", "skip") else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kill", "sleep:1.5 s"])
def test_what_kills_or_hangs_is_left_to_a_fleet(
    name: str, tmp_path: Path, private_tmp: Path
) -> None:
    records: list[dict[str, object]] = [person(0), {"name": f"{name}: x", "age": 3}, person(2)]
    if name.startswith("sleep"):
        records[1]["name"] = "sleep:1.5 s"
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    result = call("run", *MANAGER, *HOP, "--on-error", "skip", source, target)
    assert NO_FLEET not in result.stdout
    if name == "kill":
        assert result.returncode == 3, result.stderr
        assert "line 2 (record 1) is skipped: every process that ran it ended" in result.stderr
        assert target.read_text() == expected([person(0), person(2)])
    else:
        assert result.returncode == 0, result.stderr
        assert target.read_text().count("\n") == 3


def test_what_steps_print_is_no_output(tmp_path: Path, private_tmp: Path) -> None:
    chatty = tmp_path / "chatty.py"
    people = (ROOT / "tests" / "people.py").read_text()
    chatty.write_text(people.replace('    obey(data["name"])\n', '    print("hello")\n', 1))
    source = write(tmp_path / "in.jsonl", [person(index) for index in range(10)])
    result = call("run", "--manager", f"{chatty}:manager", *HOP, source, "-")
    assert result.returncode == 0, result.stderr
    assert result.stdout == expected([person(index) for index in range(10)])


def test_standard_input_becomes_standard_output(
    source: Path, private_tmp: Path, on_fleet: Options
) -> None:
    with source.open() as file:
        ran = subprocess.run(
            command("run", *MANAGER, *HOP, *on_fleet, "-", "-"),
            cwd=ROOT,
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == source_outputs(source)


def source_outputs(source: Path) -> str:
    return expected([json.loads(line) for line in source.read_text().splitlines()])
