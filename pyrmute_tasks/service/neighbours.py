"""Finding out which other jobs of its jobs root a job waits for, and whether anybody drives it."""

import contextlib
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyrmute_tasks.engine.job_progress import seconds
from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.entries import Note
from pyrmute_tasks.jobs.now import NOW
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.want import Want, read_want
from pyrmute_tasks.service.beats import Beats, BeatWatch
from pyrmute_tasks.service.embedded_coordinators import EMBEDDED
from pyrmute_tasks.service.logged_job import glance_status

__all__ = ["Neighbours"]

_LATELY_S: Final = 2.5  # now.json comes once a second
_MOST_QUEUES: Final = 3
_OPEN: Final = "is open for this jobs root: one goes on when it submits or finds a job"
_START: Final = "pyrmute-tasks coordinator"


class Neighbours:
    """The jobs of a jobs root, for which one of them may wait.

    Args:
        root: The jobs root.
        clock: Seconds since 1970.
        beats: The signs of life of its coordinators, if somebody watches them.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.time,
        beats: BeatWatch | None = None,
    ) -> None:
        self.root = root
        self._clock = clock
        self._beats = beats or BeatWatch(root, clock)
        self._seen: Beats | None = None
        self._driven: frozenset[str] | None = None

    def driven(self, job: str) -> int:
        """Return how many other jobs are being driven."""
        if self._driven is None:
            self._driven = frozenset(self._find_driven())
        return len(self._driven - {job})

    def without_coordinator(self, job: str, queue: str) -> str:
        """Return, as a sentence, that no coordinator drives jobs of a queue; or empty.

        Args:
            job: The job that asks.
            queue: Its queue; empty for any.
        """
        if self._seen is None:
            try:
                self._seen = self._beats.look()
            except OSError:  # nobody can tell
                self._seen = Beats(0.0, None)
        seen = self._seen
        if seen.serve(queue):
            return ""
        if queue.startswith(EMBEDDED):  # no coordinator of a running fleet helps
            manager = queue.removeprefix(EMBEDDED)
            return (
                ""
                if self.driven(job)
                else f"no Migrator with an embedded fleet of '{manager}' {_OPEN}"
            )
        if not seen.is_silent:
            others = " and ".join(f"'{each}'" for each in sorted(seen.queues or ())[:_MOST_QUEUES])
            start = f"`{_START} --queue {shlex.quote(queue)}`"
            return f"coordinators run for queue {others} only, and not for '{queue}': start {start}"
        if self.driven(job):
            return ""  # their clock differs from this host's
        if seen.silent_s is None:
            return f"no coordinator was ever seen at this jobs root: start `{_START}`"
        ago = f"last seen {seconds(seen.silent_s)} ago"
        return f"no coordinator runs for this jobs root ({ago}): start `{_START}`"

    def _find_driven(self) -> list[str]:
        found = []
        for name in os.listdir(self.root):
            with contextlib.suppress(OSError):
                age_s = self._clock() - os.stat(self.root / name / NOW).st_mtime
                if age_s <= _LATELY_S:
                    found.append(name)
        return found

    def waits_for(self, job: str) -> str:
        """Return, as a sentence, that a job waits for the end of another one; or empty."""
        if not job:
            return ""
        path = self.root / job
        if not (path / SPEC).is_file():
            return f"it waits for job {job}, which is not there any more: cancel this one"
        try:
            logged = glance_status(FolderStorage(path))
        except (JobError, OSError):
            return f"it waits for job {job}, whose log cannot be read"
        if logged.ended is not None and logged.ended.result.is_success:
            return ""
        told = f"it waits for job {job} to succeed, which "
        match logged.state:
            case LoggedState.FAILED:
                return f"{told}has failed: `pyrmute-tasks resume {job}` goes on with that one"
            case LoggedState.CANCELLED:
                return f"{told}is cancelled: cancel this one, too"
            case LoggedState.STOPPED:
                return f"{told}is {_aside(path, logged.let_go)}"
        return f"{told}is {logged.state}"


def _aside(folder: Path, let_go: Note | None) -> str:
    """Return what a job is that nobody drives: paused, suspended, held, or stopped."""
    if read_want(FolderStorage(folder), Want()).want.wish is Wish.PAUSE:
        return "paused"
    return str(let_go or Note.STOPPED)
