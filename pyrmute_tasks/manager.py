"""The public registry: `ModelManager`, with the API of pyrmute's."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.chunks import Chunk, Outcome, cut_records
from pyrmute_tasks.errors import MigrationError, ModelNotFoundError
from pyrmute_tasks.flow import Window, run_ordered
from pyrmute_tasks.local import InlineExecutor
from pyrmute_tasks.plan import MigrationPlan, Result, compile_plan
from pyrmute_tasks.registry import MigrationFunc, ModelData, Registry
from pyrmute_tasks.versions import ModelVersion, VersionLike

__all__ = ["ModelManager"]

Model = TypeVar("Model", bound=BaseModel)

_ONE_CHUNK_AHEAD = Window(chunks=1)


class ModelManager:
    """Versions of models, the steps between them, and migrating records through them.

    Example:
        ```python
        manager = ModelManager()

        @manager.model("User", "1.0.0")
        class UserV1(BaseModel):
            name: str

        @manager.model("User", "2.0.0")
        class UserV2(BaseModel):
            first_name: str
            last_name: str

        @manager.migration("User", "1.0.0", "2.0.0")
        def split_name(data: ModelData) -> ModelData:
            first, _, last = data["name"].partition(" ")
            return {"first_name": first, "last_name": last}

        manager.migrate({"name": "Ada Lovelace"}, "User", "1.0.0", "2.0.0")
        ```
    """

    def __init__(self) -> None:
        self._registry = Registry()
        self._plans: dict[tuple[str, VersionLike, VersionLike], MigrationPlan] = {}
        self._plans_generation = 0

    # --- registering ----------------------------------------------------------------------

    def model(
        self, name: str, version: VersionLike, *, backward_compatible: bool = False
    ) -> Callable[[type[Model]], type[Model]]:
        """Return a decorator that registers a class as one version of a model.

        Args:
            name: The model's name.
            version: The version this class is.
            backward_compatible: Records of the neighbouring version need no written step
                to become this one.

        Raises:
            InvalidVersionError: If `version` cannot be parsed.
            RegistrationError: When decorating, if another class is that version already.
        """
        parsed = ModelVersion.of(version)

        def register(model: type[Model]) -> type[Model]:
            self._registry.add_model(name, parsed, model, backward_compatible)
            return model

        return register

    def migration(
        self, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> Callable[[MigrationFunc], MigrationFunc]:
        """Return a decorator that registers a function as the step between two versions.

        Raises:
            InvalidVersionError: If a version cannot be parsed.
        """
        first, last = ModelVersion.of(from_version), ModelVersion.of(to_version)

        def register(step: MigrationFunc) -> MigrationFunc:
            self._registry.add_step(name, first, last, step)
            return step

        return register

    # --- asking ---------------------------------------------------------------------------

    def get(self, name: str, version: VersionLike) -> type[BaseModel]:
        """Return the class of one version.

        Raises:
            ModelNotFoundError: If it is not registered.
        """
        return self._registry.model(name, version)

    def get_latest(self, name: str) -> type[BaseModel]:
        """Return the class of the highest version.

        Raises:
            ModelNotFoundError: If the model is not registered.
        """
        return self._registry.latest(name)

    def list_models(self) -> list[str]:
        """Return the names of all models."""
        return self._registry.names()

    def list_versions(self, name: str) -> list[ModelVersion]:
        """Return all versions of a model, lowest first.

        Raises:
            ModelNotFoundError: If the model is not registered.
        """
        return self._registry.versions(name)

    def has_migration_path(
        self, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> bool:
        """Say whether records of one version can be migrated to another.

        Raises:
            InvalidVersionError: If a version cannot be parsed.
        """
        try:
            self.plan(name, from_version, to_version)
        except (ModelNotFoundError, MigrationError):
            return False
        return True

    def plan(self, name: str, from_version: VersionLike, to_version: VersionLike) -> MigrationPlan:
        """Return the compiled way from one version to another.

        Plans are kept until something is registered.

        Raises:
            InvalidVersionError: If a version cannot be parsed.
            ModelNotFoundError: If the model or one of the versions is not registered.
            MigrationError: If a hop of the path has no step.
        """
        if self._plans_generation != self._registry.generation:
            self._plans = {}
            self._plans_generation = self._registry.generation
        key = (name, from_version, to_version)
        plan = self._plans.get(key)
        if plan is None:
            first, last = ModelVersion.of(from_version), ModelVersion.of(to_version)
            plan = self._plans[key] = compile_plan(self._registry, name, first, last)
        return plan

    # --- one record -----------------------------------------------------------------------

    def migrate(
        self, data: ModelData, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> BaseModel:
        """Migrate one record and validate it.

        Args:
            data: The record, as `from_version` has it.
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version of the result.

        Raises:
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If the migrated record is not valid.
        """
        plan = self.plan(name, from_version, to_version)
        return plan.validate_one(plan.migrate_one(data), plan.target)

    def migrate_as(
        self,
        data: ModelData,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
    ) -> Model:
        """Migrate one record and validate it as `target_type`; else as `migrate`."""
        plan = self.plan(name, from_version, to_version)
        return plan.validate_one(plan.migrate_one(data), target_type)

    def migrate_data(
        self, data: ModelData, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> ModelData:
        """Migrate one record without validating it; else as `migrate`."""
        return self.plan(name, from_version, to_version).migrate_one(data)

    # --- many records ---------------------------------------------------------------------

    def migrate_batch(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
    ) -> list[BaseModel]:
        """Migrate and validate many records.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the results.

        Returns:
            The validated models, in the order of the records.

        Raises:
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If a migrated record is not valid. As `MigrationError` it is
                that of the first failing record and says its ``record_index``.
        """
        return list(self._run_all(data_list, name, from_version, to_version, _validate))

    def migrate_batch_as(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
    ) -> list[Model]:
        """Migrate many records and validate them as `target_type`; else as `migrate_batch`."""
        return self._run_all(data_list, name, from_version, to_version, _validate_as(target_type))

    def migrate_batch_data(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
    ) -> list[ModelData]:
        """Migrate many records without validating them; else as `migrate_batch`."""
        return self._run_all(data_list, name, from_version, to_version, _keep)

    def _run_all(
        self,
        records: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        finish: "Finish",
    ) -> list[Any]:
        records = list(records)
        if not records:
            return []
        plan = self.plan(name, from_version, to_version)
        outputs, failure = run_plan(plan, records, 0, finish)
        if failure is not None:
            raise failure.exception()
        return outputs

    def migrate_batch_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int = 100,
    ) -> Iterator[BaseModel]:
        """Migrate and validate records lazily.

        Args:
            data_list: The records; read at most one chunk ahead of what is yielded, and
                closed when the iteration ends early.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the results.
            chunk_size: Records migrated at a time.

        Yields:
            The validated models, in order; all those before a failing record, then its
            error is raised as `migrate_batch` raises it.
        """
        return self._stream(data_list, name, from_version, to_version, chunk_size, _validate)

    def migrate_batch_streaming_as(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        chunk_size: int = 100,
    ) -> Iterator[Model]:
        """Validate as `target_type`; else as `migrate_batch_streaming`."""
        finish = _validate_as(target_type)
        return self._stream(data_list, name, from_version, to_version, chunk_size, finish)

    def migrate_batch_data_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int = 100,
    ) -> Iterator[ModelData]:
        """Do not validate; else as `migrate_batch_streaming`."""
        return self._stream(data_list, name, from_version, to_version, chunk_size, _keep)

    def _stream(
        self,
        records: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int,
        finish: "Finish",
    ) -> Iterator[Any]:
        def run(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
            plan = self.plan(name, from_version, to_version)
            outputs, failure = run_plan(plan, chunk.payload, chunk.start, finish)
            return Outcome(chunk.index, len(outputs), outputs, failure)

        outcomes = run_ordered(
            cut_records(records, chunk_size),
            InlineExecutor(run),
            lambda: _ONE_CHUNK_AHEAD,
            finish=lambda _, outcome: outcome,
        )
        try:
            for outcome in outcomes:
                yield from outcome.outputs
        finally:
            outcomes.close()


Finish = Callable[[MigrationPlan, list[ModelData], int], Result]
"""What is done with a chunk's migrated records, the first of which has the given index."""


def run_plan(plan: MigrationPlan, records: list[ModelData], start: int, finish: Finish) -> Result:
    """Migrate records and finish them; the failure is the one with the lowest index."""
    data, unmigrated = plan.migrate(records, start)
    outputs, invalid = finish(plan, data, start)
    return outputs, invalid or unmigrated


def _validate(plan: MigrationPlan, data: list[ModelData], start: int) -> Result:
    return plan.validate(data, start)


def _validate_as(model: type[BaseModel]) -> Finish:
    return lambda plan, data, start: plan.validate(data, start, model)


def _keep(_: MigrationPlan, data: list[ModelData], __: int) -> Result:
    return data, None
