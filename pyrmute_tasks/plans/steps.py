"""The hops of a path: written steps, and those that are compiled since nobody wrote them."""

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
        from_version: Where it starts.
        to_version: Where it ends.
        function: What turns a record of the one into a record of the other.
        generated: Whether it was compiled from the two models and not written.
    """

    from_version: ModelVersion
    to_version: ModelVersion
    function: MigrationFunc
    generated: bool = False

    def __str__(self) -> str:
        """Return the step as ``"1.0.0 → 2.0.0"``."""
        return f"{self.from_version} → {self.to_version}"

    def error(self, name: str, cause: Exception) -> Exception:
        """Return the error that stands for `cause`, raised by this step.

        If asking `cause` for its text raises, what it raises takes its place, as in pyrmute.
        """
        what = "Auto-migration failed" if self.generated else "Migration function raised"
        try:
            reason = f"{what}: {type(cause).__name__}: {cause}"
        except Exception as unsaid:  # asking for its text runs somebody's code
            cause = unsaid
            reason = f"Migration failed: {type(cause).__name__}: {cause}"
        error = MigrationError(name, str(self.from_version), str(self.to_version), reason)
        error.__cause__ = cause
        return error


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop that running a plan can come to, at any depth of a record.

    Attributes:
        name: The model's name.
        from_version: Where it starts.
        to_version: Where it ends.
        step: What is run; None if there is nothing to run, which is an error then.
        models: The classes of both ends, as far as they are registered.
    """

    name: str
    from_version: ModelVersion
    to_version: ModelVersion
    step: Step | None
    models: tuple[type[BaseModel], ...]


_Key: TypeAlias = tuple[str, ModelVersion, ModelVersion]
_Run: TypeAlias = Callable[[ModelData], ModelData]


class StepCompiler:
    """Compiles the steps of one plan, and those of the models inside of its records.

    Args:
        registry: Where models and steps are registered.
        observe: Call hooks around the migration of every record, nested ones too.

    Attributes:
        hops: All hops compiled so far, each once.
    """

    def __init__(self, registry: Registry, *, observe: bool = False) -> None:
        self.hops: list[Hop] = []
        self._registry = registry
        self._observe = observe
        self._steps: dict[_Key, Step | None] = {}
        self._nested: dict[_Key, _Run] = {}

    def path(
        self, name: str, from_version: ModelVersion, to_version: ModelVersion
    ) -> list[ModelVersion]:
        """Return the versions between two versions of a model, both included.

        A step written for exactly this hop is preferred to a chain over those between.

        Raises:
            ModelNotFoundError: If the model or one of the versions is not registered.
        """
        if from_version == to_version:
            return []
        direct = self._registry.step(name, from_version, to_version) is not None
        if direct and name not in self._registry.names():
            return [from_version, to_version]  # data can be migrated without any model
        versions = self._registry.versions(name)
        for version in (from_version, to_version):
            if version not in versions:
                raise ModelNotFoundError(name, str(version))
        if direct:
            return [from_version, to_version]
        start, end = versions.index(from_version), versions.index(to_version)
        return versions[start : end + 1] if start < end else versions[end : start + 1][::-1]

    def step(self, name: str, from_version: ModelVersion, to_version: ModelVersion) -> Step:
        """Return the step for one hop.

        Raises:
            MigrationError: If nobody wrote it and its end is not backward compatible.
        """
        key = (name, from_version, to_version)
        if key not in self._steps:
            compiled = self._compile(*key)
            # Compiling a model that holds itself may have come by here already.
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

    def nested(self, name: str, from_version: ModelVersion, to_version: ModelVersion) -> _Run:
        """Return what runs a whole path over a record inside of another one.

        A hop without a step is an error only of records that come to it.

        Raises:
            ModelNotFoundError: If the model or one of the versions is not registered.
        """
        key = (name, from_version, to_version)
        if key not in self._nested:
            # A model that holds itself asks for its own path while that is being compiled.
            self._nested[key] = _forward(self._nested, key)
            versions = self.path(name, from_version, to_version)
            run = _chain([self._guarded(name, *hop) for hop in pairwise(versions)])
            self._nested[key] = observed(*key, run) if self._observe and versions else run
        return self._nested[key]

    def _guarded(self, name: str, from_version: ModelVersion, to_version: ModelVersion) -> _Run:
        try:
            step = self.step(name, from_version, to_version)
        except MigrationError as missing:
            return _refuse(missing)
        function = step.function

        def run(record: ModelData) -> ModelData:
            try:
                return function(record)
            except Exception as error:
                blamed = step.error(name, error)
                raise blamed from blamed.__cause__

        return run


def _forward(nested: dict[_Key, _Run], key: _Key) -> _Run:
    def run(record: ModelData) -> ModelData:
        return nested[key](record)

    return run


def _refuse(missing: MigrationError) -> _Run:
    arguments = (missing.name, missing.from_version, missing.to_version, missing.reason)

    def run(_: ModelData) -> ModelData:
        raise MigrationError(*arguments)  # a new one each time, since callers add notes

    return run


def _chain(runs: list[_Run]) -> _Run:
    if len(runs) == 1:
        return runs[0]

    def run(record: ModelData) -> ModelData:
        for hop in runs:
            record = hop(record)
        return record

    return run
