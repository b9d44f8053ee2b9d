"""The steps of a path: written, or generated for backward-compatible versions."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from pydantic import BaseModel

from pyrmute_tasks.errors import MigrationError, ModelNotFoundError
from pyrmute_tasks.hooks import observed
from pyrmute_tasks.registry import MigrationFunc, ModelData, Registry
from pyrmute_tasks.versions import ModelVersion

__all__ = ["Hop", "Step", "StepCompiler"]


@dataclass(frozen=True, slots=True)
class Step:
    """One hop of a plan.

    Attributes:
        from_version: Version of its input.
        to_version: Version of its output.
        function: Migrates a record from one to the other.
        generated: Whether it was compiled from the two models.
    """

    from_version: ModelVersion
    to_version: ModelVersion
    function: MigrationFunc
    generated: bool = False

    def __str__(self) -> str:
        """Return the step as ``"1.0.0 → 2.0.0"``."""
        return f"{self.from_version} → {self.to_version}"

    def error(self, name: str, cause: Exception) -> Exception:
        """Return the error to raise for `cause`, raised by this step.

        If the text of `cause` cannot be read, the exception raised by reading it takes its place,
        as in pyrmute.
        """
        what = "Auto-migration failed" if self.generated else "Migration function raised"
        try:
            reason = f"{what}: {type(cause).__name__}: {cause}"
        except Exception as unsaid:  # the text comes from the user's code
            cause = unsaid
            reason = f"Migration failed: {type(cause).__name__}: {cause}"
        error = MigrationError(name, str(self.from_version), str(self.to_version), reason)
        error.__cause__ = cause
        return error


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop that a plan may take, at any depth of a record.

    Attributes:
        name: The model's name.
        from_version: Where it starts.
        to_version: Where it ends.
        step: The step to run; None if there is none, which is an error once a record needs it.
        models: The registered classes of both ends.
    """

    name: str
    from_version: ModelVersion
    to_version: ModelVersion
    step: Step | None
    models: tuple[type[BaseModel], ...]


_Key: TypeAlias = tuple[str, ModelVersion, ModelVersion]
_Migrate: TypeAlias = Callable[[ModelData], ModelData]


class StepCompiler:
    """Compiles the steps of one plan, and those of the models inside its records.

    Args:
        registry: The registered models and steps.
        observe: Call hooks around the migration of every record, also nested ones.

    Attributes:
        hops: All hops compiled so far, each once.
    """

    def __init__(self, registry: Registry, *, observe: bool = False) -> None:
        self.hops: list[Hop] = []
        self._registry = registry
        self._observe = observe
        self._steps: dict[_Key, Step | None] = {}
        self._nested: dict[_Key, _Migrate] = {}

    def path(
        self, name: str, from_version: ModelVersion, to_version: ModelVersion
    ) -> list[ModelVersion]:
        """Return the versions between two versions of a model, both included.

        A step written for exactly this hop is preferred to a chain of steps.

        Raises:
            ModelNotFoundError: If the model or one of the versions is not registered.
        """
        if from_version == to_version:
            return []
        direct = self._registry.step(name, from_version, to_version) is not None
        if direct and name not in self._registry.names():
            return [from_version, to_version]  # data can be migrated without a model
        versions = self._registry.versions(name)
        for version in (from_version, to_version):
            if version not in versions:
                raise ModelNotFoundError(name, str(version)).among(versions)
        if direct:
            return [from_version, to_version]
        start, end = versions.index(from_version), versions.index(to_version)
        return versions[start : end + 1] if start < end else versions[end : start + 1][::-1]

    def step(self, name: str, from_version: ModelVersion, to_version: ModelVersion) -> Step:
        """Return the step for one hop.

        Raises:
            MigrationError: If it is not written and its end is not backward compatible.
        """
        key = (name, from_version, to_version)
        if key not in self._steps:
            compiled = self._compile(*key)
            # Compiling a model that holds itself may have added it meanwhile.
            if key not in self._steps:
                self._steps[key] = compiled
                models = self._models(name, from_version, to_version)
                self.hops.append(Hop(*key, compiled, models))
        found = self._steps[key]
        if found is None:
            raise MigrationError(
                name,
                str(from_version),
                str(to_version),
                "No migration path found. Define a migration function or mark the target version "
                "as backward_compatible.",
            )
        return found

    def _models(self, name: str, *versions: ModelVersion) -> tuple[type[BaseModel], ...]:
        found = [self._registry.find(name, version) for version in versions]
        return tuple(model for model in found if model is not None)

    def _compile(
        self, name: str, from_version: ModelVersion, to_version: ModelVersion
    ) -> Step | None:
        written = self._registry.step(name, from_version, to_version)
        if written is not None:
            return Step(from_version, to_version, written)
        if not self._registry.is_backward_compatible(name, to_version):
            return None
        # Three modules that plans with written steps do without.
        from pyrmute_tasks.plans.generated_steps import compile_generated_step

        function = compile_generated_step(
            self._registry, name, from_version, to_version, self.nested
        )
        return Step(from_version, to_version, function, generated=True)

    def nested(self, name: str, from_version: ModelVersion, to_version: ModelVersion) -> _Migrate:
        """Return the function that runs a whole path over a nested record.

        A hop without a step fails only for records that need it.

        Raises:
            ModelNotFoundError: If the model or one of the versions is not registered.
        """
        key = (name, from_version, to_version)
        if key not in self._nested:
            # A model that holds itself asks for its own path while that is being compiled.
            self._nested[key] = _deferred_path(self._nested, key)
            versions = self.path(name, from_version, to_version)
            migrate = _chain([self._guarded(name, *hop) for hop in pairwise(versions)])
            self._nested[key] = observed(*key, migrate) if self._observe and versions else migrate
        return self._nested[key]

    def _guarded(self, name: str, from_version: ModelVersion, to_version: ModelVersion) -> _Migrate:
        try:
            step = self.step(name, from_version, to_version)
        except MigrationError as missing:
            return _missing_step(missing)
        function = step.function

        def migrate(record: ModelData) -> ModelData:
            try:
                return function(record)
            except Exception as error:
                blamed = step.error(name, error)
                raise blamed from blamed.__cause__

        return migrate


def _deferred_path(nested: dict[_Key, _Migrate], key: _Key) -> _Migrate:
    def migrate(record: ModelData) -> ModelData:
        return nested[key](record)

    return migrate


def _missing_step(missing: MigrationError) -> _Migrate:
    arguments = (missing.name, missing.from_version, missing.to_version, missing.reason)

    def migrate(_: ModelData) -> ModelData:
        raise MigrationError(*arguments)  # a new one each time, since callers add notes

    return migrate


def _chain(hops: list[_Migrate]) -> _Migrate:
    if len(hops) == 1:
        return hops[0]

    def migrate(record: ModelData) -> ModelData:
        for hop in hops:
            record = hop(record)
        return record

    return migrate
