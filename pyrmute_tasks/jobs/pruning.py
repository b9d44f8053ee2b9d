"""Removing old jobs from a jobs root, and what killed processes have left there."""

import contextlib
import errno
import os
import re
import shutil
import time
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.discarded import remove_old_notes
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.publish_file import FilePublication
from pyrmute_tasks.jobs.publish_parts import PartsPublication
from pyrmute_tasks.jobs.root import find_jobs

__all__ = ["KEEP_HISTORY_S", "clear", "collect_orphans", "prune", "remove_temps", "retried_jobs"]

KEEP_HISTORY_S: Final = 30 * 86400.0
"""How long a jobs root keeps an ended job, and the note of a discarded one."""

_LEFT: Final = re.compile(r"\..+\.[0-9a-f]+\.(?:new|gone)|\.\..+\.discarded\.[0-9a-f]+")
_ORPHANED_S: Final = 3600.0
_NO_PLACE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def prune(root: Path, keep_s: float = KEEP_HISTORY_S, now: float | None = None) -> list[str]:
    """Remove the jobs of a jobs root that ended long ago; return their ids.

    So is what is noted of those that users discarded. A job stays while a retry of its rejects may
    still replace what it has published, and while another one waits for its end.
    """
    now = time.time() if now is None else now
    remove_old_notes(root, keep_s, now)
    ended, needed = [], retried_jobs(root)
    for folder in find_jobs(root):
        try:
            end = folder.end()
        except (OSError, JobError):  # damaged: `status` tells it; the others are still pruned
            continue
        if end is None and folder.spec.terms is not None:
            needed.add(folder.spec.terms.after)
        if end is not None and now - end.at > keep_s:
            ended.append(folder)
    gone = []
    for folder in ended:
        if folder.spec.job in needed:
            continue
        with contextlib.suppress(OSError, JobError):  # another coordinator was quicker
            remove_temps(folder)
            folder.discard()
            gone.append(folder.spec.job)
    return gone


def retried_jobs(root: Path) -> set[str]:
    """Return the jobs whose rejects are retried by others, which have not ended for ever."""
    found = set()
    for folder in find_jobs(root):
        if folder.spec.parents:
            with contextlib.suppress(OSError, JobError):
                if folder.has_ended_for_ever():
                    continue
            found.add(folder.spec.parents[-1].job)
    return found


def collect_orphans(root: Path, now: float | None = None) -> None:
    """Remove what killed processes have left in a jobs root.

    That is jobs that were being created or discarded an hour ago, half notes of that, and what jobs
    that have ended for ever have beside their history, and beside their targets.
    """
    now = time.time() if now is None else now
    for path in [each for each in root.iterdir() if _LEFT.fullmatch(each.name)]:
        with contextlib.suppress(OSError):  # that of another user, perhaps
            if now - path.lstat().st_mtime <= _ORPHANED_S:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    for folder in find_jobs(root):
        with contextlib.suppress(OSError, JobError):  # its driver may be removing the same
            if folder.parts_path.is_dir() and folder.has_ended_for_ever():
                clear(folder)


def clear(folder: JobFolder) -> None:
    """Remove all of a job that has ended for ever but its history; may be called again.

    Raises:
        OSError: If files cannot be removed.
    """
    remove_temps(folder)
    folder.keep_history()


def remove_temps(folder: JobFolder) -> None:
    """Remove what killed drivers of a job have left beside its target.

    Raises:
        OSError: If files cannot be removed.
    """
    target = Path(os.path.realpath(folder.spec.target))
    try:
        FilePublication(folder, target).remove_temps(keep=folder.path)
        PartsPublication(folder, target).remove_temps(keep=folder.path)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
