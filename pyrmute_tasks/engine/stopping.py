"""Jobs that another thread can end.

A job runs in the thread that takes its outputs, and that thread may wait for a chunk. What wants
to end the job meanwhile asks a `Stop`, which the job finds in the context it runs in.
"""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["JobStopped", "Stop", "check_stop", "current_stop", "stoppable"]


class JobStopped(BaseException):  # as KeyboardInterrupt: no error, and no `Exception`
    """Ends a job that another thread has stopped: raised where its outputs are taken."""


class Stop:
    """Ends jobs from another thread, within about a second."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def request(self) -> None:
        """End all jobs that check this, now or later."""
        self._requested.set()

    def check(self) -> None:
        """Raise if an end was requested.

        Raises:
            JobStopped: If it was.
        """
        if self._requested.is_set():
            raise JobStopped


_current: Final[contextvars.ContextVar[Stop | None]] = contextvars.ContextVar("stop", default=None)


@contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """Let `stop` end the jobs that begin in this context."""
    token = _current.set(stop)
    try:
        yield
    finally:
        _current.reset(token)


def check_stop() -> None:
    """Raise if the jobs of this context were asked to end; called by all that waits in them.

    Raises:
        JobStopped: If it was.
    """
    stop = _current.get()
    if stop is not None:
        stop.check()


def current_stop() -> Stop | None:
    """Return what may end the jobs of this context."""
    return _current.get()
