"""The store's Lua scripts, each in a file of its own."""

from functools import cache
from importlib import resources
from typing import Final

__all__ = ["load_script"]

# Found at import: it loads modules, which a worker's children would otherwise load after the fork.
_FILES: Final = resources.files(__package__)


@cache
def load_script(name: str) -> str:
    """Return the text of a script.

    Args:
        name: Its file's name, without ``.lua``.
    """
    return _FILES.joinpath(f"{name}.lua").read_text(encoding="utf-8")
