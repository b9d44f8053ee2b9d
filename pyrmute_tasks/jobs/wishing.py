"""Writing users' wishes for a job: one user at a time, each with who, where, when and why."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import WANT, Want, read_want, write_want

__all__ = ["locked", "signed", "want_of", "write_wish"]

_LOCK_S: Final = 2.0  # a change takes milliseconds: who holds it longer is frozen
_LOCK_PAUSE_S: Final = 0.01
_LATER_S: Final = 0.001


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep others from changing a job's wishes meanwhile, as far as that can be done.

    Where a file system has no such locks, or their holder is frozen, the last of two changes in one
    moment stands.
    """
    with contextlib.ExitStack() as stack:
        # It is not there, or has no such locks: who reads or writes in it is told.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            _lock(descriptor)
        yield


def _lock(descriptor: int) -> None:
    until = time.monotonic() + _LOCK_S
    while time.monotonic() < until:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


def want_of(folder: JobFolder, view: JobView) -> Want:
    """Return the wishes in force: those of the file or, if it cannot be used, of the log.

    Args:
        folder: The job.
        view: The job by its log.
    """
    found = read_want(folder.storage, Want())
    return Want.of_logged(view.wished) if found.problem else found.want


def signed(want: Want, view: JobView, why: str, who: str) -> Want:
    """Return wishes with who has them, when and why.

    Args:
        want: The wishes.
        view: The job by its log, than which they are later, whatever the clock of its writer.
        why: The reason, for people.
        who: The user, as ``user@host``.
    """
    at = max(time.time(), view.changed_at + _LATER_S, want.at + _LATER_S)
    return replace(want, who=who, why=why, at=at)


def write_wish(folder: JobFolder, want: Want) -> None:
    """Replace the wishes for a job, which others may read whatever the umask of this user is.

    To be called while they are `locked`.

    Raises:
        ConfigurationError: If this user may not steer the job, or it cannot be written.
    """
    path = folder.path / WANT
    try:
        write_want(folder.storage, want)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror}; all users who can write to the jobs root can "
            "steer its jobs"
        ) from None
    with contextlib.suppress(OSError):  # it may be another user's by now
        path.chmod(folder.path.stat().st_mode & 0o666)
