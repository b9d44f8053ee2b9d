# Above 400 lines: one life from creating a directory to removing it.
"""The directory of a job: creating, finding, taking, pruning and discarding it.

A job of a local target lives beside it in ``.<OUT>.job``, others in a jobs root. A directory is a
job when it has a ``spec.json``; it appears with it, by being renamed, and ceases to be one in one
step, too.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from pyrmute_tasks.errors import (
    ConfigurationError,
    JobError,
    JobExistsError,
    JobLogError,
    JobNotFoundError,
    ProofError,
)
from pyrmute_tasks.jobs.copying import size_of_lines
from pyrmute_tasks.jobs.discarded import was_discarded
from pyrmute_tasks.jobs.entries import Ended, JobResult, Logged, Piece, Settled
from pyrmute_tasks.jobs.glance import glance_at
from pyrmute_tasks.jobs.lease import Lease, take
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.names import NONCE, beside, beside_retry
from pyrmute_tasks.jobs.spec import JOB_ID, SPEC, Spec, read_spec, write_spec
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import WANT, Want, write_want

__all__ = [
    "NONCE",
    "ON_END",
    "PARTS",
    "Append",
    "End",
    "JobFolder",
    "beside",
    "beside_retry",
    "discard",
    "is_damage",
    "remove_leftovers",
    "view_of",
]

PARTS: Final = "parts"
"""Name of the folder of a job in which workers write their attempts."""

ON_END: Final = "on-end"
"""Name of the lock for running the command for a job's end; with its epoch, of the note of that."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REJECTS_TOLD: Final = "rejects-told"
_TOKEN_BYTES: Final = 8
_NONCE_BYTES: Final = 16
_REMOVALS: Final = 5
_ODD: Final = (errno.EISDIR, errno.EINVAL, errno.ELOOP)  # a folder, a pipe, a link, and no file
_KEPT: Final = re.compile(r"spec\.json|want\.json|(?:log|rejects|on-end)\.\d+|\.on-end\..*")
_GROWING: Final = re.compile(r"(?:stream|rejects)\.(\d+)")


Append: TypeAlias = Callable[[int, int, int], None]
"""Appends bytes of a file to another: its descriptor, how many, and where they begin."""


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
            raise _no_job(path) from None
        except OSError as error:
            raise _unreadable(path / SPEC, error) from error

    @classmethod
    def create(
        cls,
        path: Path,
        spec: Spec,
        *,
        is_private: bool = True,
        mode: int = 0o711,
        want: Want | None = None,
    ) -> "JobFolder":
        """Create a job atomically.

        Args:
            path: The directory.
            spec: The job's spec.
            is_private: Nobody else may look into it; otherwise workers of other users may write
                attempts.
            mode: Mode of a directory that is not private.
            want: Users' first wishes for it; None for none.

        Raises:
            JobExistsError: If there is one.
            OSError: If the directory cannot be written.
        """
        if not JOB_ID.fullmatch(spec.job):
            raise ConfigurationError(f"a job cannot have the id {spec.job!r}")
        candidate = _sibling(path, "new")
        try:
            candidate.mkdir(mode=0o700)
            parts = candidate / PARTS
            parts.mkdir()
            if not is_private:
                candidate.chmod(mode)
                # Of a group's jobs root any of the group removes the others' attempts in the end.
                parts.chmod(mode if mode & stat.S_IWGRP else 0o1777)
            (parts / NONCE).write_text(secrets.token_hex(_NONCE_BYTES), "ascii")
            write_spec(FolderStorage(candidate), spec)
            if want is not None:
                write_want(FolderStorage(candidate), want)
                for name in (SPEC, WANT, f"{PARTS}/{NONCE}"):  # whatever the submitter's umask is
                    (candidate / name).chmod(mode & 0o666)
            candidate.rename(path)  # never over a job, since that is not empty
        except BaseException as error:
            shutil.rmtree(candidate, ignore_errors=True)
            if isinstance(error, OSError) and path.exists():
                raise JobExistsError(f"there is a job in {path} already") from error
            raise
        FolderStorage(path.parent).sync_folder()
        return cls(path)

    def take(
        self, holder: Mapping[str, str | int], code: str, *, after: int | None = None
    ) -> Lease:
        """Take the lease of the job, even from a living holder; see `lease.take`.

        Raises:
            LeaseLostError: If another process was quicker.
            JobError: If the job has ended for ever.
        """
        end = self.end()
        if end is not None and end.ended.result is not JobResult.FAILED:
            raise JobError(f"job {self.spec.job} has ended: {end.ended.result}")
        return take(self.storage, holder, code, after=after)

    def view(self) -> JobView:
        """Return the current state by the logs; for processes that do not drive the job.

        Raises:
            JobNotFoundError: If it was discarded.
            JobLogError: If the logs are damaged.
            JobError: If they cannot be read.
        """
        return view_of(self.path)

    def end(self) -> End | None:
        """Return how the job ended, from the last line alone; None if it has not.

        A log without a whole last line, or with another one, has not ended.
        """
        last = self.last()
        if last is None or not isinstance(last.entry, Ended):
            return None
        return End(last.entry, last.at)

    def last(self) -> Logged | None:
        """Return the last entry that counts, read alone; None if the log ends in half a line."""
        try:
            found = glance_at(self.storage)
        except FileNotFoundError:
            raise  # it was discarded, or its storage is away
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return None if found is None else found.last

    @property
    def parts_path(self) -> Path:
        """Where workers write their attempts."""
        return self.path / PARTS

    @property
    def nonce(self) -> str:
        """What workers find there, to prove that they see it."""
        return self.storage.read(f"{PARTS}/{NONCE}").decode("ascii")

    def copy(self, piece: Piece, append: Append) -> None:
        """Append a piece of one of the job's files to another file.

        Args:
            piece: What to append.
            append: Appends a file's bytes: given its descriptor, how many, and where they begin.

        Raises:
            OSError: If it cannot be read or written, or is not whole.
        """
        with self._opened(piece) as source:
            append(source, piece.length, piece.offset)

    def first_lines(self, piece: Piece, count: int) -> Piece:
        """Return the first lines of a piece that begins its file.

        Raises:
            OSError: If it cannot be read, or holds fewer.
        """
        with self._opened(piece) as source:
            return piece._replace(length=size_of_lines(source, count))

    @contextlib.contextmanager
    def _opened(self, piece: Piece) -> Iterator[int]:
        path = self.path / piece.name
        try:
            descriptor = os.open(path, _READ)
        except OSError as error:
            raise OSError(error.errno, f"{path}: {error.strerror}") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size < piece.offset + piece.length:
                raise ProofError(
                    f"{path} is not what was written: it has {found.st_size} "
                    f"bytes instead of {piece.offset + piece.length}; nothing was published"
                )
            yield descriptor
        finally:
            os.close(descriptor)

    @property
    def has_told_rejects(self) -> bool:
        """Whether `tell_rejects` was called, until the job is finished."""
        return _REJECTS_TOLD in self.storage.names()

    def tell_rejects(self) -> None:
        """Note durably that the job's rejects are about to be published.

        Raises:
            OSError: If it cannot be written.
        """
        if not self.has_told_rejects:
            self.storage.create(_REJECTS_TOLD).close()
            self.storage.sync_folder()

    def remove_orphans(self, lease: Lease) -> None:
        """Remove what older epochs wrote and no entry names: nothing of it will ever count.

        Call this with the lease, before its first range.
        """
        named = {
            piece.name
            for logged in History(self.storage)
            if isinstance(logged.entry, Settled)
            for piece in (logged.entry.put, logged.entry.rejects)
            if piece is not None
        }
        attempts = (f"{PARTS}/{name}" for name in self.storage.names(PARTS) if name != NONCE)
        grown = (name for name in self.storage.names() if _is_older(name, lease.epoch))
        for name in {*attempts, *grown} - named:
            self.storage.remove(name)

    def has_succeeded(self) -> bool:
        """Whether the job's output was published, so that its outputs here count no more."""
        end = self.end()
        return end is not None and end.ended.result.is_success

    def has_ended_for_ever(self) -> bool:
        """Whether the job's output was published, or the job was cancelled."""
        end = self.end()
        return end is not None and end.ended.result is not JobResult.FAILED

    def finish(self) -> None:
        """Remove all of a published job but its history and rejects; discard it if it has none.

        Raises:
            OSError: If files cannot be removed.
        """
        end = self.end()
        if end is None or not end.ended.rejected:
            self.discard()
        else:
            self.keep_history()

    def keep_history(self) -> None:
        """Remove all of a job that has ended for ever but its history and its rejects.

        Raises:
            OSError: If files cannot be removed.
        """
        for path in sorted(self.path.iterdir(), key=lambda each: each.name == PARTS):  # it is last
            if path.is_dir():  # of attempts, or a folder of parts in the making
                _remove_tree(path)
            elif not _KEPT.fullmatch(path.name) and not path.name.startswith(f".{WANT}."):
                path.unlink(missing_ok=True)  # a wish that is being written is still to be renamed

    def discard(self) -> None:
        """Remove the job and all its files; from its first moment on it is no job any more."""
        discard(self.path)


def discard(path: Path) -> None:
    """Remove a job's directory, whatever can be read of it.

    Raises:
        JobNotFoundError: If it is none.
        OSError: If it cannot be removed.
    """
    if not os.path.lexists(path / SPEC):
        raise _no_job(path)
    gone = _sibling(path, "gone")
    path.rename(gone)
    FolderStorage(path.parent).sync_folder()
    _remove_tree(gone)


def _remove_tree(path: Path) -> None:
    """Remove a folder, also if a worker that does not know yet begins another attempt in it."""
    for _ in range(_REMOVALS):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
            return
    if path.exists():  # else another process removes it, too
        shutil.rmtree(path)


def _unreadable(path: Path, error: OSError) -> JobError:
    what = error.filename or path
    return JobError(f"{what} cannot be read: {error.strerror or type(error).__name__}")


def _no_job(path: Path) -> JobNotFoundError:
    told = ""
    if os.path.lexists(path):  # it may be anybody's, so it is not removed
        told = f": {SPEC} is missing; move or remove what is there, and begin again"
    return JobNotFoundError(f"there is no job in {path}{told}")


def view_of(path: Path) -> JobView:
    """Return the current state of a job by its logs, also if its spec is damaged.

    Raises:
        JobNotFoundError: If it was discarded.
        JobLogError: If the logs are damaged.
        JobError: If they cannot be read.
    """
    try:
        return JobView.of(History(FolderStorage(path)))
    except FileNotFoundError as error:
        raise was_discarded(path, error.filename or "") from None
    except OSError as error:
        raise _unreadable(path, error) from error


def is_damage(error: JobError) -> bool:
    """Return whether an error is about damaged files, and not about ones that are away for now."""
    cause = error.__cause__
    return cause.errno in _ODD if isinstance(cause, OSError) else isinstance(error, JobLogError)


def remove_leftovers(path: Path) -> None:
    """Remove what creating or discarding a job left when it was killed.

    Only for who alone may create the job.
    """
    name = re.compile(rf"{re.escape(_hidden(path))}\.[0-9a-f]+\.(?:new|gone)")
    with contextlib.suppress(OSError):  # one may be allowed to write into a folder, not to read it
        for each in list(path.parent.iterdir()):
            if name.fullmatch(each.name):
                shutil.rmtree(each, ignore_errors=True)


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f"{_hidden(path)}.{secrets.token_hex(_TOKEN_BYTES)}.{kind}")


def _hidden(path: Path) -> str:
    return path.name if path.name.startswith(".") else f".{path.name}"


def _is_older(name: str, epoch: int) -> bool:
    grown = _GROWING.fullmatch(name)
    return grown is not None and int(grown[1]) < epoch
