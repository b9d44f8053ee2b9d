"""Attempts: the files that workers write the outputs of a range to."""

import contextlib
import os
import secrets
from hashlib import blake2b
from typing import BinaryIO, Final

from pyrmute_tasks.jobs.names import NONCE

__all__ = ["DIGEST_BYTES", "Attempt", "attempt_name", "read_nonce", "write_probe"]

DIGEST_BYTES: Final = 16
_TOKEN_BYTES: Final = 8
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_NONCE_BYTES: Final = 64


def attempt_name(part: str) -> str:
    """Return an unguessable name for an attempt of a part."""
    return f"{part.replace(':', '.')}-{secrets.token_hex(_TOKEN_BYTES)}"


def read_nonce(folder: int) -> str:
    """Open and read the nonce in a folder; empty if there is none.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        descriptor = os.open(NONCE, _READ, dir_fd=folder)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MOST_NONCE_BYTES).decode("ascii", errors="replace")


def write_probe(folder: int) -> None:
    """Create and remove a file, as an attempt will be.

    Raises:
        OSError: If that fails.
    """
    name = attempt_name("probe")
    descriptor = os.open(name, _CREATE, 0o666, dir_fd=folder)
    try:
        os.write(descriptor, b"?")
    finally:
        os.close(descriptor)
        os.unlink(name, dir_fd=folder)


class Attempt:
    """An attempt to write a range's outputs; it counts only if the settled outcome names it.

    The file is created with the first outputs.

    Args:
        folder: Descriptor of the job's folder.
        part: The part's key.
    """

    def __init__(self, folder: int, part: str) -> None:
        self._folder = folder
        self._new_name = attempt_name(part)
        self._file: BinaryIO | None = None
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self.size_bytes: int = 0

    @property
    def name(self) -> str:
        """The file's name; empty as long as there are no outputs."""
        return self._new_name if self._file is not None else ""

    @property
    def digest(self) -> str:
        """Digest of the written outputs; empty as long as there are none."""
        return self._digest.hexdigest() if self._file is not None else ""

    def write(self, lines: bytes) -> None:
        """Append outputs.

        Raises:
            OSError: If they cannot be written.
        """
        if not lines:
            return
        if self._file is None:
            descriptor = os.open(self._new_name, _CREATE, 0o666, dir_fd=self._folder)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
        left = memoryview(lines)
        while left:
            left = left[self._file.write(left) :]
        self._digest.update(lines)
        self.size_bytes += len(lines)

    def finish(self) -> None:
        """Make the file, and its name, durable.

        Raises:
            OSError: If that fails.
        """
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()  # a network file system tells here what it could not write
            os.fsync(self._folder)

    def discard(self) -> None:
        """Remove the file, whose name has not been reported."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._new_name, dir_fd=self._folder)
