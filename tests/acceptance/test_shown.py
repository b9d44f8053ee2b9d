"""What a person sees of `pyrmute-tasks run`: progress, reports, help, and refused input."""

import bz2
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyrmute_tasks.cli import main as cli
from pyrmute_tasks.cli.run_report import command_with
from tests.acceptance.conftest import Options
from tests.acceptance.test_run import HOP, MANAGER, call, call_here, command, expected
from tests.conftest import ROOT, wait_until
from tests.people import person


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(person(index)) + "\n" for index in range(100)))
    return path


# --- progress and reports -----------------------------------------------------------------


def test_report_and_lines_as_json(source: Path, tmp_path: Path, on_fleet: Options) -> None:
    target = tmp_path / "out.jsonl"
    result = call_here("run", *MANAGER, *HOP, *on_fleet, "--json", source, target)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["state"], report["records"], report["output"]) == (
        "succeeded",
        100,
        str(target),
    )
    assert json.loads(result.stderr.splitlines()[-1])["fraction"] == 1.0


def test_report_of_a_failure_as_json(source: Path, tmp_path: Path, on_fleet: Options) -> None:
    source.write_text(source.read_text() + '{"name": "x", "age": "secret"}\n')
    arguments = (*on_fleet, "--json", "--quiet", source, tmp_path / "out.jsonl")
    result = call_here("run", *MANAGER, *HOP, *arguments)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["state"] == "failed"
    assert report["failure"].startswith(f"{source}, line 101 (record 100): ")
    assert "secret" not in result.stdout


def test_rate_and_throttle_hold_a_run(source: Path, tmp_path: Path, on_fleet: Options) -> None:
    go_on = tmp_path / "go-on"
    throttle = tmp_path / "pacing.py"
    throttle.write_text(
        "from pathlib import Path\n"
        f"def wait(): return None if Path({str(go_on)!r}).exists() else 'the database lags'\n"
    )
    arguments = ("--throttle", f"{throttle}:wait", "--max-rate", 1000, "--stats", 0.1)
    process = subprocess.Popen(
        command("run", *MANAGER, *HOP, *on_fleet, *arguments, source, tmp_path / "out.jsonl"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting: throttled for" in line:
            break
    assert line.startswith("0%, 0 records, 0/s (max 1,000), ETA ?; waiting: throttled for ")
    assert line.endswith("the database lags\n")
    go_on.touch()
    stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "records  100\n" in stdout


def test_throttled_run_is_interrupted_at_once(
    source: Path, tmp_path: Path, on_fleet: Options
) -> None:
    throttle = tmp_path / "pacing.py"
    asked = tmp_path / "asked"
    throttle.write_text(
        f"from pathlib import Path\ndef wait():\n    Path({str(asked)!r}).touch()\n"
        "    return 'never'\n"
    )
    arguments = ("--throttle", f"{throttle}:wait", source, tmp_path / "out.jsonl")
    process = subprocess.Popen(
        command("run", *MANAGER, *HOP, *on_fleet, *arguments),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(asked.exists, "the throttle was asked")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted; nothing was left behind"


def test_help_has_examples_and_exit_statuses() -> None:
    text = CliRunner().invoke(cli._cli, ["run", "--help"]).stdout
    assert "Examples:\n    pyrmute-tasks run --manager my_app.models:manager" in text
    for status in ("0    succeeded", "1    failed", "2    wrong", "3    finished", "130  inter"):
        assert f"\n    {status}" in text


# --- interrupts from the first moment on ----------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "it's", "a\nb", "a\x1b[31m", os.fsdecode(b"a\xff\xfe'1")])
def test_command_that_goes_on_names_the_file_to_a_shell(name: str) -> None:
    shown = command_with(["run", name, "--broker=redis://:secret@host"])
    assert shown.isprintable()
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {shown}"], capture_output=True, check=True
    ).stdout
    assert printed.split(b"\0")[-4:] == [
        b"run",
        os.fsencode(name),
        b"--broker=redis://:***@host",
        b"",
    ]


@pytest.mark.parametrize("module", ["pyrmute_tasks.cli.main", "pyrmute_tasks.cli.run"])
def test_interrupt_while_the_command_is_imported(module: str, tmp_path: Path) -> None:
    program = f"""
import builtins, importlib, os, signal, sys
from pyrmute_tasks.cli.start import main

def hook(function):
    def call(name, *args, **options):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
        return function(name, *args, **options)
    return call

builtins.__import__ = hook(builtins.__import__)
importlib.import_module = hook(importlib.import_module)
main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, "run", *MANAGER, *HOP, "in.jsonl", "out.jsonl"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (130, "")
    assert ran.stderr == "interrupted before it began\n"


def test_full_standard_output_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        program = [sys.executable, "-m", "pyrmute_tasks", "--version"]
        ran = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1
    reason = "No space left on device"
    assert ran.stderr == f"error: cannot write to the standard output: {reason}\n"


def test_interrupt_while_the_manager_is_imported(source: Path, tmp_path: Path) -> None:
    slow, begun = tmp_path / "slow.py", tmp_path / "begun"
    slow.write_text(f"import time\nopen({str(begun)!r}, 'w')\ntime.sleep(60)\n")
    process = subprocess.Popen(
        command("run", "--manager", f"{slow}:manager", *HOP, source, tmp_path / "out.jsonl"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(begun.exists, "the manager is being imported")
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stderr == "interrupted; nothing was left behind\n"


# --- input that is no JSON lines ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what", "tool"),
    [
        (gzip.compress(b"{}\n"), "is compressed with gzip", "gunzip -c"),
        (bz2.compress(b"{}\n"), "is compressed with bzip2", "bzip2 -dc"),
        (b'[{"a": 1}, {"a": 2}]\n', "is one JSON array", "jq -c '.[]'"),
        (b'\xef\xbb\xbf [\n  {"a": 1}\n]\n', "is one JSON array", "jq -c '.[]'"),
        (b'{\n  "a": 1\n}\n{\n  "a": 2\n}\n', "has objects that span lines", "jq -c ."),
    ],
    ids=["gzip", "bzip2", "array", "array over lines", "objects over lines"],
)
def test_what_to_do_about_other_formats(
    content: bytes, what: str, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/pyrmute-tasks", "run", "in file", "out"])
    path = tmp_path / "in file"
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    result = call_here(
        "run", "--manager", f"{ROOT}/tests/people.py:manager", *HOP, path.name, "out"
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"error: cannot read in file: it {what}, and not one JSON object a line. Try: "
        f"{tool} 'in file' | pyrmute-tasks run - out\n"
    )


@pytest.mark.parametrize("text", ["[1, 2]\n", "{\n", ""])
def test_lines_that_only_look_odd_are_read(text: str, tmp_path: Path, private_tmp: Path) -> None:
    """A line of the file may be bad; only what no line can be is refused."""
    source = tmp_path / "in.jsonl"
    source.write_text(text + json.dumps(person(1)) + "\n")
    target = tmp_path / "out.jsonl"
    result = call("run", *MANAGER, *HOP, "--on-error", "skip", source, target)
    if text == "{\n":
        assert "has objects that span lines" in result.stderr
        return
    assert result.returncode == (3 if text else 0), result.stderr
    assert target.read_text() == expected([person(1)])
