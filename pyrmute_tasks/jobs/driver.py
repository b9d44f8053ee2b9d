"""The driver of a job, and whether another process may take over.

Taking a lease is safe at any time: whoever had it is not read any more. It is only rude while that
process lives, and so it is looked at first: at the process, if it is one of this host, and at how
long its log has not been touched, by the clock of whoever watches.
"""

import getpass
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from pyrmute_tasks.errors import printable
from pyrmute_tasks.jobs.entries import Leased
from pyrmute_tasks.jobs.log import LogReader, epochs, log_name
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.storage import Storage
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.processes import is_alive, place_here, start_of

__all__ = [
    "BEAT_EVERY_S",
    "SILENT_S",
    "DriverWatch",
    "holder_of",
    "is_gone",
    "this_process",
    "this_user",
]

BEAT_EVERY_S: Final = 5.0
"""How often a driver touches its log; see `LogWriter.beat`."""

SILENT_S: Final = 20.0
"""How long a log must not have been touched until another process may drive the job."""


def this_process() -> dict[str, str | int]:
    """Return this process as the holder of a lease."""
    pid = os.getpid()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        user = str(os.getuid())
    return {
        "host": socket.gethostname(),
        "who": user,
        "place": place_here(),
        "pid": pid,
        "started": start_of(pid),
    }


def this_user() -> str:
    """Return the user of this process, as ``user@host``."""
    me = this_process()
    return f"{me['who']}@{me['host']}"


class DriverWatch:
    """Watches the driver of a job.

    Args:
        storage: The job's files.
        monotonic: A clock that is never set.
    """

    def __init__(self, storage: Storage, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._monotonic = monotonic
        self._seen: tuple[int, int] | None = None  # epoch, and when its log was touched
        self._since = 0.0

    def why_not(self, view: JobView) -> str:
        """Return why the job must not be taken over yet; empty if it may be.

        For a driver of another host the answer comes by watching: ask again.

        Args:
            view: The current view of the logs.
        """
        newest = max(epochs(self._storage), default=0)
        if newest == view.epoch and view.state not in (LoggedState.RUNNING, LoggedState.PUBLISHING):
            return ""
        seen = (newest, self._storage.changed_ns(log_name(newest)))
        if seen != self._seen:
            self._seen, self._since = seen, self._monotonic()
        silent_s = self._monotonic() - self._since
        holder = holder_of(self._storage, newest)
        if silent_s >= SILENT_S or is_gone(holder):
            return ""
        who = f"process {holder.get('pid', '?')} of {holder.get('who', '?')}"
        told = f"{who} on host {holder.get('host', '?')} drives this job"
        return printable(
            told if silent_s < BEAT_EVERY_S else f"{told}, silent for {silent_s:.0f} s"
        )


def holder_of(storage: Storage, epoch: int) -> Mapping[str, str | int]:
    """Return the holder that an epoch's log names; empty while its first line is being written."""
    first = next(iter(LogReader(storage, epoch)), None)
    if first is None or not isinstance(first.entry, Leased):
        return {}
    return first.entry.holder


def is_gone(holder: Mapping[str, str | int]) -> bool:
    """Return whether a process of this host has ended; False for other hosts."""
    pid, started = holder.get("pid"), holder.get("started")
    if holder.get("place") != place_here() or not isinstance(pid, int):
        return False
    return not is_alive(pid, str(started))
