"""Who drives a job, and its neighbours in the jobs root, as seen from outside."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.driver import holder_of, is_gone
from pyrmute_tasks.jobs.log import epochs, log_name
from pyrmute_tasks.jobs.now import NOW
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.storage import FolderStorage, Storage
from pyrmute_tasks.service.logged_job import Told, told_at_a_glance

__all__ = ["Driver", "DriverSigns", "Neighbours"]

_QUIET_S: Final = 2.5  # now.json comes once a second, and a reason is told within three
_QUIET_LOG_S: Final = 7.0  # without it: a log is touched every five
_DRIVEN: Final = frozenset({LoggedState.RUNNING, LoggedState.PUBLISHING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Who drives a job.

    Attributes:
        host: The host.
        pid: The process.
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

    @property
    def is_missing(self) -> bool:
        """Whether it has ended, or is silent."""
        return self.is_gone or self.is_silent

    @property
    def is_silent(self) -> bool:
        """Whether more should have been heard of it."""
        return self.silent_s > (_QUIET_S if self.tells else _QUIET_LOG_S)


class DriverSigns:
    """Signs of life of a job's driver.

    The first look compares this host's clock with the storage's; later ones only whether anything
    has changed, so that clocks which differ do not matter.

    Args:
        storage: The job's files.
        clock: Seconds since 1970.
        monotonic: A clock that is never set.
    """

    def __init__(
        self, storage: Storage, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._storage = storage
        self._clock, self._monotonic = clock, monotonic
        self._seen: dict[str, tuple[int, float]] = {}  # when a file was changed; when it was then

    def look(self, told: Told, *, tells: bool) -> Driver | None:
        """Return who drives the job, or takes it over; None if nobody does.

        Args:
            told: What its log tells.
            tells: Whether there is a ``now.json`` of this epoch.

        Raises:
            FileNotFoundError: If the job was discarded.
        """
        newest = max(epochs(self._storage), default=0)
        if newest == told.epoch and told.state not in _DRIVEN:
            return None
        holder = holder_of(self._storage, newest)
        silent_s = self._age_s(log_name(newest))
        if tells:
            with contextlib.suppress(FileNotFoundError):
                silent_s = min(silent_s, self._age_s(NOW))
        pid = holder.get("pid", 0)
        return Driver(
            host=str(holder.get("host", "?")),
            pid=pid if isinstance(pid, int) else 0,
            who=str(holder.get("who", "?")),
            epoch=newest,
            silent_s=silent_s,
            tells=tells,
            is_gone=is_gone(holder),
        )

    def _age_s(self, name: str) -> float:
        """Return for how long a file was not changed."""
        changed, now = self._storage.changed_ns(name), self._monotonic()
        earlier = self._seen.get(name)
        if earlier is None:
            self._seen[name] = (changed, now - max(0.0, self._clock() - changed / 1e9))
        elif earlier[0] != changed:
            self._seen[name] = (changed, now)
        return now - self._seen[name][1]


class Neighbours:
    """The other jobs of a jobs root, as far as a job waits for them.

    Args:
        root: The jobs root.
        clock: Seconds since 1970.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self._clock = clock
        self._driven: frozenset[str] | None = None

    def driven(self, job: str) -> int:
        """Return how many other jobs are being driven."""
        if self._driven is None:
            self._driven = frozenset(self._find_driven())
        return len(self._driven - {job})

    def _find_driven(self) -> list[str]:
        found = []
        for name in os.listdir(self.root):
            with contextlib.suppress(OSError):
                age_s = self._clock() - os.stat(self.root / name / NOW).st_mtime
                if age_s <= _QUIET_S:
                    found.append(name)
        return found

    def waits_for(self, job: str) -> str:
        """Return, as a sentence, that a job waits for the end of another one; or empty."""
        if not job:
            return ""
        path = self.root / job
        if not (path / SPEC).is_file():
            return f"it waits for job {job}, which is not there any more"
        try:
            state = told_at_a_glance(FolderStorage(path)).state
        except (JobError, OSError):
            return f"it waits for job {job}, whose log cannot be read"
        if state in (LoggedState.SUCCEEDED, LoggedState.SUCCEEDED_WITH_REJECTS):
            return ""
        is_so = "has failed" if state is LoggedState.FAILED else f"is {state}"
        return f"it waits for job {job} to succeed, which {is_so}"
