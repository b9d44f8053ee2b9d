"""The protocols of managers, and the adapter for managers of other libraries.

`Manager` says what a `Migrator` accepts: a `ModelManager`, one of pyrmute, or anything with these
methods. `FleetManager` says what a fleet needs. A `ModelManager` has that, too, and others get it
from `AdaptedManager`, through the methods of `Manager` only.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from pydantic import BaseModel

from pyrmute_tasks.errors import (
    ManagerImportError,
    MigrationError,
    ModelNotFoundError,
    as_ours,
)
from pyrmute_tasks.hooks import HookCounts, HookSet, MigrationHook, active_hooks, only_counts
from pyrmute_tasks.manager import ModelManager
from pyrmute_tasks.plans.fingerprint.reachable import ReachedCode
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.plans.steps import Hop, Step
from pyrmute_tasks.registry import ModelData, check_name, load_attribute, locate_attribute
from pyrmute_tasks.versions import ModelVersion, VersionLike

if TYPE_CHECKING:
    import pyrmute

__all__ = [
    "AdaptedManager",
    "AdaptedStep",
    "FleetManager",
    "Manager",
    "adapt",
    "load_manager",
    "load_pyrmutes_manager",
]


@runtime_checkable
class Manager(Protocol):
    """A manager that a `Migrator` can run: a `ModelManager`, or pyrmute's own.

    Anything with these methods is one. Versions are given as ``"1.0.0"``.
    """

    def list_models(self) -> list[str]:
        """Return the names of all models.

        Returns:
            The names.
        """
        ...

    def list_versions(self, name: str) -> Sequence[object]:
        """Return all versions of a model.

        Args:
            name: The model's name.

        Returns:
            The versions, each of which ``str`` makes a ``"1.0.0"``.
        """
        ...

    def get(self, name: str, version: str) -> type[BaseModel]:
        """Return the class of one version.

        Args:
            name: The model's name.
            version: The version.

        Returns:
            The class.
        """
        ...

    def has_migration_path(self, name: str, from_version: str, to_version: str) -> bool:
        """Return whether records of one version can be migrated to another.

        Args:
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.

        Returns:
            Whether there is a path.
        """
        ...

    def migrate_data(
        self, data: ModelData, name: str, from_version: str, to_version: str
    ) -> ModelData:
        """Migrate one record without validation.

        Args:
            data: The record.
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version of the result.

        Returns:
            The migrated record.
        """
        ...


class FleetManager(Protocol):
    """The part of a manager that a fleet needs; documented in `ModelManager`."""

    @property
    def hooks(self) -> HookSet:
        """The hooks that observe migrations."""

    def plan(
        self,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        observe: bool = False,
    ) -> MigrationPlan:
        """Return the compiled path from one version to another."""

    def get(self, name: str, version: VersionLike) -> type[BaseModel]:
        """Return the class of one version."""

    def locate(self) -> str:
        """Return a name by which another process can import the manager."""

    def capture_code(self) -> None:
        """Capture the code that models and steps reach, as it is now."""


def load_manager(spec: str) -> FleetManager:
    """Import a manager by name.

    Raises:
        ManagerImportError: If it cannot be imported or is not a manager.
    """
    return adapt(load_attribute(spec), f"'{spec}'")


def load_pyrmutes_manager(spec: str) -> "pyrmute.ModelManager":
    """Import a manager by name, and return it as one of pyrmute's.

    Raises:
        ManagerImportError: If it cannot be imported or is not a manager.
        MissingExtraError: If pyrmute is not installed.
    """
    found = load_attribute(spec)
    if isinstance(found, ModelManager):
        return found.as_pyrmute()
    if _is_pyrmutes(found):
        return found
    raise _no_manager(found, f"'{spec}'")


def adapt(found: object, called: str = "the given object") -> FleetManager:
    """Return `found` as a `FleetManager`, with its code captured before it runs.

    Args:
        found: A `ModelManager`, a ``pyrmute.ModelManager``, or another `Manager`.
        called: Its name in error messages.

    Raises:
        ManagerImportError: If it is none of these.
    """
    if isinstance(found, ModelManager):
        found.capture_code()  # it may run records here before its first job
        return found
    if isinstance(found, Manager) and not isinstance(found, type):
        adapted = AdaptedManager(found)
        adapted.capture_code()
        return adapted
    raise _no_manager(found, called)


def _is_pyrmutes(found: object) -> "TypeGuard[pyrmute.ModelManager]":
    # A pyrmute manager implies that pyrmute is imported.
    theirs = getattr(sys.modules.get("pyrmute"), "ModelManager", None)
    return theirs is not None and isinstance(found, theirs)


def _no_manager(found: object, called: str) -> ManagerImportError:
    return ManagerImportError(
        f"{called} is a {type(found).__name__} and not a ModelManager; name the object that models "
        "and migrations are registered with"
    )


class AdaptedManager:
    """A ``pyrmute.ModelManager``, or another `Manager`, as a `FleetManager`.

    Its plans have one step, which calls pyrmute's ``migrate_data``: pyrmute's results, hooks and
    errors, at pyrmute's speed. The errors are of this package's classes, which are subclasses of
    pyrmute's then. A ``pyrmute.MetricsHook`` of the producer counts what workers migrate; other
    hooks are called where a record is migrated, on that process's own copy. Fingerprints cover the
    models of the path but not the steps, which pyrmute does not expose.

    Args:
        manager: The manager.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._pyrmutes: Any = manager if _is_pyrmutes(manager) else None
        self._counts = _CountsOfChunk()
        self._plans: dict[tuple[str, VersionLike, VersionLike], MigrationPlan] = {}
        self._code = ReachedCode()

    @property
    def hooks(self) -> HookSet:
        """The hooks that only count; pyrmute calls all of them itself."""
        return HookSet(hook for hook in self._pyrmutes_hooks() if only_counts(hook))

    def _pyrmutes_hooks(self) -> list[MigrationHook]:
        if self._pyrmutes is None:
            return []
        return list(self._pyrmutes._migration_manager._hooks)  # noqa: SLF001  # it has no other way

    def plan(
        self,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        observe: bool = False,
    ) -> MigrationPlan:
        """Return a plan that calls pyrmute.

        Args:
            name: The model's name.
            from_version: Where it starts.
            to_version: Where it ends.
            observe: Count for the hooks of another process, through a hook added to pyrmute's
                manager.

        Raises:
            ModelNotFoundError: If the model or one of the versions is not registered.
            MigrationError: If there is no path.
        """
        if observe and self._pyrmutes is not None and self._counts not in self._pyrmutes_hooks():
            self._pyrmutes.add_hook(self._counts)
        key = (name, from_version, to_version)
        if key not in self._plans:
            first, last = (ModelVersion.parse(str(v)) for v in (from_version, to_version))
            self._plans[key] = self._compile(name, first, last)
        return self._plans[key]

    def _compile(self, name: str, first: ModelVersion, last: ModelVersion) -> MigrationPlan:
        check_name(name)
        known = {str(version) for version in self._versions(name)}
        for version in (first, last):
            if str(version) not in known:
                raise ModelNotFoundError(name, str(version)).among(self._versions(name))
        if not self._manager.has_migration_path(name, str(first), str(last)):
            raise MigrationError(name, str(first), str(last), "No migration path found.")

        def migrate(record: ModelData) -> ModelData:
            return self._manager.migrate_data(record, name, str(first), str(last))

        models: tuple[type[BaseModel], ...] = tuple(
            self._manager.get(name, str(version)) for version in self._versions(name)
        )
        step = AdaptedStep(first, last, migrate, generated=True)
        hop = Hop(name, first, last, step, models)
        target = self._manager.get(name, str(last))
        self.capture_code()
        return MigrationPlan(name, first, last, (step,), target, models, (hop,), code=self._code)

    def capture_code(self) -> None:
        """Capture the code that models reach, as it is now."""
        manager = self._manager
        models = {
            manager.get(name, str(version)): f"{name} {version}"
            for name in manager.list_models()
            for version in manager.list_versions(name)
        }
        self._code.register(models, ())
        self._code.capture_all()

    def get(self, name: str, version: VersionLike) -> type[BaseModel]:
        """Return the class of one version.

        Raises:
            ModelNotFoundError: If it is not registered.
        """
        wanted = str(version)
        if wanted not in map(str, self._versions(name)):
            raise ModelNotFoundError(name, wanted).among(self._versions(name))
        return self._manager.get(name, wanted)

    def _versions(self, name: str) -> list[object]:
        if name not in self._manager.list_models():
            raise ModelNotFoundError(name).among(self._manager.list_models())
        return list(self._manager.list_versions(name))

    def locate(self) -> str:
        """Return a name by which another process can import the manager.

        Raises:
            ManagerImportError: If there is none.
        """
        manager = self._manager
        models = [
            manager.get(name, str(version)).__module__
            for name in manager.list_models()
            for version in manager.list_versions(name)
        ]
        return locate_attribute(manager, prefer=models)


class AdaptedStep(Step):
    """A step that does not wrap errors, as pyrmute has done that already."""

    __slots__ = ()

    def error(self, name: str, cause: Exception) -> Exception:
        """Return `cause`; as one of our errors if it is one of pyrmute's."""
        return as_ours(cause)


class _CountsOfChunk(MigrationHook):
    """Counts for the chunk that runs in this context, if one does and wants it.

    As a hook of pyrmute's manager it sees what pyrmute's own see, also models inside of records.
    """

    def before_migrate(self, name: str, *_: object) -> None:
        """Count a migration."""
        for hook in active_hooks():
            if isinstance(hook, HookCounts):
                hook.before_migrate(name)

    def on_error(self, name: str, *_: object) -> None:
        """Count a failure."""
        for hook in active_hooks():
            if isinstance(hook, HookCounts):
                hook.on_error(name)
