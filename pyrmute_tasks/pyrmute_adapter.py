"""Managers from elsewhere: by name, and pyrmute's own.

What runs migrations on a fleet needs little of a manager; `Manager` says what. A
`ModelManager` has it, and a ``pyrmute.ModelManager`` gets it from `AdaptedManager`, through
pyrmute's public methods only.
"""

import sys
from typing import Any, Protocol

from pydantic import BaseModel

from pyrmute_tasks.errors import ManagerImportError, MigrationError, ModelNotFoundError
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.manager import ModelManager
from pyrmute_tasks.plans.fingerprint.reachable import ReachedCode
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.plans.steps import Hop, Step
from pyrmute_tasks.registry import ModelData, check_name, load_attribute, locate_attribute
from pyrmute_tasks.versions import ModelVersion, VersionLike

__all__ = ["AdaptedManager", "Manager", "adapt", "load_manager"]


class Manager(Protocol):
    """What a fleet needs of a manager; see `ModelManager` for each."""

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
        """Return the compiled way from one version to another."""

    def get(self, name: str, version: VersionLike) -> type[BaseModel]:
        """Return the class of one version."""

    def locate(self) -> str:
        """Return a name under which another process can import the manager."""

    def capture_code(self) -> None:
        """Note what models and steps can reach, as it is now."""


def load_manager(spec: str) -> Manager:
    """Import a manager by name.

    Raises:
        ManagerImportError: If it cannot be imported or is something else.
    """
    return adapt(load_attribute(spec), f"'{spec}'")


def adapt(found: object, called: str = "what was given") -> Manager:
    """Return `found` as a manager, and note what its code is before it has run.

    Args:
        found: A `ModelManager` or a ``pyrmute.ModelManager``.
        called: What to call it in an error.

    Raises:
        ManagerImportError: If it is neither.
    """
    if isinstance(found, ModelManager):
        found.capture_code()  # it may run records here before its first job
        return found
    # Whoever holds one of pyrmute's managers has imported pyrmute.
    foreign = getattr(sys.modules.get("pyrmute"), "ModelManager", None)
    if foreign is not None and isinstance(found, foreign):
        adopted = AdaptedManager(found)
        adopted.capture_code()
        return adopted
    raise ManagerImportError(
        f"{called} is a {type(found).__name__} and not a ModelManager; name the object that models "
        "and migrations are registered with"
    )


class AdaptedManager:
    """A ``pyrmute.ModelManager`` as a `Manager`.

    A plan of it has one step, which is pyrmute's ``migrate_data``: pyrmute's results, hooks
    and exceptions, at pyrmute's speed. Its fingerprint covers the models of the path but not
    the steps, which pyrmute does not show.

    Args:
        manager: The ``pyrmute.ModelManager``.
    """

    hooks = HookSet()

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._plans: dict[tuple[str, VersionLike, VersionLike], MigrationPlan] = {}
        self._code = ReachedCode()

    def plan(
        self,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        observe: bool = False,  # pyrmute calls its hooks itself
    ) -> MigrationPlan:
        """Return a plan that leaves everything to pyrmute.

        Raises:
            ModelNotFoundError: If the model or one of the versions is not registered.
            MigrationError: If there is no path.
        """
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
                raise ModelNotFoundError(name, str(version))
        if not self._manager.has_migration_path(name, str(first), str(last)):
            raise MigrationError(name, str(first), str(last), "No migration path found.")

        def migrate(record: ModelData) -> ModelData:
            return self._manager.migrate_data(record, name, str(first), str(last))  # type: ignore[no-any-return]  # pyrmute's own

        models: tuple[type[BaseModel], ...] = tuple(
            self._manager.get(name, version) for version in self._versions(name)
        )
        step = AdaptedStep(first, last, migrate, generated=True)
        hop = Hop(name, first, last, step, models)
        target = self._manager.get(name, str(last))
        self.capture_code()
        return MigrationPlan(name, first, last, (step,), target, models, (hop,), code=self._code)

    def capture_code(self) -> None:
        """Note what models can reach, as it is now."""
        manager = self._manager
        models = {
            manager.get(name, version): f"{name} {version}"
            for name in manager.list_models()
            for version in manager.list_versions(name)
        }
        self._code.know(models, ())
        self._code.capture_all()

    def get(self, name: str, version: VersionLike) -> type[BaseModel]:
        """Return the class of one version.

        Raises:
            ModelNotFoundError: If it is not registered.
        """
        wanted = str(version)
        if wanted not in map(str, self._versions(name)):
            raise ModelNotFoundError(name, wanted)
        return self._manager.get(name, wanted)  # type: ignore[no-any-return]  # pyrmute's own

    def _versions(self, name: str) -> list[Any]:
        if name not in self._manager.list_models():
            raise ModelNotFoundError(name)
        return list(self._manager.list_versions(name))

    def locate(self) -> str:
        """Return a name under which another process can import the manager.

        Raises:
            ManagerImportError: If there is none.
        """
        manager = self._manager
        models = [
            manager.get(name, version).__module__
            for name in manager.list_models()
            for version in manager.list_versions(name)
        ]
        return locate_attribute(manager, prefer=models)


class AdaptedStep(Step):
    """A step whose exceptions are raised as they are: pyrmute has wrapped them already."""

    __slots__ = ()

    def error(self, name: str, cause: Exception) -> Exception:  # as the base has it
        """Return `cause`."""
        return cause
