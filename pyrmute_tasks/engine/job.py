"""A running job and the resources it owns."""

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from pyrmute_tasks.engine.chunks import Chunk
from pyrmute_tasks.engine.error_policy import RAISE, ErrorPolicy, FailureJudge
from pyrmute_tasks.engine.events import Event, SlotsChanged
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace
from pyrmute_tasks.engine.pipeline import ChunkExecutor, ChunkResult, Sink, run_ordered
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.engine.stopping import current_stop
from pyrmute_tasks.engine.threaded_sources import ConvertedReader
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.logs import log
from pyrmute_tasks.wire.frames import FrameKind

__all__ = ["Job", "JobExecutor", "Source"]

In = TypeVar("In")
Out = TypeVar("Out")
Delivered = TypeVar("Delivered")


class Source(Protocol[In]):
    """A source of chunks; an `Observer` of the job, so that it may learn their size."""

    @property
    def kind(self) -> FrameKind:
        """The kind of the frames' content."""

    @property
    def total(self) -> int | None:
        """Where it ends, in records or, of files, bytes; None if unknown."""

    def chunks(self) -> Iterator[Chunk[In]] | ConvertedReader[Chunk[In]]:
        """Return the chunks, reading no further than requested; called once."""

    def __call__(self, event: Event, /) -> None:
        """Adapt the size of the next chunks to an event of the job."""


class JobExecutor(ChunkExecutor[In, Out], Protocol[In, Out]):
    """Runs the chunks of one job; a context manager that registers the job."""

    @property
    def slots(self) -> int:
        """Number of chunks that run at a time, as last seen."""

    @property
    def jobs(self) -> int:
        """Number of jobs that share the slots, this one included, as last seen."""

    def __enter__(self) -> Self:
        """Register the job."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Remove all traces of the job."""


class Job(Generic[In, Out, Delivered]):
    """Runs one job: ``with Job(...) as job: for result in job.results(): ...``.

    Leaving it closes the stream of results, which cancels pending chunks, then reports how the job
    ended, then removes its traces, in this order.

    Args:
        run: Tells and counts the job's events; begun with the job, and ended with it.
        source: The source of its chunks.
        sink: Converts outcomes for delivery.
        executor: Runs the chunks; entered and left with the job.
        window: Upper bound of what is in flight; None for the default for the slots, shared by
            the jobs of a queue.
        policy: Which failures of records the job survives.
        judge: Judges them; by default a new one.
        pace: How fast it may go.
        weight: Its share of the default window, compared with that of other jobs of the queue.

    Attributes:
        window: Upper bound of what it has in flight, as last seen.
        jobs: Jobs that share the fleet, this one included, as last seen.
    """

    def __init__(
        self,
        run: Run,
        source: Source[In],
        sink: Sink[Out, Delivered],
        executor: JobExecutor[In, Out],
        *,
        window: Window | None = None,
        policy: ErrorPolicy = RAISE,
        judge: FailureJudge | None = None,
        pace: Pace = FULL_SPEED,
        weight: float = 1.0,
    ) -> None:
        self.window: Window = window or Window()
        self.jobs: int = 1
        self._weight = weight
        self._run = run
        run.tell.add(source)
        self._executor = executor
        self._window = window
        self._slots = 0
        self._policy, self._judge = policy, judge
        self._pace = pace
        self._source, self._sink = source, sink
        self._stream = self._delivered()
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        """Register the job with its executor."""
        self._executor.__enter__()
        self._run.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._stream.close()
        finally:
            try:
                if self._pid == os.getpid():  # a fork that drops the job has not ended it
                    self._end(kind)
            finally:
                self._executor.__exit__(kind, error, traceback)

    @property
    def report(self) -> JobReport:
        """The job's report so far."""
        return self._run.report

    def results(self) -> Generator[ChunkResult[Delivered], None, None]:
        """Return the results of its chunks, in order; see `run_ordered`."""
        return self._stream

    def _delivered(self) -> Generator[ChunkResult[Delivered], None, None]:
        stream = run_ordered(
            self._source.chunks(),
            self._executor,
            self._window_now,
            sink=self._sink,
            observers=self._run.tell,
            policy=self._policy,
            stop=current_stop(),
            judge=self._judge,
            pace=self._pace,
        )
        with closing(stream):
            for delivered in stream:
                yield delivered
                # Delivered only now: a consumer that leaves before this cancels the job.
                self._run.tally.judged(delivered.rejects, delivered.failure, delivered.exceeded)

    def _window_now(self) -> Window:
        slots = self._executor.slots
        if slots != self._slots:
            self._slots = slots
            self._run.tell(SlotsChanged(slots))
        self.jobs = jobs = self._executor.jobs
        self.window = share = Window.for_slots(slots, jobs, self._weight)
        if self._window is not None:
            # A job that is alone on its queue delays no other.
            self.window = self._window if jobs == 1 else self._window.at_most(share)
        return self.window

    def _end(self, kind: type[BaseException] | None) -> None:
        self._run.end(kind)
        report = self.report
        log(
            logging.INFO,
            "job_ended",
            "a job has ended",
            job=report.job,
            state=report.state.value,
            records=report.records,
            rejected=report.rejected,
            wasted_chunks=report.wasted_chunks,
            seconds=round(report.seconds, 3),
        )
