"""The commands about models print and write the same as pyrmute's."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

MODELS: Final = """
from pydantic import BaseModel
from {library} import ModelManager

manager = ModelManager()

@manager.model("User", "1.0.0")
class UserV1(BaseModel):
    name: str

@manager.model("User", "2.0.0")
class UserV2(BaseModel):
    name: str
    age: int
"""
HOP: Final = ("--schema", "User", "--from", "1.0.0", "--to", "2.0.0")
WITH_DATA: Final = ("--data", "user.json", "--schema", "User", "--version")
COMMANDS: Final = {
    "info": ("info",),
    "diff": ("diff", *HOP),
    "diff as JSON": ("diff", *HOP, "--format", "json"),
    "valid": ("validate", *WITH_DATA, "1.0.0"),
    "invalid": ("validate", *WITH_DATA, "2.0.0"),
    "unknown version": ("validate", *WITH_DATA, "9.0.0"),
    "JSON schema": ("export", "-f", "json-schema", "-o", "out"),
    "Avro": ("export", "-f", "avro", "-o", "out"),
    "Protobuf": ("export", "-f", "protobuf", "-o", "out"),
    "TypeScript": ("export", "-f", "typescript", "-o", "out", "-s", "zod"),
    "unknown option": ("export", "--nonsense"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS.format(library="pyrmute_tasks"))
    (tmp_path / "theirs.py").write_text(MODELS.format(library="pyrmute"))
    (tmp_path / "pyrmute.toml").write_text(
        "[pyrmute.managers]\ndefault = 'theirs'\n'models.py:manager' = 'theirs'\n"
    )
    (tmp_path / "user.json").write_text(json.dumps({"name": "Ada"}))
    return tmp_path


# Runs the commands on its standard input one after the other, with one import of the library.
PROGRAM: Final = """
import contextlib, importlib, io, json, pathlib, sys
name, function, *prefix = sys.argv[1:]
main = getattr(importlib.import_module(name), function)
results = []
for arguments in json.load(sys.stdin):
    sys.argv = [*prefix, *arguments]
    printed, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    written = {str(path): path.read_text() for path in pathlib.Path("out").rglob("*.*")}
    for path in written:
        pathlib.Path(path).unlink()
    results.append((status, printed.getvalue() + errors.getvalue(), written))
json.dump(results, sys.stdout)
"""
LIBRARIES: Final = {
    "pyrmute": ("pyrmute.cli.main", "app", "pyrmute"),
    "pyrmute_tasks": ("pyrmute_tasks.cli.main", "main", "pyrmute-tasks"),
}
Result = tuple[int, str, dict[str, str]]


def run(folder: Path, library: str, *commands: list[str]) -> list[Result]:
    """Run commands; return the status of each, what it prints, and the files below ``out``."""
    process = [sys.executable, "-c", PROGRAM, *LIBRARIES[library]]
    given = json.dumps(commands)
    ran = subprocess.run(
        process, cwd=folder, input=given, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    results: list[Result] = [
        (status, text, files) for status, text, files in json.loads(ran.stdout)
    ]
    return results


def test_commands_do_what_pyrmutes_do(folder: Path) -> None:
    theirs, ours = [], []
    for command, *options in COMMANDS.values():
        name = ["models.py:manager"] if command == "info" else ["--manager", "models.py:manager"]
        theirs.append([command, *options, *name])
        ours.append([command, "--manager", "models.py:manager", *options])
    expected, found = run(folder, "pyrmute", *theirs), run(folder, "pyrmute_tasks", *ours)
    for title, of_theirs, of_ours in zip(COMMANDS, expected, found, strict=True):
        if "--nonsense" not in COMMANDS[title]:  # whose message names the program
            assert of_ours == of_theirs, title
        assert of_ours[0] == of_theirs[0], title
    assert [status for status, _, _ in found].count(0) >= 7
    assert sum(bool(written) for _, _, written in found) == 4


def test_command_is_run_as_a_process(folder: Path) -> None:
    command = [sys.executable, "-m", "pyrmute_tasks", *COMMANDS["diff"]]
    command += ["--manager", "models.py:manager"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    [(status, printed, _)] = run(
        folder, "pyrmute", [*COMMANDS["diff"], "--manager", "models.py:manager"]
    )
    assert (ran.returncode, ran.stdout + ran.stderr) == (status, printed)


def test_pyrmute_manager_needs_no_change(folder: Path) -> None:
    [(status, printed, _)] = run(folder, "pyrmute_tasks", ["info", "-m", "theirs.py:manager"])
    assert (status, "v2.0.0" in printed) == (0, True)


@pytest.mark.parametrize(
    ("manager", "error"),
    [
        ("nowhere:manager", "error: cannot import 'nowhere:manager': ModuleNotFoundError"),
        ("models:UserV1", "error: 'models:UserV1' is a ModelMetaclass and not a ModelManager"),
    ],
)
def test_manager_that_is_none_is_an_error(folder: Path, manager: str, error: str) -> None:
    command = ["diff", "--manager", manager, *HOP]
    [(status, printed, _)] = run(folder, "pyrmute_tasks", command)
    assert (status, printed.startswith(error)) == (1, True), printed


def test_manager_comes_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(folder, "pyrmute_tasks", ["info"])[0][0] == 2
    monkeypatch.setenv("PYRMUTE_TASKS_MANAGER", "models:manager")
    assert run(folder, "pyrmute_tasks", ["info"])[0][0] == 0
