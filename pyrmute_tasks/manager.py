"""`ModelManager`, the public registry, with pyrmute's API."""

# Above 400 lines: a public façade, whose documentation takes most of them.

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.batch_migrator import BatchMigrator
from pyrmute_tasks.delegated_calls import DelegatedCalls
from pyrmute_tasks.engine.batch import Batch
from pyrmute_tasks.engine.batch_arguments import check_target_type
from pyrmute_tasks.engine.stream import Stream
from pyrmute_tasks.errors import MigrationError, ModelNotFoundError
from pyrmute_tasks.hooks import HookSet, MigrationHook, use_hooks
from pyrmute_tasks.local.batches import (
    Parallelism,
    migrate_all,
    migrate_lazily,
    migrate_lazily_skipping,
)
from pyrmute_tasks.local.runs import LocalRun
from pyrmute_tasks.plans.fingerprint.reachable import ReachedCode
from pyrmute_tasks.plans.nested_models import NestedModelInfo, nested_models
from pyrmute_tasks.plans.plan import MigrationPlan, Wanted, compile_plan
from pyrmute_tasks.records import RecordLike, as_record
from pyrmute_tasks.registry import MigrationFunc, ModelData, Registry, locate_attribute
from pyrmute_tasks.testing import (
    MigrationTestCases,
    MigrationTestResults,
    run_test_cases,
)
from pyrmute_tasks.versions import ModelVersion, VersionLike

if TYPE_CHECKING:
    from pyrmute import SchemaConfig

__all__ = ["ModelManager"]

Model = TypeVar("Model", bound=BaseModel)
Step = TypeVar("Step", bound=MigrationFunc)

_Migrate: TypeAlias = Callable[[Any], Any]

_MODEL: Final = Wanted()
_DATA: Final = Wanted(validated=False)


def _observed(hooks: HookSet, migrate: _Migrate, record: Any) -> Any:
    with use_hooks(hooks.observers()):
        return migrate(record)


# Above 250 lines: a public façade, whose documentation and annotated arguments take most of them.
class ModelManager(DelegatedCalls, BatchMigrator):
    """Registers versions of models and the steps between them, and migrates records.

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

    Args:
        default_schema_config: The default configuration of JSON schemas, pyrmute's.
        code_packages: Further packages whose code counts for fingerprints when a step reaches it;
            those that hold steps and models always do. Others count by their version.
    """

    def __init__(
        self,
        default_schema_config: "SchemaConfig | None" = None,
        *,
        code_packages: Iterable[str] = (),
    ) -> None:
        super().__init__(default_schema_config)
        self._registry = Registry()
        self._code = ReachedCode(code_packages)
        self._hooks = HookSet()
        self._drop_compiled()

    def _drop_compiled(self) -> None:
        self._plans: dict[tuple[str, VersionLike, VersionLike, bool], MigrationPlan] = {}
        self._functions: dict[tuple[str, VersionLike, VersionLike, bool | type], _Migrate] = {}
        self._plans_generation = 0
        self._capturing = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: what was registered, and not what was compiled of it."""
        compiled = ("_plans", "_functions", "_plans_generation", "_capturing")
        return {name: value for name, value in vars(self).items() if name not in compiled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Fill a copy."""
        vars(self).update(state)
        self._drop_compiled()

    # --- registering ----------------------------------------------------------------------

    def model(
        self,
        name: str,
        version: VersionLike,
        enable_ref: bool = False,
        backward_compatible: bool = False,
    ) -> Callable[[type[Model]], type[Model]]:
        """Return a decorator that registers a class as one version of a model.

        Args:
            name: The model's name.
            version: The version of this class.
            enable_ref: Let exported schemas refer to a file of its own instead of including it.
            backward_compatible: Generate the step from the neighbouring version if none is written.

        Returns:
            The decorator, which returns the class as it is.

        Raises:
            InvalidVersionError: If `version` cannot be parsed.
            RegistrationError: When decorating, if that version has another class already.

        Example:
            ```python
            @manager.model("User", "2.0.0", backward_compatible=True)
            class UserV2(BaseModel):
                name: str
                active: bool = True
            ```
        """
        parsed = ModelVersion.of(version)

        def register(model: type[Model]) -> type[Model]:
            self._registry.add_model(name, parsed, model, backward_compatible)
            options = (enable_ref, backward_compatible)
            self._mirror.note("model", name, str(parsed), *options, decorated=model)
            return model

        return register

    def migration(
        self, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> Callable[[Step], Step]:
        """Return a decorator that registers a function as the step between two versions.

        Args:
            name: The model's name.
            from_version: Version of what the function takes.
            to_version: Version of what it returns.

        Returns:
            The decorator, which returns the function as it is.

        Raises:
            InvalidVersionError: If a version cannot be parsed.

        Example:
            ```python
            @manager.migration("User", "1.0.0", "2.0.0")
            def split_name(data: ModelData) -> ModelData:
                first, _, last = data["name"].partition(" ")
                return {"first_name": first, "last_name": last}
            ```
        """
        first, last = ModelVersion.of(from_version), ModelVersion.of(to_version)

        def register(step: Step) -> Step:
            self._registry.add_step(name, first, last, step)
            self._mirror.note("migration", name, str(first), str(last), decorated=step)
            return step

        return register

    # --- looking up -----------------------------------------------------------------------

    def get(self, name: str, version: VersionLike) -> type[BaseModel]:
        """Return the class of one version.

        Args:
            name: The model's name.
            version: The version.

        Returns:
            The class.

        Raises:
            ModelNotFoundError: If it is not registered.
        """
        return self._registry.model(name, version)

    def get_latest(self, name: str) -> type[BaseModel]:
        """Return the class of the highest version.

        Args:
            name: The model's name.

        Returns:
            The class.

        Raises:
            ModelNotFoundError: If the model is not registered.
        """
        return self._registry.latest(name)

    def list_models(self) -> list[str]:
        """Return the names of all models.

        Returns:
            The names, in the order of registration.
        """
        return self._registry.names()

    def list_versions(self, name: str) -> list[ModelVersion]:
        """Return all versions of a model, lowest first.

        Args:
            name: The model's name.

        Returns:
            The versions.

        Raises:
            ModelNotFoundError: If the model is not registered.
        """
        return self._registry.versions(name)

    def get_nested_models(self, name: str, version: VersionLike) -> list[NestedModelInfo]:
        """Return the versioned models in the fields of one version, each once.

        Args:
            name: The model's name.
            version: The version.

        Returns:
            The models, with their versions.

        Raises:
            ModelNotFoundError: If the version is not registered.
        """
        return nested_models(self._registry, self._registry.model(name, version))

    def validate_data(self, data: RecordLike, name: str, version: VersionLike) -> bool:
        """Return whether `data` is valid as one version; False if there is no such version.

        Args:
            data: The record.
            name: The model's name.
            version: The version.

        Returns:
            Whether the data is valid.
        """
        try:
            self.get(name, version).model_validate(as_record(data))
        except Exception:
            return False
        return True

    def has_migration_path(
        self, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> bool:
        """Return whether records of one version can be migrated to another.

        Args:
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.

        Returns:
            Whether there is a path.

        Raises:
            InvalidVersionError: If a version cannot be parsed.
        """
        try:
            plan = self.plan(name, from_version, to_version)
        except (ModelNotFoundError, MigrationError):
            return False
        # Nothing to do within one version, but it must exist.
        return bool(plan.steps) or not isinstance(plan.model, ModelNotFoundError)

    def plan(
        self,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        observe: bool = False,
    ) -> MigrationPlan:
        """Return the compiled path from one version to another.

        Plans are kept until the next registration.

        Args:
            name: The model's name.
            from_version: Where it starts.
            to_version: Where it ends.
            observe: Call hooks even if this manager has none itself.

        Returns:
            The plan.

        Raises:
            InvalidVersionError: If a version cannot be parsed.
            ModelNotFoundError: If the model or one of the versions is not registered.
            MigrationError: If a hop of the path has no step.
        """
        if self._plans_generation != self._registry.generation:
            self._begin_generation()
        plans = self._plans  # another thread may register something meanwhile
        key = (name, from_version, to_version, observe or bool(self._hooks.all))
        plan = plans.get(key)
        if plan is None:
            first, last = ModelVersion.of(from_version), ModelVersion.of(to_version)
            plan = compile_plan(self._registry, name, first, last, observe=key[3], code=self._code)
            plans[key] = plan
        return plan

    def capture_code(self) -> None:
        """Capture the code that all models and steps reach, as it is now, for fingerprints.

        A plan captures its own when it is compiled, before any record; a memo that fills up
        later changes nothing.
        """
        self._begin_generation()
        self._code.capture_all()

    def _begin_generation(self) -> None:
        with self._capturing:
            if self._plans_generation != self._registry.generation:
                generation = self._registry.generation
                self._code.register(
                    self._registry.labelled_models(), self._registry.labelled_steps()
                )
                self._plans, self._functions = {}, {}
                self._plans_generation = generation

    def locate(self) -> str:
        """Return a name by which another process can import this manager.

        Returns:
            ``package.module:attribute`` or ``path/to/file.py:attribute``.

        Raises:
            ManagerImportError: If there is none.
        """
        models = [
            self._registry.model(name, version).__module__
            for name in self._registry.names()
            for version in self._registry.versions(name)
        ]
        return locate_attribute(self, prefer=models)

    # --- hooks ----------------------------------------------------------------------------

    @property
    def hooks(self) -> HookSet:
        """The hooks that observe migrations."""
        return self._hooks

    def add_hook(self, hook: MigrationHook) -> None:
        """Call `hook` for every migration from now on.

        Args:
            hook: The hook.
        """
        self._use(HookSet([*self._hooks.all, hook]))

    def remove_hook(self, hook: MigrationHook) -> None:
        """Stop calling `hook`; does nothing if it was not added.

        Args:
            hook: The hook.
        """
        hooks = list(self._hooks.all)
        if hook in hooks:
            hooks.remove(hook)  # only once, if it was added twice
            self._use(HookSet(hooks))

    def clear_hooks(self) -> None:
        """Remove all hooks."""
        self._use(HookSet())

    def _use(self, hooks: HookSet) -> None:
        self._hooks = hooks
        self._functions = {}

    # --- one record -----------------------------------------------------------------------

    def migrate(
        self, data: RecordLike, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> BaseModel:
        """Migrate one record and validate it.

        Args:
            data: The record, as `from_version` has it.
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version of the result.

        Returns:
            An instance of the target's class.

        Raises:
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If the migrated record is not valid.

        Example:
            ```python
            user = manager.migrate({"name": "Ada Lovelace"}, "User", "1.0.0", "2.0.0")
            ```
        """
        # Looked up here: a call would take as long as the rest.
        migrate = self._functions.get((name, from_version, to_version, True))
        if migrate is None or self._plans_generation != self._registry.generation:
            migrate = self._migrating(name, from_version, to_version, _MODEL)
        migrated: BaseModel = migrate(data)
        return migrated

    def migrate_as(
        self,
        data: RecordLike,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
    ) -> Model:
        """Migrate one record and validate it as `target_type`; otherwise like `migrate`.

        Args:
            data: The record, as `from_version` has it.
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version of the result.
            target_type: The class to validate the result with.

        Returns:
            An instance of `target_type`.

        Raises:
            PyrmuteTasksError: As `migrate`.
            ConfigurationError: If `target_type` is no class of a pydantic model.
            ValidationError: If the migrated record is not a valid `target_type`.
        """
        wanted = Wanted(model=check_target_type(target_type))
        migrated: Model = self._migrating(name, from_version, to_version, wanted)(data)
        return migrated

    def migrate_data(
        self, data: RecordLike, name: str, from_version: VersionLike, to_version: VersionLike
    ) -> ModelData:
        """Migrate one record without validation; otherwise like `migrate`.

        Args:
            data: The record, as `from_version` has it.
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version of the result.

        Returns:
            The last step's dict.

        Raises:
            PyrmuteTasksError: As `migrate`.
        """
        migrated: ModelData = self._migrating(name, from_version, to_version, _DATA)(data)
        return migrated

    def _migrating(
        self, name: str, from_version: VersionLike, to_version: VersionLike, wanted: Wanted
    ) -> _Migrate:
        """Return the function that migrates one record."""
        model = wanted.model
        key = (name, from_version, to_version, wanted.validated if model is None else model)
        functions = self._functions  # another thread may add a hook meanwhile
        found = functions.get(key)
        if found is not None and self._plans_generation == self._registry.generation:
            return found
        plan = self.plan(name, from_version, to_version)
        migrate = plan.migrating(wanted.output(plan))
        if plan.observe:
            migrate = partial(_observed, self._hooks, migrate)
        functions[key] = migrate
        return migrate

    def test_migration(
        self,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        test_cases: MigrationTestCases,
    ) -> MigrationTestResults:
        """Migrate examples without validation, and compare the results with their targets.

        Args:
            name: The model's name.
            from_version: Version of the examples' sources.
            to_version: Version of their targets.
            test_cases: The examples, or pairs of source and target.

        Returns:
            The results, in order.
        """
        return run_test_cases(
            lambda data: self.migrate_data(data, name, from_version, to_version), test_cases
        )

    # --- many records ---------------------------------------------------------------------

    def _run_all(self, batch: Batch, parallelism: Parallelism | None) -> list[Any]:
        get_plan = partial(self.plan, batch.name, batch.from_version, batch.to_version)
        observers = batch.observers()
        if parallelism is None and not observers:
            return migrate_all(get_plan, batch.records, batch.wanted, self.hooks, batch.errors)
        with LocalRun(observers) as run:
            if parallelism is None:
                run.begin()
                return migrate_all(
                    get_plan, batch.records, batch.wanted, self.hooks, batch.errors, run
                )
            # Loads pools and all of `wire`, which a batch in this thread does without.
            from pyrmute_tasks.local.parallel import migrate_parallel

            return migrate_parallel(
                get_plan,
                batch.records,
                batch.wanted,
                self.hooks,
                parallelism,
                batch.errors,
                self.locate,
                run,
            )

    def _stream(self, batch: Batch) -> Stream[Any]:
        run = LocalRun(batch.observers())
        if batch.errors.policy.skips:
            get_plan = partial(self.plan, batch.name, batch.from_version, batch.to_version)
            skipping = migrate_lazily_skipping(
                get_plan, batch.records, batch.wanted, self.hooks, batch.errors, run
            )
            return Stream(skipping, run.tally)
        get_migrate = partial(
            self._migrating, batch.name, batch.from_version, batch.to_version, batch.wanted
        )
        return Stream(migrate_lazily(get_migrate, batch.records, run), run.tally)
