"""Owners of modules: the user, Python, or a library of some version."""

import functools
import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final

from pyrmute_tasks._version import __version__

__all__ = ["OwnPackages", "is_standard", "library_of", "library_version"]

_SCRIPTS: Final = ("__main__", "__mp_main__")
_LIBRARIES: Final = frozenset(
    {"pydantic", "pydantic_core", "pyrmute", "pyrmute_tasks", "typing_extensions"}
    | {"annotated_types", "typing_inspection"}
)
_SITE: Final = ("site-packages", "dist-packages")


class OwnPackages:
    """The packages whose code counts, and not only their versions.

    These are the top-level packages that hold steps and models, and those the user names,
    wherever they are installed. A module outside of any package adds its neighbours, the modules
    and packages beside it, as for a script's imports.

    Args:
        named: Names of further packages.
    """

    def __init__(self, named: Iterable[str] = ()) -> None:
        self._tops = {_top(name) for name in named}
        self._folders: set[Path] = set()
        self._known: dict[str, bool] = {}

    def add(self, module: str) -> bool:
        """Add the package of `module`; return False if it was there."""
        top = _top(module)
        if top in self._tops or top in _LIBRARIES or is_standard(module):
            return False
        self._tops.add(top)
        folder = _folder_of_script(module)
        if folder is not None:
            self._folders.add(folder)
        self._known = {}
        return True

    def __contains__(self, module: str) -> bool:
        found = self._known.get(module)
        if found is None:
            found = self._known[module] = self._owns(module)
        return found

    def _owns(self, module: str) -> bool:
        top = _top(module)
        if top in self._tops or top in _SCRIPTS:
            return True
        if top in _LIBRARIES or is_standard(module) or not self._folders:
            return False
        places = [_folder(sys.modules.get(name)) for name in (top, module)]
        return any(place in self._folders for place in places)


def is_standard(module: str) -> bool:
    """Return whether a module belongs to the standard library."""
    return _top(module) in sys.stdlib_module_names


def library_of(module: str) -> str:
    """Return the name of the library that a module belongs to."""
    parts = module.split(".")
    # The packages of a namespace, such as google, come from several libraries.
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        if getattr(sys.modules.get(name), "__file__", None) or name not in sys.modules:
            return name
    return parts[0]


@functools.cache
def library_version(library: str) -> str:
    """Return the version of an installed library; empty if it has none."""
    if library == "pyrmute_tasks":
        return __version__  # the metadata of an editable install may be outdated
    try:
        return importlib.metadata.version(library.replace(".", "-"))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass
    version = vars(sys.modules[library]).get("__version__") if library in sys.modules else None
    if isinstance(version, str):
        return version
    names = importlib.metadata.packages_distributions().get(_top(library), ())
    return ", ".join(importlib.metadata.version(name) for name in sorted(set(names)))


def _top(module: str) -> str:
    return module.partition(".")[0]


def _folder_of_script(module: str) -> Path | None:
    """Return the folder of a module that belongs to no package."""
    found = sys.modules.get(module)
    if "." in module or found is None or hasattr(found, "__path__"):
        return None
    if module in _SCRIPTS and getattr(found, "__spec__", None) is not None:
        return None  # python -m package.module
    folder = _folder(found)
    return None if folder is None or folder.name in _SITE else folder


def _folder(module: ModuleType | None) -> Path | None:
    """Return the folder that contains a module or a package."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    path = Path(file).resolve()
    return path.parent.parent if path.stem == "__init__" else path.parent
