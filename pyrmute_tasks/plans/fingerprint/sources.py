"""Places of definitions in the user's files, for messages."""

import functools
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["home_of", "place_of"]

_DEFINED: Final = re.compile(
    r"^[ \t]*(?:class[ \t]+(\w+)|(?:async[ \t]+)?def[ \t]+(\w+)|(\w+)\s*[:=])"
)


def place_of(held: Any, module: str, name: str) -> str:
    """Return the place of a definition, ``"orders/helpers.py:21"``; empty if unknown.

    For messages only: the file may be newer than the imported code.

    Args:
        held: The object.
        module: The module that holds it.
        name: Its name there.
    """
    code = getattr(held, "__code__", None)
    if type(held) is types.FunctionType and isinstance(code, types.CodeType):
        line = _line_of(code.co_filename, code.co_name, code.co_firstlineno)
        return f"{_short(code.co_filename, module)}:{line or code.co_firstlineno}"
    file = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(file, str):
        return ""
    line = _line_of(file, name.rpartition(".")[2], 1)
    return f"{_short(file, module)}:{line}" if line else _short(file, module)


def home_of(held: Any, module: str, name: str, own: Callable[[str], bool]) -> str:
    """Return the module that defines a constant or a table, which others may import.

    Args:
        held: The constant.
        module: A module that holds it.
        name: Its name there.
        own: Whether a module is the user's own.
    """
    candidates = [module]
    for other, found in list(sys.modules.items()):
        values = getattr(found, "__dict__", {})
        if other != module and own(other) and values.get(name) is held:
            candidates.append(other)
    for candidate in candidates:
        file = getattr(sys.modules.get(candidate), "__file__", None)
        if isinstance(file, str) and name in _definitions(file):
            return candidate
    return module


def _short(file: str, module: str) -> str:
    """Return the end of a file's path that matches its module's name."""
    path = Path(file)
    parts = module.count(".") + (2 if path.stem == "__init__" else 1)
    return "/".join(path.parts[-parts:])


def _line_of(file: str, name: str, first: int) -> int:
    """Return the first line from `first` on that defines `name`; 0 if there is none."""
    return next((line for line in _definitions(file).get(name, ()) if line >= first), 0)


@functools.lru_cache(maxsize=64)
def _definitions(file: str) -> dict[str, list[int]]:
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[str, list[int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _DEFINED.match(line)
        if match is not None:
            found.setdefault(next(filter(None, match.groups())), []).append(number)
    return found
