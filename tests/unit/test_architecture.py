"""The page about the architecture has each module, and the layers inside of packages."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ROOT

PAGE: Final = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE: Final = ROOT / "pyrmute_tasks"
PACKAGES: Final = sorted(
    path.parent
    for path in PACKAGE.rglob("*/__init__.py")
    if path.parent.name != "scripts"  # Lua
)
LATE: Final = {"start": {"main"}}
"""Imports when a program runs, of what is drawn above."""

PYRMUTES: Final = re.findall(r"`(\w+)`", PAGE.partition("Twelve modules")[2].partition("\n\n")[0])


def layers_of(package: Path) -> list[list[set[str]]]:
    """Return the chains of a package's layers, the highest first, as the page draws them."""
    drawn = PAGE.partition("```text\npyrmute_tasks/\n")[2].partition("```")[0]
    found = re.search(rf"^ +{package.name}/ +(.+\n(?: {{16,}}\S.*\n)*)", drawn, re.M)
    assert found is not None, f"{package.name}/ is not drawn"
    lines = [re.split(r" {4,}", line.strip())[0] for line in found[1].splitlines()]
    chains = " ".join(lines).split(";")
    return [[set(re.findall(r"\w+", layer)) for layer in chain.split("──")] for chain in chains]


def rows_of(package: str) -> str:
    """Return the rows of the table about a package."""
    rows, is_its = [], False
    for line in PAGE.splitlines():
        first = re.match(r"\| ([^|]*?) ?\| ", line)
        if first is not None and first[1]:
            is_its = first[1].strip("`") == package
        if first is not None and is_its:
            rows.append(line.split("|")[2])
    return " ".join(rows)


def names_in(package: Path) -> set[str]:
    return {path.stem for path in package.glob("*.py")} - {"__init__"}


def imported_by(path: Path, package: Path) -> set[str]:
    """Return the modules of a package that one of them imports."""
    prefix = ".".join(package.relative_to(ROOT).parts)
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {each.removeprefix(f"{prefix}.") for each in modules if each.startswith(f"{prefix}.")}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_modules_of_a_package_are_drawn_and_described(package: Path) -> None:
    drawn = set().union(*(layer for chain in layers_of(package) for layer in chain))
    assert names_in(package) <= drawn
    described = rows_of(f"{package.relative_to(PACKAGE)}/")
    assert names_in(package) <= set(re.findall(r"`(\w+)`", described))


def test_modules_at_the_top_are_described() -> None:
    described = set(re.findall(r"`(\w+)`", rows_of("(top)")))
    assert names_in(PACKAGE) - {"__main__", "_version"} <= described | set(PYRMUTES)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_layers_in_a_package_are_as_drawn(package: Path) -> None:
    for chain in layers_of(package):
        above: set[str] = set()
        for layer in chain:
            for name in layer & names_in(package):
                imported = imported_by(package / f"{name}.py", package) - LATE.get(name, set())
                assert not imported & above, f"{name} imports what is drawn above it"
            above |= layer
