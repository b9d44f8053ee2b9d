"""`pyrmute-tasks audit` on managers with known faults, and on one without."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from pyrmute_tasks import JobError, Migrator
from pyrmute_tasks.audit import AuditReport, Cause, audit
from pyrmute_tasks.cli.audit import audit_command, render
from tests.acceptance.conftest import Options
from tests.acceptance.test_run import HOP as PERSONS_HOP
from tests.acceptance.test_run import MANAGER, call_here
from tests.conftest import ROOT, descendants, is_alive, wait_until
from tests.people import person

SECRET = "Secret"

# One step for each fault, all in one chain: each must be found, and nothing else.
FAULTS = """
import datetime, itertools, random, uuid
from pydantic import BaseModel, ConfigDict, Field
from pyrmute_tasks import ModelManager

manager = ModelManager()


class Document(BaseModel):
    model_config = ConfigDict(extra="allow")


class Place(BaseModel):
    zip: str


class Last(BaseModel):
    full_name: str
    first: str
    tags: list[str]
    labels: set[str]
    places: list[Place]
    at: datetime.datetime
    random: float
    token: str
    number: int
    hashed: int
    made: str = Field(default_factory=lambda: str(uuid.uuid4()))


class Source(BaseModel):
    name: str
    tags: list[str]
    places: list[Place]


LAST = 10
manager.model("Document", "1.0.0")(Source)
manager.model("Document", f"{LAST}.0.0")(Last)
for version in range(2, LAST):
    made = type(f"Document{version}", (Document,), {"__module__": __name__})
    manager.model("Document", f"{version}.0.0")(made)

step = itertools.count(1)
count = itertools.count()


def add(function):
    version = next(step)
    return manager.migration("Document", f"{version}.0.0", f"{version + 1}.0.0")(function)


@add
def clock(data):
    return {**data, "at": datetime.datetime.now()}

@add
def dice(data):
    return {**data, "random": random.random()}

@add
def unique(data):
    return {**data, "token": str(uuid.uuid4())}

@add
def order_of_a_set(data):
    return {**data, "tags": list(set(data["tags"]))}

@add
def counter(data):
    return {**data, "number": next(count)}

@add
def modifying(data):
    data["places"][0]["zip"] = "changed"
    return dict(data)

@add
def hashing(data):
    return {**data, "hashed": hash(data["name"])}

@add
def renaming_and_splitting(data):
    if data["name"] == "exit 7":
        raise SystemExit(3)
    full_name = data["name"]
    return {**{k: v for k, v in data.items() if k != "name"}, "full_name": full_name}

@add
def leaving_what_it_has_read(data):
    return {**data, "first": data["full_name"].split()[0], "labels": set(data["tags"])}
"""

EXPECTED = {
    ("1.0.0 → 2.0.0", "at", "not deterministic"),
    ("2.0.0 → 3.0.0", "random", "not deterministic"),
    ("3.0.0 → 4.0.0", "token", "not deterministic"),
    ("4.0.0 → 5.0.0", "tags", "depends on the process"),
    ("5.0.0 → 6.0.0", "number", "keeps state"),
    ("6.0.0 → 7.0.0", "places[].zip", "modifies its input"),
    ("7.0.0 → 8.0.0", "hashed", "depends on the process"),
    ("validation", "made", "not deterministic"),
    ("writing", "labels", "depends on the process"),
}


def document(number: int) -> dict[str, Any]:
    record = {
        "name": f"{'exit' if number == 7 else SECRET} {number}",
        "tags": [f"{SECRET}{number}", "a", "b", "c"],
        "places": [{"zip": str(number), "zip4": SECRET}],
        "legacy": SECRET,
    }
    return record if number % 2 else record | {"dropped": SECRET}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "faults.py").write_text(FAULTS)
    lines = [json.dumps(document(number)) for number in range(30)]
    (folder / "in.jsonl").write_text("\n".join([*lines, f"no JSON, {SECRET}"]))
    return folder


HOP = ("--model", "Document", "--from", "1.0.0", "--to", "10.0.0", "in.jsonl")


def command(*arguments: object) -> list[str]:
    program = "from pyrmute_tasks.cli.start import main; main()"
    return [sys.executable, "-c", program, "audit", *map(str, arguments)]


def call(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
def test_each_fault_is_found_at_its_step(folder: Path) -> None:
    result = call(folder, "--manager", "faults.py:manager", *HOP, "--json")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    found = {(one["step"], one["field"], one["cause"]) for one in report["findings"]}
    assert found == EXPECTED
    clock = report["findings"][0]
    assert clock["where"].startswith("faults.py:")
    assert clock["where"].endswith(" in clock")
    assert clock["records"] == 30
    losses = {loss["field"]: (loss["kind"], loss["records"]) for loss in report["losses"]}
    assert losses == {
        "legacy": ("not declared by the source's model", 29),
        "places[].zip4": ("not declared by the source's model", 29),
        "dropped": ("not declared by the source's model", 15),
    }
    failures = {(one["step"], one["error"], one["first_record"]) for one in report["failures"]}
    assert failures == {
        ("8.0.0 → 9.0.0", "SystemExit", 7),
        ("reading", "InvalidRecordError", 30),
    }
    assert SECRET not in result.stdout


@pytest.mark.slow
def test_table_fits_and_holds_no_records_unless_asked(folder: Path) -> None:
    hop = ("Document", "1.0.0", "10.0.0")
    spec, source = f"{folder}/faults.py:manager", folder / "in.jsonl"
    report = audit(spec, source, *hop, sample=9, include_records=True)
    assert (report.records, report.total) == (9, 31)
    silent = tuple(replace(finding, example=None) for finding in report.findings)
    for columns in (50, 80, 120):
        text = rendered(replace(report, findings=silent), columns)
        assert max(map(len, text.splitlines())) <= columns
        for step, field, _ in EXPECTED:
            assert step in text
            assert field in text
        assert "dropped" in text
        assert SECRET not in text
        assert SECRET in rendered(report, columns)


def rendered(report: AuditReport, columns: int) -> str:
    console = Console(width=columns, file=io.StringIO(), record=True)
    render(report, console)
    return console.export_text()


@pytest.mark.slow  # docs/audit.md has the same command, which test_docs.py runs
def test_audit_finds_nothing_in_the_flights() -> None:
    result = call(
        ROOT,
        *("--manager", "examples/flights.py:manager", "--model", "Flight"),
        *("--from", "1.0.0", "--to", "3.0.0", "examples/data/flights-sample.jsonl"),
        *("--sample", 400),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "ran 400 of 5,000 records" in result.stdout
    assert "nothing found" in result.stdout
    assert "fail" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--manager", "faults.py:missing", *HOP),
        ("--manager", "none.py:manager", *HOP),
        ("--manager", "faults.py:manager", *HOP[:-1], "none.jsonl"),
        ("--manager", "faults.py:manager", *HOP, "--sample", 0),
        ("--manager", "faults.py:manager", *HOP, "--nonsense"),
        ("--manager", "faults.py:manager", "--model", "X", *HOP[2:]),
    ],
)
def test_impossible_audit_exits_with_status_2(
    folder: Path, arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    result = CliRunner().invoke(audit_command, [*map(str, arguments)])
    monkeypatch.delitem(sys.modules, "faults", raising=False)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "rror: " in result.stderr


def test_sample_with_only_failures_is_not_clean(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    hop = ("--model", "Document", "--from", "10.0.0", "--to", "10.0.0", "in.jsonl")
    result = CliRunner().invoke(audit_command, ["--manager", "faults.py:manager", *hop])
    monkeypatch.delitem(sys.modules, "faults", raising=False)
    assert (result.exit_code, result.stderr) == (2, "")
    assert "30 records fail the same in every run: validation raises ValidationError" in (
        result.stdout.replace("\n", " ").replace("  ", " ")
    )
    assert "nothing audited" in result.stdout


# --- from Python --------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    """A manager's module with the step of the test."""
    path = tmp_path / f"audited_{os.getpid()}.py"
    yield path
    sys.modules.pop(path.stem, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def write(path: Path, step: str) -> str:
    path.write_text(
        "import os, signal, sys, time, threading\n"
        "from pydantic import BaseModel\n"
        "from pyrmute_tasks import ModelManager\n"
        "manager = ModelManager()\n"
        "class V1(BaseModel):\n    n: int\n"
        "class V2(V1):\n    pass\n"
        'manager.model("N", "1.0.0")(V1)\n'
        'manager.model("N", "2.0.0")(V2)\n'
        '@manager.migration("N", "1.0.0", "2.0.0")\n'
        f"def step(data):\n    {step}\n"
    )
    return f"{path}:manager"


def run(spec: str, count: int = 3, **options: Any) -> AuditReport:
    return audit(spec, ({"n": n} for n in range(count)), "N", "1.0.0", "2.0.0", **options)


BESIDE = {  # what a step does beside its record, and why its outputs differ then, if they do
    "memory": ('V1.last, before = data["n"], getattr(V1, "last", 0)', "before", Cause.STATE),
    "process": ("", "os.getpid()", Cause.PROCESS),
    "clock": ("", "int(time.time())", Cause.NOT_DETERMINISTIC),
    "prints": ('print("x" * 100_000); os.write(2, b"x" * 100_000)', "0", None),
    "thread": ("threading.Thread(target=time.sleep, args=(3600,)).start()", "0", None),
    "child": ("os.fork() or time.sleep(3600) if data['n'] == 0 else None", "0", None),
    "exit": ("sys.exit(0) if data['n'] == 1 else None", "0", None),
    "handler": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "0", None),
}


def test_causes_of_impure_steps_are_distinguished(module: Path) -> None:
    write(module, "return data")
    with module.open("a") as file:
        for version, (name, (does, value, _)) in enumerate(BESIDE.items(), 2):
            hop = f'"N", "{version}.0.0", "{version + 1}.0.0"'
            file.write(
                f'@manager.model("N", "{version + 1}.0.0")\n'
                f"class V{version + 1}(V{version}):\n    {name}: int\n"
                f"@manager.migration({hop})\ndef {name}(data):\n    {does}\n"
                f'    return data | {{"{name}": {value}}}\n'
            )
    migrator = Migrator(f"{module}:manager")
    last = f"{len(BESIDE) + 2}.0.0"
    report = migrator.audit(({"n": n} for n in range(5)), "N", "1.0.0", last, timeout_s=60)
    found = {finding.field: finding.cause for finding in report.findings}
    assert found == {name: cause for name, (_, _, cause) in BESIDE.items() if cause}
    assert json.loads(report.to_json())["processes"] == 4
    (failure,) = report.failures
    assert (failure.error, failure.first_record) == ("SystemExit", 1)


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_step_that_ends_its_process_is_named(module: Path, end: str) -> None:
    spec = write(module, f'{end} if data["n"] == 2 else None; return data')
    with pytest.raises(JobError, match=r"1\.0\.0 → 2\.0\.0 of record 2 ended its process"):
        run(spec)


@pytest.mark.slow
def test_audit_ends_at_its_time_limit(module: Path) -> None:
    spec = write(module, 'time.sleep(3600) if data["n"] == 1 else None; return data')
    before = set(descendants(os.getpid()))  # fleets of other tests
    with pytest.raises(JobError, match=r"longer than 4 s.* 1\.0\.0 → 2\.0\.0 of record 1"):
        run(spec, timeout_s=4)
    assert set(descendants(os.getpid())) <= before


def test_unguarded_script_is_reported(module: Path) -> None:
    write(module, "return data")
    with module.open("a") as file:
        file.write("from pyrmute_tasks.audit import audit\n")
        file.write('audit(manager, [{"n": 1}], "N", "1.0.0", "2.0.0")\n')
    result = subprocess.run(
        [sys.executable, module], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "__name__ == '__main__'" in result.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_audit(module: Path, how: signal.Signals) -> None:
    spec = write(module, "time.sleep(3600)")
    source = module.with_name("in.jsonl")
    source.write_text('{"n": 1}\n')
    arguments = ("--manager", spec, "--model", "N", "--from", "1.0.0", "--to", "2.0.0", source)
    with subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: descendants(process.pid), "the audit runs")
        children = descendants(process.pid)
        process.send_signal(how)
        process.wait(30)
    wait_until(lambda: not any(map(is_alive, children)), "its process is gone")


def test_run_hints_at_fields_that_no_version_declares(tmp_path: Path, on_fleet: Options) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    for extra, is_told in (({}, False), ({"extra": SECRET}, True)):
        source.write_text(json.dumps(person(1) | extra))
        arguments = (*MANAGER, *PERSONS_HOP, *on_fleet, "--overwrite", source, target)
        result = call_here("run", *arguments)
        assert result.returncode == 0, result.stderr
        assert ("hint: neither version declares" in result.stderr) is is_told
        assert SECRET not in result.stderr
