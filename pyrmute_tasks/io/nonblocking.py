"""Open files whose descriptor does not block: waiting until one can go on.

Python's own files take a moment without data for the end, and one without room for an error.
"""

import io
import os
import select
import stat
from typing import Any

__all__ = ["WaitingReader", "nonblocking_descriptor", "wait_until_readable", "wait_until_writable"]


def nonblocking_descriptor(file: object) -> int | None:
    """Return the descriptor of an open file if it does not block; None if it does, or has none."""
    try:
        descriptor: int = file.fileno()  # type: ignore[attr-defined]  # it may have none
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return None if is_regular or os.get_blocking(descriptor) else descriptor
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def wait_until_readable(descriptor: int) -> None:
    """Wait until there is something to read, or the end."""
    _wait(descriptor, select.POLLIN)


def wait_until_writable(descriptor: int) -> None:
    """Wait until something can be written, or the reader is gone."""
    _wait(descriptor, select.POLLOUT)


def _wait(descriptor: int, event: int) -> None:
    poll = select.poll()  # `select.select` knows the first 1,024 descriptors only
    poll.register(descriptor, event)
    poll.poll()


class WaitingReader(io.RawIOBase):
    """Reads a binary file whose descriptor does not block, as if it did; does not close it.

    Args:
        file: The file.
        descriptor: Its descriptor.
    """

    def __init__(self, file: Any, descriptor: int) -> None:
        self._read = getattr(file, "read1", file.read)
        self._descriptor = descriptor

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read the available bytes, at least one; wait if there are none."""
        # A buffered file may hold some of it, and tells an empty pipe and its end alike.
        read = self._read(len(buffer))
        while not read:
            wait_until_readable(self._descriptor)
            read = self._read(len(buffer))
            if read is not None:
                break
        buffer[: len(read)] = read
        return len(read)
