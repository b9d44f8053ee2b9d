"""The table of library internals: a row for each assumption, with the check that it still holds.

Each module of this package holds the rows of one library. `docs/library-internals.md` is written
from the table.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.conftest import ROOT

PACKAGE: Final = ROOT / "pyrmute_tasks"


@dataclass(frozen=True, slots=True)
class Internal:
    """An undocumented behaviour of a library that we rely on.

    Attributes:
        library: The library, as its package is called.
        name: What is relied on.
        pattern: A regular expression that finds its uses in our code.
        purpose: What we use it for, and what would break.
        until: When the use can go.
        check: Asserts that it exists and does what we assume.
    """

    library: str
    name: str
    pattern: str
    purpose: str
    until: str
    check: Callable[[], None]

    def used_in(self) -> list[str]:
        """Return the modules of ours that use it."""
        return [module for module, text in sources().items() if re.search(self.pattern, text, re.M)]


TABLE: Final[list[Internal]] = []


def internal(
    library: str, name: str, pattern: str, *, purpose: str, until: str
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Add a row to the table: the decorated function is its check."""

    def add(check: Callable[[], None]) -> Callable[[], None]:
        TABLE.append(Internal(library, name, pattern, purpose, until, check))
        return check

    return add


@cache
def sources() -> dict[str, str]:
    """The text of our modules, by name."""
    return {_module(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


BOUNDARY: Final = ("distributed.internals", "pydantic_internals", "pyrmute_adapter")
"""The modules, or packages of them, that may use what is in the table."""


def outside_boundary() -> dict[str, str]:
    """The text of our modules outside the boundary, by name."""
    return {name: text for name, text in sources().items() if not name.startswith(BOUNDARY)}


@cache
def _nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))


def imported_names(text: str, libraries: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each name that a module imports from `libraries`, and the line.

    What is read from an imported module, as in ``redis.Redis``, counts as imported.
    """
    lines = text.splitlines()
    modules: dict[str, str] = {}
    for node in _nodes(text):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in libraries:
            statement = " ".join(lines[node.lineno - 1 : node.end_lineno])
            for name in node.names:
                yield f"{node.module}.{name.name}", statement
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] in libraries:
                    modules[name.asname or name.name] = name.name
    for node in _nodes(text):
        if isinstance(node, ast.Attribute) and (owner := ast.unparse(node.value)) in modules:
            yield f"{modules[owner]}.{node.attr}", lines[node.lineno - 1]


def undocumented_names(libraries: tuple[str, ...]) -> set[str]:
    """Return the attributes and methods in the table's rows, without their owners."""
    spans = [
        re.sub(r"\(.*\)$", "", span)
        for row in TABLE
        if row.library in libraries
        for span in re.findall(r"`([^`]+)`", row.name)
    ]
    return {span.rpartition(".")[2] for span in spans if re.fullmatch(r"[A-Za-z_][\w.]*", span)}


def uses_of(text: str, names: set[str]) -> Iterator[str]:
    """Yield the places where a module reads, overrides or quotes one of `names`.

    A private attribute of ``self`` is the module's own.
    """
    for node in _nodes(text):
        match node:
            case ast.Attribute(value, attr) if attr in names:
                is_own = isinstance(value, ast.Name) and value.id == "self" and attr[0] == "_"
                if not is_own:
                    yield f"line {node.lineno}: {ast.unparse(node)}"
            case ast.FunctionDef(name) | ast.ClassDef(name) if name in names:
                yield f"line {node.lineno}: {name}"
            case ast.Constant(str() as quoted) if quoted in names:
                yield f"line {node.lineno}: {quoted!r}"


def private_uses() -> Iterator[str]:
    """Yield the lines with the linter's exception for a private name."""
    for text in sources().values():
        yield from (line for line in text.splitlines() if "noqa: SLF001" in line)
