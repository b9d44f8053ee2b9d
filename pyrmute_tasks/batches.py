"""Batches on this machine: one after the other, in threads, or in processes.

All three run the same plan under the same flow, so they give the same outputs and raise the
same error: that of the first failing record.
"""

import multiprocessing
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from pyrmute_tasks.chunks import Chunk, Outcome, cut_records, encode_each
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.flow import ChunkExecutor, Window, run_ordered
from pyrmute_tasks.hooks import HookCounts, HookSet, MigrationHook, use_hooks
from pyrmute_tasks.local import (
    InlineExecutor,
    ProcessExecutor,
    ThreadExecutor,
    check_workers,
    travelling,
)
from pyrmute_tasks.plan import BLOCK_RECORDS, MigrationPlan, Result, paused_collector
from pyrmute_tasks.registry import ModelData, is_loading, load_attribute

__all__ = [
    "Finish",
    "Parallelism",
    "finish_in_blocks",
    "keep",
    "migrate_all",
    "migrate_lazily",
    "migrate_parallel",
    "validate",
    "validate_as",
]

Finish: TypeAlias = Callable[[MigrationPlan, list[ModelData], int], Result]
"""What is done with migrated records, the first of which has the given index."""


def validate(plan: MigrationPlan, data: list[ModelData], start: int) -> Result:
    """Validate against the target's class."""
    return plan.validate(data, start)


def validate_as(model: type[BaseModel]) -> Finish:
    """Validate against a class that the caller names."""
    return lambda plan, data, start: plan.validate(data, start, model)


def keep(_: MigrationPlan, data: list[ModelData], __: int) -> Result:
    """Leave the data as they are."""
    return data, None


def finish_in_blocks(
    finish: Finish, plan: MigrationPlan, data: list[ModelData], start: int
) -> Result:
    """Finish many records, some at a time, so that they are still in the cache."""
    done: list[Any] = []
    for begin in range(0, len(data), BLOCK_RECORDS):
        outputs, failure = finish(plan, data[begin : begin + BLOCK_RECORDS], start + begin)
        done += outputs
        if failure is not None:
            return done, failure
    return done, None


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
    plan: MigrationPlan, records: list[ModelData], finish: Finish, hooks: HookSet
) -> list[Any]:
    """Migrate records one after the other.

    Raises:
        Exception: The error of the first failing record.
    """
    done: list[Any] = []
    for begin in range(0, len(records), BLOCK_RECORDS):
        block = records[begin : begin + BLOCK_RECORDS]
        outputs, failure = _run(plan, block, begin, finish, hooks.all)
        if failure is not None:
            raise failure.exception()
        done += outputs
    return done


def migrate_lazily(
    get_plan: Callable[[], MigrationPlan],
    records: Iterable[ModelData],
    finish: Finish,
    get_hooks: Callable[[], HookSet],
    chunk_size: int,
) -> Generator[Any, None, None]:
    """Migrate records chunk by chunk, reading at most one chunk ahead.

    Args:
        get_plan: Asked for each chunk, so that nothing is looked up for no records.
        records: The source; closed at the end.
        finish: What is done with migrated records.
        get_hooks: Asked for each chunk.
        chunk_size: Records a chunk.
    """

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
        result = _run(get_plan(), chunk.payload, chunk.start, finish, get_hooks().all)
        return _outcome(chunk, result)

    executor = InlineExecutor(run)
    chunks = cut_records(records, chunk_size)
    with closing(run_ordered(chunks, executor, lambda: _ONE_CHUNK, finish=_as_is)) as outcomes:
        for outcome in outcomes:
            yield from outcome.outputs


def migrate_parallel(
    plan: MigrationPlan,
    records: Sequence[ModelData],
    finish: Finish,
    hooks: HookSet,
    parallelism: Parallelism,
    locate: Callable[[], str],
) -> list[Any]:
    """Migrate records in threads or processes.

    Args:
        plan: What is run.
        records: All records.
        finish: What is done with migrated records; in threads it is done there.
        hooks: The manager's.
        parallelism: Where to run.
        locate: Returns the manager's name, for processes that must import it.

    Raises:
        Exception: The error of the first failing record.
        ManagerImportError: If processes must import the manager and cannot.
    """
    run = _in_processes if parallelism.use_processes else _in_threads
    return run(plan, records, finish, hooks, parallelism.workers, locate)


_ONE_CHUNK: Final = Window(chunks=1)
_CHUNKS_PER_WORKER: Final = 4  # so that one slow chunk does not leave the others idle for long
_MAX_CHUNK_SIZE: Final = 2000


def _run(
    plan: MigrationPlan,
    records: list[ModelData],
    start: int,
    finish: Finish,
    hooks: tuple[MigrationHook, ...],
) -> Result:
    with use_hooks(hooks):
        data, unmigrated = plan.migrate(records, start)
    with paused_collector():
        outputs, invalid = finish(plan, data, start)
    # What finishing refuses stands before what a step refused.
    return outputs, invalid or unmigrated


def _outcome(
    chunk: Chunk[Any], result: Result, counts: HookCounts | None = None
) -> Outcome[list[Any]]:
    outputs, failure = result
    return Outcome(chunk.index, len(outputs), outputs, failure, counts=counts)


def _as_is(_: Chunk[None], outcome: Outcome[list[Any]]) -> Outcome[list[Any]]:
    return outcome


def _cut(records: Sequence[ModelData], workers: int) -> Generator[Chunk[list[Any]], None, None]:
    size = -(-len(records) // (_CHUNKS_PER_WORKER * workers))
    return cut_records(records, max(1, min(size, _MAX_CHUNK_SIZE)))


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
    outcomes = run_ordered(chunks, executor, lambda: window, finish=merge_and_finish)
    return [output for outcome in outcomes for output in outcome.outputs]


# --- threads ------------------------------------------------------------------------------


def _in_threads(
    plan: MigrationPlan,
    records: Sequence[ModelData],
    finish: Finish,
    hooks: HookSet,
    workers: int,
    _: Callable[[], str],
) -> list[Any]:
    def run(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
        counts = HookCounts()
        used = (counts, *hooks.live) if hooks else ()
        return _outcome(chunk, _run(plan, chunk.payload, chunk.start, finish, used), counts)

    with ThreadExecutor(run, workers) as executor:
        return _gather(_cut(records, workers), executor, workers, hooks, _as_is)


# --- processes ----------------------------------------------------------------------------


def _in_processes(
    plan: MigrationPlan,
    records: Sequence[ModelData],
    finish: Finish,
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
        with paused_collector():
            outputs, invalid = finish_in_blocks(finish, plan, outcome.outputs, chunk.start)
        return _outcome(chunk, (outputs, invalid or outcome.failure))

    with ProcessExecutor(_begin_work, argument, workers, context) as executor:
        chunks = encode_each(_cut(records, workers), travelling)
        return _gather(chunks, executor, workers, hooks, finish_here)


def _key(plan: MigrationPlan) -> tuple[str, str, str]:
    return plan.name, str(plan.from_version), str(plan.to_version)


def _begin_work(argument: Any) -> Callable[[Chunk[list[Any]]], Outcome[list[Any]]]:
    """Make what runs chunks in a process of its own."""
    plan, hooks = argument if isinstance(argument[0], MigrationPlan) else _import_work(*argument)

    def run(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
        counts = HookCounts()
        used = (counts, *hooks.live) if plan.observed is not None else ()
        return _outcome(chunk, _run(plan, chunk.payload, chunk.start, keep, used), counts)

    return run


def _import_work(
    manager: str, name: str, from_version: str, to_version: str
) -> tuple[MigrationPlan, HookSet]:
    found: Any = load_attribute(manager)
    # Hooks that only the parent registered are counted for by observing in any case.
    return found.plan(name, from_version, to_version, observe=True), found.hooks
