"""Runs of files that take less time than starting a fleet: in a fork of this process.

Outputs, errors, rejects and events are those of a run on a fleet: the same plan runs over the same
chunks, and the same pipeline judges and delivers what comes of them. There is no log, as there is
nothing to go on with. See ``docs/decisions/0032-what-a-run-shows.md``.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pyrmute_tasks.engine.chunk_runs import run_plan
from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import ErrorHandling
from pyrmute_tasks.engine.events import Event, Observer, SourceOpened
from pyrmute_tasks.engine.job import Job
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.failures import causes_of
from pyrmute_tasks.hooks import HookCounts, HookSet, use_hooks
from pyrmute_tasks.io.jsonl import JsonlSink, JsonlSource
from pyrmute_tasks.io.output_file import Output, open_output
from pyrmute_tasks.local.forked import DoneExecutor, may_fork, run_forked
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame, encode_frame

if TYPE_CHECKING:
    from pyrmute_tasks.io.rejects import RejectsFile

__all__ = ["SmallRun"]

_SMALL_BYTES: Final = 1024 * 1024  # larger files go by reference
_WITHIN_S: Final = 1.0  # a fleet takes as long to start


@dataclass(frozen=True, slots=True)
class _Kept:
    """Chunks that were read already; a `Source`."""

    cut: Sequence[Chunk[bytes]]
    kind: FrameKind = FrameKind.LINES
    total: int | None = None  # no fleet shows it

    def chunks(self) -> Iterator[Chunk[bytes]]:
        return iter(self.cut)

    def __call__(self, event: Event, /) -> None:
        """Do nothing: the chunks' sizes are given."""


@dataclass(slots=True, kw_only=True)
class SmallRun:
    """A run from a file to a file, without a fleet.

    Attributes:
        source: The file.
        target: The output's path.
        plan: The migration, with its retries; it observes if there are hooks.
        hooks: The manager's hooks.
        chunk_size: Records a chunk; None for the default.
        limit: The most records to migrate, the first ones; None for all.
        overwrite: Replace a target that exists.
        keep_partial: Keep what was written when the job fails.
        errors: What becomes of records that fail.
        rejects: A file for those that are skipped; None for none.
        rejects_with_records: Write the records to it.
        observers: Called with the job's events.
        report: The report, once the run has ended.
    """

    source: str
    target: str
    plan: MigrationPlan
    hooks: HookSet
    chunk_size: int | None
    limit: int | None
    overwrite: bool
    keep_partial: bool
    errors: ErrorHandling
    rejects: str | None
    rejects_with_records: bool
    observers: Sequence[Observer]
    report: JobReport | None = None

    def run(self) -> bool:
        """Run it; return False, with nothing done, if a fleet is better for it.

        Raises:
            PyrmuteTasksError: If it cannot be run.
        """
        lines = JsonlSource(self.source, self.chunk_size, limit=self.limit)
        size_bytes = lines.size_bytes
        if size_bytes is None or size_bytes >= _SMALL_BYTES or not may_fork():
            return False
        chunks = list(lines.chunks())
        outcomes = run_forked(chunks, self._migrated, _WITHIN_S) if chunks else {}
        if outcomes is None:
            return False
        self._deliver(chunks, outcomes, size_bytes)
        return True

    def _migrated(self, chunk: Chunk[bytes]) -> Outcome[bytes]:
        """Run a chunk in the fork, and return its outcome."""
        began = time.perf_counter()
        counts = HookCounts(hooks=self.hooks) if self.hooks else None
        inputs = decode_frame(chunk.payload)
        live = self.hooks.live
        with use_hooks(live if counts is None else (counts, *live)):
            outputs, count, failures = run_plan(
                self.plan, FrameKind.LINES, inputs, chunk.start, skips=self.errors.policy.skips
            )
        causes = (cause for failure in failures.found for cause in causes_of(failure.error))
        if any(isinstance(cause, MemoryError) for cause in causes):
            raise MemoryError  # a fleet finds out whose fault it is
        return Outcome(
            chunk.index,
            count,
            encode_frame(FrameKind.LINES, count, outputs),
            tuple(failures.found),
            time.perf_counter() - began,
            counts=counts,
            is_final=failures.ended,
        )

    def _deliver(
        self,
        chunks: Sequence[Chunk[bytes]],
        outcomes: Mapping[int, Outcome[Frame]],
        size_bytes: int,
    ) -> None:
        run = Run(new_job_id(), self.observers, self._note)
        output = open_output(
            self.target,
            job=run.tally.job,
            source=self.source,
            overwrite=self.overwrite,
            keep_partial=self.keep_partial,
        )
        sink = JsonlSink(self.hooks, with_text=self.rejects_with_records)
        try:
            with run, output, self._rejects_of(run.tally.job) as rejects:
                run.tell(SourceOpened(size_bytes))
                policy = self.errors.policy
                job = Job(run, _Kept(chunks), sink, DoneExecutor(outcomes), policy=policy)
                with job:
                    self._write(job, output, rejects)
                    if rejects is not None:
                        rejects.commit()  # before the output: where that is, its rejects are, too
                    if run.report.failure is None:
                        output.commit()
        finally:
            if self.report is not None and output.kept_path is not None:
                self.report = replace(self.report, partial_path=str(output.kept_path))

    def _write(
        self,
        job: Job[bytes, Frame, Frame],
        output: Output,
        rejects: "RejectsFile | None",
    ) -> None:
        for result in job.results():
            if result.count:
                output.write(result.outputs.payload)
            if rejects is not None:
                rejects.write(result.rejects)
            for reject in result.rejects:
                self.errors.tell(reject)

    def _rejects_of(self, job: str) -> "AbstractContextManager[RejectsFile | None]":
        if self.rejects is None:
            return nullcontext()
        from pyrmute_tasks.io.rejects import RejectsFile  # runs without a file do without

        return RejectsFile(
            self.rejects,
            job=job,
            source=self.source,
            overwrite=self.overwrite,
            keep_partial=self.keep_partial,
            with_records=self.rejects_with_records,
        )

    def _note(self, report: JobReport) -> None:
        self.report = report
