"""Runs of files: through the producer or by reference, into a file or a folder of parts."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel

from pyrmute_tasks import logs
from pyrmute_tasks.engine.error_policy import FailureJudge
from pyrmute_tasks.engine.events import SourceOpened
from pyrmute_tasks.engine.job import Job
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pipeline import ChunkResult
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.errors import ConfigurationError, ProcessDiedError, StorageUnreachableError
from pyrmute_tasks.file_options import ByReference, FileOptions, is_path
from pyrmute_tasks.file_outputs import driven_output, job_target, output_of, spec_of
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.job_output import DrivenJob, JobOutput
from pyrmute_tasks.io.job_targets import is_parts
from pyrmute_tasks.io.jsonl import JsonlSink, JsonlSource, check_source
from pyrmute_tasks.io.line_feed import LineFeed, LineWriter
from pyrmute_tasks.io.output_file import Output
from pyrmute_tasks.io.output_place import is_stream
from pyrmute_tasks.io.preflight import check_room
from pyrmute_tasks.io.range_feed import RangeFeed
from pyrmute_tasks.io.range_source import RangeSink, RangeSource, find_sources
from pyrmute_tasks.io.rejects import RejectsFile
from pyrmute_tasks.jobs.spec import Spec
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.plans.migration import Migration
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import MAX_FRAME_BYTES, Compression

__all__ = ["NOT_FILES", "FileRun", "Jobs", "RangeFleet"]

NOT_FILES: Final = (
    "only a job from files to a file or a folder can be submitted: a pipe, a device, an open file "
    "or an iterable belongs to its process; use `run` (migrate_file in Python), or write it to a "
    "file first"
)
"""Why something cannot be submitted."""

_LEAST_BYTES: Final = 1024 * 1024  # less is one chunk, and syncing it would cost more than it saves


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
        migration: The migration.
        model: The model of the outputs, to estimate their size; None if it is not known here.
        new_run: Returns a new run.
        fleet: Returns the fleet, started.
        start: Returns the job of a source, a sink, a run and what becomes of failures, to be
            entered. What it is given as `check` is called about every second, and may raise; a
            `judge` goes on from an earlier run; `through` wraps the job's executor.
    """

    settings: Settings
    hooks: HookSet
    window_bytes: int
    compression: Compression
    is_embedded: bool
    migration: Migration
    model: type[BaseModel] | None
    new_run: Callable[[], Run]
    fleet: Callable[[], RangeFleet]
    start: Callable[..., Job[bytes, Any, Any]]


# Above 250 lines: one run, its checks, and both ways.
class FileRun:
    """One run of files.

    Args:
        options: What to do.
        jobs: Starts its jobs.
        driven: The submitted job that it drives for an epoch; None for a run of its own.

    Attributes:
        kept_path: Where a partial output was kept; None if none was.
        backup_path: Where the target that was replaced was kept; None if none was.
        must_keep: Whether all work is done, and a target is there that must not be replaced.
    """

    def __init__(self, options: FileOptions, jobs: Jobs, driven: DrivenJob | None = None) -> None:
        self._options = options
        self._jobs = jobs
        self._driven = driven
        self.must_keep: bool = False
        self.kept_path: Path | None = None
        self.backup_path: Path | None = None
        self._names = _names_of(options, driven)
        self._into_parts = is_path(options.target) and is_parts(options.target)
        # What the producer cannot do: it sends one file into one file, without gaps.
        self._must_refer = (
            self._into_parts
            or options.retried is not None
            or (is_path(options.source) and self._names != [os.fspath(options.source)])
        )
        self._lines: JsonlSource | None = None
        self.size_bytes: int | None = self._size_bytes()
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
        may_refer = self.may_refer
        output = self._output(may_refer)
        self._check_room(may_refer)
        try:
            # The files first: if another run has one, no fleet is started.
            with self._run, output, self._rejects(output) as rejects:
                if isinstance(output, JobOutput) and may_refer and self._takes_ranges():
                    self._by_reference(output, rejects)
                else:
                    self._through_producer(output, rejects)
        finally:
            self.kept_path = output.kept_path
            if isinstance(output, JobOutput):
                self.backup_path, self.must_keep = output.backup_path, output.must_keep

    def _output(self, may_refer: bool) -> Output | JobOutput:
        if self._driven is not None:
            return driven_output(self._options, self._driven)
        return output_of(
            self._options,
            self._names,
            self._jobs.migration,
            job=self._run.tally.job,
            needs_job=may_refer,
            is_private=self._jobs.is_embedded or bool(self._jobs.settings.roots_file),
        )

    @property
    def may_refer(self) -> bool:
        """Whether it goes by reference, if the workers take ranges.

        Raises:
            ConfigurationError: If it must, and cannot.
        """
        why_not = self._why_not()
        if why_not and self._is_forced:
            what = (
                "several files, a folder of parts, or a retry, can only go by reference, but"
                if self._must_refer
                else "this run cannot go by reference:"
            )
            raise ConfigurationError(f"{what} {why_not}")
        is_large = (self.size_bytes or 0) >= _LEAST_BYTES
        is_worth_it = is_large and self._options.pace.max_rate is None
        return not why_not and (self._is_forced or is_worth_it)

    def submitted(self, job: str, terms: Terms) -> Spec:
        """Return the spec by which coordinators run this, after the checks of a run.

        Args:
            job: The job's id.
            terms: What else was asked for.

        Raises:
            ConfigurationError: If it cannot be run, or only where it was called.
        """
        may_refer = self.may_refer
        target = job_target(self._options, self._names)
        if target is None:
            raise ConfigurationError(NOT_FILES)
        target.check(overwrite=self._options.overwrite or self._options.hold)
        self._check_room(may_refer)
        return spec_of(target, self._options, self._names, self._jobs.migration, job, terms)

    def _check_room(self, may_refer: bool) -> None:
        """Refuse an output that surely does not fit; what a resumed run needs is not known."""
        options = self._options
        if self._names and is_path(options.target) and not options.log.resume:
            model = None if options.errors.policy.skips else self._jobs.model
            check_room(
                options.target,
                self._names,
                by_reference=may_refer,
                limit=options.limit,
                model=model,
            )

    # --- which way --------------------------------------------------------------------------

    @property
    def _is_forced(self) -> bool:
        return self._must_refer or self._options.by_reference is ByReference.ALWAYS

    def _why_not(self) -> str:
        """Return why nothing can go by reference; empty if it can."""
        options, settings = self._options, self._jobs.settings
        if options.excludes_ranges:
            return options.excludes_ranges
        if not self._names or not is_path(options.target):
            return "only files that are given by their paths can"
        if not self._into_parts and is_stream(options.target):
            return f"{os.fspath(options.target)} is a pipe or a device"
        if not (self._jobs.is_embedded or settings.roots_file or settings.secret):
            return (
                "workers need --root DIR and, as this producer, a secret in PYRMUTE_TASKS_SECRET, "
                "which is not set here"
            )
        return ""

    def _takes_ranges(self) -> bool:
        return self._is_forced or self._jobs.is_embedded or self._jobs.fleet().takes_ranges()

    # --- both ways --------------------------------------------------------------------------

    def _line_source(self) -> JsonlSource:
        jobs, options = self._jobs, self._options
        return JsonlSource(
            options.source,
            options.chunk_size or options.pace.chunk_size,
            jobs.window_bytes,
            jobs.compression,
            options.limit,
        )

    def _rejects(self, output: Output | JobOutput) -> AbstractContextManager[RejectsFile | None]:
        options = self._options
        if options.rejects is None:
            return nullcontext()
        is_own = isinstance(output, JobOutput) and output.has_told_rejects
        return RejectsFile(
            options.rejects,
            job=self._run.tally.job,
            source=options.source,
            overwrite=options.overwrite or is_own,
            keep_partial=options.keep_partial,
            with_records=options.rejects_with_records,
        )

    def _through_producer(self, output: Output | JobOutput, rejects: RejectsFile | None) -> None:
        lines = self._lines or self._line_source()
        sink = JsonlSink(self._jobs.hooks, with_text=self._options.rejects_with_records)
        feed = LineFeed(output, lines) if isinstance(output, JobOutput) else LineWriter(output)
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
                self._tell(result, rejects)  # before it is settled: if that fails, it comes again
                feed.deliver(result)
            _publish_rejects(output, rejects)
            if self.report.failure is None:
                feed.finish()
                output.commit()

    def _judge(self, output: Output | JobOutput, rejects: RejectsFile | None) -> FailureJudge:
        """Return the judge of failures; it and the run go on from earlier runs of the job."""
        judge = FailureJudge(self._options.errors.policy)
        if not isinstance(output, JobOutput) or output.is_fresh:
            return judge
        file, with_text = self._names[0], self._options.rejects_with_records
        by_cause: Counter[str] = Counter()
        crashes = 0
        for restored in output.restored():
            failures = restored.located(file, with_text=with_text)
            by_cause.update(failure.cause for failure in failures)
            crashes += sum(isinstance(failure.error, ProcessDiedError) for failure in failures)
            if rejects is not None:
                rejects.write(failures)
        judge.restore(by_cause.total(), crashes)
        self._run.tally.restore(output.fold.outputs, by_cause)
        return judge

    def _tell(
        self, result: ChunkResult[Any], rejects: RejectsFile | None, *, is_new: bool = True
    ) -> None:
        """Report the records of a chunk that were skipped."""
        if rejects is not None:
            rejects.write(result.rejects)
        for reject in result.rejects if is_new else ():
            self._options.errors.tell(reject)

    def _by_reference(self, output: JobOutput, rejects: RejectsFile | None) -> None:
        jobs, options, folder = self._jobs, self._options, output.folder
        longest = options.max_line_bytes or MAX_FRAME_BYTES
        skips = options.errors.policy.skips
        restored = list(output.restored())
        source = RangeSource(
            self._names,
            folder.parts_path,
            folder.nonce,
            longest,
            skips=skips,
            wanted=folder.spec.wanted,
            settled=restored,
        )
        jobs.fleet().allow([folder.path.parent, *source.folders])
        sink = RangeSink(jobs.hooks, with_text=options.rejects_with_records)
        known = sum(each.span.outputs for each in restored)
        self._run.tell(SourceOpened(source.size_bytes, settled=known))
        self._run.tally.restored = known
        feed = RangeFeed(output, source, skips=skips)
        job = jobs.start(
            source,
            sink,
            self._run,
            options.errors,
            check=source.check,
            through=feed.over,
            pace=options.pace,
        )
        try:
            with job:
                for result in job.results():
                    feed.deliver(result)
                    self._tell(result, rejects, is_new=not feed.is_restored(result))
                output.check_sources()  # before the rejects appear
                _publish_rejects(output, rejects)
                if self.report.failure is None:
                    output.commit()
        except StorageUnreachableError as error:
            if self._is_forced or self.report.chunks_by_worker or not output.is_fresh:
                raise
            logs.log(logging.WARNING, "not_by_reference", f"through the producer instead: {error}")
        else:
            return
        self._run = jobs.new_run()
        with self._run:
            self._through_producer(output, rejects)


def _publish_rejects(output: Output | JobOutput, rejects: RejectsFile | None) -> None:
    """Publish the rejects before the output: where the output is, its rejects are, too."""
    if rejects is not None:
        if isinstance(output, JobOutput):
            output.note_rejects()
        rejects.commit()


def _names_of(options: FileOptions, driven: DrivenJob | None) -> list[str]:
    if driven is not None:
        return [each.path for each in driven.folder.spec.sources]
    if options.retried is not None:
        return options.retried.names
    return find_sources(options.source) if is_path(options.source) else []
