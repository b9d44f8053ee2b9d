"""Migrations compiled once and run many times.

A `MigrationPlan` is the resolved path from one version to another: a tuple of callables
and the target model. Running it over many records is one plain loop per step and one
validation call for the whole list; nothing is looked up, and nothing of ours is created,
per record.

A chunk's result is the outputs before its first failing record, and that failure. Each
pass that fails cuts the list at the failing record and the next pass goes on with what is
left, so every later failure found stands earlier: the last one found is the one that a
record-by-record run would have met first.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, TypeAlias, TypeVar

import pydantic_core
from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError

from pyrmute_tasks.errors import InvalidRecordError, MigrationError, ModelNotFoundError
from pyrmute_tasks.failures import RecordFailure, Stage, validation_error_of
from pyrmute_tasks.fingerprint import FingerprintTree, fingerprint_tree
from pyrmute_tasks.reachable import ReachedCode
from pyrmute_tasks.registry import MigrationFunc, ModelData, Registry
from pyrmute_tasks.retries import Retry
from pyrmute_tasks.steps import Hop, Step, StepCompiler
from pyrmute_tasks.versions import ModelVersion

__all__ = ["BLOCK_RECORDS", "MigrationPlan", "Result", "Step", "compile_plan", "paused_collector"]

Model = TypeVar("Model", bound=BaseModel)

BLOCK_RECORDS: Final = 500
"""Records taken through all passes at a time: what is made between them is freed, still in
the cache, before Python's garbage collector has walked over it again and again."""

Result: TypeAlias = tuple[list[Any], RecordFailure | None]
"""Outputs in order, and the failure that ended them early, if any."""


@contextmanager
def paused_collector() -> Iterator[None]:
    """Keep Python's cyclic garbage collector from running; for a block of validation only.

    Validating makes many objects that stay and no cycle, but the collector walks over them
    after every 700 that are made. Steps are somebody's code and may leave anything in
    cycles: they run with the collector as it was. It stays off if the caller has turned it
    off.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class MigrationPlan:
    """The compiled way from one version of a model to another.

    Attributes:
        name: The model's name.
        from_version: Version of the records that go in.
        to_version: Version of those that come out.
        steps: The hops, in order; empty when both versions are the same.
        model: The target's class; or, if only data can be migrated, why there is none.
        path: The classes of all versions on the way, for the fingerprint.
        hops: The hops that running it can come to, also those inside of records.
        observed: Runs all steps over one record with the hooks in use called around it;
            None if the plan was compiled without hooks.
        code: What the manager's models and steps reach, for the fingerprint.
    """

    name: str
    from_version: ModelVersion
    to_version: ModelVersion
    steps: tuple[Step, ...]
    model: type[BaseModel] | ModelNotFoundError
    path: tuple[type[BaseModel], ...] = field(default=(), repr=False)
    hops: tuple[Hop, ...] = field(default=(), repr=False)
    observed: MigrationFunc | None = field(default=None, repr=False)
    code: ReachedCode = field(default_factory=ReachedCode, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.name} {self.from_version}→{self.to_version}"

    def with_retry(self, retry: Retry) -> "MigrationPlan":
        """Return this plan with steps that are run again as `retry` says.

        Its fingerprint is the same: what a step returns in the end does not change.
        """
        steps = tuple(replace(step, function=retry.wrap(step.function)) for step in self.steps)
        observed = retry.wrap(self.observed) if self.observed is not None else None
        return replace(self, steps=steps, observed=observed)

    # --- one record ---------------------------------------------------------------------

    def migrate_one(self, record: ModelData) -> ModelData:
        """Run the steps over one record.

        Raises:
            MigrationError: If a step raises.
            InvalidRecordError: If a step returns something else than a dict.
        """
        if self.observed is not None:
            return _checked(self.steps[-1], self.observed(record))
        for step in self.steps:
            try:
                record = step.function(record)
            except Exception as error:
                raise _blame(step, self.name, record, error) from error
            if type(record) is not dict:
                _checked(step, record)
        return record

    def validate_one(self, data: ModelData, model: type[Model]) -> Model:
        """Validate one migrated record.

        Raises:
            ValidationError: If it is not valid.
        """
        return model.model_validate(_unwrap_one(data) if issubclass(model, RootModel) else data)

    # --- many records -------------------------------------------------------------------

    def migrate(self, records: Iterable[ModelData], start: int = 0) -> Result:
        """Run the steps over `records`, the first of which has index `start`."""
        done = list(records)
        if self.observed is not None:
            return self._migrate_observed(done, start)
        failure: RecordFailure | None = None
        for step in self.steps:
            function, pending, done = step.function, done, []
            append = done.append
            try:
                # Not `extend(map(...))`: a StopIteration that a step lets out would end it
                # quietly, and with it the rest of the records.
                for record in pending:
                    append(function(record))
            except Exception as error:
                blamed = _blame(step, self.name, pending[len(done)], error)
                failure = RecordFailure.of(start + len(done), Stage.STEP, str(step), blamed)
            if set(map(type, done)) - {dict}:
                failure = self._cut_at_non_dict(done, step, start) or failure
        return done, failure

    def migrate_in_blocks(self, records: list[ModelData], start: int = 0) -> Result:
        """Run all steps over some records after the other; else as `migrate`."""
        done: list[Any] = []
        for begin in range(0, len(records), BLOCK_RECORDS):
            block = records[begin : begin + BLOCK_RECORDS]
            outputs, failure = self.migrate(block, start + begin)
            done += outputs
            if failure is not None:
                return done, failure
        return done, None

    def _migrate_observed(self, records: list[ModelData], start: int) -> Result:
        # One record after the other, as hooks expect to be called.
        done: list[Any] = []
        for record in records:
            try:
                done.append(self.migrate_one(record))
            except Exception as error:
                step = _step_of(error)
                return done, RecordFailure.of(start + len(done), Stage.STEP, step, error)
        return done, None

    @staticmethod
    def _cut_at_non_dict(done: list[Any], step: Step, start: int) -> RecordFailure | None:
        for position, record in enumerate(done):
            if not isinstance(record, dict):
                del done[position:]
                error = _not_a_dict(step, record)
                return RecordFailure.of(start + position, Stage.STEP, str(step), error)
        return None

    def validate(
        self, data: list[ModelData], start: int = 0, model: type[BaseModel] | None = None
    ) -> Result:
        """Validate migrated records against `model`, by default the target's class."""
        model = model or self.target
        if not _validates_as_pydantic(model):
            return self._validate_each(data, start, model)
        values = [_unwrap_one(item) for item in data] if issubclass(model, RootModel) else data
        adapter = self._adapter if model is self.model else TypeAdapter(list[model])  # type: ignore[valid-type]  # a class known at run time only
        try:
            return adapter.validate_python(values), None
        except ValidationError as error:
            position = int(error.errors(include_url=False)[0]["loc"][0])
            failure = RecordFailure.of(
                start + position,
                Stage.VALIDATE,
                "",
                validation_error_of(error, position, model.__name__),
            )
            # Those before it are valid, so this recursion is one level deep.
            valid, _ = self.validate(data[:position], start, model)
            return valid, failure
        except Exception:
            # A validator raised something that pydantic passes through without a position.
            return self._validate_each(data, start, model)

    def _validate_each(self, data: list[ModelData], start: int, model: type[BaseModel]) -> Result:
        valid: list[Any] = []
        for record in data:
            try:
                valid.append(self.validate_one(record, model))
            except Exception as error:
                return valid, RecordFailure.of(start + len(valid), Stage.VALIDATE, "", error)
        return valid, None

    def migrate_lines(
        self, block: bytes | memoryview, start: int = 0
    ) -> tuple[bytes, int, RecordFailure | None]:
        """Migrate, validate and write JSON lines.

        Args:
            block: JSON objects, one a line, without blank lines.
            start: Index of the first one.

        Returns:
            The validated models as JSON lines, each ended by a newline and equal to what
            ``model_dump_json()`` writes; how many there are; and the failure, if any.
        """
        texts = bytes(block).split(b"\n")
        if not texts[-1]:
            texts.pop()
        written: list[bytes] = []
        failure: RecordFailure | None = None
        for begin in range(0, len(texts), BLOCK_RECORDS):
            lines, failure = self._migrate_lines(
                texts[begin : begin + BLOCK_RECORDS], start + begin
            )
            written += lines
            if failure is not None:
                break
        written.append(b"")
        return b"\n".join(written), len(written) - 1, failure

    def _migrate_lines(
        self, texts: list[bytes], start: int
    ) -> tuple[list[bytes], RecordFailure | None]:
        records, undecoded = _decode_lines(texts, start)
        data, unmigrated = self.migrate(records, start)
        with paused_collector():
            models, invalid = self.validate(data, start)
        lines, unwritten = self._write(models, start)
        # Each pass sees only what the one before left, so a later failure stands earlier.
        return lines, unwritten or invalid or unmigrated or undecoded

    def _write(
        self, models: list[BaseModel], start: int
    ) -> tuple[list[bytes], RecordFailure | None]:
        model = self.target
        dump: Callable[[Any], bytes] = model.__pydantic_serializer__.to_json
        if model.model_dump_json is not BaseModel.model_dump_json:
            dump = _dump_by_method  # the model writes itself its own way
        lines: list[bytes] = []
        append = lines.append
        try:
            for item in models:
                append(dump(item))
        except Exception as error:
            return lines, RecordFailure.of(start + len(lines), Stage.ENCODE, "", error)
        return lines, None

    # --- what it is made of -------------------------------------------------------------

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
    def _adapter(self) -> TypeAdapter[list[Any]]:
        return TypeAdapter(list[self.target])  # type: ignore[name-defined]  # a class known at run time only

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides this plan's results, the same in every process."""
        return self.fingerprint_tree.root

    @cached_property
    def fingerprint_tree(self) -> FingerprintTree:
        """All that decides this plan's results, each with its name and its hash.

        It covers every model that records of the path can hold, every step, what these
        reach in the user's own packages, and the versions of the libraries.
        """
        nested = [model for hop in self.hops for model in hop.models]
        target = [] if isinstance(self.model, ModelNotFoundError) else [self.model]
        models = [*self.path, *target, *nested]
        return fingerprint_tree(str(self), models, self.hops, self.code)


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

    A step written for exactly this hop is preferred to a chain over the versions between.
    `code` has captured what the registry's models and steps reach.

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
    observed = compiler.nested(name, from_version, to_version) if observe and versions else None
    hops = tuple(compiler.hops)
    code = code or ReachedCode()
    return MigrationPlan(name, from_version, to_version, steps, target, path, hops, observed, code)


def _target(
    registry: Registry, name: str, version: ModelVersion
) -> type[BaseModel] | ModelNotFoundError:
    try:
        return registry.model(name, version)
    except ModelNotFoundError as error:
        return error


# --- details ----------------------------------------------------------------------------


def _checked(step: Step, record: Any) -> ModelData:
    if not isinstance(record, dict):
        raise _not_a_dict(step, record)
    return record


def _blame(step: Step, name: str, record: object, error: Exception) -> Exception:
    """Return what to raise for an exception of `step`: its own fault, or its record's."""
    if isinstance(record, Mapping):
        return step.error(name, error)
    blamed = InvalidRecordError(
        f"a record is {type(record).__name__} and must be a dict; convert it in the source"
    )
    blamed.__cause__ = error
    return blamed


def _step_of(error: Exception) -> str:
    if isinstance(error, MigrationError):
        return f"{error.from_version} → {error.to_version}"
    return ""


def _not_a_dict(step: Step, record: object) -> InvalidRecordError:
    return InvalidRecordError(
        f"step {step} returned {type(record).__name__} and must return a dict; "
        "return the new record from the step"
    )


def _unwrap_one(data: ModelData) -> object:
    return data.get("root")


def _validates_as_pydantic(model: type[BaseModel]) -> bool:
    """Say whether validating a list does what `model.model_validate` does for each item."""
    return getattr(model.model_validate, "__func__", None) is _STOCK_VALIDATE


_STOCK_VALIDATE: Final = BaseModel.model_validate.__func__  # type: ignore[attr-defined]  # a bound classmethod


def _dump_by_method(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()


def _decode_lines(lines: list[bytes], start: int) -> tuple[list[ModelData], RecordFailure | None]:
    records: list[Any] = []
    error: InvalidRecordError | None = None
    try:
        records.extend(map(pydantic_core.from_json, lines))
    except ValueError as cause:
        error = InvalidRecordError(f"not valid JSON: {_json_reason(cause)}")
    if set(map(type, records)) - {dict}:
        position, kind = next(
            (at, type(item)) for at, item in enumerate(records) if type(item) is not dict
        )
        del records[position:]
        error = InvalidRecordError(f"not a JSON object but {_JSON_NAMES.get(kind, kind.__name__)}")
    if error is None:
        return records, None
    return records, RecordFailure.of(start + len(records), Stage.DECODE, "", error)


_JSON_NAMES: Final[dict[type, str]] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _json_reason(error: ValueError) -> str:
    # jiter names what it expected and the column, never what it saw; "line 1" is ours.
    return str(error).replace(" at line 1 column ", " at column ")
