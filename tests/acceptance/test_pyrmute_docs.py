"""pyrmute's examples and documentation run here with the same output, import changed.

Its sources are fetched by pip once; without a network the tests are skipped, but not under CI.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.pyrmute_blocks import Result, change_import, compare, run_all, succeeded
from tests.acceptance.pyrmute_sources import fetch_or_skip
from tests.conftest import ROOT

# The first time pip fetches the sources, and builds their metadata in an environment of its own.
pytestmark = pytest.mark.timeout(600)

EXAMPLES: Final = (
    "advanced_features",
    "config_file_migration",
    "etl_data_import",
    "message_queue_consumer",
    "ml_inference_pipeline",
)
LISTED: Final = {
    # They give one version several classes.
    "docs/user-guide/registering-models.md#6",
    "docs/user-guide/registering-models.md#21",
    "docs/user-guide/registering-models.md#24",
}
"""The blocks that run with pyrmute only; docs/differences-from-pyrmute.md says why."""
VOLATILE: Final = re.compile(r"\d{8}_\d{6}|\d+\.\d+ms")


@pytest.fixture(scope="module")
def sources() -> Path:
    return fetch_or_skip()


@pytest.fixture(scope="module")
def theirs(sources: Path) -> dict[str, Result]:
    return run_all("pyrmute")


@pytest.fixture(scope="module")
def ours(sources: Path) -> dict[str, Result]:
    return run_all("pyrmute_tasks")


# --- examples -----------------------------------------------------------------------------


def test_all_examples_of_pyrmute_are_listed(sources: Path) -> None:
    assert {path.stem for path in (sources / "examples").glob("*.py")} == set(EXAMPLES)


# Runs each program on its standard input in the folder of its name, all in this process.
PROGRAM: Final = """
import contextlib, json, os, sys, types
for name, code in json.load(sys.stdin).items():
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    os.makedirs(name)
    with (
        contextlib.chdir(name),
        open("printed", "w") as printed,
        contextlib.redirect_stdout(printed),
    ):
        exec(compile(code, name, "exec", dont_inherit=True), vars(module))
"""


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_has_the_same_output(example: str, examples: Path) -> None:
    assert files_in(examples / "ours" / example) == files_in(examples / "theirs" / example)


@pytest.fixture(scope="module")
def examples(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all examples print and write, with each of the libraries: a process for each."""
    folder = tmp_path_factory.mktemp("examples")
    codes = {name: (sources / "examples" / f"{name}.py").read_text() for name in EXAMPLES}
    run(codes, folder / "theirs")
    run({name: change_import(code) for name, code in codes.items()}, folder / "ours")
    return folder


def run(codes: dict[str, str], folder: Path) -> None:
    """Run programs, each in an empty folder, with its output in a file there."""
    folder.mkdir()
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        input=json.dumps(codes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def files_in(folder: Path) -> dict[str, str]:
    found = {
        VOLATILE.sub("", str(path.relative_to(folder))): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found["printed"]
    return found | {"printed": VOLATILE.sub("", found["printed"])}


# --- pyrmute's own tests ------------------------------------------------------------------

THEIR_TESTS: Final = (
    "test_migration_hooks",
    "test_migration_testing",
    "test_model_diff",
    "test_model_manager",
    "test_model_version",
)
PRIVATE: Final = "test_model_manager.py::test_manager_initialization"  # looks at attributes


@pytest.mark.slow
def test_pyrmutes_own_tests_pass(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    for name in ("__init__", "conftest", *THEIR_TESTS):
        code = change_import((sources / "tests" / f"{name}.py").read_text())
        # Its private modules are not here.
        code = re.sub(r"from pyrmute_tasks\._", "from pyrmute._", code)
        (folder / f"{name}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    command += ["--deselect", f"tests/{PRIVATE}", *(f"tests/{name}.py" for name in THEIR_TESTS)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    found = re.search(r"(\d+) passed, 1 deselected", ran.stdout)
    assert found is not None, ran.stdout
    assert int(found[1]) >= 347


# --- documentation ------------------------------------------------------------------------


@pytest.mark.slow
def test_number_of_running_blocks_is_unchanged(
    theirs: dict[str, Result], ours: dict[str, Result]
) -> None:
    assert len(theirs) == 421
    assert len(succeeded(theirs)) >= 341  # of the others some need names or libraries
    assert len(succeeded(theirs) & succeeded(ours)) >= 338


@pytest.mark.slow
def test_blocks_print_write_and_assign_the_same(
    theirs: dict[str, Result], ours: dict[str, Result]
) -> None:
    different = {
        block: how for block, how in compare(theirs, ours).items() if block in succeeded(theirs)
    }
    unlisted = [f"{block}\n{how}" for block, how in different.items() if block not in LISTED]
    assert not unlisted, "\n".join(unlisted)
    assert set(different) == LISTED


@pytest.mark.slow
def test_blocks_failing_with_pyrmute_fail_equally(
    theirs: dict[str, Result], ours: dict[str, Result]
) -> None:
    failed = set(theirs) - succeeded(theirs)
    assert {block: kind_of_error(ours[block]) for block in failed} == {
        block: kind_of_error(theirs[block]) for block in failed
    }


def kind_of_error(result: Result) -> str:
    return str(result.get("error")).partition(":")[0]


def test_blocks_that_do_not_run_are_in_the_list_of_differences() -> None:
    page = (ROOT / "docs" / "differences-from-pyrmute.md").read_text()
    for block in LISTED:
        name, _, number = Path(block).name.partition("#")
        found = re.search(rf"`{re.escape(name)}`[^|]*blocks? (?P<numbers>[\d, and]+)", page)
        assert found is not None, block
        assert number in re.findall(r"\d+", found["numbers"])
