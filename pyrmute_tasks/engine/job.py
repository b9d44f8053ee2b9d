"""One job while it runs, with all that the run needs."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.events import Event, Observer, Observers, SlotsChanged
from pyrmute_tasks.engine.job_report import JobReport, JobState, JobTally
from pyrmute_tasks.engine.pipeline import ChunkExecutor, Sink, Window, run_ordered
from pyrmute_tasks.engine.threaded_sources import ConvertedReader
from pyrmute_tasks.logs import log
from pyrmute_tasks.wire.frames import FrameKind

__all__ = ["Job", "JobExecutor", "Source"]

In = TypeVar("In")
Out = TypeVar("Out")
Finished = TypeVar("Finished")


class Source(Protocol[In]):
    """Where a job's chunks come from; an `Observer` of the job, which may learn their size."""

    @property
    def kind(self) -> FrameKind:
        """What its frames hold."""

    def chunks(self) -> Iterator[Chunk[In]] | ConvertedReader[Chunk[In]]:
        """Return the chunks, read no further than asked; called once."""

    def __call__(self, event: Event, /) -> None:
        """Learn from what happens to them."""


class JobExecutor(ChunkExecutor[In, Out], Protocol[In, Out]):
    """Where one job's chunks run; a context manager that knows the job while it is entered."""

    @property
    def slots(self) -> int:
        """How many chunks run at a time, as last seen."""

    def __enter__(self) -> Self:
        """Make the job known."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Remove every trace of the job."""


class Job(Generic[In, Out, Finished]):
    """Runs one job: ``with Job(...) as job: for outcome in job.outcomes(): ...``.

    Leaving it closes the stream of outcomes, which withdraws what is pending, then says how the
    job ended, then removes its traces, in this order.

    Args:
        job_id: The job's id.
        source: Where its chunks come from.
        sink: What makes of outcomes what is delivered.
        executor: Where the chunks run; entered and left with the job.
        window: How much may be on its way at once; None for the default of the slots.
        observers: Told what happens.
        on_end: Called with the report when the job has ended.
    """

    def __init__(
        self,
        job_id: str,
        source: Source[In],
        sink: Sink[Out, Finished],
        executor: JobExecutor[In, Out],
        *,
        window: Window | None = None,
        observers: tuple[Observer, ...] = (),
        on_end: Callable[[JobReport], None],
    ) -> None:
        self._tally = JobTally(job_id)
        self._executor = executor
        self._window = window
        self._slots = 0
        self._tell = Observers((self._tally, source, *observers))
        self._on_end = on_end
        self._source, self._sink = source, sink
        self._stream = self._run()

    def __enter__(self) -> Self:
        """Make the job known to where it runs."""
        self._executor.__enter__()
        self._tally.begin()
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
                self._end(kind)
            finally:
                self._executor.__exit__(kind, error, traceback)

    @property
    def report(self) -> JobReport:
        """What the job has done so far."""
        return self._tally.report()

    def outcomes(self) -> Generator[Outcome[Finished], None, None]:
        """Return the outcomes, in order; see `run_ordered`."""
        return self._stream

    def _run(self) -> Generator[Outcome[Finished], None, None]:
        stream = run_ordered(
            self._source.chunks(),
            self._executor,
            self._window_now,
            sink=self._sink,
            observers=self._tell,
        )
        with closing(stream):
            for outcome in stream:
                yield outcome
                # Only now is it delivered: a consumer that leaves before cancels the job.
                self._tally.failure = outcome.failure

    def _window_now(self) -> Window:
        slots = self._executor.slots
        if slots != self._slots:
            self._slots = slots
            self._tell(SlotsChanged(slots))
        return self._window or Window.for_slots(slots)

    def _end(self, kind: type[BaseException] | None) -> None:
        if kind is not None:
            state = JobState.FAILED if issubclass(kind, Exception) else JobState.CANCELLED
        else:
            state = JobState.FAILED if self._tally.failure else JobState.SUCCEEDED
        self._tally.end(state)
        report = self.report
        self._on_end(report)
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
