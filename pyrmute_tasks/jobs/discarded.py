"""What remains of a discarded job in its jobs root: who discarded it, where, when and why."""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobError, JobNotFoundError, printable
from pyrmute_tasks.jobs.documents import object_of, write_whole
from pyrmute_tasks.jobs.storage import FolderStorage

__all__ = ["Discarded", "find_discarded", "note_discarded", "remove_old_notes", "was_discarded"]

_SUFFIX: Final = ".discarded"
_MOST_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """A job that was discarded.

    Attributes:
        job: Its id.
        name: What people called it; empty for nothing.
        state: Its state until then, as it was shown to people.
        who: Who discarded it, as ``user@host``.
        at: When, in seconds since 1970.
        why: The reason given.
    """

    job: str
    name: str
    state: str
    who: str
    at: float
    why: str

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.at))
        why = f": {self.why}" if self.why else ""
        told = f"job {self.job} was discarded by {self.who} at {when}, when it was {self.state}"
        return printable(told + why)


def note_discarded(root: Path, discarded: Discarded) -> None:
    """Note durably, in its jobs root, that a job is about to be discarded.

    While the job's folder is there, since discarding it has failed, the note counts for nothing.
    All who can read the jobs root can read the note, whatever the umask of this user.

    Raises:
        OSError: If it cannot be written.
    """
    name = f".{discarded.job}{_SUFFIX}"
    write_whole(FolderStorage(root), name, asdict(discarded))
    with contextlib.suppress(OSError):  # another user may have replaced it by now
        (root / name).chmod(root.stat().st_mode & 0o666)


def was_discarded(path: Path, missing: str = "") -> JobError:
    """Return the error about a job whose folder is not there, or lacks a file, or is out of reach.

    Args:
        path: Its folder.
        missing: The file that is missing, as far as that is known.
    """
    if os.path.lexists(path) or not path.parent.is_dir():
        # Another process has removed it in this moment, or all of the storage is away.
        return JobError(f"{missing or path} cannot be read: {os.strerror(errno.ENOENT)}")
    found = _read(path.with_name(f".{path.name}{_SUFFIX}"))
    return JobNotFoundError(str(found or f"job {path.name} was discarded"))


def find_discarded(root: Path, wanted: str) -> Discarded | None:
    """Return the last discarded job with this id, the beginning of it, or this name."""
    found = [each for each in _all(root) if each.name == wanted or each.job.startswith(wanted)]
    return max(found, key=lambda each: each.at, default=None)


def remove_old_notes(root: Path, keep_s: float, now: float) -> None:
    """Remove the notes of what was discarded long ago."""
    for path in root.glob(f".*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # that of another user, perhaps
            if now - path.lstat().st_mtime > keep_s:
                path.unlink(missing_ok=True)


def _all(root: Path) -> Iterator[Discarded]:
    with contextlib.suppress(OSError):
        for path in root.glob(f".*{_SUFFIX}"):
            found, job = _read(path), path.name.removeprefix(".").removesuffix(_SUFFIX)
            # Who was about to discard a job that is there was killed, or could not.
            if found is not None and not os.path.lexists(root / job):
                yield found


def _read(path: Path) -> Discarded | None:
    try:
        found = object_of(FolderStorage(path.parent).read(path.name, 0, _MOST_BYTES))
        noted = Discarded(**found)  # type: ignore[arg-type]  # looked at below
        return noted if _is_sound(noted) else None
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None  # foreign, torn, or not there


def _is_sound(noted: Discarded) -> bool:
    texts = (noted.job, noted.name, noted.state, noted.who, noted.why)
    return all(isinstance(each, str) for each in texts) and bool(time.gmtime(noted.at))
