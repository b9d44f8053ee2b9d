"""The jobs of a `Migrator` on its fleet, from opening the fleet to closing it."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyrmute_tasks.engine.error_policy import ErrorHandling, FailureJudge
from pyrmute_tasks.engine.events import Observer, Wait, WaitBegan
from pyrmute_tasks.engine.job import Job, JobExecutor, Source
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace
from pyrmute_tasks.engine.pipeline import Sink
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.plans.migration import Migration
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.pyrmute_adapter import FleetManager
from pyrmute_tasks.settings import Settings, compression_of
from pyrmute_tasks.wire.frames import Frame

if TYPE_CHECKING:
    from pyrmute_tasks.distributed.producer.session import Session

__all__ = ["FleetJobs", "JobParts", "start_job"]

Delivered = TypeVar("Delivered")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParts(Generic[Delivered]):
    """What a job is made of.

    Attributes:
        migration: The migration.
        source: What to migrate.
        sink: What becomes of it.
        run: The job's run.
        errors: The handling of records that fail.
        hooks: Those of the manager.
        retry: Which exceptions of steps to retry; None for none.
        check: Called about every second; may raise.
        judge: Judges failures; one that goes on from an earlier run, or None for a new one.
        through: Wraps the executor of the job.
        pace: How fast it may go.
        window: Upper bound of what it has in flight; None for the default.
        weight: Its share of the window, compared with that of other jobs.
    """

    migration: Migration
    source: Source[bytes]
    sink: Sink[Any, Delivered]
    run: Run
    errors: ErrorHandling
    hooks: HookSet = field(default_factory=HookSet)
    retry: Retry | None = None
    check: Callable[[], None] = lambda: None
    judge: FailureJudge | None = None
    through: Callable[[JobExecutor[bytes, Frame]], JobExecutor[bytes, Any]] | None = None
    pace: Pace = FULL_SPEED
    window: Window | None = None
    weight: float = 1.0


def start_job(session: "Session", parts: JobParts[Delivered]) -> Job[bytes, Any, Delivered]:
    """Return a job on a fleet, to be entered.

    Args:
        session: The connections to the fleet.
        parts: What it is made of.
    """
    migration, run, errors = parts.migration, parts.run, parts.errors
    spec = JobSpec(
        run.tally.job,
        migration.name,
        str(migration.from_version),
        str(migration.to_version),
        parts.source.kind,
        migration.fingerprint,
        count_hooks=bool(parts.hooks),
        on_code_mismatch=session.settings.on_code_mismatch,
        retry=parts.retry,
        compression=compression_of(session.settings),
        skips=errors.policy.skips,
        total=parts.source.total,
    )
    fleet = session.job(spec, migration.fingerprint_tree, parts.check, run.tell)
    return Job(
        run,
        parts.source,
        parts.sink,
        parts.through(fleet) if parts.through is not None else fleet,
        window=parts.window,
        policy=errors.policy,
        judge=parts.judge,
        pace=parts.pace,
        weight=parts.weight,
    )


class FleetJobs:
    """Starts jobs on a fleet, which is opened when needed; thread-safe.

    A fork owns neither the fleet nor the jobs of its parent; it opens its own.

    Args:
        manager: The manager.
        manager_name: The name by which workers import it.
        settings: Settings of the fleet.
        workers: Worker processes of an embedded fleet; None uses a running one.
        window: Upper bound of what a job has in flight; None for the default.
        retry: Which exceptions of steps to retry; None for none.

    Attributes:
        manager: The manager.
        manager_name: The name by which workers import it.
        settings: Settings of the fleet; once it is open, with its URLs.
        is_embedded: Whether the fleet is started for this.
        session: The connections to the fleet; None before they are opened.
        times_closed: How often this was closed.
        retry: Which exceptions of steps to retry; None for none.
        last_report: Report of the job that ended last; None before the first.
    """

    def __init__(
        self,
        manager: FleetManager,
        manager_name: str,
        settings: Settings,
        workers: int | None,
        window: Window | None,
        retry: Retry | None,
    ) -> None:
        self.manager = manager
        self.manager_name = manager_name
        self.settings: Settings = settings
        self.is_embedded: bool = workers is not None
        self.session: Session | None = None
        self.times_closed: int = 0
        self.last_report: JobReport | None = None
        self._workers = workers
        self._window = window
        self.retry = retry
        self._finalizer: weakref.finalize[[], FleetJobs] | None = None
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def open(self) -> "Session":
        """Return the open session with the fleet; opens it if there is none.

        Raises:
            FleetError: If the embedded fleet does not start.
        """
        with self._locked():
            session = self.session
            if session is not None and session.is_mine:
                return session
            # Celery, kombu and redis, for those that run jobs.
            from pyrmute_tasks.distributed.embedded import EmbeddedFleet
            from pyrmute_tasks.distributed.producer.session import Session

            fleet = None
            if self._workers is not None:
                fleet = EmbeddedFleet(self.manager_name, self._workers, self.settings)
            session = self.session = Session.open(self.settings, fleet)
            self.settings = session.settings
            self._finalizer = weakref.finalize(self, session.close_dropped)
            return session

    def close(self) -> None:
        """Stop the embedded fleet, close connections and end open jobs; may be called twice."""
        with self._locked():
            session, self.session = self.session, None
            self.times_closed += 1
            if self._finalizer is not None:
                self._finalizer.detach()
        if session is not None:
            session.close()

    def _locked(self) -> "threading.RLock":
        if self._pid != os.getpid():
            # The old one may be held by a thread that does not exist in this fork.
            self._lock, self._pid = threading.RLock(), os.getpid()
        return self._lock

    @property
    def window_bytes(self) -> int:
        """Upper bound of the bytes that a job has in flight."""
        return (self._window or Window()).size_bytes

    def new_run(self, observers: Sequence[Observer]) -> Run:
        """Return the run of a new job."""
        return Run(new_job_id(unique=bool(self.settings.secret)), observers, self._note)

    def start(
        self,
        migration: Migration,
        source: Source[bytes],
        sink: Sink[Any, Delivered],
        run: Run,
        errors: ErrorHandling,
        **others: Any,
    ) -> Job[bytes, Any, Delivered]:
        """Return a job, to be entered.

        Args:
            migration: The migration.
            source: What to migrate.
            sink: What becomes of it.
            run: The job's run.
            errors: The handling of records that fail.
            **others: Further `JobParts`.
        """
        if self.session is None:
            run.tell(WaitBegan(Wait.START))
        parts = JobParts(
            migration=migration,
            source=source,
            sink=sink,
            run=run,
            errors=errors,
            hooks=self.manager.hooks,
            retry=self.retry,
            window=self._window,
            **others,
        )
        return start_job(self.open(), parts)

    def with_paths(self, report: JobReport, partial: Path | None, backup: Path | None) -> JobReport:
        """Return the report with the paths of what was kept, also as `last_report`."""
        if partial is None and backup is None:
            return report
        whole = replace(report, partial_path=str(partial or ""), backup_path=str(backup or ""))
        if self.last_report is not None and self.last_report.job == report.job:
            self.last_report = whole
        return whole

    def _note(self, report: JobReport) -> None:
        self.last_report = report
