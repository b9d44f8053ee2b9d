"""Modules and classes are short, or give the reason at their top."""

import ast
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ROOT

MODULE_LINES: Final = 400
CLASS_LINES: Final = 250
MODULES: Final = sorted((ROOT / "pyrmute_tasks").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_long_modules_and_classes_give_a_reason(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) > MODULE_LINES:
        assert has_reason(lines[:20], MODULE_LINES)
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ClassDef) and _length(node) > CLASS_LINES:
            top = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            assert has_reason(lines[top - 2 : top - 1], CLASS_LINES), node.name


def has_reason(lines: list[str], limit: int) -> bool:
    """Return whether a comment gives the reason for a length beyond a limit."""
    return any(line.startswith(f"# Above {limit} lines: ") for line in lines)


def _length(node: ast.ClassDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
