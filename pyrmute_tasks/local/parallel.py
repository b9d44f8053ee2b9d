"""Batches on this machine, in threads or in processes.

Both run the plan that `batches` runs, so they give the same outputs and raise the same error:
that of the first failing record.
"""

import copy
import multiprocessing
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

from pyrmute_tasks.engine.chunks import Chunk, Outcome, cut_records, pack_each
from pyrmute_tasks.engine.pipeline import ChunkExecutor, Sink, Window, run_ordered
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.hooks import HookCounts, HookSet, use_hooks
from pyrmute_tasks.local.batches import KEPT, Parallelism, nonempty
from pyrmute_tasks.local.executors import ProcessExecutor, ThreadExecutor, pack_or_pickle
from pyrmute_tasks.local.runs import LocalRun
from pyrmute_tasks.plans.codegen import Output, OutputKind
from pyrmute_tasks.plans.plan import MigrationPlan, Result, Wanted
from pyrmute_tasks.registry import is_loading, load_attribute

__all__ = ["migrate_parallel"]


def migrate_parallel(
    get_plan: Callable[[], MigrationPlan],
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    parallelism: Parallelism,
    locate: Callable[[], str],
    run: LocalRun,
) -> list[Any]:
    """Migrate records in threads or processes.

    Args:
        get_plan: Returns the plan; not called if there are no records.
        records: The source.
        wanted: The results to return; threads produce them, processes only data.
        hooks: The manager's.
        parallelism: The threads or processes.
        locate: Returns the manager's name, for processes that must import it.
        run: The call's run, entered.

    Raises:
        BaseException: The error of the first failing record.
        ManagerImportError: If processes must import the manager and cannot.
    """
    found = nonempty(records)
    if found is None:
        return []
    run.begin()
    migrate = _in_processes if parallelism.use_processes else _in_threads
    return migrate(get_plan(), found, wanted, hooks, parallelism.workers, locate, run)


_CHUNKS_PER_WORKER: Final = 4  # so that one slow chunk does not leave the others idle
_MAX_CHUNK_SIZE: Final = 2000
_FIRST_CHUNK_SIZE: Final = 62  # for a source of unknown length
_GROWING_CHUNKS: Final = 5


def _outcome(
    chunk: Chunk[Any], result: Result, counts: HookCounts | None = None
) -> Outcome[list[Any]]:
    outputs, failure = result
    failures = (failure,) if failure is not None else ()
    return Outcome(chunk.index, len(outputs), outputs, failures, counts=counts)


def _gather(
    chunks: Generator[Chunk[Any], None, None],
    executor: ChunkExecutor[Any, Any],
    workers: int,
    sink: Sink[Any, list[Any]],
    run: LocalRun,
) -> list[Any]:
    window = Window.for_slots(workers)
    done: list[Any] = []
    failure = None
    for outcome in run_ordered(chunks, executor, lambda: window, sink=sink, observers=run.tell):
        done += outcome.outputs
        failure = outcome.failure  # only the last one has any
    if failure is not None:
        run.tally.failure = failure
        raise failure.exception()
    return done


def _sizes(records: Iterable[Any], workers: int) -> Callable[[], int]:
    """Return a function that returns the size of the next chunk, in records."""
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
    call: LocalRun,
) -> list[Any]:
    output = wanted.output(plan)

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
        counts = HookCounts(hooks=hooks)
        with use_hooks((counts, *hooks.live) if hooks else ()):
            return _outcome(chunk, plan.run(chunk.payload, output, chunk.start), counts)

    kept = records if type(records) in KEPT else map(_copied, records)
    with ThreadExecutor(run, workers) as executor:
        chunks = cut_records(kept, _sizes(records, workers))
        return _gather(chunks, executor, workers, _CountingSink(hooks), call)


@dataclass(frozen=True, slots=True)
class _CountingSink:
    """Delivers the outputs of threads, and merges their counts into the hooks."""

    hooks: HookSet

    def receive(self, _: Chunk[None], outcome: Outcome[list[Any]], /) -> Outcome[list[Any]]:
        self.hooks.merge(outcome.counts)
        return outcome


def _copied(record: Any) -> Any:
    try:
        return copy.deepcopy(record)
    except Exception:  # a record that cannot be copied is rarely refilled
        return record


# --- processes ----------------------------------------------------------------------------


def _in_processes(
    plan: MigrationPlan,
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    workers: int,
    locate: Callable[[], str],
    run: LocalRun,
) -> list[Any]:
    if is_loading():
        raise ConfigurationError(
            "a process that imports this module would start processes itself; put the part of the "
            "module that runs batches behind: if __name__ == '__main__':"
        )
    context = multiprocessing.get_context()
    # A forked process has the plan already; any other has to import its manager.
    argument = (plan, hooks) if context.get_start_method() == "fork" else (locate(), *_key(plan))

    with ProcessExecutor(_start_worker, argument, workers, context) as executor:
        chunks = cut_records(pack_each(records, pack_or_pickle), _sizes(records, workers))
        return _gather(chunks, executor, workers, _ConvertingSink(plan, wanted, hooks), run)


@dataclass(frozen=True, slots=True)
class _ConvertingSink:
    """Converts the data that processes have migrated into the results."""

    plan: MigrationPlan
    wanted: Wanted
    hooks: HookSet

    def receive(self, chunk: Chunk[None], outcome: Outcome[list[Any]], /) -> Outcome[list[Any]]:
        self.hooks.merge(outcome.counts)
        outputs, invalid = self.wanted.convert(self.plan, outcome.outputs, chunk.start)
        failures = outcome.failures if invalid is None else (invalid,)
        return Outcome(outcome.index, len(outputs), outputs, failures)


def _key(plan: MigrationPlan) -> tuple[str, str, str]:
    return plan.name, str(plan.from_version), str(plan.to_version)


def _start_worker(argument: Any) -> Callable[[Chunk[list[Any]]], Outcome[list[bytes]]]:
    """Return the function that runs chunks in a process of the pool."""
    plan, hooks = argument if isinstance(argument[0], MigrationPlan) else _import_worker(*argument)
    output = Output(OutputKind.PACKED, pack=pack_or_pickle)

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[bytes]]:
        counts = HookCounts(hooks=hooks)
        with use_hooks((counts, *hooks.live) if plan.observe else ()):
            return _outcome(chunk, plan.run(chunk.payload, output, chunk.start), counts)

    return run


def _import_worker(
    manager: str, name: str, from_version: str, to_version: str
) -> tuple[MigrationPlan, HookSet]:
    found: Any = load_attribute(manager)
    # Count always: hooks may be registered in the parent only.
    return found.plan(name, from_version, to_version, observe=True), found.hooks
