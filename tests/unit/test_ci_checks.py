"""The hooks of git and the hosted checks run the makefile's checks, and no others."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HOOKS = ROOT / ".pre-commit-config.yaml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def test_hooks_are_the_tools_of_make_check() -> None:
    (checks,) = re.findall(r"^check:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.M)
    tools = re.findall(r"\$\(BIN\)/([\w-]+(?: (?:format|check))?)", checks)
    hooks = re.findall(r"entry: \.venv/bin/([\w-]+(?: (?:format|check))?)", HOOKS.read_text())
    assert hooks == tools
    assert re.findall(r"repo: (\S+)", HOOKS.read_text()) == ["local"]


def test_hooks_are_valid() -> None:
    found = shutil.which("pre-commit", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("pre-commit is not installed beside this Python")
    subprocess.run([found, "validate-config", str(HOOKS)], check=True)


def test_workflow_runs_the_ci_script() -> None:
    text = WORKFLOW.read_text()
    assert re.search(r"^ +- run: sudo .*\.ci/run$", text, re.M)
    assert "make test-matrix" in text
