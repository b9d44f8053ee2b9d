"""Sequential batches on this machine.

A batch reads, migrates and validates each record before it reads the next one. Batches in threads
and processes are in `parallel`.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from pyrmute_tasks.engine.batch_arguments import check_workers
from pyrmute_tasks.engine.error_policy import ErrorHandling, FailureJudge
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.hooks import HookSet, use_hooks
from pyrmute_tasks.local.runs import LocalRun
from pyrmute_tasks.plans.plan import MigrationPlan, Wanted

__all__ = [
    "KEPT",
    "Parallelism",
    "migrate_all",
    "migrate_lazily",
    "migrate_lazily_skipping",
    "nonempty",
]


@dataclass(frozen=True, slots=True)
class Parallelism:
    """The workers of a batch on this machine.

    Attributes:
        workers: Number of threads or processes.
        use_processes: Whether they are processes.
    """

    workers: int
    use_processes: bool

    @classmethod
    def of(
        cls, parallel: bool, max_workers: int | None, use_processes: bool
    ) -> "Parallelism | None":
        """Read pyrmute's three arguments; None means a sequential batch.

        Raises:
            ConfigurationError: If `max_workers` is not a positive integer.
        """
        workers = check_workers(max_workers)
        return cls(workers, use_processes) if parallel else None


@dataclass(slots=True)
class _Skipping:
    """Judges each failure as it happens, and reports skipped records."""

    judge: FailureJudge
    errors: ErrorHandling
    run: LocalRun | None

    def __call__(self, failure: RecordFailure) -> bool:
        skips = self.judge(failure)
        if self.run is not None:
            tally = self.run.tally
            tally.exceeded = self.judge.exceeded
            tally.rejected_by_cause.update([failure.cause] * skips)
        if not skips:
            return False
        self.errors.tell(failure)
        return True


def migrate_all(
    get_plan: Callable[[], MigrationPlan],
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    errors: ErrorHandling,
    run: LocalRun | None = None,
) -> list[Any]:
    """Migrate records one after another.

    Args:
        get_plan: Returns the plan; not called if there are no records.
        records: The source; each record is read when the one before it is done.
        wanted: The results to return.
        hooks: The manager's.
        errors: The handling of records that fail.
        run: The call's run, if it has observers; entered.

    Raises:
        BaseException: The error of the record that ends the batch, or the source's.
    """
    source = nonempty(records if run is None else run.watched(records))
    if source is None:
        return []
    plan = get_plan()
    with use_hooks(hooks.observers()):
        skipping = _Skipping(FailureJudge(errors.policy), errors, run)
        done, failure = plan.run(source, wanted.output(plan), skips=skipping)
    if run is not None:
        run.note(len(done), failure)
    if failure is not None:
        raise failure.exception()
    return done


def migrate_lazily(
    get_migrate: Callable[[], Callable[[Any], Any]], records: Iterable[Any], run: LocalRun
) -> Generator[Any, None, None]:
    """Migrate records one by one, on demand.

    Args:
        get_migrate: Returns the function that migrates one record; called for each, so that
            registrations made meanwhile apply to the next one.
        records: The source; closed at the end.
        run: The call's run, begun with the first record and ended with the stream.
    """
    source = iter(run.watched(records))
    tally, index, failure = run.tally, 0, None
    run.begin()
    with run:  # and no generator's context manager, which would set attributes of the exception
        try:
            for record in source:
                try:
                    output = get_migrate()(record)
                except BaseException as error:
                    failure = RecordFailure.of(index, Stage.STEP, "", error)
                else:
                    yield output
                    index += 1
                    tally.records = index
                    continue
                raise failure.exception()
        finally:
            run.note(index, failure)
            close = getattr(source, "close", None)
            if close is not None:
                close()


def migrate_lazily_skipping(
    get_plan: Callable[[], MigrationPlan],
    records: Iterable[Any],
    wanted: Wanted,
    hooks: HookSet,
    errors: ErrorHandling,
    run: LocalRun,
) -> Generator[Any, None, None]:
    """Migrate records one by one, on demand, and skip those that fail.

    Args:
        get_plan: Returns the plan; called for each record, so that registrations made meanwhile
            apply to the next one.
        records: The source; closed at the end.
        wanted: The results to yield.
        hooks: The manager's.
        errors: The handling of records that fail.
        run: The call's run, begun with the first record and ended with the stream.
    """
    skipping = _Skipping(FailureJudge(errors.policy), errors, run)
    source = iter(run.watched(records))
    tally, done, failure = run.tally, 0, None
    run.begin()
    with run:  # as above
        try:
            for index, record in enumerate(source):
                plan = get_plan()
                with use_hooks(hooks.observers()):
                    outputs, failure = plan.run((record,), wanted.output(plan), index, skipping)
                if failure is not None:
                    raise failure.exception()
                yield from outputs
                done += len(outputs)
                tally.records = done
        finally:
            run.note(done, failure)
            close = getattr(source, "close", None)
            if close is not None:
                close()


def nonempty(records: Iterable[Any]) -> Iterable[Any] | None:
    """Return the records, or None if there are none; reads at most one."""
    if type(records) in KEPT:
        return records if records else None
    source = iter(records)
    for first in source:
        return chain((first,), source)
    return None


KEPT: Final = (list, tuple)  # any other source may yield the same dict again, refilled
