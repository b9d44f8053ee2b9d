"""Run every Python block of pyrmute's documentation, with pyrmute or with the import changed.

    python -m tests.acceptance.pyrmute_blocks          a table of all pages, and what differs

The blocks of a page run one after the other in one module and one empty folder, after `PRELUDE`,
since most are fragments. What a block prints, writes, raises and assigns is its result.
"""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeGuard

import pyrmute
from pydantic import BaseModel

from tests.acceptance.pyrmute_sources import fetch
from tests.conftest import ROOT

__all__ = ["Result", "change_import", "compare", "pages", "run_all", "succeeded"]

BLOCK: Final = re.compile(
    r"^(?P<indent> *)```python[^\n]*\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)
PRELUDE: Final = """
import json, os, sys, time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError
from pyrmute import (
    AvroExporter, AvroSchemaGenerator, InvalidVersionError, JsonSchema, JsonSchemaMode, MetricsHook,
    MigrationError, MigrationFunc, MigrationHook, MigrationTestCase, MigrationTestCases, ModelData,
    ModelDiff, ModelManager, ModelNotFoundError, ModelVersion, NestedModelInfo, ProtoExporter,
    SchemaConfig, TypeScriptConfig, TypeScriptExporter, VersionedModelError,
)

manager = ModelManager()
"""
TIME_LIMIT_S: Final = 20

Result = dict[str, Any]


def change_import(code: str) -> str:
    """Change the import, as a user does."""
    return re.sub(r"^(\s*)(from|import) pyrmute\b", r"\1\2 pyrmute_tasks", code, flags=re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """Return the pages of the documentation."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def run_all(library: str) -> dict[str, Result]:
    """Return the result of each block, by page and number, run in a process of its own.

    Args:
        library: ``pyrmute`` or ``pyrmute_tasks``.
    """
    command = [sys.executable, "-m", "tests.acceptance.pyrmute_blocks", library]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # pyrmute lists fields by sets
    told = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    results: dict[str, Result] = json.loads(told.stdout.splitlines()[-1])
    return results


def succeeded(results: dict[str, Result]) -> set[str]:
    """Return the blocks that raised no error."""
    return {block for block, result in results.items() if "error" not in result}


def compare(theirs: dict[str, Result], ours: dict[str, Result]) -> dict[str, str]:
    """Return, by block, the differences of our result from pyrmute's, also where both raise."""
    return {
        block: "\n".join(
            f"  {what}: {theirs[block].get(what)!r}\n  {' ' * len(what)}  {ours[block].get(what)!r}"
            for what in sorted({*theirs[block], *ours[block]})
            if theirs[block].get(what) != ours[block].get(what)
        )
        for block in theirs
        if theirs[block] != ours[block]
    }


# --- running ------------------------------------------------------------------------------


class _TimeIsUpError(Exception):
    """A block took too long."""


def _time_is_up(*_: object) -> None:
    raise _TimeIsUpError


def _run_page(page: Path, library: str) -> Iterator[Result]:
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    sys.modules[module.__name__] = module
    _execute(PRELUDE, library, module)
    files: dict[str, str] = {}
    for number, match in enumerate(BLOCK.finditer(page.read_text()), start=1):
        before = dict(vars(module))
        printed = io.StringIO()
        result: Result = {}
        signal.alarm(TIME_LIMIT_S)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                _execute(textwrap.dedent(match["body"]), library, module, f"{page.name}#{number}")
        except BaseException as error:  # also an exit
            result["error"] = f"{type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
        now = {str(path): path.read_text() for path in sorted(Path().rglob("*")) if path.is_file()}
        result["printed"] = printed.getvalue()
        result["written"] = {name: text for name, text in now.items() if files.get(name) != text}
        result["assigned"] = {
            name: [str(each) for each in value] if _is_results(value) else repr(value)
            for name, value in vars(module).items()
            if value is not before.get(name) and _is_data(value)
        }
        files = now
        yield _normalized(result)


def _execute(code: str, library: str, module: types.ModuleType, place: str = "prelude") -> None:
    if library != "pyrmute":
        code = change_import(code)
    exec(compile(code, place, "exec", dont_inherit=True), vars(module))  # noqa: S102


def _is_data(value: object) -> bool:
    return _is_results(value) or isinstance(
        value, (str, int, float, dict, list, tuple, BaseModel, pyrmute.ModelDiff)
    )


def _is_results(value: object) -> TypeGuard[Iterable[object]]:
    return type(value).__name__ == "MigrationTestResults"


def _normalized(result: Result) -> Result:
    """Replace what differs between any two runs, and the library's name."""
    text = json.dumps(result).replace("pyrmute_tasks", "pyrmute")
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    normalized: Result = json.loads(text)
    return normalized


def _run_here(library: str) -> dict[str, Result]:
    signal.signal(signal.SIGALRM, _time_is_up)
    root, results = fetch(), {}
    for page in pages(root):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            for number, result in enumerate(_run_page(page, library), start=1):
                results[f"{page.relative_to(root)}#{number}"] = result
    return results


# --- the table ----------------------------------------------------------------------------


def _print_table() -> None:
    theirs, ours = run_all("pyrmute"), run_all("pyrmute_tasks")
    different = compare(theirs, ours)
    print(f"{'page':<50}{'blocks':>7}{'pyrmute':>9}{'here':>6}{'same':>6}")
    for page in dict.fromkeys(block.partition("#")[0] for block in theirs):
        print(_row(page, {block for block in theirs if block.startswith(f"{page}#")}, theirs, ours))
    print(_row("all", set(theirs), theirs, ours))
    for block, how in different.items():
        print(f"\n{block}\n{how}")


def _row(page: str, blocks: set[str], theirs: dict[str, Result], ours: dict[str, Result]) -> str:
    run = blocks & succeeded(theirs)
    same = [block for block in run if theirs[block] == ours[block]]
    return f"{page:<50}{len(blocks):>7}{len(run):>9}{len(run & succeeded(ours)):>6}{len(same):>6}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        told = sys.stdout
        with contextlib.redirect_stdout(io.StringIO()):
            found = _run_here(sys.argv[1])
        os.write(told.fileno(), f"{json.dumps(found)}\n".encode())
    else:
        _print_table()
