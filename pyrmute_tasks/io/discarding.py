"""Discarding submitted jobs: when it is refused, what is noted, and what is left if it fails."""

import contextlib
import errno
import time
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.discarded import Discarded, note_discarded
from pyrmute_tasks.jobs.driver import DriverWatch, this_process, this_user
from pyrmute_tasks.jobs.entries import Note
from pyrmute_tasks.jobs.folder import JobFolder, discard, is_damage, view_of
from pyrmute_tasks.jobs.lease import reserved
from pyrmute_tasks.jobs.log import epochs
from pyrmute_tasks.jobs.pruning import remove_temps, retried_jobs
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.jobs.states import shown
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import Want, read_submitted

__all__ = ["discard_submitted", "read_job", "refuse_driven"]

_DAMAGED: Final = "damaged"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def read_job(path: Path) -> JobFolder | None:
    """Return a job; None if it is damaged, so that it can be removed without being read.

    Raises:
        JobError: If it cannot be read now, or is none: it may well be driven.
    """
    try:
        return JobFolder(path)
    except JobError as error:
        if not is_damage(error):
            raise
        return None


def discard_submitted(path: Path, folder: JobFolder | None, why: str) -> None:
    """Remove a submitted job with its history, and note in its jobs root who did that.

    If it fails, the job is in the state in which it was. On a full disk it is removed first, and
    that is noted when there is room.

    Args:
        path: Its folder.
        folder: The job; None if its spec is damaged.
        why: The reason, for people.

    Raises:
        JobError: If somebody drives it, another job retries its rejects, or it cannot be read.
        OSError: If something cannot be written or removed.
    """
    newest = max(epochs(FolderStorage(path)), default=0)
    view = _view(path)
    if view is not None:
        _refuse(path, folder, view)
    note = _discarded(path, folder, view, why)
    has_room = True
    with contextlib.ExitStack() as stack:
        try:
            if folder is not None and view is not None and not view.state.is_final:
                stack.enter_context(reserved(folder.storage, this_process(), newest))
            note_discarded(path.parent, note)  # by who is the only one to remove it
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            has_room = False  # nor has who would take it meanwhile
        _remove(path, folder)
    if not has_room:
        with contextlib.suppress(OSError):
            note_discarded(path.parent, note)


def refuse_driven(folder: JobFolder, view: JobView) -> None:
    """Refuse a submitted job that somebody drives.

    Args:
        folder: The job.
        view: The current view of its logs.

    Raises:
        JobError: If somebody does.
    """
    if folder.spec.terms is None or view.state.is_final:
        return  # the driver of a run holds its target's lock, and nobody drives an ended job
    # A log that was not opened says nothing, and perhaps no coordinator ever opens the next one:
    # this look alone must tell whether its creator lives. To be wrong is safe, as for any taker.
    clock = None if view.state.is_driven else time.time
    driver = DriverWatch(folder.storage, clock=clock).why_not(view)
    if driver:
        job = folder.spec.job
        raise JobError(f"{driver}: `pyrmute-tasks cancel {job}` or `pause {job}` ends that first")


def _view(path: Path) -> JobView | None:
    """Return a job by its logs; None if they are damaged."""
    try:
        return view_of(path)
    except JobError as error:
        if not is_damage(error):
            raise
        return None


def _refuse(path: Path, folder: JobFolder | None, view: JobView) -> None:
    if folder is not None:
        refuse_driven(folder, view)
    elif not view.state.is_final:
        # Without a spec no command can stop its driver: its log's time alone tells of one.
        driver = DriverWatch(FolderStorage(path), clock=time.time).why_not(view)
        if driver:
            raise JobError(f"{driver}, and its {SPEC} is damaged: end that process first")
    if path.name in retried_jobs(path.parent):
        raise JobError(
            f"a job that has not ended retries the rejects of job {path.name}, and is compared "
            "with it before it replaces the output: wait for it, or cancel it"
        )


def _remove(path: Path, folder: JobFolder | None) -> None:
    if folder is not None:
        remove_temps(folder)
    discard(path)


def _discarded(path: Path, folder: JobFolder | None, view: JobView | None, why: str) -> Discarded:
    terms = None if folder is None else folder.spec.terms
    return Discarded(
        job=path.name,
        name="" if terms is None else terms.name,
        state=_DAMAGED if folder is None or view is None else _state_of(folder, view),
        who=this_user(),
        at=time.time(),
        why=why,
    )


def _state_of(folder: JobFolder, view: JobView) -> str:
    """Return the state of a job that nobody drives, as people are shown it."""
    if view.is_held:
        return Note.HELD.value
    wish = read_submitted(folder.storage, Want.of_logged(view.wished)).want.wish
    return shown(view.state, wish, is_suspended=view.is_suspended).value
