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


def run(folder: Path, module: str, *arguments: str) -> tuple[int, str, dict[str, str]]:
    """Run a command; return its status, what it prints, and the files below ``out``."""
    command = [sys.executable, "-m", module, *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    out = [path for path in (folder / "out").rglob("*") if path.is_file()]
    written = {str(path.relative_to(folder)): path.read_text() for path in out}
    for path in out:
        path.unlink()
    return ran.returncode, ran.stdout + ran.stderr, written


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_command_does_what_pyrmutes_does(folder: Path, arguments: tuple[str, ...]) -> None:
    command, *options = arguments
    name = ["models.py:manager"] if command == "info" else ["--manager", "models.py:manager"]
    expected = run(folder, "pyrmute.cli.main", command, *options, *name)
    found = run(folder, "pyrmute_tasks", command, "--manager", "models.py:manager", *options)
    if "--nonsense" not in options:  # whose message names the program
        assert found == expected
    assert found[0] == expected[0]


def test_pyrmute_manager_needs_no_change(folder: Path) -> None:
    status, printed, _ = run(folder, "pyrmute_tasks", "info", "-m", "theirs.py:manager")
    assert (status, "v2.0.0" in printed) == (0, True)


@pytest.mark.parametrize(
    ("manager", "error"),
    [
        ("nowhere:manager", "error: cannot import 'nowhere:manager': ModuleNotFoundError"),
        ("models:UserV1", "error: 'models:UserV1' is a ModelMetaclass and not a ModelManager"),
    ],
)
def test_manager_that_is_none_is_an_error(folder: Path, manager: str, error: str) -> None:
    status, printed, _ = run(folder, "pyrmute_tasks", "diff", "--manager", manager, *HOP)
    assert (status, printed.startswith(error)) == (1, True), printed


def test_manager_comes_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(folder, "pyrmute_tasks", "info")[0] == 2
    monkeypatch.setenv("PYRMUTE_TASKS_MANAGER", "models:manager")
    assert run(folder, "pyrmute_tasks", "info")[0] == 0
