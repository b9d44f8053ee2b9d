"""A call's run: its events, their tally, and its report."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from pyrmute_tasks.engine.events import JobEnded, Observer, Observers
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.engine.job_tally import JobTally

__all__ = ["Run"]


class Run:
    """The run of one call: a context manager that ends it and notifies its observers.

    Args:
        job_id: The job's id.
        observers: Called with the run's events.
        on_end: Called with the report when a run that has begun has ended.

    Attributes:
        tally: Counts the events.
        tell: Sends an event to the tally and the observers.
    """

    def __init__(
        self,
        job_id: str,
        observers: Sequence[Observer] = (),
        on_end: Callable[[JobReport], None] | None = None,
    ) -> None:
        self.tally: JobTally = JobTally(job_id)
        self._watchers = Observers(observers)  # one that raises is dropped from both
        self.tell: Observers = Observers((self.tally, self._watchers))
        self._is_watched = bool(observers)
        self._on_end = on_end

    @property
    def report(self) -> JobReport:
        """The report so far."""
        return self.tally.report()

    def begin(self) -> None:
        """Start the clock; does nothing if it is running."""
        if self.tally.state is JobState.PENDING:
            self.tally.begin()

    def end(self, kind: type[BaseException] | None) -> None:
        """End the run, once, and notify the observers.

        Args:
            kind: Class of the exception that ends it; None if nothing was raised.
        """
        has_begun = self.tally.state is JobState.RUNNING
        if not has_begun and self.tally.state is not JobState.PENDING:
            return
        self.begin()
        if self.tally.failure is not None or (kind is not None and issubclass(kind, Exception)):
            state = JobState.FAILED
        else:
            state = JobState.SUCCEEDED if kind is None else JobState.CANCELLED
        self.tally.end(state)
        if self._on_end is not None and has_begun:
            self._on_end(self.report)
        if self._is_watched:
            self.tell(JobEnded(self.report))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(kind)
