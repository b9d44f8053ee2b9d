"""The directory of a job: creating, finding, taking, pruning and discarding it.

A job of a local target lives beside it in ``.<OUT>.job``, others in a jobs root. A directory is a
job when it has a ``spec.json``; it appears with it, by being renamed, and ceases to be one in one
step, too.
"""

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pyrmute_tasks.errors import (
    ConfigurationError,
    JobError,
    JobExistsError,
    JobNotFoundError,
    printable,
)
from pyrmute_tasks.jobs.entries import BadLineError, Ended, Piece, Range, Settled, decode
from pyrmute_tasks.jobs.lease import Lease, take
from pyrmute_tasks.jobs.log import History, epochs, log_name, newest_opened
from pyrmute_tasks.jobs.names import beside, short_name
from pyrmute_tasks.jobs.spec import SPEC, Spec, read_spec, write_spec
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.view import JobView

__all__ = [
    "KEEP_HISTORY_S",
    "End",
    "JobFolder",
    "beside",
    "discard",
    "find_jobs",
    "prune",
    "remove_leftovers",
    "short_name",
]

KEEP_HISTORY_S: Final = 30 * 86400.0
"""How long an ended job is kept in a jobs root."""

_PARTS: Final = "parts"
_REJECTS: Final = "rejects"
_TOKEN_BYTES: Final = 8
_LAST_LINE_BYTES: Final = 4096
_JOB: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_ATTEMPT: Final = re.compile(r"(\d+)-(\d+)-(\d+)\.(\d+)\.(\d+)")
_GROWING: Final = re.compile(r"(?:stream|rejects)\.(\d+)")


class End(NamedTuple):
    """The end of a job, and its time.

    Attributes:
        ended: The last entry of its log.
        at: When it was written, in seconds since 1970.
    """

    ended: Ended
    at: float


class JobFolder:
    """A job's directory.

    Args:
        path: The directory.

    Attributes:
        path: The directory.
        storage: Its files.
        spec: The job's spec.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.storage: FolderStorage = FolderStorage(path)
        try:
            self.spec: Spec = read_spec(self.storage)
        except (FileNotFoundError, NotADirectoryError):
            raise JobNotFoundError(f"there is no job in {path}") from None

    @classmethod
    def create(cls, path: Path, spec: Spec, mode: int = 0o700) -> "JobFolder":
        """Create a job atomically.

        Args:
            path: The directory.
            spec: The job's spec.
            mode: The directory's permissions; parts are records. Workers of other users need more.

        Raises:
            JobExistsError: If there is one.
            OSError: If the directory cannot be written.
        """
        if not _JOB.fullmatch(spec.job):
            raise ConfigurationError(f"a job cannot have the id {printable(spec.job)!r}")
        candidate = _sibling(path, "new")
        candidate.mkdir(mode=0o700)
        try:
            candidate.chmod(mode)
            for name in (_PARTS, _REJECTS):
                (candidate / name).mkdir()
            write_spec(FolderStorage(candidate), spec)
            candidate.rename(path)  # never over a job, since that is not empty
        except OSError as error:
            shutil.rmtree(candidate, ignore_errors=True)
            if path.exists():
                raise JobExistsError(f"there is a job in {path} already") from error
            raise
        FolderStorage(path.parent).sync_folder()
        return cls(path)

    def take(self, holder: Mapping[str, str | int], code: str) -> Lease:
        """Take the lease of the job, even from a living holder; see `lease.take`.

        Raises:
            LeaseLostError: If another process was quicker.
            JobError: If the job has ended for ever.
        """
        end = self.end()
        if end is not None and end.ended.result != "failed":
            raise JobError(f"job {self.spec.job} has ended: {end.ended.result}")
        return take(self.storage, holder, code)

    def view(self) -> JobView:
        """Return the current state by the logs; for processes that do not drive the job.

        Raises:
            JobNotFoundError: If it was discarded.
            JobLogError: If the logs are damaged.
        """
        try:
            return JobView.of(History(self.storage))
        except FileNotFoundError:
            raise JobNotFoundError(f"job {self.spec.job} was discarded") from None

    def end(self) -> End | None:
        """Return how the job ended, from the last line alone; None if it has not.

        A log without a whole last line, or with another one, has not ended.
        """
        opened = newest_opened(self.storage, epochs(self.storage))
        if opened is None:
            return None
        name = log_name(opened.epoch)
        size = self.storage.size(name)
        start = max(0, size - _LAST_LINE_BYTES)
        tail = self.storage.read(name, start, size - start)
        line = tail[tail.rfind(b"\n", 0, -1) + 1 :]
        try:
            logged = decode(line, opened.epoch, size - len(line))
        except BadLineError:
            return None
        return End(logged.entry, logged.at) if isinstance(logged.entry, Ended) else None

    def attempt(self, range_: Range, epoch: int, number: int) -> str:
        """Return the file name for one attempt to write a range's outputs."""
        return f"{_PARTS}/{_attempt(range_, epoch, number)}"

    def rejects_attempt(self, range_: Range, epoch: int, number: int) -> str:
        """Return the file name for the rejects of one attempt."""
        return f"{_REJECTS}/{_attempt(range_, epoch, number)}"

    def orphans(self, lease: Lease) -> Iterator[str]:
        """Yield files that no entry names and none ever will.

        These are attempts of older epochs, those of ranges that are settled, and what takers of
        the lease that died have left. To be asked by who has the lease, after a commit.
        """
        named = {
            piece.name
            for logged in History(self.storage)
            if isinstance(logged.entry, Settled)
            for piece in _pieces(logged.entry)
        }
        for folder in (_PARTS, _REJECTS):
            for name in self.storage.names(folder):
                found = _ATTEMPT.fullmatch(name.lstrip("."))
                if found is None or f"{folder}/{name}" in named:
                    continue
                file, start, end, epoch, _ = map(int, found.groups())
                settled = lease.fold.overlaps(Range(file, start, end))
                if epoch < lease.epoch or (epoch == lease.epoch and settled):
                    yield f"{folder}/{name}"
        for name in self.storage.names():
            grown = _GROWING.fullmatch(name)
            if grown is not None and int(grown[1]) < lease.epoch and name not in named:
                yield name

    def discard(self) -> None:
        """Remove the job and all its files; from its first moment on it is no job any more."""
        discard(self.path)


def discard(path: Path) -> None:
    """Remove a job's directory, whatever can be read of it.

    Raises:
        JobNotFoundError: If it is none.
        OSError: If it cannot be removed.
    """
    if not (path / SPEC).is_file():
        raise JobNotFoundError(f"there is no job in {path}")
    gone = _sibling(path, "gone")
    path.rename(gone)
    FolderStorage(path.parent).sync_folder()
    shutil.rmtree(gone)


def remove_leftovers(path: Path) -> None:
    """Remove what creating or discarding a job left when it was killed.

    Only for who alone may create the job.
    """
    name = re.compile(rf"{re.escape(_hidden(path))}\.[0-9a-f]+\.(?:new|gone)")
    with contextlib.suppress(OSError):  # one may be allowed to write into a folder, not to read it
        for each in list(path.parent.iterdir()):
            if name.fullmatch(each.name):
                shutil.rmtree(each, ignore_errors=True)


def find_jobs(root: Path) -> Iterator[JobFolder]:
    """Yield the jobs of a jobs root, by name; skips unreadable ones.

    Raises:
        OSError: If the root cannot be listed.
    """
    for path in sorted(root.iterdir()):
        if _JOB.fullmatch(path.name) and (path / SPEC).is_file():
            try:
                yield JobFolder(path)
            except (JobError, OSError):  # discarded in this moment, or of a newer version
                continue


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


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f"{_hidden(path)}.{secrets.token_hex(_TOKEN_BYTES)}.{kind}")


def _hidden(path: Path) -> str:
    return path.name if path.name.startswith(".") else f".{path.name}"


def _attempt(range_: Range, epoch: int, number: int) -> str:
    return f"{range_.file}-{range_.start}-{range_.end}.{epoch}.{number}"


def _pieces(entry: Settled) -> Iterator[Piece]:
    return (piece for piece in (entry.put, entry.rejects) if piece is not None)
