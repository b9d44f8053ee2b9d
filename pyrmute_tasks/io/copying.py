"""Appending one file to another within the kernel, where possible."""

import errno
import os
from collections.abc import Callable
from typing import Final

__all__ = ["append"]

_BLOCK_BYTES: Final = 1024 * 1024
# Of calls that this system, or these two file systems, do not have.
_CANNOT: Final = {
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EPERM,
}


def append(target: int, source: int, size_bytes: int) -> None:
    """Append the first bytes of a file to another, at that one's offset.

    Args:
        target: Descriptor to write to.
        source: Descriptor of a regular file.
        size_bytes: How many; there must be as many.

    Raises:
        OSError: If they cannot be read or written.
    """
    done = 0
    for copy in _ways():
        try:
            while done < size_bytes:
                copied = copy(target, source, done, size_bytes - done)
                if not copied:
                    break
                done += copied
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        if done == size_bytes:
            return
    raise OSError(errno.EIO, "a file was truncated while it was copied")


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
