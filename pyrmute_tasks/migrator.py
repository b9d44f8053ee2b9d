"""`Migrator`: the batch calls of `ModelManager`, run by a fleet, and files.

Sources, jobs, the fleet and sinks are put together here and nowhere else.
"""

# Above 400 lines: a public façade, whose documentation and annotated arguments take most of them.

import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pyrmute_tasks.batch_calls import Batch, BatchCalls
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job import Job, Source
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.job_spec import JobSpec, new_job_id
from pyrmute_tasks.engine.pipeline import Sink, Window
from pyrmute_tasks.engine.records import RecordSink, RecordSource
from pyrmute_tasks.errors import ConfigurationError, MigratorClosedError
from pyrmute_tasks.file_runs import ByReference, FileOptions, FileRun, Jobs
from pyrmute_tasks.local.batches import Parallelism
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.pyrmute_adapter import adapt, load_manager
from pyrmute_tasks.registry import ModelData
from pyrmute_tasks.settings import Settings
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

    Without URLs it starts its own fleet, with a real Valkey server and `workers` worker processes,
    and stops it with the context. With URLs it uses workers that run elsewhere with the same
    manager.

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
        settings: All other options, and URLs that are not given as arguments.
        retry: Which exceptions of steps to retry. By default every exception is final.

    Raises:
        ConfigurationError: If options contradict each other.
        ManagerImportError: If the manager cannot be imported by name.

    Example:
        ```python
        with Migrator("examples/flights.py:manager") as migrator:
            for flight in migrator.migrate_batch_streaming(rows, "Flight", "1.0.0", "3.0.0"):
                print(flight)
        ```
    """

    def __init__(
        self,
        manager: str | object,
        *,
        broker_url: str | None = None,
        store_url: str | None = None,
        workers: int | None = None,
        window: Window | None = None,
        settings: Settings | None = None,
        retry: Retry | None = None,
    ) -> None:
        if isinstance(manager, str):
            self._manager, self._manager_name = load_manager(manager), manager
        else:
            self._manager = adapt(manager)
            self._manager_name = self._manager.locate()
        self._embed = broker_url is None and settings is None
        if self._embed and store_url is not None:
            raise ConfigurationError("store_url needs broker_url: name both, or neither")
        if not self._embed and workers is not None:
            raise ConfigurationError(
                "workers is the size of the embedded fleet; a fleet that is running has its own"
            )
        if workers is not None and workers < 1:
            raise ConfigurationError(f"workers must be 1 or more, not {workers}")
        self._settings = settings or Settings()
        if broker_url is not None:
            self._settings = replace(
                self._settings, broker_url=broker_url, store_url=store_url or ""
            )
        self._workers = workers or usable_cpus()
        self._window = window
        self._retry = retry
        self._last_report: JobReport | None = None
        self._session: Session | None = None
        self._finalizer: weakref.finalize[[], Migrator] | None = None
        self._times_closed = 0
        self._lock = threading.RLock()
        self._pid = os.getpid()

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
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        chunk_size: int | None = None,
        overwrite: bool = True,
        keep_partial: bool = False,
        by_reference: ByReference | str = ByReference.AUTO,
        max_line_bytes: int | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> JobReport:
        """Migrate a file of JSON lines into another.

        The workers decode, migrate, validate and write. By reference, they also read the source
        and write what comes of it; otherwise this process moves the bytes. The output equals that
        of a loop of ``migrate`` and ``model_dump_json()``. It appears under its name once it is
        whole, with the mode and owner of the file it replaces. A pipe or a device is written to
        directly.

        Args:
            source: JSON objects, one a line: a file, or by reference also a folder of files or a
                pattern, whose files are read in sorted order.
            target: The output: a file, a link to one, a pipe, or a device such as ``/dev/stdout``;
                or by reference a folder, that exists or ends with a slash, which gets files
                ``part-00000.jsonl``, … in order and ``_manifest.json``.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default about 1 MiB of lines.
            overwrite: Replace `target` if it exists; by default that is an error.
            keep_partial: On failure, keep the output before it; ``last_report.partial_path`` says
                where: ``<target>.partial`` unless that exists.
            by_reference: Whether workers read and write the files themselves: ``"auto"`` (if they
                can, from 1 MiB on), ``"always"`` or ``"never"``. Workers of an embedded fleet can;
                others need ``--root`` for the folders of both, and a secret.
            max_line_bytes: Longest line by reference; a longer one is an error of its record.
            observers: Called with the job's events. Of ranges by reference, `ChunkSubmitted` and
                `ChunkSettled` count bytes, since nobody has counted their records.

        Raises:
            ConfigurationError: If a file cannot be read or written, or both are the same.
            OutputInUseError: If another run is writing `target`.
            InvalidRecordError: If a line is not a JSON object.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If a migrated record is not valid.
            FleetError: If the fleet cannot be reached or has no workers.
        """
        report = self.run_file(
            source,
            target,
            name,
            from_version,
            to_version,
            chunk_size=chunk_size,
            overwrite=overwrite,
            keep_partial=keep_partial,
            by_reference=by_reference,
            max_line_bytes=max_line_bytes,
            observers=observers,
        )
        if report.failure is not None:
            raise report.failure.exception()
        return report

    def run_file(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        chunk_size: int | None = None,
        overwrite: bool = True,
        keep_partial: bool = False,
        by_reference: ByReference | str = ByReference.AUTO,
        max_line_bytes: int | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> JobReport:
        """Migrate a file like `migrate_file`, but return a record's failure instead of raising it.

        Returns:
            The job's report, with the ``failure`` of the record that ended it, if one did.

        Raises:
            PyrmuteTasksError: As `migrate_file`, except for failures of records.
        """
        plan = self._manager.plan(name, from_version, to_version)
        plan.target  # noqa: B018  # raise for a missing target before anything is started
        options = FileOptions(
            source=source,
            target=target,
            chunk_size=chunk_size,
            overwrite=overwrite,
            keep_partial=keep_partial,
            by_reference=ByReference(by_reference),
            max_line_bytes=max_line_bytes,
        )
        jobs = Jobs(
            settings=self._settings,
            hooks=self._manager.hooks,
            window_bytes=self._window_bytes,
            is_embedded=self._embed,
            new_id=self._new_job_id,
            fleet=self._open,
            start=partial(self._job, plan, observers=observers),
        )
        run = FileRun(options, jobs)
        try:
            run.run()
        finally:
            report = self._last_report
            if report is not None and report.job == run.job_id and run.kept_path is not None:
                self._last_report = replace(report, partial_path=str(run.kept_path))
        assert self._last_report is not None
        return self._last_report

    # --- before a job -------------------------------------------------------------------------

    def audit(
        self,
        source: Iterable[ModelData] | str | os.PathLike[str],
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

    def _stream(self, batch: Batch) -> Generator[Any, None, None]:
        return self._run_records(batch, self._times_closed)

    def _run_records(self, batch: Batch, times_closed: int) -> Generator[Any, None, None]:
        if times_closed != self._times_closed:
            raise MigratorClosedError(
                "the Migrator was closed before this stream was read; read it inside of the "
                "with block"
            )
        source = RecordSource(
            batch.records, batch.chunk_size, self._window_bytes, self._settings.compression
        )
        with closing(source):
            if not source.has_records():
                return
            plan = self._manager.plan(batch.name, batch.from_version, batch.to_version)
            batch.wanted.output(plan)  # raise for a missing target before anything is sent
            sink = RecordSink(plan, batch.wanted, self._manager.hooks)
            with self._job(plan, source, sink, self._new_job_id()) as job:
                for outcome in job.outcomes():
                    yield from outcome.outputs
        failure = job.report.failure
        if failure is not None:
            raise failure.exception()

    def _new_job_id(self) -> str:
        return new_job_id(unique=bool(self._settings.secret))

    def _job(
        self,
        plan: MigrationPlan,
        source: Source[bytes],
        sink: Sink[Frame, Delivered],
        job_id: str,
        observers: tuple[Observer, ...] = (),
        check: Callable[[], None] = lambda: None,
    ) -> Job[bytes, Frame, Delivered]:
        spec = JobSpec(
            job_id,
            plan.name,
            str(plan.from_version),
            str(plan.to_version),
            source.kind,
            plan.fingerprint,
            count_hooks=bool(self._manager.hooks),
            on_code_mismatch=self._settings.on_code_mismatch,
            retry=self._retry,
            compression=self._settings.compression,
        )
        return Job(
            job_id,
            source,
            sink,
            self._open().job(spec, plan.fingerprint_tree, check),
            window=self._window,
            observers=observers,
            on_end=self._note,
        )

    def _note(self, report: JobReport) -> None:
        self._last_report = report

    @property
    def _window_bytes(self) -> int:
        return (self._window or Window()).size_bytes
