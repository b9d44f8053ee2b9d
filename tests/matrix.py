"""Run the unit and contract tests with the lowest and the highest declared versions.

    python -m tests.matrix                             every Python at hand, lowest and highest
    python -m tests.matrix --python 3.12 --versions lowest

Each combination has an environment of its own in ``.venv-matrix/``, made with pip. *Lowest* are
the dependencies in `pyproject.toml` at exactly their lower bounds, *highest* whatever pip finds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.conftest import ROOT, strip_settings

ENVIRONMENTS: Final = ROOT / ".venv-matrix"
VERSIONS: Final = ("lowest", "highest")
TESTS: Final = ("tests/unit", "tests/contract")
# Of the dev group: what these tests import, and what runs them.
TOOLS: Final = (
    "attrs",
    "django",
    "hypothesis",
    "pyrmute",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
)
NEWEST: Final = 20  # as the minor version of a Python to look for


def main() -> None:
    """Run the tests that the command line asks for; the status is 0 if all passed."""
    pythons = find_pythons()
    parser = argparse.ArgumentParser(description="Test the declared bounds.")
    parser.add_argument("--python", nargs="+", default=list(pythons), choices=list(pythons))
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS), choices=VERSIONS)
    parser.add_argument("--workers", default="auto", help="as pytest-xdist's -n")
    options = parser.parse_args()
    strip_settings()
    results = {
        (python, versions): run(pythons[python], python, versions, options.workers)
        for python, versions in product(options.python, options.versions)
    }
    for (python, versions), (passed, told) in results.items():
        print(f"Python {python}, {versions}: {'passed' if passed else 'FAILED'}: {told}")
    sys.exit(not all(passed for passed, _ in results.values()))


def project() -> dict[str, Any]:
    """The table of `pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def lowest(requirement: str) -> str:
    """Return the requirement at its lower bound: ``click>=8.1.2,<9`` becomes ``click==8.1.2``.

    Raises:
        ValueError: If it has none.
    """
    parsed = Requirement(requirement)
    bounds = [each.version for each in parsed.specifier if each.operator in (">=", "==", "~=")]
    if not bounds:
        raise ValueError(f"'{requirement}' declares no lowest version")
    parsed.specifier = SpecifierSet(f"=={max(bounds, key=Version)}")
    return str(parsed)


def find_pythons() -> dict[str, str]:
    """Return the Pythons at hand that the project supports, by minor version."""
    supported = SpecifierSet(project()["project"]["requires-python"])
    found = {}
    for version in (f"3.{minor}" for minor in range(NEWEST + 1)):
        if version not in supported:
            continue
        working = (path for path in _candidates(version) if _is_python(path, version))
        if path := next(working, None):
            found[version] = path
    return found


def _candidates(version: str) -> Iterator[str]:
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        if path := shutil.which(f"python{version}", path=directory):
            yield path
    root = os.environ.get("PYENV_ROOT", "")
    if root:
        yield from map(str, sorted(Path(root).glob(f"versions/{version}.*/bin/python")))


def _is_python(path: str, version: str) -> bool:
    # pyenv's shims are there for versions that are not chosen, too, and then fail.
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def run(python: str, version: str, versions: str, workers: str) -> tuple[bool, str]:
    """Run the tests in a new environment; return whether they passed, and the duration."""
    print(f"--- Python {version}, {versions} versions", flush=True)
    began = time.monotonic()
    try:
        interpreter = install(python, ENVIRONMENTS / f"{version}-{versions}", versions)
    except subprocess.CalledProcessError:
        return False, "it cannot be installed"
    options = ("-q", "-n", workers, "--timeout", "600", "-p", "no:cacheprovider")
    done = subprocess.run([interpreter, "-m", "pytest", *options, *TESTS], cwd=ROOT, check=False)
    return done.returncode == 0, f"{time.monotonic() - began:.0f} s"


def install(python: str, directory: Path, versions: str) -> str:
    """Create an environment with the project at those versions; return its Python."""
    subprocess.run([python, "-m", "venv", "--clear", str(directory)], check=True)
    interpreter = str(directory / "bin" / "python")
    declared = project()
    pinned = []
    if versions == "lowest":
        pinned = [lowest(each) for each in declared["project"]["dependencies"]]
    tools = [
        each for each in declared["dependency-groups"]["dev"] if Requirement(each).name in TOOLS
    ]
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--upgrade", "pip>=25.1"])
    _run([*pip, "--editable", str(ROOT), *pinned, *tools])
    _run([interpreter, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"])
    return interpreter


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
