"""The store's Lua scripts, each in a file of its own."""

from functools import cache
from importlib import resources

__all__ = ["load_script"]


@cache
def load_script(name: str) -> str:
    """Return the text of a script.

    Args:
        name: Its file's name, without ``.lua``.
    """
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
