"""Removing old jobs from a jobs root, and what killed processes have left there."""

import contextlib
import re
import shutil
import time
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.folder import find_jobs

__all__ = ["KEEP_HISTORY_S", "collect_orphans", "prune"]

KEEP_HISTORY_S: Final = 30 * 86400.0
"""How long an ended job is kept in a jobs root."""

_LEFT: Final = re.compile(r"\..+\.[0-9a-f]+\.(?:new|gone)")
_ORPHANED_S: Final = 3600.0


def prune(root: Path, keep_s: float = KEEP_HISTORY_S, now: float | None = None) -> list[str]:
    """Discard the jobs of a jobs root that ended long ago; return their ids."""
    now = time.time() if now is None else now
    gone = []
    for folder in list(find_jobs(root)):
        end = folder.end()
        if end is not None and now - end.at > keep_s:
            folder.discard()
            gone.append(folder.spec.job)
    return gone


def collect_orphans(root: Path, now: float | None = None) -> None:
    """Remove what killed processes have left in a jobs root.

    That is jobs that were being created or discarded an hour ago, and attempts of jobs that have
    ended for ever.
    """
    now = time.time() if now is None else now
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            if _LEFT.fullmatch(path.name) and now - path.lstat().st_mtime > _ORPHANED_S:
                shutil.rmtree(path, ignore_errors=True)
    for folder in find_jobs(root):
        with contextlib.suppress(OSError, JobError):  # as its driver does it in this moment
            if folder.parts_path.is_dir() and folder.has_ended_for_ever():
                folder.keep_history()
