"""The registry of models and steps, and importing managers by name.

`Registry` is the data behind a `ModelManager`. `load_attribute` and `locate_attribute` convert
between an object and the name by which another process can import it:
``package.module:attribute`` or ``path/to/file.py:attribute``.
"""

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.errors import (
    ManagerImportError,
    ModelNotFoundError,
    RegistrationError,
    printable,
)
from pyrmute_tasks.urls import hide_password
from pyrmute_tasks.versions import ModelVersion, VersionLike

__all__ = [
    "MigrationFunc",
    "ModelData",
    "Registry",
    "check_name",
    "is_loading",
    "load_attribute",
    "locate_attribute",
    "split_name",
]

ModelData: TypeAlias = dict[str, Any]
"""A record: the input and output of steps."""

MigrationFunc: TypeAlias = Callable[[ModelData], ModelData]
"""A step: migrates a record from one version to another."""

Model = TypeVar("Model", bound=BaseModel)


class Registry:
    """Models by name and version, and the steps between versions.

    Attributes:
        generation: Grows with every registration, so that plans compiled from an earlier state
            are known to be stale.
    """

    def __init__(self) -> None:
        self.generation: int = 0
        self._models: dict[str, dict[ModelVersion, type[BaseModel]]] = {}
        self._steps: dict[str, dict[tuple[ModelVersion, ModelVersion], MigrationFunc]] = {}
        self._compatible: dict[str, set[ModelVersion]] = {}
        self._known: dict[type[BaseModel], tuple[str, ModelVersion]] = {}

    def add_model(
        self, name: str, version: VersionLike, model: type[BaseModel], backward_compatible: bool
    ) -> None:
        """Register `model` as `version` of `name`.

        Raises:
            RegistrationError: If `model` is not a class of a pydantic model, another class is
                registered for that version, or the name holds control characters, since it goes
                into logs. The same class defined again (a
                notebook cell run twice) replaces the earlier one.
        """
        check_name(name)
        version = ModelVersion.of(version)
        given: Any = model  # no type checker has looked at every caller
        if not (isinstance(given, type) and issubclass(given, BaseModel)):
            shown = getattr(given, "__qualname__", type(given).__name__)
            raise RegistrationError(
                f"'{name}' version '{version}' is registered with {shown}, which is not a class of "
                "a pydantic model; derive it from pydantic.BaseModel"
            )
        versions = self._models.setdefault(name, {})
        earlier = versions.get(version)
        if earlier is not None and _import_name(earlier) != _import_name(model):
            raise RegistrationError(
                f"'{name}' version '{version}' is registered as {_import_name(earlier)} already "
                f"and cannot become {_import_name(model)}; give the new class its own version"
            )
        versions[version] = model
        self._known[model] = (name, version)
        if backward_compatible:
            self._compatible.setdefault(name, set()).add(version)
        self.generation += 1

    def add_step(
        self, name: str, from_version: VersionLike, to_version: VersionLike, step: MigrationFunc
    ) -> None:
        """Register `step` as the hop between two versions of `name`.

        Raises:
            RegistrationError: If `step` is no function or an asynchronous one, or the name holds
                control characters, since it goes into logs.
        """
        check_name(name)
        given: Any = step  # as above
        if not callable(given) or inspect.iscoroutinefunction(given):
            shown = "asynchronous" if callable(given) else f"of type {type(given).__name__}"
            raise RegistrationError(
                f"the step '{name}' {from_version} → {to_version} is {shown}; register a plain "
                "function that takes a dict and returns one"
            )
        hop = (ModelVersion.of(from_version), ModelVersion.of(to_version))
        self._steps.setdefault(name, {})[hop] = step
        self.generation += 1

    def model(self, name: str, version: VersionLike) -> type[BaseModel]:
        """Return the class registered for a version.

        Raises:
            ModelNotFoundError: If there is none.
        """
        version = ModelVersion.of(version)
        versions = self._versions(name)
        model = versions.get(version)
        if model is None:
            raise ModelNotFoundError(name, str(version)).among(sorted(versions))
        return model

    def find(self, name: str, version: ModelVersion) -> type[BaseModel] | None:
        """Return the class registered for a version, or None."""
        return self._models.get(name, {}).get(version)

    def latest(self, name: str) -> type[BaseModel]:
        """Return the class of the highest version.

        Raises:
            ModelNotFoundError: If the model has none.
        """
        versions = self._versions(name)
        return versions[max(versions)]

    def names(self) -> list[str]:
        """Return the names of all models, in the order of their registration."""
        return list(self._models)

    def versions(self, name: str) -> list[ModelVersion]:
        """Return all versions of a model, lowest first.

        Raises:
            ModelNotFoundError: If the model has none.
        """
        return sorted(self._versions(name))

    def step(
        self, name: str, from_version: ModelVersion, to_version: ModelVersion
    ) -> MigrationFunc | None:
        """Return the step written for exactly this hop, or None."""
        return self._steps.get(name, {}).get((from_version, to_version))

    def labelled_models(self) -> dict[type[BaseModel], str]:
        """Return all models and their labels, ``"User 2.0.0"``."""
        return {
            model: f"{name} {version}"
            for name, versions in self._models.items()
            for version, model in versions.items()
        }

    def labelled_steps(self) -> list[tuple[str, MigrationFunc]]:
        """Return all written steps and their labels, ``"User 1.0.0 → 2.0.0"``."""
        return [
            (f"{name} {first} → {last}", step)
            for name, steps in self._steps.items()
            for (first, last), step in steps.items()
        ]

    def code_of(self, name: str) -> tuple[list[type[BaseModel]], list[MigrationFunc]]:
        """Return the classes of all versions of a model, and its written steps."""
        models, steps = self._models.get(name, {}), self._steps.get(name, {})
        return list(models.values()), list(steps.values())

    def is_backward_compatible(self, name: str, version: ModelVersion) -> bool:
        """Return whether records of earlier versions may enter `version` without a step."""
        return version in self._compatible.get(name, ())

    def identify(self, model: type[BaseModel]) -> tuple[str, ModelVersion] | None:
        """Return a model's registered name and version, or None."""
        return self._known.get(model)

    def _versions(self, name: str) -> dict[ModelVersion, type[BaseModel]]:
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFoundError(name).among(self._models) from None


def check_name(name: str) -> None:
    """Reject a model name with control characters.

    Raises:
        RegistrationError: If it holds control characters.
    """
    if not name.isprintable():
        raise RegistrationError(
            f"the model name '{printable(name)}' holds control characters, and names go into "
            "logs; choose one that can be printed on one line"
        )


def _import_name(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}"


# --- importing by name ------------------------------------------------------------------

_loading: ContextVar[bool] = ContextVar("pyrmute_tasks_loading", default=False)


def is_loading() -> bool:
    """Return whether `load_attribute` is importing a module right now, in this context."""
    return _loading.get()


def load_attribute(spec: str) -> object:
    """Import an object by name.

    Args:
        spec: ``package.module:attribute`` or ``path/to/file.py:attribute``. A file is
            imported by its stem, with its directory at the end of ``sys.path``, so that it can
            import its neighbours. For a module that directory is the current one.

    Raises:
        ManagerImportError: If it cannot be found or its module cannot be imported.
    """
    place, attribute = split_name(spec)
    is_file = place.endswith(".py")
    with _mark_loading():
        module = _import_file(spec, Path(place)) if is_file else _import_module(spec, place)
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ManagerImportError(f"'{place}' has no attribute '{attribute}'") from None
    return found


def split_name(spec: str) -> tuple[str, str]:
    """Return the module or file of a name, and the attribute; imports nothing.

    Raises:
        ManagerImportError: If it is no such name.
    """
    place, _, attribute = spec.rpartition(":")
    is_module = "/" not in place and all(place.split("."))
    if not attribute or not (place.endswith(".py") or is_module):
        shown = hide_password(spec) if "://" in spec or "@" in spec else spec  # a broker's URL
        raise ManagerImportError(
            f"'{shown}' names no object: write package.module:attribute or "
            "path/to/file.py:attribute"
        )
    return place, attribute


@contextlib.contextmanager
def _mark_loading() -> Iterator[None]:
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def _import_file(spec: str, path: Path) -> object:
    path = path.resolve()
    if not path.is_file():
        raise ManagerImportError(f"cannot import '{spec}': there is no file {path}")
    _append_to_path(path.parent)
    _refuse_shadowed(spec, path.stem, path)
    return _import(spec, path.stem)


def _import_module(spec: str, name: str) -> object:
    # An installed command does not have the current directory on its path, unlike Celery's.
    with contextlib.suppress(FileNotFoundError):  # the directory may have been removed
        here = Path.cwd()
        _append_to_path(here)
        top = name.partition(".")[0]
        for file in (here / top / "__init__.py", here / f"{top}.py"):
            if file.is_file():
                _refuse_shadowed(spec, top, file)
                break
    return _import(spec, name)


def _append_to_path(directory: Path) -> None:
    # Last: a file beside a manager, or beside the data, must not shadow a library.
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
        importlib.invalidate_caches()


def _refuse_shadowed(spec: str, name: str, file: Path) -> None:
    """Refuse to import `name` if that leads to another file."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # in memory only, or half imported
        found = None
    origin = found.origin if found is not None else None
    if origin is None or Path(origin).resolve() != file.resolve():
        raise ManagerImportError(
            f"cannot import '{spec}': the name '{name}' belongs to another module "
            f"({origin or 'one in memory'}), not to {file}; rename the file"
        )


def _import(spec: str, name: str) -> object:
    try:
        return importlib.import_module(name)
    except ManagerImportError:
        raise
    except (Exception, SystemExit) as error:  # even a module that exits
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ManagerImportError(f"cannot import '{spec}': {reason}{_place_of(error)}") from error


def _place_of(error: BaseException) -> str:
    """Return the line of the user's code that failed to import; empty if none did."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    ran = [frame for frame in frames if "importlib" not in frame.filename]
    # Not the line of a library, this one included, that the user's line called.
    own = [frame for frame in ran if not _is_librarys(Path(frame.filename))]
    # A project that is installed itself: what is beside the module that was imported.
    beside = [
        frame for frame in ran if Path(ran[0].filename).parent in Path(frame.filename).parents
    ]
    shown = own or beside
    return f" ({Path(shown[-1].filename).name}:{shown[-1].lineno})" if shown else ""


def _is_librarys(file: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(folder in file.parents for folder in (Path(os.__file__).parent, _THIS_PACKAGE))


_THIS_PACKAGE: Final = Path(__file__).parent


def locate_attribute(target: object, prefer: Collection[str] = ()) -> str:
    """Return a name by which another process can import `target`.

    Args:
        target: The object to import.
        prefer: Names of modules that probably define it, rather than import it.

    Raises:
        ManagerImportError: If it is not an attribute of an imported module.
    """
    names = [
        (module_name, attribute)
        for module_name, module in list(sys.modules.items())
        for attribute, value in list(getattr(module, "__dict__", {}).items())
        if value is target
    ]
    # The script comes last: importing it elsewhere runs its unguarded code.
    names.sort(key=lambda name: (name[0] in _SCRIPTS, name[0] not in prefer))
    for module_name, attribute in names:
        place = _importable(module_name)
        if place is not None:
            return f"{place}:{attribute}"
    raise ManagerImportError(
        "workers cannot import this manager: it is not an attribute of any module. Assign it at "
        "the top level of a module and pass that object, or its name 'package.module:attribute'"
    )


_SCRIPTS: Final = ("__main__", "__mp_main__")


def _importable(module_name: str) -> str | None:
    """Return a module's part of a spec, or None if it cannot be imported elsewhere."""
    file = getattr(sys.modules[module_name], "__file__", None) or ""
    is_source = file.endswith(".py")
    # A module outside of packages may come from a file that load_attribute imported, which
    # other processes find only by its path.
    if "." not in module_name and is_source and Path(file).stem != "__init__":
        return str(Path(file).resolve())
    return None if module_name in _SCRIPTS else module_name
