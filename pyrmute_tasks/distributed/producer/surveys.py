"""Surveys of a job's fleet while it collects, which also keep the job's keys alive."""

import contextlib
import logging
import threading
from typing import Final, Protocol

from pyrmute_tasks.distributed.protocol import Survey
from pyrmute_tasks.distributed.queue_depth import QueueDepth
from pyrmute_tasks.logs import log

__all__ = ["SurveyedStore", "Surveyor", "ThreadedSurveyor"]

_FAREWELL_S: Final = 0.2  # it writes nothing that would have to be waited for


class SurveyedStore(Protocol):
    """The part of a store that a surveyor needs; see `Store`."""

    def survey(self, job: str, waiting: int | None = None, *, is_busy: bool = False) -> Survey:
        """Survey a job and its fleet in one round trip, and extend the job's expiry."""

    def touch_job(self, job: str) -> bool:
        """Extend the expiry of a job's keys; False if the job is gone."""


class Surveyor(Protocol):
    """Makes surveys of a job's fleet."""

    def begin(self) -> None:
        """Start to keep the job's keys alive."""

    def end(self) -> None:
        """Stop surveying and extending the keys' expiry."""

    def request(self, *, is_busy: bool) -> bool:
        """Request a survey and return at once; False if one is under way or ready.

        Args:
            is_busy: The job has chunks under way, and counts for the other jobs of the queue.
        """

    def report(self) -> Survey | None:
        """Return a completed survey, once, or raise its error; None if there is none."""


class ThreadedSurveyor:
    """A `Surveyor` with a thread of its own.

    Nobody waits for it: a server that is far, or that does not answer, holds up no outcome.
    However slowly outputs are consumed, the job's keys live on.

    Args:
        store: The store of the job.
        depth: Counts what waits in the queue, if the store does not.
        job: The job's id.
        touch_every_s: Interval of extending the keys' expiry while no survey is requested.
    """

    def __init__(
        self, store: SurveyedStore, depth: QueueDepth | None, job: str, touch_every_s: float
    ) -> None:
        self._store = store
        self._depth = depth
        self._job = job
        self._touch_every_s = touch_every_s
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._is_over = False
        self._is_asking = self._is_busy = False
        self._survey: Survey | None = None
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._answer_requests, name="surveyor", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread, once it has its answer."""
        self._is_over = True
        self._wanted.set()
        # Nothing to wait for: a stream in a reference cycle is closed where it is collected, which
        # may be in this thread; and Ctrl-C may come while the thread starts.
        with contextlib.suppress(RuntimeError):
            if self._thread is not None:
                self._thread.join(timeout=_FAREWELL_S)

    def request(self, *, is_busy: bool) -> bool:
        """Request a survey and return at once; False if one is under way or ready.

        Args:
            is_busy: The job has chunks under way, and counts for the other jobs of the queue.
        """
        with self._lock:
            # One that came in the meantime belongs to the earlier request, and its time.
            if self._is_asking or self._survey is not None or self._error is not None:
                return False
            self._is_asking, self._is_busy = True, is_busy
        self._wanted.set()
        return True

    def report(self) -> Survey | None:
        """Return a completed survey, once, or raise its error; None if there is none."""
        with self._lock:
            survey, self._survey = self._survey, None
            error, self._error = self._error, None
        if error is not None:
            raise error
        return survey

    def _answer_requests(self) -> None:
        try:
            while True:
                is_wanted = self._wanted.wait(self._touch_every_s)
                if is_wanted:  # else a request that comes right now would get lost
                    self._wanted.clear()
                if self._is_over:
                    return
                if is_wanted:
                    self._ask()
                else:
                    self._touch()
        finally:
            if self._depth is not None:
                self._depth.close()

    def _ask(self) -> None:
        survey, caught = None, None
        try:
            waiting = self._depth.ask() if self._depth is not None else None
            if not self._is_over:
                survey = self._store.survey(self._job, waiting, is_busy=self._is_busy)
        except Exception as error:  # raised where the job is driven
            caught = error
        with self._lock:
            self._survey, self._error, self._is_asking = survey, caught, False

    def _touch(self) -> None:
        try:
            self._store.touch_job(self._job)
        except Exception as error:  # without this thread nobody would notice that the job stands
            log(
                logging.WARNING,
                "keep_alive_failed",
                "the store cannot be reached",
                job=self._job,
                error=type(error).__name__,
            )
