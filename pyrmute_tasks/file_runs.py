"""Runs of files: through the producer or by reference, into a file or a folder of parts."""

import enum
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeGuard

from pyrmute_tasks import logs
from pyrmute_tasks.engine.error_policy import RAISING, ErrorHandling, FailureJudge
from pyrmute_tasks.engine.events import SourceOpened
from pyrmute_tasks.engine.job import Job
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace
from pyrmute_tasks.engine.pipeline import ChunkResult
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.errors import ConfigurationError, StorageUnreachableError
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.attempt_folder import AttemptFolder
from pyrmute_tasks.io.jsonl import JsonlSink, JsonlSource, check_source
from pyrmute_tasks.io.log_options import WITH_LOG, LogOptions, kept_job
from pyrmute_tasks.io.logged_output import LoggedOutput, logged_output
from pyrmute_tasks.io.open_files import SourceFile, TargetFile
from pyrmute_tasks.io.output_file import Output, OutputFile, open_output
from pyrmute_tasks.io.output_parts import OutputParts, is_parts
from pyrmute_tasks.io.output_place import check_output, is_stream
from pyrmute_tasks.io.range_source import RangeSink, RangeSource, find_sources
from pyrmute_tasks.io.rejects import RejectsFile, rejects_to_log, restored_from
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import MAX_FRAME_BYTES, Compression, Frame

__all__ = ["ByReference", "FileOptions", "FileRun", "Jobs", "RangeFleet"]

_LEAST_BYTES: Final = 1024 * 1024  # less is one chunk, and syncing it would cost more than it saves


class ByReference(enum.StrEnum):
    """Whether workers read and write files themselves, or records travel through the producer."""

    AUTO = "auto"  # if workers can, and the file is not small
    ALWAYS = "always"
    NEVER = "never"

    @classmethod
    def _missing_(cls, value: object) -> "ByReference":
        raise ConfigurationError(f"by_reference must be auto, always or never, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """Options of a run of files.

    Attributes:
        source: The file, or an open one; by reference also a folder or a pattern.
        target: The file, an open one, or a folder of parts.
        chunk_size: Records a chunk; None for the default.
        overwrite: Replace a target that exists.
        keep_partial: Keep what was written when the job fails.
        by_reference: Which way to go.
        max_line_bytes: Longest line by reference; None for the longest that can travel.
        errors: What becomes of records that fail.
        rejects: A file for those that are skipped; None for none.
        rejects_with_records: Write the records to it.
        log: Whether the run keeps a log, and what becomes of an earlier one.
        pace: How fast it may go; a greatest rate makes small chunks, through the producer if both
            ways are open.
    """

    source: SourceFile
    target: TargetFile
    chunk_size: int | None = None
    overwrite: bool = True
    keep_partial: bool = False
    by_reference: ByReference = ByReference.AUTO
    max_line_bytes: int | None = None
    errors: ErrorHandling = RAISING
    rejects: str | os.PathLike[str] | None = None
    rejects_with_records: bool = False
    log: LogOptions = WITH_LOG
    pace: Pace = FULL_SPEED

    def __post_init__(self) -> None:
        if self.max_line_bytes is not None and self.max_line_bytes < 1:
            raise ConfigurationError(f"max_line_bytes must be 1 or more, not {self.max_line_bytes}")


class RangeFleet(Protocol):
    """The part of a fleet that a run needs; see `Session`."""

    def allow(self, folders: Iterable[Path]) -> None:
        """Let the workers of an embedded fleet read and write in folders."""

    def takes_ranges(self) -> bool:
        """Return whether workers take ranges by reference, by settings or heartbeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Starts the jobs of a run.

    Attributes:
        settings: Settings of the fleet.
        hooks: The manager's hooks.
        window_bytes: Size of a job's window.
        compression: How frames are compressed.
        is_embedded: The fleet is started for this.
        plan: The migration.
        new_run: Returns a new run.
        fleet: Returns the fleet, started.
        start: Returns the job of a source, a sink, a run and what becomes of failures, to be
            entered. What it is given as `check` is called about every second, and may raise; a
            `judge` goes on from an earlier run.
    """

    settings: Settings
    hooks: HookSet
    window_bytes: int
    compression: Compression
    is_embedded: bool
    plan: MigrationPlan
    new_run: Callable[[], Run]
    fleet: Callable[[], RangeFleet]
    start: Callable[..., Job[bytes, Frame, Any]]


class FileRun:
    """One run of files.

    Args:
        options: What to do.
        jobs: Starts its jobs.

    Attributes:
        kept_path: Where a partial output was kept; None if none was.
    """

    def __init__(self, options: FileOptions, jobs: Jobs) -> None:
        self._options = options
        self._jobs = jobs
        self.kept_path: Path | None = None
        self._names = _names_of(options)
        self._into_parts = is_path(options.target) and is_parts(options.target)
        # What the producer cannot do: it sends one file into one file.
        self._must_refer = self._into_parts or (
            is_path(options.source) and self._names != [os.fspath(options.source)]
        )
        self._lines: JsonlSource | None = None
        self.size_bytes = self._size_bytes()
        self._run = jobs.new_run()

    def _size_bytes(self) -> int | None:
        if self._names:
            return sum(map(check_source, self._names))
        self._lines = self._line_source()
        return self._lines.size_bytes

    @property
    def report(self) -> JobReport:
        """The report; of the last job, if the run took two."""
        return self._run.report

    def run(self) -> None:
        """Run the job; its report holds the result.

        Raises:
            PyrmuteTasksError: If it cannot be run.
        """
        why_not = self._why_not()
        if why_not and self._is_forced:
            what = (
                "several files, or a folder of parts, go"
                if self._must_refer
                else "this run cannot go"
            )
            raise ConfigurationError(f"{what} by reference{' only' * self._must_refer}: {why_not}")
        is_large = (self.size_bytes or 0) >= _LEAST_BYTES
        is_worth_it = is_large and self._options.pace.max_rate is None
        may_refer = not why_not and (self._is_forced or is_worth_it)
        output = self._output(has_log=not may_refer)
        try:
            # The files first: if another run has one, no fleet is started.
            with self._run, output, self._rejects(output) as rejects:
                if isinstance(output, (OutputFile, OutputParts)) and (
                    may_refer and self._takes_ranges()
                ):
                    self._by_reference(output, rejects)
                else:
                    self._through_producer(output, rejects)
        finally:
            self.kept_path = output.kept_path

    # --- which way --------------------------------------------------------------------------

    def _output(self, *, has_log: bool) -> Output | OutputParts | LoggedOutput:
        options, job = self._options, self._run.tally.job
        if is_path(options.target) and self._into_parts:
            return OutputParts(
                options.target, job, sources=self._names, overwrite=options.overwrite
            )
        if is_path(options.target):
            for name in self._names[1:]:
                check_output(options.target, source=name, overwrite=options.overwrite)
        logged = self._logged_output() if has_log else None
        return logged or open_output(
            options.target,
            job=job,
            source=self._names[0] if self._names else options.source,
            overwrite=options.overwrite,
            keep_partial=options.keep_partial,
        )

    def _logged_output(self) -> LoggedOutput | None:
        options = self._options
        self._lines = self._lines or self._line_source()
        return logged_output(
            options.source,
            options.target,
            self._lines,
            options.log,
            job=self._run.tally.job,
            plan=self._jobs.plan,
            policy=_result_options(options),
            overwrite=options.overwrite,
            keep_partial=options.keep_partial,
        )

    @property
    def _is_forced(self) -> bool:
        return self._must_refer or self._options.by_reference is ByReference.ALWAYS

    def _why_not(self) -> str:
        """Return why nothing can go by reference; empty if it can."""
        options, settings = self._options, self._jobs.settings
        if options.by_reference is ByReference.NEVER:
            return "--by-reference is never"
        if options.chunk_size is not None:
            return "a chunk size counts records, and nobody has counted those of a range of bytes"
        if not self._names or not is_path(options.target):
            return "only files that are given by their paths can"
        if not self._into_parts and is_stream(options.target):
            return f"{os.fspath(options.target)} is a pipe or a device"
        if options.log.resume or options.log.restart or self._has_log:
            return "only a run through the producer can be resumed, or resume another one"
        if not (self._jobs.is_embedded or settings.roots_file or settings.secret):
            return (
                "workers need --root DIR and, as this producer, a secret in PYRMUTE_TASKS_SECRET, "
                "which is not set here"
            )
        return ""

    @property
    def _has_log(self) -> bool:
        """Whether an earlier run to the target has left a log."""
        target = self._options.target
        return is_path(target) and not self._into_parts and kept_job(target) is not None

    def _takes_ranges(self) -> bool:
        return self._is_forced or self._jobs.is_embedded or self._jobs.fleet().takes_ranges()

    # --- both ways --------------------------------------------------------------------------

    def _line_source(self) -> JsonlSource:
        jobs, options = self._jobs, self._options
        size = options.chunk_size or options.pace.chunk_size
        return JsonlSource(options.source, size, jobs.window_bytes, jobs.compression)

    def _rejects(
        self, output: Output | OutputParts | LoggedOutput
    ) -> AbstractContextManager[RejectsFile | None]:
        options = self._options
        if options.rejects is None:
            return nullcontext()
        is_whole = isinstance(output, LoggedOutput) and output.is_whole
        return RejectsFile(
            options.rejects,
            job=self._run.tally.job,
            source=options.source,
            overwrite=options.overwrite or is_whole,  # it may have been published, too
            keep_partial=options.keep_partial,
            with_records=options.rejects_with_records,
        )

    def _through_producer(
        self, output: Output | OutputParts | LoggedOutput, rejects: RejectsFile | None
    ) -> None:
        assert not isinstance(output, OutputParts)
        with_records = self._options.rejects_with_records
        lines = self._lines or self._line_source()
        sink = JsonlSink(self._jobs.hooks, with_text=with_records)
        judge = self._judge(output, rejects)
        known = self.report
        self._run.tell(
            SourceOpened(lines.size_bytes, lines.bytes_read, known.restored, known.rejected)
        )
        job = self._jobs.start(
            lines, sink, self._run, self._options.errors, judge=judge, pace=self._options.pace
        )
        with job:
            for result in job.results():
                if isinstance(output, LoggedOutput):
                    output.deliver(
                        result, rejects_to_log(result.rejects, with_records=with_records)
                    )
                elif result.count:  # an empty frame may hold no lines
                    output.write(result.outputs.payload)
                self._tell(result, rejects)
            if rejects is not None:
                rejects.commit()  # before the output: who finds that one finds both
            if self.report.failure is None:
                output.commit()

    def _judge(self, output: Output | LoggedOutput, rejects: RejectsFile | None) -> FailureJudge:
        """Return the judge of failures; it and the run go on from earlier runs of the job."""
        judge = FailureJudge(self._options.errors.policy)
        if isinstance(output, LoggedOutput):
            restored = restored_from(output.restored_rejects(), rejects)
            judge.restore(restored.by_cause.total(), restored.crashes)
            self._run.tally.restore(output.restored_outputs, restored.by_cause)
        return judge

    def _tell(self, result: ChunkResult[Any], rejects: RejectsFile | None) -> None:
        """Report the records of a chunk that were skipped."""
        if rejects is not None:
            rejects.write(result.rejects)
        for reject in result.rejects:
            self._options.errors.tell(reject)

    def _by_reference(self, output: OutputFile | OutputParts, rejects: RejectsFile | None) -> None:
        jobs, options = self._jobs, self._options
        longest = options.max_line_bytes or MAX_FRAME_BYTES
        skips = options.errors.policy.skips
        is_private = jobs.is_embedded or bool(jobs.settings.roots_file)
        with AttemptFolder(output.attempts_path, is_private=is_private) as folder:
            source = RangeSource(self._names, folder.path, folder.nonce, longest, skips=skips)
            jobs.fleet().allow([folder.path.parent, *source.folders])
            sink = RangeSink(jobs.hooks, with_text=options.rejects_with_records)
            self._run.tell(SourceOpened(self.size_bytes))
            job = jobs.start(
                source, sink, self._run, options.errors, check=source.check, pace=options.pace
            )
            try:
                with job:
                    for result in job.results():
                        for piece in result.outputs:
                            output.add(folder, piece)
                        self._tell(result, rejects)
                    source.check_all()
                    if rejects is not None:
                        rejects.commit()
                    if self.report.failure is None:
                        output.commit()
            except StorageUnreachableError as error:
                if self._is_forced or self.report.chunks_by_worker:
                    raise
                logs.log(
                    logging.WARNING, "not_by_reference", f"through the producer instead: {error}"
                )
            else:
                return
        self._run = jobs.new_run()
        with self._run:
            self._through_producer(output, rejects)


def is_path(file: SourceFile | TargetFile) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether a file is given by its path, and not open."""
    return isinstance(file, (str, os.PathLike))


def _result_options(options: FileOptions) -> dict[str, str | int | bool | None]:
    """Return the options that decide what a run writes; it is resumed with the same ones."""
    policy, rejects = options.errors.policy, options.rejects
    return {
        "on_error": policy.on_error.value,
        "max_errors": policy.max_errors,
        "max_crashes": policy.max_crashes,
        "rejects": None if rejects is None else os.path.abspath(rejects),
        "rejects_with_records": options.rejects_with_records,
    }


def _names_of(options: FileOptions) -> list[str]:
    return find_sources(options.source) if is_path(options.source) else []
