"""Batches on this machine: one after the other, in threads, or in processes.

All three run the same plan, so they give the same outputs and raise the same error: that of
the first failing record. One after the other means just that: a record is read from the source,
migrated and validated before the next one is read.
"""

import copy
import multiprocessing
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

from pydantic import BaseModel

from pyrmute_tasks.engine.chunks import Chunk, Outcome, cut_records, pack_each
from pyrmute_tasks.engine.pipeline import ChunkExecutor, Window, run_ordered
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.hooks import HookCounts, HookSet, use_hooks
from pyrmute_tasks.local.executors import (
    ProcessExecutor,
    ThreadExecutor,
    check_workers,
    pack_or_pickle,
)
from pyrmute_tasks.plans.codegen import Output, OutputKind
from pyrmute_tasks.plans.plan import DATA, MigrationPlan, Result
from pyrmute_tasks.registry import is_loading, load_attribute

__all__ = ["Parallelism", "Wanted", "migrate_all", "migrate_lazily", "migrate_parallel"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch call returns for a record.

    Attributes:
        validated: Models, not data.
        model: What validates them; None means the target's class.
    """

    validated: bool = True
    model: type[BaseModel] | None = None

    def output(self, plan: MigrationPlan) -> Output:
        """Return the output of `plan` that is wanted.

        Raises:
            ModelNotFoundError: If it is to be validated by the target and there is none.
        """
        if not self.validated:
            return DATA
        return Output(OutputKind.MODELS, self.model or plan.target)

    def finish(self, plan: MigrationPlan, data: list[Any], start: int) -> Result:
        """Turn data that workers have migrated into what is wanted."""
        return plan.validate(data, start, self.model) if self.validated else (data, None)


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How a batch is spread over this machine.

    Attributes:
        workers: How many threads or processes.
        use_processes: Processes, not threads.
    """

    workers: int
    use_processes: bool

    @classmethod
    def of(
        cls, parallel: bool, max_workers: int | None, use_processes: bool
    ) -> "Parallelism | None":
        """Read pyrmute's three arguments; None means one record after the other.

        Raises:
            ConfigurationError: If `max_workers` is not a positive integer.
        """
        workers = check_workers(max_workers)
        return cls(workers, use_processes) if parallel else None


def migrate_all(
    get_plan: Callable[[], MigrationPlan], records: Iterable[Any], wanted: Wanted, hooks: HookSet
) -> list[Any]:
    """Migrate records one after the other.

    Args:
        get_plan: Returns the plan; not asked if there are no records.
        records: The source; each record is read when the one before it is done.
        wanted: What is returned for each.
        hooks: The manager's.

    Raises:
        BaseException: The error of the first failing record, or the source's.
    """
    begun = _begun(records)
    if begun is None:
        return []
    plan = get_plan()
    with use_hooks(hooks.observers()):
        done, failure = plan.run(begun, wanted.output(plan))
    if failure is not None:
        raise failure.exception()
    return done


def migrate_lazily(
    get_migrate: Callable[[], Callable[[Any], Any]], records: Iterable[Any]
) -> Generator[Any, None, None]:
    """Migrate records one by one, each when it is asked for.

    Args:
        get_migrate: Returns what migrates one record; asked for each, so that what is
            registered meanwhile counts for the next one.
        records: The source; closed at the end.
    """
    source = iter(records)
    try:  # no context manager of a generator, which sets attributes of what is raised
        for index, record in enumerate(source):
            try:
                output = get_migrate()(record)
            except BaseException as error:
                failure = RecordFailure.of(index, Stage.STEP, "", error)
            else:
                yield output
                continue
            raise failure.exception()
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def migrate_parallel(
    get_plan: Callable[[], MigrationPlan],
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    parallelism: Parallelism,
    locate: Callable[[], str],
) -> list[Any]:
    """Migrate records in threads or processes.

    Args:
        get_plan: Returns the plan; not asked if there are no records.
        records: The source.
        wanted: What is returned for each; in threads it is made there.
        hooks: The manager's.
        parallelism: Where to run.
        locate: Returns the manager's name, for processes that must import it.

    Raises:
        BaseException: The error of the first failing record.
        ManagerImportError: If processes must import the manager and cannot.
    """
    begun = _begun(records)
    if begun is None:
        return []
    run = _in_processes if parallelism.use_processes else _in_threads
    return run(get_plan(), begun, wanted, hooks, parallelism.workers, locate)


def _begun(records: Iterable[Any]) -> Iterable[Any] | None:
    """Return the records, or None if there are none; reads one at the most."""
    if type(records) in _KEPT:
        return records if records else None
    source = iter(records)
    for first in source:
        return chain((first,), source)
    return None


_KEPT: Final = (list, tuple)  # any other source may give the same dict each time, filled anew
_CHUNKS_PER_WORKER: Final = 4  # so that one slow chunk does not leave the others idle for long
_MAX_CHUNK_SIZE: Final = 2000
_FIRST_CHUNK_SIZE: Final = 62  # of a source whose length is not known
_GROWING_CHUNKS: Final = 5


def _outcome(
    chunk: Chunk[Any], result: Result, counts: HookCounts | None = None
) -> Outcome[list[Any]]:
    outputs, failure = result
    return Outcome(chunk.index, len(outputs), outputs, failure, counts=counts)


def _gather(
    chunks: Generator[Chunk[Any], None, None],
    executor: ChunkExecutor[Any, Any],
    workers: int,
    hooks: HookSet,
    finish: Callable[[Chunk[None], Outcome[Any]], Outcome[list[Any]]],
) -> list[Any]:
    def merge_and_finish(chunk: Chunk[None], outcome: Outcome[Any]) -> Outcome[list[Any]]:
        if outcome.counts is not None:
            hooks.merge(outcome.counts)
        return finish(chunk, outcome)

    window = Window.for_slots(workers)
    done: list[Any] = []
    failure = None
    for outcome in run_ordered(chunks, executor, lambda: window, finish=merge_and_finish):
        done += outcome.outputs
        failure = outcome.failure
    if failure is not None:
        raise failure.exception()
    return done


def _sizes(records: Iterable[Any], workers: int) -> Callable[[], int]:
    """Return what says how many records the next chunk holds."""
    if isinstance(records, Sequence) and len(records):
        size = -(-len(records) // (_CHUNKS_PER_WORKER * workers))
        return lambda: max(1, min(size, _MAX_CHUNK_SIZE))
    growing = chain(
        (_FIRST_CHUNK_SIZE * 2**n for n in range(_GROWING_CHUNKS)), repeat(_MAX_CHUNK_SIZE)
    )
    return lambda: next(growing)


# --- threads ------------------------------------------------------------------------------


def _in_threads(
    plan: MigrationPlan,
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    workers: int,
    _: Callable[[], str],
) -> list[Any]:
    output = wanted.output(plan)

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
        counts = HookCounts(hooks=hooks)
        with use_hooks((counts, *hooks.live) if hooks else ()):
            return _outcome(chunk, plan.run(chunk.payload, output, chunk.start), counts)

    kept = records if type(records) in _KEPT else map(_copied, records)
    with ThreadExecutor(run, workers) as executor:
        chunks = cut_records(kept, _sizes(records, workers))
        return _gather(chunks, executor, workers, hooks, _as_is)


def _as_is(_: Chunk[None], outcome: Outcome[list[Any]]) -> Outcome[list[Any]]:
    return outcome


def _copied(record: Any) -> Any:
    try:
        return copy.deepcopy(record)
    except Exception:  # something that cannot be copied is hardly used again
        return record


# --- processes ----------------------------------------------------------------------------


def _in_processes(
    plan: MigrationPlan,
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    workers: int,
    locate: Callable[[], str],
) -> list[Any]:
    if is_loading():
        raise ConfigurationError(
            "a process that imports this module would start processes itself; put the part of the "
            "module that runs batches behind: if __name__ == '__main__':"
        )
    context = multiprocessing.get_context()
    # A forked process has the plan already; any other one has to import its manager.
    argument = (plan, hooks) if context.get_start_method() == "fork" else (locate(), *_key(plan))

    def finish_here(chunk: Chunk[None], outcome: Outcome[list[Any]]) -> Outcome[list[Any]]:
        outputs, invalid = wanted.finish(plan, outcome.outputs, chunk.start)
        return _outcome(chunk, (outputs, invalid or outcome.failure))

    with ProcessExecutor(_begin_work, argument, workers, context) as executor:
        chunks = cut_records(pack_each(records, pack_or_pickle), _sizes(records, workers))
        return _gather(chunks, executor, workers, hooks, finish_here)


def _key(plan: MigrationPlan) -> tuple[str, str, str]:
    return plan.name, str(plan.from_version), str(plan.to_version)


def _begin_work(argument: Any) -> Callable[[Chunk[list[Any]]], Outcome[list[bytes]]]:
    """Make what runs chunks in a process of its own."""
    plan, hooks = argument if isinstance(argument[0], MigrationPlan) else _import_work(*argument)
    output = Output(OutputKind.PACKED, pack=pack_or_pickle)

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[bytes]]:
        counts = HookCounts(hooks=hooks)
        with use_hooks((counts, *hooks.live) if plan.observe else ()):
            return _outcome(chunk, plan.run(chunk.payload, output, chunk.start), counts)

    return run


def _import_work(
    manager: str, name: str, from_version: str, to_version: str
) -> tuple[MigrationPlan, HookSet]:
    found: Any = load_attribute(manager)
    # Hooks that only the parent registered are counted for by observing in any case.
    return found.plan(name, from_version, to_version, observe=True), found.hooks
