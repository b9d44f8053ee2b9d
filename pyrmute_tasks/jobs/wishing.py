"""Writing users' wishes for a job, with who, where, when and why."""

import contextlib
import time
from dataclasses import replace
from typing import Final

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.jobs.checked import MOST
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import WANT, Want, write_want

__all__ = ["signed", "write_wish"]

_LATER_S: Final = 0.001


def signed(want: Want, view: JobView, why: str, who: str) -> Want:
    """Return wishes with who has them, when and why.

    Args:
        want: The wishes.
        view: The job by its log, than which they are later, whatever the clock of its writer.
        why: The reason, for people.
        who: The user, as ``user@host``.
    """
    at = max(time.time(), view.changed_at + _LATER_S, want.at + _LATER_S)
    return replace(want, who=who, why=why, at=min(at, MOST))


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
