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
from pyrmute_tasks.engine.error_policy import ChunkFailures, ErrorHandling
from pyrmute_tasks.engine.pipeline import ChunkExecutor, Sink, run_ordered
from pyrmute_tasks.engine.results import ResultConverter
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.failures import detach_failure
from pyrmute_tasks.hooks import HookCounts, HookSet, use_hooks
from pyrmute_tasks.local.batches import KEPT, Parallelism, nonempty
from pyrmute_tasks.local.executors import ProcessExecutor, ThreadExecutor, pack_or_pickle
from pyrmute_tasks.local.runs import LocalRun
from pyrmute_tasks.plans.codegen import Output, OutputKind
from pyrmute_tasks.plans.plan import MigrationPlan, Wanted
from pyrmute_tasks.registry import is_loading, load_attribute
from pyrmute_tasks.wire.remote_failures import capture_failure

__all__ = ["migrate_parallel"]


def migrate_parallel(
    get_plan: Callable[[], MigrationPlan],
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    parallelism: Parallelism,
    errors: ErrorHandling,
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
        errors: The handling of records that fail.
        locate: Returns the manager's name, for processes that must import it.
        run: The call's run, entered.

    Raises:
        BaseException: The error of the record that ends the batch.
        ManagerImportError: If processes must import the manager and cannot.
    """
    found = nonempty(records)
    if found is None:
        return []
    run.begin()
    converter = ResultConverter(get_plan(), wanted, errors.policy.skips)
    batch = _Batch(found, converter, hooks, errors, run)
    if parallelism.use_processes:
        return _in_processes(batch, parallelism.workers, locate)
    return _in_threads(batch, parallelism.workers)


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch to run in threads or processes."""

    records: Iterable[Any]
    converter: ResultConverter
    hooks: HookSet
    errors: ErrorHandling
    run: LocalRun

    @property
    def plan(self) -> MigrationPlan:
        return self.converter.plan


_CHUNKS_PER_WORKER: Final = 4  # so that one slow chunk does not leave the others idle
_MAX_CHUNK_SIZE: Final = 2000
_FIRST_CHUNK_SIZE: Final = 62  # for a source of unknown length
_GROWING_CHUNKS: Final = 5


def _run_chunk(
    plan: MigrationPlan,
    output: Output,
    chunk: Chunk[Any],
    counts: HookCounts,
    failures: ChunkFailures,
) -> Outcome[list[Any]]:
    outputs, _ = plan.run(chunk.payload, output, chunk.start, failures)
    return Outcome(
        chunk.index,
        len(outputs),
        outputs,
        tuple(failures.found),
        counts=counts,
        is_final=failures.ended,
    )


def _gather(
    batch: _Batch,
    chunks: Generator[Chunk[Any], None, None],
    executor: ChunkExecutor[Any, Any],
    workers: int,
    sink: Sink[Any, list[Any]],
) -> list[Any]:
    window = Window.for_slots(workers)
    policy = batch.errors.policy
    done: list[Any] = []
    failure = None
    results = run_ordered(
        chunks, executor, lambda: window, sink=sink, observers=batch.run.tell, policy=policy
    )
    for result in results:
        batch.run.tally.judged(result.rejects, result.failure, result.exceeded)
        for reject in result.rejects:
            batch.errors.tell(reject)
        done += result.outputs
        failure = result.failure  # only the last one has any
    if failure is not None:
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


def _in_threads(batch: _Batch, workers: int) -> list[Any]:
    plan, records, hooks = batch.plan, batch.records, batch.hooks
    output = batch.converter.wanted.output(plan)

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
        counts = HookCounts(hooks=hooks)
        with use_hooks((counts, *hooks.live) if hooks else ()):
            failures = ChunkFailures(batch.errors.policy.skips, detach_failure)
            return _run_chunk(plan, output, chunk, counts, failures)

    kept = records if type(records) in KEPT else map(_copied, records)
    with ThreadExecutor(run, workers) as executor:
        chunks = cut_records(kept, _sizes(records, workers))
        return _gather(batch, chunks, executor, workers, _CountingSink(hooks))


@dataclass(frozen=True, slots=True)
class _CountingSink:
    """Delivers the outputs of threads, and merges their counts into the hooks."""

    hooks: HookSet

    def receive(self, _: Chunk[Any], outcome: Outcome[list[Any]], /) -> Outcome[list[Any]]:
        self.hooks.merge(outcome.counts)
        return outcome

    def cut(self, outputs: list[Any], count: int, /) -> list[Any]:
        return outputs[:count]


def _copied(record: Any) -> Any:
    try:
        return copy.deepcopy(record)
    except Exception:  # a record that cannot be copied is rarely refilled
        return record


# --- processes ----------------------------------------------------------------------------


def _in_processes(batch: _Batch, workers: int, locate: Callable[[], str]) -> list[Any]:
    if is_loading():
        raise ConfigurationError(
            "a process that imports this module would start processes itself; put the part of the "
            "module that runs batches behind: if __name__ == '__main__':"
        )
    context = multiprocessing.get_context()
    plan, records = batch.plan, batch.records
    # A forked process has the plan already; any other has to import its manager.
    is_forked = context.get_start_method() == "fork"
    start = (plan, batch.hooks) if is_forked else (locate(), *_key(plan))
    argument = (batch.errors.policy.skips, *start)

    with ProcessExecutor(_start_worker, argument, workers, context) as executor:
        chunks = cut_records(pack_each(records, pack_or_pickle), _sizes(records, workers))
        sink = _ConvertingSink(batch.converter, batch.hooks)
        return _gather(batch, chunks, executor, workers, sink)


@dataclass(frozen=True, slots=True)
class _ConvertingSink:
    """Converts the data that processes have migrated into the results."""

    converter: ResultConverter
    hooks: HookSet

    def receive(self, chunk: Chunk[Any], outcome: Outcome[list[Any]], /) -> Outcome[list[Any]]:
        self.hooks.merge(outcome.counts)
        return self.converter.convert(chunk, outcome, outcome.outputs)

    def cut(self, outputs: list[Any], count: int, /) -> list[Any]:
        return outputs[:count]


def _key(plan: MigrationPlan) -> tuple[str, str, str]:
    return plan.name, str(plan.from_version), str(plan.to_version)


def _start_worker(argument: Any) -> Callable[[Chunk[list[Any]]], Outcome[list[bytes]]]:
    """Return the function that runs chunks in a process of the pool."""
    skips, *start = argument
    plan, hooks = start if isinstance(start[0], MigrationPlan) else _import_worker(*start)
    output = Output(OutputKind.PACKED, pack=pack_or_pickle)

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[bytes]]:
        counts = HookCounts(hooks=hooks)
        with use_hooks((counts, *hooks.live) if plan.observe else ()):
            failures = ChunkFailures(skips, capture_failure)
            return _run_chunk(plan, output, chunk, counts, failures)

    return run


def _import_worker(
    manager: str, name: str, from_version: str, to_version: str
) -> tuple[MigrationPlan, HookSet]:
    found: Any = load_attribute(manager)
    # Count always: hooks may be registered in the parent only.
    return found.plan(name, from_version, to_version, observe=True), found.hooks
