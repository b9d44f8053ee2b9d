"""The driver of a job, and whether another process may take over.

Taking a lease is safe at any time: what the earlier holder writes is not read any more. But it
disturbs one that lives. So another process first looks whether it does: at the process itself on
the same host, elsewhere at how long its log has not been touched, by its own clock.
"""

import contextlib
import getpass
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyrmute_tasks.errors import printable
from pyrmute_tasks.jobs.entries import Leased
from pyrmute_tasks.jobs.log import LogReader, epochs, log_name
from pyrmute_tasks.jobs.now import NOW
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.storage import Storage
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.processes import is_alive, place_here, start_of

__all__ = [
    "BEAT_EVERY_S",
    "SILENT_S",
    "Driver",
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

_QUIET_S: Final = 2.5  # now.json comes once a second, and a reason is told within three
_QUIET_LOG_S: Final = 7.0  # without it: a log is touched every five


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Who drives a job, or takes it over; what its log does not tell yet is ``?``.

    Attributes:
        host: The host.
        pid: The process; 0 if not known.
        who: The user.
        epoch: The epoch.
        silent_s: For how long nothing was seen of it.
        tells: Whether it writes ``now.json``, about once a second.
        is_gone: Whether it is known to have ended.
    """

    host: str = "?"
    pid: int = 0
    who: str = "?"
    epoch: int = 0
    silent_s: float = 0.0
    tells: bool = True
    is_gone: bool = False

    @classmethod
    def of(cls, holder: Mapping[str, str | int], **others: Any) -> "Driver":
        """Return the driver that a lease names."""
        pid = holder.get("pid")
        return cls(
            host=str(holder.get("host", "?")),
            pid=pid if isinstance(pid, int) else 0,
            who=str(holder.get("who", "?")),
            **others,
        )

    def __str__(self) -> str:
        return printable(f"process {self.pid or '?'} of {self.who} on host {self.host}")

    @property
    def is_missing(self) -> bool:
        """Whether it has ended, or is silent."""
        return self.is_gone or self.is_silent

    @property
    def is_silent(self) -> bool:
        """Whether it has been silent for longer than a living driver is."""
        return self.silent_s > (_QUIET_S if self.tells else _QUIET_LOG_S)


class DriverWatch:
    """Watches the driver of a job: each look tells for how long it has been silent.

    Args:
        storage: The job's files.
        monotonic: A clock that is never set.
        clock: Seconds since 1970, with which the first look compares the files' times; by default
            silence counts from the first look, so that clocks which differ do not matter.
    """

    def __init__(
        self,
        storage: Storage,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._storage = storage
        self._monotonic, self._clock = monotonic, clock
        self._seen: dict[str, tuple[int, float]] = {}  # a file's time, and ours when it was seen

    def look(self, epoch: int, state: LoggedState, *, tells: bool = False) -> Driver | None:
        """Return who drives the job, or takes it over; None if nobody does.

        Args:
            epoch: The newest epoch that was opened.
            state: The job's state by its log.
            tells: Whether there is a ``now.json`` of this epoch.

        Raises:
            FileNotFoundError: If the job was discarded.
        """
        newest = max(epochs(self._storage), default=0)
        if newest == epoch and not state.is_driven:
            return None
        holder = holder_of(self._storage, newest)
        gone = is_gone(holder)
        silent_s = self._age_s(log_name(newest))
        if not state.is_driven and (gone or silent_s >= SILENT_S):
            return None  # it has ended before it could do anything
        if tells:
            with contextlib.suppress(FileNotFoundError):
                silent_s = min(silent_s, self._age_s(NOW))
        return Driver.of(holder, epoch=newest, silent_s=silent_s, tells=tells, is_gone=gone)

    def why_not(self, view: JobView) -> str:
        """Return why the job must not be taken over yet; empty if it may be.

        For a driver of another host the answer comes by watching: ask again.

        Args:
            view: The current view of the logs.
        """
        driver = self.look(view.epoch, view.state)
        if driver is None or driver.is_gone or driver.silent_s >= SILENT_S:
            return ""
        silent = f", silent for {driver.silent_s:.0f} s" if driver.silent_s >= BEAT_EVERY_S else ""
        return f"{driver} drives this job{silent}"

    def _age_s(self, name: str) -> float:
        """Return for how long a file was not changed."""
        changed, now = self._storage.changed_ns(name), self._monotonic()
        earlier = self._seen.get(name)
        if earlier is None:
            age_s = 0.0 if self._clock is None else max(0.0, self._clock() - changed / 1e9)
            self._seen[name] = (changed, now - age_s)
        elif earlier[0] != changed:
            self._seen[name] = (changed, now)
        return now - self._seen[name][1]


def holder_of(storage: Storage, epoch: int) -> Mapping[str, str | int]:
    """Return who holds an epoch's lease; empty while its first line is being written."""
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
