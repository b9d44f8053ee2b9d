"""The file operations a job's folder needs, and their implementation on a real directory.

All that must survive a crash goes through these calls, so that the rules of the log can be tested
on a simulated disk that loses whatever was not synced.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

__all__ = ["NO_LINKS", "Appender", "FolderStorage", "Storage"]

NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
)
"""What is answered where there are no hard links, as between two file systems."""

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Appender(Protocol):
    """A file created by this process, for appending."""

    def append(self, data: bytes | memoryview, /) -> None:
        """Write all of `data` at the end."""
        ...

    def sync(self) -> None:
        """Make the appended data durable."""
        ...

    def close(self) -> None:
        """Close the file, without a sync; closing twice does nothing."""
        ...


class Storage(Protocol):
    """The files of one job, by names relative to its folder."""

    def create(self, name: str, /) -> Appender:
        """Create a file; its name is durable after `sync_folder`.

        Raises:
            FileExistsError: If there is one.
        """
        ...

    def read(self, name: str, start: int = 0, length: int | None = None, /) -> bytes:
        """Return up to `length` bytes from `start` on, all of them if there are as many."""
        ...

    def size(self, name: str, /) -> int:
        """Return a file's size in bytes."""
        ...

    def sync(self, name: str, /) -> None:
        """Make a file's readable content durable, even if another process wrote it."""
        ...

    def link(self, name: str, new: str, /) -> None:
        """Give a file a second name.

        Raises:
            FileExistsError: If the new name is taken; it is never replaced.
        """
        ...

    def replace(self, name: str, new: str, /) -> None:
        """Rename a file, over another one if there is one."""
        ...

    def remove(self, name: str, /) -> None:
        """Remove a name."""
        ...

    def names(self, folder: str = "", /) -> list[str]:
        """Return the names in a folder, as they are now."""
        ...

    def sync_folder(self, folder: str = "", /) -> None:
        """Make a folder's names durable."""
        ...

    def touch(self, name: str, /) -> None:
        """Set a file's time of change to now."""
        ...

    def changed_ns(self, name: str, /) -> int:
        """Return a file's time of change, by the storage's clock."""
        ...


class FolderStorage:
    """A job's files in a directory, on a local or a network file system.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, name: str, /) -> "OpenFile":
        """Create a file for appending."""
        return OpenFile(os.open(self.path / name, _CREATE, 0o666))

    def read(self, name: str, start: int = 0, length: int | None = None, /) -> bytes:
        """Return bytes of a file."""
        with self._opened(name) as descriptor:
            size = os.fstat(descriptor).st_size
            end = size if length is None else min(size, start + length)
            pieces = []
            while start < end:
                piece = os.pread(descriptor, end - start, start)
                if not piece:
                    break
                pieces.append(piece)
                start += len(piece)
            return b"".join(pieces)

    def size(self, name: str, /) -> int:
        """Return a file's size; it is opened, since some network file systems only then look."""
        with self._opened(name) as descriptor:
            return os.fstat(descriptor).st_size

    def sync(self, name: str, /) -> None:
        """Sync a file."""
        with self._opened(name) as descriptor:
            os.fsync(descriptor)

    def link(self, name: str, new: str, /) -> None:
        """Make a hard link."""
        os.link(self.path / name, self.path / new, follow_symlinks=False)

    def replace(self, name: str, new: str, /) -> None:
        """Rename a file."""
        (self.path / name).replace(self.path / new)

    def remove(self, name: str, /) -> None:
        """Unlink a file."""
        (self.path / name).unlink()

    def names(self, folder: str = "", /) -> list[str]:
        """List a directory; opened each time, so that network file systems ask their server."""
        return os.listdir(self.path / folder)

    def sync_folder(self, folder: str = "", /) -> None:
        """Sync a directory, where the file system can."""
        try:
            descriptor = os.open(self.path / folder, _FOLDER)
        except PermissionError:  # one may be allowed to write into a folder, and not to read it
            return
        try:
            with contextlib.suppress(OSError):  # those that cannot keep names in order themselves
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def touch(self, name: str, /) -> None:
        """Touch a file."""
        os.utime(self.path / name, follow_symlinks=False)

    def changed_ns(self, name: str, /) -> int:
        """Return a file's mtime."""
        with self._opened(name) as descriptor:
            return os.fstat(descriptor).st_mtime_ns

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        path = self.path / name
        descriptor = os.open(path, _READ)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
                raise OSError(number, os.strerror(number), str(path))
            yield descriptor
        finally:
            os.close(descriptor)


class OpenFile:
    """A file open for appending.

    Args:
        descriptor: Its descriptor, which this closes.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytes | memoryview, /) -> None:
        """Write all of `data`."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def sync(self) -> None:
        """Sync the written data."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
