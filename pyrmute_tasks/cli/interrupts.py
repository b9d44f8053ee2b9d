"""Signals that end a command in an orderly way."""

import os
import signal
from typing import Final, Self

from pyrmute_tasks.engine.events import Event
from pyrmute_tasks.io.log_options import kept_job

__all__ = ["Interrupts"]


class Interrupts:
    """Turns Ctrl-C, SIGTERM and SIGHUP into one `KeyboardInterrupt` that cannot get lost.

    Python drops an exception that a signal handler raises while a finalizer or a weak reference's
    callback runs. So the signal is also recorded, and raised at the next event of the job: this is
    an `Observer`. A signal that the parent process ignores, as nohup does with SIGHUP, stays
    ignored.

    Args:
        target: The output.
        leaves_something: Whether an incomplete output is kept.

    Attributes:
        noted: The signal received; 0 before.
    """

    _SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, target: str, leaves_something: bool) -> None:
        self.noted: int = 0
        self._target = target
        self._leaves_something = leaves_something
        self._found = _file_at(target)

    @property
    def left(self) -> str:
        """The state of the output after the interrupt, for the message."""
        if _file_at(self._target) != self._found:  # it came when the file was there already
            return f"; {self._target} is whole"
        leaves_something = self._leaves_something or kept_job(self._target) is not None
        return "" if leaves_something else "; nothing was left behind"

    def __enter__(self) -> Self:
        self._earlier = {number: signal.getsignal(number) for number in self._SIGNALS}
        for number, handler in self._earlier.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, *_: object) -> None:
        # A second one must not interrupt the cleanup after the first.
        if not self.noted:
            self.noted = number
            raise KeyboardInterrupt

    def __call__(self, event: Event, /) -> None:
        """Raise the interrupt again if the exception of its signal got lost."""
        if self.noted:
            raise KeyboardInterrupt


def _file_at(path: str) -> tuple[int, int] | None:
    """Return a file's identity, which differs once it is replaced; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
