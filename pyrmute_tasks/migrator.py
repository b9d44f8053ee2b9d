"""The façade: the batch calls of `ModelManager`, run by a fleet.

This is the one place where sources, the flow, the fleet and sinks are put together.
"""

import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pydantic import BaseModel

from pyrmute_tasks.engine.batch_arguments import check_chunk_size, check_workers, usable_cpus
from pyrmute_tasks.engine.chunk_sizes import ChunkSizer, RecordSizer
from pyrmute_tasks.engine.chunks import (
    Chunk,
    Outcome,
    cut_records,
    decode_records,
    encode_packed,
    pack_each,
)
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job import JobReport, JobSpec, JobState, JobTally, new_job_id
from pyrmute_tasks.engine.pipeline import Window, run_ordered
from pyrmute_tasks.engine.threaded_sources import ConvertedReader, ThreadedReader, ThreadedSource
from pyrmute_tasks.errors import ConfigurationError, MigratorClosedError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.io.jsonl import FIRST_BYTES, MOST_BYTES, JsonlSource
from pyrmute_tasks.io.output_file import open_output
from pyrmute_tasks.local.batches import Wanted
from pyrmute_tasks.logs import log
from pyrmute_tasks.plans.garbage_collection import rare_collections
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.pyrmute_adapter import adopt, load_manager
from pyrmute_tasks.registry import ModelData
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.versions import VersionLike
from pyrmute_tasks.wire.frames import Frame, FrameKind

if TYPE_CHECKING:
    from pyrmute_tasks.audit import AuditReport
    from pyrmute_tasks.distributed.producer.session import JobExecutor, Session

__all__ = ["Migrator"]

_FIRST_RECORDS_BYTES: Final = 256 * 1024
_MOST_RECORDS_BYTES: Final = 512 * 1024

Model = TypeVar("Model", bound=BaseModel)


class Migrator:
    """Runs migrations on a fleet of Celery workers.

    Without URLs it starts a fleet of its own, with a real Valkey server and `workers`
    worker processes, and ends it with the context. With URLs it uses workers that were
    started elsewhere with the same manager.

    Threads may share one, and have one fleet. A fork owns nothing: it ends neither the fleet nor
    a job of the process that it came from, and has a fleet of its own if it calls a method.
    Close it, or leave its ``with`` block: one that is dropped ends its fleet with a
    `ResourceWarning`. Closing ends the streams that are still open; they raise
    `MigratorClosedError`.

    Args:
        manager: The manager's name, ``package.module:attribute`` or
            ``path/to/file.py:attribute``, or the manager itself if a module holds it under
            a name that workers can import.
        broker_url: Broker of a running fleet.
        store_url: Its store; by default the broker, if that is Redis.
        workers: Worker processes of the embedded fleet; by default the number of CPUs this
            process may use.
        window: How much may be on its way at once; by default four chunks a worker slot.
        settings: Everything else. Its URLs are used if no others are given.
        retry: Which of the steps' exceptions pass by themselves; such a step is run again
            for its record. By default every exception is final.

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
            self._manager = adopt(manager)
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
        self._finalizer: weakref.finalize[[Session], Migrator] | None = None
        self._times_closed = 0
        self._lock = threading.RLock()
        self._pid = os.getpid()

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start the embedded fleet, or do nothing for one that is running.

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
        """Get ready to run jobs; the batch methods do so themselves when needed."""
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
            self._finalizer = weakref.finalize(self, _close_dropped, session)
            return session

    def close(self) -> None:
        """End the embedded fleet, close connections and end open streams; may be called twice.

        Any thread may call it, and also a source whose job runs.
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
            # A thread that this fork does not have may have held the other one.
            self._lock, self._pid = threading.RLock(), os.getpid()
        return self._lock

    @property
    def last_report(self) -> JobReport | None:
        """What the job did that ended last, also if it failed; None before the first.

        A stream's job ends with the stream.
        """
        return self._last_report

    # --- all at once --------------------------------------------------------------------------

    def migrate_batch(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
    ) -> list[BaseModel]:
        """Migrate and validate many records; as `ModelManager.migrate_batch`.

        Args:
            data_list: The records, as `from_version` has them.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the results.
            parallel: Accepted, so that calls need not change; the fleet is parallel.
            max_workers: Likewise; the fleet has the workers that it has.
            use_processes: Likewise; workers are processes.
            chunk_size: Records a task; by default chosen from their size.

        Returns:
            The validated models, in the order of the records.

        Raises:
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If a migrated record is not valid.
            FleetError: If the fleet cannot be reached or has no workers.
        """
        check_workers(max_workers)
        return list(
            self.migrate_batch_streaming(data_list, name, from_version, to_version, chunk_size)
        )

    def migrate_batch_as(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
    ) -> list[Model]:
        """Migrate many records and validate them as `target_type`; else as `migrate_batch`."""
        check_workers(max_workers)
        return list(
            self.migrate_batch_streaming_as(
                data_list, name, from_version, to_version, target_type, chunk_size
            )
        )

    def migrate_batch_data(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        parallel: bool = False,
        max_workers: int | None = None,
        use_processes: bool = False,
        *,
        chunk_size: int | None = None,
    ) -> list[ModelData]:
        """Migrate many records without validating them; else as `migrate_batch`."""
        check_workers(max_workers)
        return list(
            self.migrate_batch_data_streaming(data_list, name, from_version, to_version, chunk_size)
        )

    # --- lazily -------------------------------------------------------------------------------

    def migrate_batch_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
    ) -> Generator[BaseModel, None, None]:
        """Migrate and validate records lazily; as `ModelManager.migrate_batch_streaming`.

        Steps run on the workers. The models are built here, from what the workers return:
        a class instance cannot travel without pickle.

        Args:
            data_list: The records; read at most one window ahead of what is yielded, in the
                thread that reads the outputs unless `in_thread` says that another one may.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the results.
            chunk_size: Records a task; by default chosen from their size.

        Yields:
            The validated models, in the order of the records; all those before a failing
            record, then its error is raised as `migrate_batch` raises it. If the
            source itself raises an `Exception`, all before it, too; after an exit or an
            interrupt from there, the job is cancelled at once.
        """
        return self._stream(data_list, name, from_version, to_version, chunk_size, Wanted())

    def migrate_batch_streaming_as(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        target_type: type[Model],
        chunk_size: int | None = None,
    ) -> Generator[Model, None, None]:
        """Validate as `target_type`; else as `migrate_batch_streaming`."""
        wanted = Wanted(model=target_type)
        return self._stream(data_list, name, from_version, to_version, chunk_size, wanted)

    def migrate_batch_data_streaming(
        self,
        data_list: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None = None,
    ) -> Generator[ModelData, None, None]:
        """Do not validate; else as `migrate_batch_streaming`."""
        return self._stream(
            data_list, name, from_version, to_version, chunk_size, Wanted(validated=False)
        )

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
        observers: tuple[Observer, ...] = (),
    ) -> JobReport:
        """Migrate a file of JSON lines into another.

        The workers decode, migrate, validate and write; this process moves bytes. The
        output equals what a loop of ``migrate`` and ``model_dump_json()`` writes. It
        appears under its name when it is whole, with the mode and owner of the file that it
        replaces. A pipe or a device is written to as it goes.

        Args:
            source: JSON objects, one a line.
            target: What to write: a file, a link to one, a pipe, or a device as ``/dev/stdout``.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the results.
            chunk_size: Records a task; by default about 1 MiB of lines.
            overwrite: Replace `target` if it exists; otherwise that is an error.
            keep_partial: On failure, keep what was written before it; ``last_report.partial_path``
                says where, which is ``<target>.partial`` unless something has that name.
            observers: Told what happens.

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
        observers: tuple[Observer, ...] = (),
    ) -> JobReport:
        """Migrate a file as `migrate_file`, but return a record's failure instead of raising it.

        Returns:
            What the job did; ``report.failure`` is what ended it early, if a record did.

        Raises:
            ConfigurationError: If a file cannot be read or written, or both are the same.
            OutputInUseError: If another run is writing `target`.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path.
            FleetError: If the fleet cannot be reached or has no workers.
        """
        plan = self._manager.plan(name, from_version, to_version)
        plan.target  # noqa: B018  # a missing target is told before anything is started
        sizer = ChunkSizer(FIRST_BYTES, MOST_BYTES, lambda: executor.slots, self._window_bytes)
        lines = JsonlSource(source, chunk_size, sizer, self._settings.compression)

        def finish(chunk: Chunk[None], outcome: Outcome[Frame]) -> Outcome[Frame]:
            self._merge_counts(outcome)
            return replace(outcome, failure=_located(outcome.failure, chunk))

        job = self._new_job_id()
        output = open_output(
            target, job=job, source=source, overwrite=overwrite, keep_partial=keep_partial
        )
        try:
            # The output first: if another run has it, no fleet is started for this one.
            with output, self._job(plan, FrameKind.LINES, job) as (executor, tally):
                outcomes = run_ordered(
                    lines.chunks(),
                    executor,
                    self._window_of(executor),
                    finish=finish,
                    observers=(tally, sizer, *observers),
                )
                with closing(outcomes):  # before the job ends: it withdraws what is pending
                    for outcome in outcomes:
                        if outcome.count:  # otherwise its frame may hold no lines
                            output.write(outcome.outputs.payload)
                        tally.failure = outcome.failure
                if tally.failure is None:
                    output.finish()
        finally:
            self._note_partial(job, output.kept_path)
        assert self._last_report is not None
        return self._last_report

    def _note_partial(self, job: str, path: Path | None) -> None:
        report = self._last_report
        if report is not None and report.job == job and path is not None:
            self._last_report = replace(report, partial_path=str(path))

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
        """Find out what results depend on beside the records, and what gets lost; see `audit`.

        It runs in processes of its own, and not on the fleet.
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

    def _stream(
        self,
        records: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None,
        wanted: Wanted,
    ) -> Generator[Any, None, None]:
        if chunk_size is not None:
            check_chunk_size(chunk_size)
        return self._run_records(
            self._times_closed, records, name, from_version, to_version, chunk_size, wanted
        )

    def _run_records(
        self,
        times_closed: int,
        records: Iterable[ModelData],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        chunk_size: int | None,
        wanted: Wanted,
    ) -> Generator[Any, None, None]:
        if times_closed != self._times_closed:
            raise MigratorClosedError(
                "the Migrator was closed before this stream was read; read it inside of the "
                "with block"
            )
        sizer = ChunkSizer(
            _FIRST_RECORDS_BYTES, _MOST_RECORDS_BYTES, window_bytes=self._window_bytes
        )
        records_sizer = RecordSizer(sizer)
        cut = partial(cut_records, pack_each(records), chunk_size or records_sizer)
        is_threaded = isinstance(records, ThreadedSource)
        with closing(ThreadedReader(cut) if is_threaded else cut()) as chunks:
            first = next(chunks, None)
            if first is None:
                return
            plan = self._manager.plan(name, from_version, to_version)
            wanted.output(plan)  # a missing target is told before anything is sent

            def encode(chunk: Chunk[list[bytes]]) -> Chunk[bytes]:
                frame = encode_packed(chunk, self._settings.compression)
                records_sizer.cut(frame.index, frame.count, frame.size_bytes)
                return frame

            def decode(chunk: Chunk[None], outcome: Outcome[Frame]) -> Outcome[list[Any]]:
                self._merge_counts(outcome)
                with rare_collections():
                    data = decode_records(outcome.outputs)
                    outputs, invalid = wanted.finish(plan, data, chunk.start)
                return Outcome(outcome.index, len(outputs), outputs, invalid or outcome.failure)

            frames: Iterator[Chunk[bytes]] | ConvertedReader[Chunk[bytes]]
            with self._job(plan, FrameKind.OBJECTS, self._new_job_id()) as (executor, tally):
                sizer.slots = lambda: executor.slots
                if isinstance(chunks, ThreadedReader):
                    frames = ConvertedReader(chunks, encode, first)
                else:
                    frames = map(encode, chain((first,), chunks))
                window = self._window_of(executor)
                outcomes = run_ordered(
                    frames, executor, window, finish=decode, observers=(tally, sizer)
                )
                with closing(outcomes):
                    for outcome in outcomes:
                        yield from outcome.outputs
                        tally.failure = outcome.failure
        if tally.failure is not None:
            raise tally.failure.exception()

    def _new_job_id(self) -> str:
        return new_job_id(unique=bool(self._settings.secret))

    def _job(self, plan: MigrationPlan, kind: FrameKind, job: str) -> "_JobRun":
        session = self._open()
        spec = JobSpec(
            job,
            plan.name,
            str(plan.from_version),
            str(plan.to_version),
            kind,
            plan.fingerprint,
            count_hooks=bool(self._manager.hooks),
            fence=self._settings.fence,
            retry=self._retry,
            compression=self._settings.compression,
        )
        tally = JobTally(spec.id)
        return _JobRun(session.job(spec, plan.fingerprint_tree), tally, self._end)

    def _end(self, tally: JobTally, state: JobState) -> None:
        tally.end(state)
        report = self._last_report = tally.report()
        log(
            logging.INFO,
            "job_ended",
            "a job has ended",
            job=report.job,
            state=state.value,
            records=report.records,
            wasted_chunks=report.wasted_chunks,
            seconds=round(report.seconds, 3),
        )

    def _merge_counts(self, outcome: Outcome[Frame]) -> None:
        if outcome.counts is not None:
            self._manager.hooks.merge(outcome.counts)

    @property
    def _window_bytes(self) -> int:
        return (self._window or Window()).size_bytes

    def _window_of(self, executor: "JobExecutor") -> Callable[[], Window]:
        fixed = self._window
        if fixed is not None:
            return lambda: fixed
        return lambda: Window.for_slots(executor.slots)


class _JobRun:
    """One job while it runs; a context manager, which tells how it ended.

    A generator's would set attributes of what is raised, and exceptions may forbid that.

    Args:
        executor: Where its chunks run.
        tally: What counts them.
        end: Called at the end.
    """

    def __init__(
        self, executor: "JobExecutor", tally: JobTally, end: Callable[[JobTally, JobState], None]
    ) -> None:
        self._executor, self._tally, self._end = executor, tally, end

    def __enter__(self) -> "tuple[JobExecutor, JobTally]":
        self._executor.__enter__()
        self._tally.begin()
        return self._executor, self._tally

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is not None:
            state = JobState.FAILED if issubclass(kind, Exception) else JobState.CANCELLED
        else:
            state = JobState.FAILED if self._tally.failure else JobState.SUCCEEDED
        try:
            self._end(self._tally, state)
        finally:
            self._executor.__exit__(kind, *error)


def _located(failure: RecordFailure | None, chunk: Chunk[None]) -> RecordFailure | None:
    """Let the failing record's error know its line."""
    if failure is None or chunk.origin is None:
        return failure
    line = chunk.origin.line_of(failure.index - chunk.start)
    return replace(failure, source=f"{chunk.origin.path}, line {line}")


def _close_dropped(session: "Session") -> None:
    """End what a `Migrator` left that was dropped without `close`."""
    if session.is_mine and not session.is_over:
        session.close()
        warnings.warn(
            "a Migrator was dropped without close(): use it in a with block",
            ResourceWarning,
            stacklevel=2,
        )
