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

from pyrmute_tasks.engine.chunks import Chunk, Outcome, cut_records, pack_each
from pyrmute_tasks.engine.pipeline import ChunkExecutor, Sink, Window, run_ordered
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
from pyrmute_tasks.plans.plan import MigrationPlan, Result, Wanted
from pyrmute_tasks.registry import is_loading, load_attribute

__all__ = ["Parallelism", "migrate_all", "migrate_lazily", "migrate_parallel"]


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
    failures = (failure,) if failure is not None else ()
    return Outcome(chunk.index, len(outputs), outputs, failures, counts=counts)


def _gather(
    chunks: Generator[Chunk[Any], None, None],
    executor: ChunkExecutor[Any, Any],
    workers: int,
    sink: Sink[Any, list[Any]],
) -> list[Any]:
    window = Window.for_slots(workers)
    done: list[Any] = []
    for outcome in run_ordered(chunks, executor, lambda: window, sink=sink):
        done += outcome.outputs
        for failure in outcome.failures:
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
        return _gather(chunks, executor, workers, _Counted(hooks))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Delivers what threads have made, and counts for hooks."""

    hooks: HookSet

    def finish(self, _: Chunk[None], outcome: Outcome[list[Any]], /) -> Outcome[list[Any]]:
        self.hooks.merge(outcome.counts)
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

    with ProcessExecutor(_begin_work, argument, workers, context) as executor:
        chunks = cut_records(pack_each(records, pack_or_pickle), _sizes(records, workers))
        return _gather(chunks, executor, workers, _Validated(plan, wanted, hooks))


@dataclass(frozen=True, slots=True)
class _Validated:
    """Makes of the data that processes have migrated what the caller wants."""

    plan: MigrationPlan
    wanted: Wanted
    hooks: HookSet

    def finish(self, chunk: Chunk[None], outcome: Outcome[list[Any]], /) -> Outcome[list[Any]]:
        self.hooks.merge(outcome.counts)
        outputs, invalid = self.wanted.finish(self.plan, outcome.outputs, chunk.start)
        failures = outcome.failures if invalid is None else (invalid,)
        return Outcome(outcome.index, len(outputs), outputs, failures)


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
