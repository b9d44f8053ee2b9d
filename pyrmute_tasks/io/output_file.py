"""Outputs: files that appear when they are whole, and streams that are written at once.

A file has one writer (see `output_lock`). Its lines go to a partial file beside it, whose name
nobody can guess and which is opened so that no link is followed; it takes the file's name at the
end, and has its mode and owner from the start. Where the target is a link, the file is replaced
that it leads to. A pipe, a terminal or ``/dev/stdout`` is not a regular file and cannot be
replaced: it is written to in order, without a lock.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TypeAlias

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.nonblocking import wait_until_writable
from pyrmute_tasks.io.open_files import OpenOutput, SourceFile, TargetFile, refuse_same_file
from pyrmute_tasks.io.output_lock import OutputLock
from pyrmute_tasks.io.output_place import (
    Place,
    check_output,
    output_errors,
    sync_directory,
)
from pyrmute_tasks.jobs.copying import SyncAhead

__all__ = [
    "Output",
    "OutputFile",
    "OutputStream",
    "cut_to_whole_lines",
    "keep_partial_file",
    "open_output",
    "take_after",
]

_TAIL_BYTES: Final = 64 * 1024
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_output(
    target: TargetFile,
    *,
    job: str,
    source: SourceFile | None = None,
    overwrite: bool = True,
    keep_partial: bool = False,
) -> "Output":
    """Return the output at `target`, to be entered before the job begins.

    Args:
        target: A path, or an open file.
        job: The job's id, for other runs that want to write there.
        source: The file that is read, which must be another one.
        overwrite: Replace a file that exists.
        keep_partial: Keep what was written to a file when the job fails.

    Raises:
        ConfigurationError: If it cannot be written, or must not be.
    """
    path = source if isinstance(source, (str, os.PathLike)) else None
    if source is not None and (path is None or not isinstance(target, (str, os.PathLike))):
        refuse_same_file(source, target)
    if not isinstance(target, (str, os.PathLike)):
        return OpenOutput(target)
    place = check_output(target, source=path, overwrite=overwrite)
    if place.is_stream:
        return OutputStream(target, place)
    return OutputFile(target, place, job, overwrite=overwrite, keep_partial=keep_partial)


class OutputFile:
    """A file that appears under its name only when it is whole.

    A context manager: entering takes the file's lock, and leaving gives it back. What was
    written then is removed unless `commit` has been called, or kept if asked to.

    Args:
        target: The file, as the user named it.
        place: Where it is.
        job: The job's id.
        overwrite: Replace a file that exists.
        keep_partial: Keep what was written when the job fails.

    Attributes:
        kept_path: The path of a kept partial output, once it is known; else None.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        place: Place,
        job: str,
        *,
        overwrite: bool = True,
        keep_partial: bool = False,
    ) -> None:
        self.kept_path: Path | None = None
        self._target = target
        self._path = place.path
        self._found = place.found
        self._overwrite = overwrite
        self._keep_partial = keep_partial
        self._lock = OutputLock(place.path, job)
        self._partial = self._lock.path_of("partial")
        self._file: IO[bytes] | None = None
        self._pid = os.getpid()
        self._ahead: SyncAhead | None = None
        self._is_committed = False

    def __enter__(self) -> Self:
        """Take the lock and create the partial file.

        Raises:
            OutputInUseError: If another run is writing this output.
            ConfigurationError: If the file cannot be written.
        """
        with output_errors(self._target):
            self._lock.acquire()
            try:
                self._file = self._create()
                self._ahead = SyncAhead(self._file.fileno())
            except BaseException:  # also if interrupted, when the file may be there already
                self._remove_partial()
                self._lock.release()
                raise
        return self

    def write(self, lines: bytes | memoryview) -> None:
        """Append whole lines.

        Raises:
            ConfigurationError: If they cannot be written, as on a full disk, or if another run
                has taken the output over.
        """
        assert self._file is not None
        assert self._ahead is not None
        self._lock.check()
        with output_errors(self._target):
            self._file.write(lines)
            self._ahead.wrote(len(lines))

    def commit(self) -> None:
        """Move the partial file to its final name.

        Raises:
            ConfigurationError: If it cannot be written, or must not be any more.
        """
        assert self._file is not None
        assert self._ahead is not None
        with output_errors(self._target):
            self._file.flush()
            self._ahead.finish()
            self._lock.confirm()
            self._publish()
            self._is_committed = True
            with contextlib.suppress(OSError):  # not every file system can
                sync_directory(self._path.parent)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid or self._file is None or self._ahead is None:
            return  # a fork owns nothing
        try:
            if not self._is_committed:
                self._keep_or_remove(self._file)
        finally:
            self._ahead.close(self._file.close, wait=self._is_committed or self._keep_partial)
            self._lock.release()

    # --- details ----------------------------------------------------------------------------

    def _create(self) -> IO[bytes]:
        found = self._found
        descriptor = os.open(self._partial, _CREATE, 0o666 if found is None else 0o600)
        try:
            if found is not None:
                take_after(descriptor, found, self._target)
            return os.fdopen(descriptor, "wb")
        except BaseException:
            os.close(descriptor)
            raise

    def _publish(self) -> None:
        if self._overwrite:
            self._partial.replace(self._path)
            return
        try:
            self._publish_new()
        except FileExistsError:
            self._keep_partial = True  # it is whole
            raise ConfigurationError(
                f"cannot write {os.fspath(self._target)}: it has appeared while this ran"
            ) from None

    def _publish_new(self) -> None:
        try:
            os.link(self._partial, self._path)  # unlike renaming, this replaces nothing
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(self._path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            self._partial.replace(self._path)
        else:
            self._partial.unlink()

    def _keep_or_remove(self, file: IO[bytes]) -> None:
        if not self._keep_partial:
            self._remove_partial()
            return
        with output_errors(self._target):
            with contextlib.suppress(OSError):  # of a full disk, what is there already
                file.flush()
            cut_to_whole_lines(file.fileno())
            self.kept_path = keep_partial_file(self._partial, self._path, self._lock.token)

    def _remove_partial(self) -> None:
        with contextlib.suppress(OSError):
            self._partial.unlink()


class OutputStream:
    """A pipe, a terminal or another device that takes lines as they come; a context manager.

    Args:
        target: The output as the user named it.
        place: Where it is.
    """

    kept_path: Path | None = None

    def __init__(self, target: str | os.PathLike[str], place: Place) -> None:
        self._target = target
        self._place = place
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Open the stream; waits for a reader of a named pipe.

        Raises:
            ConfigurationError: If it cannot be opened.
        """
        with output_errors(self._target):
            if self._place.descriptor is not None:
                self._descriptor = os.dup(self._place.descriptor)
            else:
                flags = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC
                self._descriptor = os.open(self._place.path, flags)
        return self

    def write(self, lines: bytes | memoryview) -> None:
        """Write whole lines.

        Raises:
            ConfigurationError: If nobody reads them any more.
        """
        left = memoryview(lines)
        with output_errors(self._target):
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # it was opened so
                    wait_until_writable(self._descriptor)

    def commit(self) -> None:
        """Do nothing: every line has been written."""

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def take_after(descriptor: int, found: os.stat_result, target: str | os.PathLike[str]) -> None:
    """Give a new file the mode and the owner of the file that it will replace.

    Raises:
        ConfigurationError: If this process may not give it to that owner.
    """
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (found.st_uid, found.st_gid):
        try:
            os.fchown(descriptor, found.st_uid, found.st_gid)
        except PermissionError:
            raise ConfigurationError(
                f"cannot write {os.fspath(target)}: it belongs to user {found.st_uid} "
                f"and group {found.st_gid}, which a new file of this process cannot; run as "
                "that user, or write to another file"
            ) from None
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))


def keep_partial_file(partial: Path, target: Path, token: str) -> Path:
    """Rename a partial output to ``<target>.partial``, and return its path."""
    kept = target.with_name(f"{target.name}.partial")
    if _is_in_the_way(kept):
        kept = target.with_name(f"{target.name}.{token}.partial")
    partial.replace(kept)
    return kept


Output: TypeAlias = OutputFile | OutputStream | OpenOutput
"""Where the lines of a job go."""


def cut_to_whole_lines(descriptor: int) -> None:
    """Remove what stands behind the last newline: a disk that is full takes half a line."""
    end = os.fstat(descriptor).st_size
    newline = -1
    while end and newline < 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start if newline < 0 else start + newline + 1
    os.ftruncate(descriptor, end)


def _is_in_the_way(path: Path) -> bool:
    """Return whether a file exists that no earlier run has left."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
