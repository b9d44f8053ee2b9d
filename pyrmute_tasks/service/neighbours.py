"""Finding out which other jobs of its jobs root a job waits for."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.now import NOW
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.service.logged_job import glance_status

__all__ = ["Neighbours"]

_LATELY_S: Final = 2.5  # now.json comes once a second


class Neighbours:
    """The jobs of a jobs root, for which one of them may wait.

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
                if age_s <= _LATELY_S:
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
            logged = glance_status(FolderStorage(path))
        except (JobError, OSError):
            return f"it waits for job {job}, whose log cannot be read"
        if logged.ended is not None and logged.ended.result.is_success:
            return ""
        is_so = "has failed" if logged.state is LoggedState.FAILED else f"is {logged.state}"
        return f"it waits for job {job} to succeed, which {is_so}"
