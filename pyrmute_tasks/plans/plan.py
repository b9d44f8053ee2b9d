"""Migrations compiled once and run many times.

A `MigrationPlan` is the resolved path from one version to another: a tuple of callables and
the target model. The functions generated for it (`codegen`) take one record through everything
before the next one begins, and look nothing up per record.

A run returns the outputs before the first failing record, and its failure. Records that fail can
be skipped instead: the loop takes up again behind them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, RootModel

from pyrmute_tasks.errors import ModelNotFoundError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.hooks import observed
from pyrmute_tasks.plans.codegen import Generated, Output, OutputKind, generate
from pyrmute_tasks.plans.codegen_helpers import Call
from pyrmute_tasks.plans.fingerprint.reachable import ReachedCode
from pyrmute_tasks.plans.garbage_collection import rare_collections
from pyrmute_tasks.plans.steps import Hop, Step, StepCompiler
from pyrmute_tasks.records import RecordLike
from pyrmute_tasks.registry import ModelData, Registry
from pyrmute_tasks.versions import ModelVersion

if TYPE_CHECKING:
    from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
    from pyrmute_tasks.plans.retry import Retry

__all__ = ["DATA", "MigrationPlan", "RunResult", "SkipRule", "Step", "Wanted", "compile_plan"]

Model = TypeVar("Model", bound=BaseModel)

RunResult: TypeAlias = tuple[list[Any], RecordFailure | None]
"""Outputs in order, and the failure that ended the run, if any."""

SkipRule: TypeAlias = Callable[[RecordFailure], bool]
"""Called with each failure, in order; returns whether to go on behind its record."""

DATA: Final = Output(OutputKind.DATA)


# Above 250 lines: the ways to run a plan share what is compiled for it.
@dataclass(frozen=True)
class MigrationPlan:
    """The compiled path from one version of a model to another.

    Attributes:
        name: The model's name.
        from_version: Version of the input records.
        to_version: Version of the outputs.
        steps: The steps, in order; empty when both versions are the same.
        model: The target's class; or, if records can only be migrated as data, the error why.
        path: The classes of all versions on the path, for the fingerprint.
        hops: The hops that a run may take, also inside of records, for the fingerprint.
        observe: Call the hooks in use around every record.
        code: The code that the manager's models and steps reach, for the fingerprint.
    """

    name: str
    from_version: ModelVersion
    to_version: ModelVersion
    steps: tuple[Step, ...]
    model: type[BaseModel] | ModelNotFoundError
    path: tuple[type[BaseModel], ...] = field(default=(), repr=False)
    hops: tuple[Hop, ...] = field(default=(), repr=False)
    observe: bool = field(default=False, repr=False)
    code: ReachedCode = field(default_factory=ReachedCode, repr=False, compare=False)
    _generated: dict[tuple[Output, bool], Generated] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __str__(self) -> str:
        return f"{self.name} {self.from_version}→{self.to_version}"

    def with_retry(self, retry: "Retry") -> "MigrationPlan":
        """Return this plan with its steps retried as `retry` says.

        The fingerprint stays: retries do not change a step's result.

        Args:
            retry: Which exceptions to retry, and how.

        Returns:
            Another plan.
        """
        steps = tuple(replace(step, function=retry.wrap(step.function)) for step in self.steps)
        return replace(self, steps=steps)

    # --- one record ---------------------------------------------------------------------

    def migrating(self, output: Output) -> Callable[[Any], Any]:
        """Return the function that migrates one record and raises like a plain loop.

        Args:
            output: The form of its result.

        Returns:
            The function.
        """
        return self._functions(output).one

    def migrate_one(self, record: RecordLike) -> ModelData:
        """Run the steps over one record.

        Args:
            record: The record.

        Returns:
            The last step's dict.

        Raises:
            MigrationError: If a step raises.
            InvalidRecordError: If a step does not return a dict.
        """
        migrated: ModelData = self.migrating(DATA)(record)
        return migrated

    def validate_one(self, data: ModelData, model: type[Model]) -> Model:
        """Validate one migrated record.

        Args:
            data: The migrated record.
            model: The class to validate it with.

        Returns:
            The model.

        Raises:
            ValidationError: If it is not valid.
        """
        return model.model_validate(data.get("root") if issubclass(model, RootModel) else data)

    # --- many records -------------------------------------------------------------------

    def run(
        self,
        records: Iterable[Any],
        output: Output,
        start: int = 0,
        skips: SkipRule | None = None,
    ) -> RunResult:
        """Migrate `records` in order.

        Args:
            records: The records.
            output: The form of the outputs.
            start: Index of the first one.
            skips: Decides whether to skip a record that fails; by default the first ends the run.

        Args:
            records: The records.
            output: The form of the outputs.
            start: Index of the first record.

        Returns:
            The outputs before the first failing record, and its failure.

        Raises:
            BaseException: Only from reading the records, or from `skips`.
        """
        return self._collect(self._functions(output), records, start, skips)

    def migrate(self, records: Iterable[RecordLike], start: int = 0) -> RunResult:
        """Run the steps over `records`; otherwise like `run`.

        Args:
            records: The records.
            start: Index of the first record.

        Returns:
            The outputs before the first failing record, and its failure.
        """
        return self.run(records, DATA, start)

    def validate(
        self,
        data: Iterable[ModelData],
        start: int = 0,
        model: type[BaseModel] | None = None,
        skips: SkipRule | None = None,
    ) -> RunResult:
        """Validate migrated records against `model`, by default the target's class.

        Args:
            data: The migrated records.
            start: Index of the first one.
            model: The class to validate with; None for the target's.
            skips: Decides whether to skip a record that is not valid; by default the first ends
                the run.

        Returns:
            The models, and the failure that ended the run, if one did.
        """
        output = Output(OutputKind.MODELS, model or self.target)
        return self._collect(self._functions(output, migrated=True), data, start, skips)

    def migrate_lines(
        self, block: bytes | memoryview, start: int = 0, skips: SkipRule | None = None
    ) -> tuple[bytes, int, RecordFailure | None]:
        """Migrate, validate and write JSON lines.

        Args:
            block: JSON objects, one a line, without blank lines.
            start: Index of the first one.
            skips: Decides whether to skip a record that fails; by default the first ends the run.

        Returns:
            The validated models as JSON lines, each ended by a newline and equal to what
            ``model_dump_json()`` writes; how many there are; and the failure that ended the run.
        """
        # Each line is cut off when it is due and written to one buffer: allocating lists of lines
        # costs a tenth more. Only bytes remain of a record: little work for the garbage collector.
        text, written = bytes(block), BytesIO()
        lines = BytesIO(text)
        functions = self._functions(Output(OutputKind.LINES, self.target))
        failed = begun = read = 0
        while stopped := functions.many(lines, written.write):
            read += _count_lines(text, begun, lines.tell())
            begun = lines.tell()
            failed += 1
            failure = stopped.at(start + read - 1)
            if skips is None or not skips(failure):
                return written.getvalue(), read - failed, failure
        read += _count_lines(text, begun, lines.tell())
        return written.getvalue(), read - failed, None

    @staticmethod
    def _collect(
        functions: Generated, records: Iterable[Any], start: int, skips: SkipRule | None
    ) -> RunResult:
        done: list[Any] = []
        failed = 0
        left = iter(records)
        with rare_collections():
            while stopped := functions.many(left, done.append):
                failure = stopped.at(start + len(done) + failed)
                if skips is None or not skips(failure):
                    return done, failure
                failed += 1
        return done, None

    # --- contents -----------------------------------------------------------------------

    @property
    def source(self) -> str:
        """The source of the functions generated for it."""
        models = not isinstance(self.model, ModelNotFoundError)
        return self._functions(Output(OutputKind.MODELS, self.target) if models else DATA).source

    def _functions(self, output: Output, *, migrated: bool = False) -> Generated:
        """Return the functions for an output, or those for records `migrated` already."""
        key = (output, migrated)
        if key not in self._generated:
            calls = [] if migrated else self._calls()
            title = f"pyrmute-tasks: {self}"
            self._generated[key] = generate(title, self.name, calls, output, migrated=migrated)
        return self._generated[key]

    def _calls(self) -> list[Call]:
        calls = [Call(step.function, step) for step in self.steps]
        if not self.observe or not calls:
            return calls
        run = generate(f"pyrmute-tasks: {self}", self.name, calls, DATA, migrated=True).one
        watched = observed(self.name, self.from_version, self.to_version, run)
        return [Call(watched, self.steps[-1], wraps=False)]

    @property
    def target(self) -> type[BaseModel]:
        """The target's class.

        Raises:
            ModelNotFoundError: If the target version has none.
        """
        if isinstance(self.model, ModelNotFoundError):
            raise self.model.with_traceback(None)
        return self.model

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all code that decides this plan's results, the same in every process."""
        return self.fingerprint_tree.root

    @cached_property
    def fingerprint_tree(self) -> "FingerprintTree":
        """The fingerprint with its parts, each with its name and hash.

        It covers every model that records of the path can hold, every step, the code these reach
        in the user's own packages, and the versions of libraries.
        """
        # What is hashed was captured when this was compiled; only jobs ask for the hash.
        from pyrmute_tasks.plans.fingerprint.tree import fingerprint_tree

        return fingerprint_tree(str(self), self._models, self.hops, self.code)

    def capture_code(self) -> None:
        """Capture the code that decides its results, as it is now; call this before it runs."""
        steps = [hop.step.function for hop in self.hops if hop.step and not hop.step.generated]
        self.code.capture(self._models, steps)

    @property
    def _models(self) -> list[type[BaseModel]]:
        """The models that records of the path can hold."""
        nested = [model for hop in self.hops for model in hop.models]
        target = [] if isinstance(self.model, ModelNotFoundError) else [self.model]
        return [*self.path, *target, *nested]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The results that a batch call returns.

    Attributes:
        validated: Whether to return models instead of data.
        model: The model to validate with; None for the target's class.
    """

    validated: bool = True
    model: type[BaseModel] | None = None

    def output(self, plan: MigrationPlan) -> Output:
        """Return the output of `plan` for these results.

        Raises:
            ModelNotFoundError: If the target is to validate and has no class.
        """
        if not self.validated:
            return DATA
        return Output(OutputKind.MODELS, self.model or plan.target)

    def convert(
        self, plan: MigrationPlan, data: list[Any], start: int, skips: SkipRule | None = None
    ) -> RunResult:
        """Convert data that workers have migrated into these results."""
        return plan.validate(data, start, self.model, skips) if self.validated else (data, None)


def _count_lines(text: bytes, start: int, end: int) -> int:
    """Count the lines from `start` to `end`; the last one may lack its newline."""
    return text.count(b"\n", start, end) + (text[max(start, end - 1) : end] not in (b"", b"\n"))


def compile_plan(
    registry: Registry,
    name: str,
    from_version: ModelVersion,
    to_version: ModelVersion,
    *,
    observe: bool = False,
    code: ReachedCode | None = None,
) -> MigrationPlan:
    """Resolve the path between two versions of a model.

    A step written for exactly this hop is preferred to a chain of steps.
    `code` holds the registry's models and steps; the code that the plan reaches is captured.

    Raises:
        ModelNotFoundError: If the model or one of the versions is not registered.
        MigrationError: If a hop of the path has no step.
    """
    compiler = StepCompiler(registry, observe=observe)
    versions = compiler.path(name, from_version, to_version)
    steps = tuple(compiler.step(name, *hop) for hop in pairwise(versions))
    found = [registry.find(name, version) for version in versions]
    path = tuple(model for model in found if model is not None)
    target = _target(registry, name, to_version)
    hops = tuple(compiler.hops)
    code = code or ReachedCode()
    plan = MigrationPlan(name, from_version, to_version, steps, target, path, hops, observe, code)
    code.capture(*registry.code_of(name))  # one version's code may fill what another's reads
    plan.capture_code()
    return plan


def _target(
    registry: Registry, name: str, version: ModelVersion
) -> type[BaseModel] | ModelNotFoundError:
    try:
        return registry.model(name, version)
    except ModelNotFoundError as error:
        return error
