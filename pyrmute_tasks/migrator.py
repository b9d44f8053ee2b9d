"""`Migrator`: the batch calls of `ModelManager`, run by a fleet, and files.

Sources, jobs, the fleet and sinks are put together here and nowhere else.
"""

# Above 400 lines: a public façade, whose documentation takes most of them.

import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pyrmute_tasks.batch_calls import Batch, BatchCalls
from pyrmute_tasks.engine.batch_arguments import check_observers, usable_cpus
from pyrmute_tasks.engine.error_policy import (
    ErrorHandling,
    FailureJudge,
    OnErrorLike,
    OnReject,
)
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job import Job, JobExecutor, Source
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.engine.pipeline import ChunkResult, Sink, Window
from pyrmute_tasks.engine.records import RecordSink, RecordSource
from pyrmute_tasks.engine.results import ResultConverter
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.engine.stream import Stream
from pyrmute_tasks.errors import ConfigurationError, MigratorClosedError
from pyrmute_tasks.file_options import ByReference, FileOptions
from pyrmute_tasks.file_retries import retry_options
from pyrmute_tasks.file_runs import FileRun, Jobs
from pyrmute_tasks.io.earlier_runs import LogOptions
from pyrmute_tasks.io.open_files import SourceFile, TargetFile
from pyrmute_tasks.io.rejects import check_rejects
from pyrmute_tasks.io.retried_job import RetriedJob
from pyrmute_tasks.local.batches import Parallelism
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.pyrmute_adapter import FleetManager, Manager, adapt, load_manager
from pyrmute_tasks.records import RecordLike
from pyrmute_tasks.settings import ENV_PREFIX, Settings, compression_of
from pyrmute_tasks.versions import VersionLike
from pyrmute_tasks.wire.frames import Frame

if TYPE_CHECKING:
    from pyrmute_tasks.audit import AuditReport
    from pyrmute_tasks.distributed.producer.session import Session

__all__ = ["Migrator"]

Delivered = TypeVar("Delivered")


# Above 250 lines: a public façade, whose documentation and annotated arguments take most of them.
class Migrator(BatchCalls):
    """Runs migrations on a fleet of Celery workers.

    Three ways to start say what they do: `Migrator.embedded` starts a fleet of its own, with a
    real Valkey server and `workers` worker processes, and stops it with the context;
    `Migrator.connect` uses workers that run elsewhere with the same manager; `Migrator.from_env`
    does one or the other, as the variables of the command line say.

    Called itself, it starts a fleet of its own if `workers` are given, or neither a URL nor
    settings, and uses a running one otherwise. It reads no variables.

    Threads may share a `Migrator` and its fleet. A fork owns neither the fleet nor the jobs of its
    parent; it gets its own fleet when it calls a method. Close it, or leave its ``with`` block; if
    it is garbage-collected open, its fleet ends with a `ResourceWarning`. Closing ends open
    streams, which raise `MigratorClosedError`.

    Args:
        manager: The manager's name, ``package.module:attribute`` or
            ``path/to/file.py:attribute``, or the manager itself if workers can import it as an
            attribute of a module.
        broker_url: URL of a running fleet's broker.
        store_url: URL of its store; by default the broker, if it is Redis.
        workers: Worker processes of the embedded fleet; by default the number of CPUs this
            process may use.
        window: Upper bound of what a job has in flight; by default four chunks a worker slot. The
            jobs of a queue share the default; a job that is not alone gets at most its share.
        settings: All other options, and URLs that are not given as arguments. An embedded fleet
            has URLs of its own and takes no others.
        retry: Which exceptions of steps to retry. By default every exception is final.

    Raises:
        ConfigurationError: If options contradict each other.
        ManagerImportError: If the manager cannot be imported by name.

    Example:
        ```python
        with Migrator.embedded("examples/flights.py:manager") as migrator:
            for flight in migrator.migrate_batch_streaming(rows, "Flight", "1.0.0", "3.0.0"):
                print(flight)
        ```
    """

    def __init__(
        self,
        manager: str | Manager,
        *,
        broker_url: str | None = None,
        store_url: str | None = None,
        workers: int | None = None,
        window: Window | None = None,
        settings: Settings | None = None,
        retry: Retry | None = None,
    ) -> None:
        if isinstance(manager, str):
            self._manager: FleetManager = load_manager(manager)
            self._manager_name = manager
        else:
            self._manager = adapt(manager)
            self._manager_name = self._manager.locate()
        self._embed = broker_url is None and (settings is None or workers is not None)
        if broker_url is None and store_url is not None:
            raise ConfigurationError("store_url needs broker_url: name both, or neither")
        if broker_url is not None and workers is not None:
            raise ConfigurationError(
                "workers is the size of the embedded fleet; a fleet that is running has its own"
            )
        if workers is not None and (type(workers) is not int or workers < 1):
            raise ConfigurationError(f"workers must be 1 or more, not {workers!r}")
        self._settings = settings or Settings()
        if broker_url is not None:
            store_url = self._settings.store_url if store_url is None else store_url
            self._settings = replace(self._settings, broker_url=broker_url, store_url=store_url)
        self._workers = workers or usable_cpus()
        self._window = window
        self._retry = retry
        self._last_report: JobReport | None = None
        self._session: Session | None = None
        self._finalizer: weakref.finalize[[], Migrator] | None = None
        self._times_closed = 0
        self._lock = threading.RLock()
        self._pid = os.getpid()

    # --- ways to start ----------------------------------------------------------------------

    @classmethod
    def embedded(
        cls,
        manager: str | Manager,
        *,
        workers: int | None = None,
        settings: Settings | None = None,
        window: Window | None = None,
        retry: Retry | None = None,
    ) -> Self:
        """Run on a fleet of its own, which starts and stops with the `Migrator`.

        Args:
            manager: The manager, or its name.
            workers: Worker processes; by default the number of CPUs this process may use.
            settings: Options of the fleet. Its URLs are replaced by those of its own server.
            window: Upper bound of what a job has in flight.
            retry: Which exceptions of steps to retry.

        Returns:
            The `Migrator`, whose fleet starts when its ``with`` block is entered.

        Raises:
            ConfigurationError: If an option is invalid.
            ManagerImportError: If the manager cannot be imported by name.

        Example:
            ```python
            with Migrator.embedded("my_app.models:manager", workers=4) as migrator:
                users = migrator.migrate_batch(rows, "User", "1.0.0", "3.0.0")
            ```
        """
        workers = usable_cpus() if workers is None else workers
        return cls(manager, workers=workers, settings=settings, window=window, retry=retry)

    @classmethod
    def connect(
        cls,
        manager: str | Manager,
        broker_url: str,
        store_url: str | None = None,
        *,
        settings: Settings | None = None,
        window: Window | None = None,
        retry: Retry | None = None,
    ) -> Self:
        """Run on a fleet that is running elsewhere, with the same manager.

        Args:
            manager: The manager, or its name.
            broker_url: URL of the fleet's broker.
            store_url: URL of its store; by default the broker, if it is Redis.
            settings: All other options.
            window: Upper bound of what a job has in flight.
            retry: Which exceptions of steps to retry.

        Returns:
            The `Migrator`, which connects when it is entered or first used.

        Raises:
            ConfigurationError: If an option is invalid.
            ManagerImportError: If the manager cannot be imported by name.

        Example:
            ```python
            with Migrator.connect("my_app.models:manager", "redis://queue.internal/0") as migrator:
                users = migrator.migrate_batch(rows, "User", "1.0.0", "3.0.0")
            ```
        """
        return cls(
            manager,
            broker_url=broker_url,
            store_url=store_url,
            settings=settings,
            window=window,
            retry=retry,
        )

    @classmethod
    def from_env(
        cls,
        manager: str | Manager | None = None,
        env: Mapping[str, str] | None = None,
        *,
        workers: int | None = None,
        window: Window | None = None,
        retry: Retry | None = None,
        ignore_unknown: bool = False,
    ) -> Self:
        """Run where the variables of the command line say: on a running fleet, or an own one.

        With ``PYRMUTE_TASKS_BROKER_URL`` it connects to that fleet, without it starts its own.
        All other ``PYRMUTE_TASKS_*`` variables are the options of either.

        Args:
            manager: The manager, or its name; by default ``PYRMUTE_TASKS_MANAGER``.
            env: The variables; by default those of this process, as they are now.
            workers: Worker processes of an own fleet; not used for a running one.
            window: Upper bound of what a job has in flight.
            retry: Which exceptions of steps to retry.
            ignore_unknown: Warn of unknown ``PYRMUTE_TASKS_*`` variables instead of raising.

        Returns:
            The `Migrator`.

        Raises:
            ConfigurationError: If a variable is unknown or invalid, or there is no manager.
            ManagerImportError: If the manager cannot be imported by name.

        Example:
            ```python
            with Migrator.from_env("my_app.models:manager") as migrator:
                users = migrator.migrate_batch(rows, "User", "1.0.0", "3.0.0")
            ```
        """
        env = os.environ if env is None else env
        settings = Settings.from_env(env, ignore_unknown=ignore_unknown)
        manager = manager or settings.manager
        if not manager:
            raise ConfigurationError(f"which manager? give its name, or set {ENV_PREFIX}MANAGER")
        if env.get(f"{ENV_PREFIX}BROKER_URL"):
            return cls(manager, settings=settings, window=window, retry=retry)
        return cls.embedded(manager, workers=workers, settings=settings, window=window, retry=retry)

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start the embedded fleet; does nothing for a running one.

        Raises:
            FleetError: If the embedded fleet does not start.
        """
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Get ready to run jobs; the batch methods do so when needed."""
        self._open()

    def _open(self) -> "Session":
        with self._locked():
            session = self._session
            if session is not None and session.is_mine:
                return session
            # Celery, kombu and redis, for those that run jobs.
            from pyrmute_tasks.distributed.embedded import EmbeddedFleet
            from pyrmute_tasks.distributed.producer.session import Session

            fleet = None
            if self._embed:
                fleet = EmbeddedFleet(self._manager_name, self._workers, self._settings)
            session = self._session = Session.open(self._settings, fleet)
            self._settings = session.settings
            self._finalizer = weakref.finalize(self, session.close_dropped)
            return session

    def close(self) -> None:
        """Stop the embedded fleet, close connections and end open streams; may be called twice.

        Any thread may call it, even the source of a running job.
        """
        with self._locked():
            session, self._session = self._session, None
            self._times_closed += 1
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
    def last_report(self) -> JobReport | None:
        """Report of the job that ended last, even if it failed; None before the first.

        A stream's job ends with the stream.
        """
        return self._last_report

    # --- files --------------------------------------------------------------------------------

    def migrate_file(
        self,
        source: SourceFile,
        target: TargetFile,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        chunk_size: int | None = None,
        overwrite: bool = True,
        hold: bool = False,
        backup: bool = False,
        keep_partial: bool = False,
        by_reference: ByReference | str = ByReference.AUTO,
        max_line_bytes: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
        rejects: str | os.PathLike[str] | None = None,
        rejects_with_records: bool = False,
        resume: bool = False,
        restart: bool = False,
        accept_code: bool = False,
        log: bool = True,
    ) -> JobReport:
        """Migrate a file of JSON lines into another.

        The workers decode, migrate, validate and write. By reference, they also read the source
        and write what comes of it; otherwise this process moves the bytes. The output equals that
        of a loop of ``migrate`` and ``model_dump_json()``. It appears under its name once it is
        whole, with the mode and owner of the file it replaces. A pipe or a device is written to
        directly.

        Args:
            source: JSON objects, one a line: a file by its path, or an open one, which is read
                from where it stands; or by reference also a folder of files or a pattern, whose
                files are read in sorted order.
            target: The output: a file, a link to one, a pipe, or a device such as ``/dev/stdout``;
                or an open file, which is written to as it goes; or by reference a folder, that
                exists or ends with a slash, which gets files ``part-00000.jsonl``, … in order and
                ``_manifest.json``. Open files are not closed.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default about 1 MiB of lines.
            overwrite: Replace `target` if it exists, as by default; False makes that an error.
            hold: Prove the output, and leave publishing it to `publish_job`, or to the command
                ``pyrmute-tasks publish``; until then it is in ``.<target>.job``.
            backup: Keep a target that is replaced, as ``<target>.<job>.backup``.
            keep_partial: On failure, keep the output before it; ``last_report.partial_path`` says
                where: ``<target>.partial`` unless that exists.
            by_reference: Whether workers read and write the files themselves: ``"auto"`` (if they
                can, from 1 MiB on), ``"always"`` or ``"never"``. Workers of an embedded fleet can;
                others need ``--root`` for the folders of both, and a secret.
            max_line_bytes: Longest line by reference; a longer one is an error of its record.
            observers: Called with the job's events. Of ranges by reference, `ChunkSubmitted` and
                `ChunkSettled` count bytes, since nobody has counted their records.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves records that fail out of `target` and goes on; an
                `ErrorPolicy` limits how many. By default the first one ends the job.
            on_reject: Called with the failure of each record that is skipped, in order.
            rejects: A file for the records that are skipped, as JSON lines; it is also written if
                too many failed.
            rejects_with_records: Write these records to it, and what errors quote from them.
            resume: Go on with an earlier run with the same arguments that was killed, interrupted
                or failed, from the log that it left in ``.<target>.job``; begin if it left none.
                `on_reject` is not called again for records that it has skipped.
            restart: Discard such a log. Without either argument, finding one is an error.
            accept_code: Resume although models or steps have changed.
            log: Keep a log while this runs. It is gone at the end, unless the run fails or is
                interrupted after ten seconds. Only runs from files to a file or a folder have one.

        Returns:
            The job's report.

        Raises:
            ConfigurationError: If a file cannot be read or written, or two are the same.
            OutputInUseError: If another run is writing `target`.
            JobExistsError: If an earlier run has left its log.
            JobChangedError: If what is to be resumed had another source, other code or arguments.
            ProofError: If the output is not whole.
            InvalidRecordError: If a line is not a JSON object.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If a migrated record is not valid.
            FleetError: If the fleet cannot be reached or has no workers.

        Example:
            ```python
            report = migrator.migrate_file("old.jsonl", "new.jsonl", "User", "1.0.0", "3.0.0")
            print(report.records, report.records_per_s)
            ```
        """
        report = self.run_file(
            source,
            target,
            name,
            from_version,
            to_version,
            chunk_size=chunk_size,
            overwrite=overwrite,
            hold=hold,
            backup=backup,
            keep_partial=keep_partial,
            by_reference=by_reference,
            max_line_bytes=max_line_bytes,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
            rejects=rejects,
            rejects_with_records=rejects_with_records,
            resume=resume,
            restart=restart,
            accept_code=accept_code,
            log=log,
        )
        if report.failure is not None:
            raise report.failure.exception()
        return report

    def run_file(
        self,
        source: SourceFile,
        target: TargetFile,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        chunk_size: int | None = None,
        overwrite: bool = True,
        hold: bool = False,
        backup: bool = False,
        keep_partial: bool = False,
        by_reference: ByReference | str = ByReference.AUTO,
        max_line_bytes: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
        rejects: str | os.PathLike[str] | None = None,
        rejects_with_records: bool = False,
        resume: bool = False,
        restart: bool = False,
        accept_code: bool = False,
        log: bool = True,
    ) -> JobReport:
        """Migrate a file like `migrate_file`, but return a record's failure instead of raising it.

        Args:
            source: JSON objects, one a line: a path, or an open file.
            target: The output: a path, or an open file.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default about 1 MiB of lines.
            overwrite: Replace `target` if it exists.
            hold: Prove the output, and leave it to `publish_job`.
            backup: Keep a target that is replaced.
            keep_partial: On failure, keep the output before it.
            by_reference: Whether workers read and write the files themselves.
            max_line_bytes: Longest line by reference.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order.
            rejects: A file for the records that are skipped.
            rejects_with_records: Write these records to it, too.
            resume: Go on with an earlier run that left a log.
            restart: Discard such a log.
            accept_code: Resume although models or steps have changed.
            log: Keep a log while this runs.

        Returns:
            The job's report, with the ``failure`` of the record that ended it, if one did.

        Raises:
            PyrmuteTasksError: As `migrate_file`, except for failures of records.
        """
        errors = ErrorHandling.of(on_error, on_reject)
        options = LogOptions(resume, restart, accept_code, log)
        check_rejects(
            rejects,
            errors.policy,
            source=source,
            target=target,
            overwrite=overwrite or resume,  # whether it is the job's is known below
            with_records=rejects_with_records,
        )
        check_observers(observers)
        plan = self._manager.plan(name, from_version, to_version)
        plan.target  # noqa: B018  # raise for a missing target before anything is started
        file_options = FileOptions(
            source=source,
            target=target,
            chunk_size=chunk_size,
            overwrite=overwrite,
            hold=hold,
            backup=backup,
            keep_partial=keep_partial,
            by_reference=ByReference(by_reference),
            max_line_bytes=max_line_bytes,
            errors=errors,
            rejects=rejects,
            rejects_with_records=rejects_with_records,
            log=options,
        )
        return self._run_files(plan, file_options, observers, progress)

    def retry(
        self,
        target: str | os.PathLike[str],
        *,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        max_errors: int | str | None = None,
        on_reject: OnReject | None = None,
        rejects: str | os.PathLike[str] | None = None,
        rejects_with_records: bool = False,
        accept_code: bool = False,
        restart: bool = False,
        hold: bool = False,
        backup: bool = False,
    ) -> JobReport:
        """Retry the rejects of a run from files to a file or a folder, with today's code.

        The ranges of the source that had rejects are run again, by reference, and the target is
        replaced by one in which their outputs stand where they belong. The source and the target
        must be what they were. A retry that was killed goes on when it is called again.

        Args:
            target: The run's target, or its job's folder.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            max_errors: Most rejects to leave, a number or a share; by default as many as there are.
            on_reject: Called with the failure of each record that is rejected again.
            rejects: A file for what is rejected again; it may replace the run's own.
            rejects_with_records: Write these records to it, too.
            accept_code: Keep what had passed although today's code gives other outputs, or go on
                with a retry that began with other code.
            restart: Begin again with a retry that was killed.
            hold: Prove the output, and leave publishing it to `publish_job`.
            backup: Keep the target that is replaced.

        Returns:
            The job's report, in which the records that had passed are ``restored``.

        Raises:
            JobNotFoundError: If no run has left rejects.
            JobChangedError: If source or target have changed, or today's code gives another output
                for a sample of what had passed.
            OutputInUseError: If a run is writing `target`.
            ConfigurationError: If workers cannot take ranges, or a file cannot be written.
            MigrationError: If more records are rejected than `max_errors`.
            FleetError: If the fleet cannot be reached or has no workers.

        Example:
            ```python
            report = migrator.retry("new.jsonl", rejects="bad.jsonl")
            print(report.records, report.rejected)
            ```
        """
        check_observers(observers)
        retried = RetriedJob.find(target)
        plan = self._manager.plan(*retried.folder.spec.plan)
        file_options = retry_options(
            retried,
            plan if self._retry is None else plan.with_retry(self._retry),
            max_errors=max_errors,
            on_reject=on_reject,
            rejects=rejects,
            rejects_with_records=rejects_with_records,
            log=LogOptions(not restart, restart, accept_code and not restart),
            accept_code=accept_code,
            hold=hold,
            backup=backup,
        )
        report = self._run_files(plan, file_options, observers, progress)
        if report.failure is not None:
            raise report.failure.exception()
        return report

    def _run_files(
        self,
        plan: MigrationPlan,
        options: FileOptions,
        observers: Sequence[Observer],
        progress: bool,
    ) -> JobReport:
        jobs = Jobs(
            settings=self._settings,
            hooks=self._manager.hooks,
            window_bytes=self._window_bytes,
            compression=compression_of(self._settings),
            is_embedded=self._embed,
            plan=plan,
            new_run=partial(self._new_run, observers),
            shows_progress=progress,
            fleet=self._open,
            start=partial(self._job, plan),
        )
        file_run = FileRun(options, jobs)
        try:
            file_run.run()
        finally:
            report = self._with_partial(file_run.report, file_run.kept_path)
        return report

    def _with_partial(self, report: JobReport, path: Path | None) -> JobReport:
        """Return the report with the path of the partial output, also as `last_report`."""
        if path is None:
            return report
        whole = replace(report, partial_path=str(path))
        if self._last_report is not None and self._last_report.job == report.job:
            self._last_report = whole
        return whole

    # --- before a job -------------------------------------------------------------------------

    def audit(
        self,
        source: Iterable[RecordLike] | str | os.PathLike[str],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        sample: int | None = 1000,
        include_records: bool = False,
        timeout_s: float = 300.0,
    ) -> "AuditReport":
        """Find steps that depend on more than their record, and fields that get lost; see `audit`.

        It runs in its own processes, not on the fleet.

        Args:
            source: The records, or the path of a file of JSON lines.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            sample: Number of records to run; None runs all.
            include_records: Include values of records as examples.
            timeout_s: Time limit of the whole audit.

        Returns:
            The findings.

        Raises:
            PyrmuteTasksError: If the file cannot be read, the manager cannot be imported, or a
                step ends its process.
        """
        from pyrmute_tasks.audit import audit  # jobs do without

        return audit(
            self._manager_name,
            source,
            name,
            from_version,
            to_version,
            sample=sample,
            include_records=include_records,
            timeout_s=timeout_s,
        )

    # --- details ------------------------------------------------------------------------------

    def _run_all(self, batch: Batch, parallelism: Parallelism | None) -> list[Any]:
        return list(self._stream(batch))

    def _stream(self, batch: Batch) -> Stream[Any]:
        run = self._new_run(batch.observers())
        return Stream(self._run_records(batch, run, self._times_closed), run.tally)

    def _run_records(self, batch: Batch, run: Run, times_closed: int) -> Generator[Any, None, None]:
        if times_closed != self._times_closed:
            raise MigratorClosedError(
                "the Migrator was closed before this stream was read; read it inside of the "
                "with block"
            )
        source = RecordSource(
            batch.records, batch.chunk_size, self._window_bytes, compression_of(self._settings)
        )
        with run, closing(source):
            if not source.has_records():
                return
            plan = self._manager.plan(batch.name, batch.from_version, batch.to_version)
            batch.wanted.output(plan)  # raise for a missing target before anything is sent
            converter = ResultConverter(plan, batch.wanted, batch.errors.policy.skips)
            sink = RecordSink(converter, self._manager.hooks)
            with self._job(plan, source, sink, run, batch.errors) as job:
                for result in job.results():
                    yield from _in_order(result, batch.errors)
        failure = run.report.failure
        if failure is not None:
            raise failure.exception()

    def _new_run(self, observers: Sequence[Observer]) -> Run:
        return Run(new_job_id(unique=bool(self._settings.secret)), observers, self._note)

    def _job(
        self,
        plan: MigrationPlan,
        source: Source[bytes],
        sink: Sink[Any, Delivered],
        run: Run,
        errors: ErrorHandling,
        check: Callable[[], None] = lambda: None,
        judge: FailureJudge | None = None,
        through: Callable[[JobExecutor[bytes, Frame]], JobExecutor[bytes, Any]] | None = None,
    ) -> Job[bytes, Any, Delivered]:
        spec = JobSpec(
            run.tally.job,
            plan.name,
            str(plan.from_version),
            str(plan.to_version),
            source.kind,
            plan.fingerprint,
            count_hooks=bool(self._manager.hooks),
            on_code_mismatch=self._settings.on_code_mismatch,
            retry=self._retry,
            compression=compression_of(self._settings),
            skips=errors.policy.skips,
        )
        fleet = self._open().job(spec, plan.fingerprint_tree, check)
        executor = through(fleet) if through is not None else fleet
        return Job(
            run, source, sink, executor, window=self._window, policy=errors.policy, judge=judge
        )

    def _note(self, report: JobReport) -> None:
        self._last_report = report

    @property
    def _window_bytes(self) -> int:
        return (self._window or Window()).size_bytes


def _in_order(result: ChunkResult[list[Any]], errors: ErrorHandling) -> Generator[Any, None, None]:
    """Yield a chunk's outputs, and tell of each reject where its output would stand."""
    begin = 0
    for number, reject in enumerate(result.rejects):
        end = result.position_of(number)
        yield from result.outputs[begin:end]
        errors.tell(reject)
        begin = end
    yield from result.outputs[begin:] if begin else result.outputs
