"""Checks the consumer and the public types against the wheel; prints the problems."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Any, Final

import pyrmute_tasks
from tests.conftest import ROOT

LEAST_COMPLETE: Final = 0.99
RECORD: Final = re.compile(r"(dict|Mapping)\[str, Any\]")  # a record may hold anything
# What is sent into a coroutine, and comes out before its result, is the event loop's.
COROUTINE: Final = re.compile(r"CoroutineType\[Any, Any, ")
# A plan is not taken apart by users, and throwing is typed as in any generator.
GENERIC: Final = ("AsyncStream", "Stream")
OPAQUE: Final = ('Type of "p.MigrationPlan.', 'Type of "p.Stream[str].throw"')


def main() -> int:
    """Build the wheel, check all, and return how many checks failed."""
    with tempfile.TemporaryDirectory() as folder:
        environment = make_environment(Path(folder))
        project = Path(folder) / "project"
        project.mkdir()
        shutil.copy(ROOT / "tests" / "consumer" / "app.py", project)
        wrong = [
            *mypy(project, environment),
            *pyright_strict(project, environment),
            *incomplete(project, environment),
        ]
    print("\n".join(wrong) or "the wheel's types are as they should be")
    return len(wrong)


def make_environment(folder: Path) -> Path:
    """Create an environment with the wheel, and the libraries of this one."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    site = environment / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    # Its own links are not followed, so that this package is found in the wheel only.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return environment


def mypy(project: Path, environment: Path) -> list[str]:
    """Return mypy's findings in the consumer."""
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "."]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return [ran.stdout + ran.stderr] if ran.returncode else []


def pyright(project: Path, environment: Path, *arguments: str) -> Any:
    """Return pyright's report, as data."""
    paths = {"VIRTUAL_ENV": str(environment), "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "pyright", "--outputjson", *arguments]
    ran = subprocess.run(
        command, cwd=project, capture_output=True, text=True, check=False, env=os.environ | paths
    )
    return json.loads(ran.stdout)


def pyright_strict(project: Path, environment: Path) -> list[str]:
    """Return pyright's findings, and the public names with an `Any` other than a record's."""
    places = [place for name in pyrmute_tasks.__all__ for place in places_of(name)]
    lines = ["import pyrmute_tasks as p", *(f"reveal_type(p.{place})" for place in places)]
    (project / "revealed.py").write_text("\n".join(lines))
    (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    found = pyright(project, environment)["generalDiagnostics"]
    revealed = [each["message"] for each in found if each["severity"] == "information"]
    wrong = [json.dumps(each) for each in found if each["severity"] != "information"]
    if len(revealed) != len(places):
        wrong.append(f"pyright has revealed {len(revealed)} of {len(places)} types")
    return wrong + [text for text in revealed if is_loose(text)]


def is_loose(revealed: str) -> bool:
    """Return whether a revealed type has an `Any` other than a record's."""
    if revealed.startswith(OPAQUE):
        return False
    return re.search(r"\b(Any|Unknown)\b", RECORD.sub("", COROUTINE.sub("", revealed))) is not None


def places_of(name: str) -> list[str]:
    """Return a public name, and the public attributes of a class."""
    kind = getattr(pyrmute_tasks, name)
    if not isinstance(kind, type):
        return [name]
    own = [base for base in kind.__mro__ if base.__module__.startswith("pyrmute_tasks")]
    typed = f"{name}[str]" if name in GENERIC else name
    keys = sorted({key for base in own for key in vars(base) if not key.startswith("_")})
    return [typed, *(f"{typed}.{key}" for key in keys)]


def incomplete(project: Path, environment: Path) -> list[str]:
    """Return the score of `pyright --verifytypes` if it is too low."""
    told = pyright(project, environment, "--verifytypes", "pyrmute_tasks", "--ignoreexternal")
    score = told["typeCompleteness"]["completenessScore"]
    text = f"pyright --verifytypes: {score:.1%} of the symbols have a known type"
    return [text] if score < LEAST_COMPLETE else []


if __name__ == "__main__":
    sys.exit(main())
