"""Appending one file to another within the kernel, where possible, and syncing it meanwhile."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

__all__ = ["SyncAhead", "append", "size_of_lines"]

_BLOCK_BYTES: Final = 1024 * 1024
_COPY_BYTES: Final = 8 * 1024 * 1024  # no call takes long, so that it can be ended between two
_SYNC_BYTES: Final = 8 * 1024 * 1024
# Of calls that this system, or these two file systems, do not have.
_CANNOT: Final = {
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EPERM,
}


def append(
    target: int,
    source: int,
    size_bytes: int,
    offset: int = 0,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Append bytes of a file to another, at that one's offset.

    Args:
        target: Descriptor to write to.
        source: Descriptor of a regular file.
        size_bytes: How many; there must be as many.
        offset: Where they begin.
        check: Called before each block; raises to end it in between.

    Raises:
        OSError: If they cannot be read or written, or there are fewer.
    """
    done = 0
    for copy in _ways():
        try:
            while done < size_bytes:
                check()
                copied = copy(target, source, offset + done, min(size_bytes - done, _COPY_BYTES))
                if not copied:
                    break
                done += copied
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        if done == size_bytes:
            return
    raise OSError(errno.EIO, "a file was truncated while it was copied")


def size_of_lines(source: int, count: int) -> int:
    """Return the size of the first `count` lines of a file.

    Raises:
        OSError: If it cannot be read, or holds fewer.
    """
    begin = 0
    while count:
        block = os.pread(source, _BLOCK_BYTES, begin)
        if not block:
            raise OSError(errno.EIO, "a file was truncated while it was copied")
        lines = block.count(b"\n")
        if lines < count:
            count -= lines
            begin += len(block)
            continue
        end = 0
        for _ in range(count):
            end = block.index(b"\n", end) + 1
        return begin + end
    return 0


def _ways() -> list[Callable[[int, int, int, int], int]]:
    kernel: list[Callable[[int, int, int, int], int]] = []
    if hasattr(os, "copy_file_range"):  # Linux
        kernel.append(_copy_file_range)
        kernel.append(os.sendfile)
    return [*kernel, _read_and_write]


def _copy_file_range(target: int, source: int, offset: int, count: int) -> int:
    return os.copy_file_range(source, target, count, offset)


def _read_and_write(target: int, source: int, offset: int, count: int) -> int:
    left = memoryview(os.pread(source, min(count, _BLOCK_BYTES), offset))
    copied = len(left)
    while left:
        left = left[os.write(target, left) :]
    return copied


class SyncAhead:
    """Syncs a growing file in another thread, so that the last sync is quick.

    Args:
        descriptor: The file's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._sync: Future[None] | None = None
        self._unsynced_bytes = 0

    def wrote(self, size_bytes: int) -> None:
        """Sync what was written, if it is much by now and no other sync is running.

        Raises:
            OSError: If an earlier sync has failed.
        """
        self._unsynced_bytes += size_bytes
        if self._unsynced_bytes < _SYNC_BYTES:
            return
        if self._sync is not None:
            if not self._sync.done():
                return
            self._sync.result()
        self._unsynced_bytes = 0
        self._sync = self._threads.submit(os.fsync, self._descriptor)

    def finish(self) -> None:
        """Make all that was written durable.

        Raises:
            OSError: If this sync or an earlier one fails.
        """
        if self._sync is not None:
            self._sync.result()
        os.fsync(self._descriptor)

    def close(self, close: Callable[[], object], *, wait: bool = False) -> None:
        """Close the file behind a sync that still runs, so that its descriptor is no other file's.

        Args:
            close: Closes it.
            wait: Wait until it is closed.
        """
        self._threads.submit(close)
        self._threads.shutdown(wait=wait)
