"""Classes by name, among those this process has loaded.

A name on the wire never imports anything, and no module or class is accessed in a way that runs
its code. A class of the main script is named by the script's stem, under which other processes
import it (`load_attribute`).
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, ModuleType
from typing import Any, Final, cast

__all__ = ["find_class", "is_made_in_python", "name_of_class"]


def name_of_class(kind: type) -> str | None:
    """Return the name by which `find_class` finds `kind`, or None."""
    module_name: object = kind.__module__  # the class body may have set it to anything
    if not isinstance(module_name, str):
        return None
    if module_name in _SCRIPTS:
        module_name = _stem_of(module_name) or module_name
    name = f"{module_name}:{kind.__qualname__}"
    return name if find_class(name) is kind else None


def find_class(name: str) -> type | None:
    """Return the loaded class named ``module:QualifiedName``, or None."""
    module_name, _, qualname = name.partition(":")
    for module in _modules(module_name):
        found = _attribute(module, qualname)
        if found is not None:
            return found
    return None


def is_made_in_python(kind: type) -> bool:
    """Return whether `kind` is made by a class statement, not by an extension module."""
    new = _NAMESPACE_OF_CLASS.__get__(kind).get("__new__")
    return bool(kind.__flags__ & _HEAP) and type(new) is not BuiltinFunctionType


_HEAP: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_SCRIPTS: Final = ("__main__", "__mp_main__")
_NAMESPACE_OF_MODULE: Final[Any] = vars(ModuleType)["__dict__"]
_NAMESPACE_OF_CLASS: Final[Any] = vars(type)["__dict__"]


def _modules(name: str) -> Iterator[object]:
    if name in sys.modules:
        yield sys.modules[name]
        return  # another module with the same stem, with other classes
    for script in _SCRIPTS:
        if _stem_of(script) == name:
            yield sys.modules[script]


def _stem_of(script: str) -> str | None:
    file = _namespace(sys.modules.get(script)).get("__file__")
    return Path(file).stem if isinstance(file, str) and file.endswith(".py") else None


def _attribute(module: object, qualname: str) -> type | None:
    whole = _namespace(module).get(qualname)  # Box[int] and Box[a.B] are single names
    found: object = module
    for part in qualname.split(".") if whole is None else ():
        found = _namespace(found).get(part)
    found = found if whole is None else whole
    return cast("type", found) if _is_class(found) else None


def _namespace(holder: object) -> Mapping[str, object]:
    # Bypass __getattr__ and __getattribute__, which may load modules lazily.
    found: Mapping[str, object] = {}
    if issubclass(type(holder), ModuleType):
        found = _NAMESPACE_OF_MODULE.__get__(holder)
    elif _is_class(holder):
        found = _NAMESPACE_OF_CLASS.__get__(holder)
    return found


def _is_class(found: object) -> bool:
    return issubclass(type(found), type)
