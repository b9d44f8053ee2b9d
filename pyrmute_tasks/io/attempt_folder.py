"""The hidden folder beside a target to which workers write their attempts."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.output_place import output_errors
from pyrmute_tasks.ranges.attempts import NONCE
from pyrmute_tasks.ranges.frames import Piece

__all__ = ["AttemptFolder"]

_NONCE_BYTES: Final = 16
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES: Final = 10  # of removing it, while a worker may create one more file


class AttemptFolder:
    """A folder of attempts, created and removed by its context, with all of them.

    Args:
        path: Where; nothing may be there.
        is_private: Nobody else may look into it; workers run as the same user.

    Attributes:
        path: Where it is.
        nonce: What workers find in it, to prove that they see it.
    """

    def __init__(self, path: Path, *, is_private: bool = True) -> None:
        self.path = path
        self._mode = 0o700 if is_private else 0o777
        self.nonce: str = secrets.token_hex(_NONCE_BYTES)
        self._pid = os.getpid()
        self._folder = -1  # the one that was made, whatever has its name by now

    def __enter__(self) -> Self:
        """Create the folder.

        Raises:
            ConfigurationError: If it cannot be made.
        """
        with output_errors(self.path):
            self.path.mkdir(self._mode)
            try:
                self._folder = os.open(self.path, _FOLDER)
                descriptor = os.open(NONCE, _CREATE, 0o644, dir_fd=self._folder)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(self.nonce.encode("ascii"))
            except BaseException:  # nobody leaves what was not entered; as on a full disk
                self._remove()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        if os.getpid() != self._pid:
            return  # a fork owns nothing
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
        for _ in range(_TRIES):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return

    def path_of(self, piece: Piece) -> Path:
        """Return the path of a piece's attempt."""
        return self.path / piece.attempt

    @contextmanager
    def opened(self, piece: Piece) -> Iterator[int]:
        """Open a piece's attempt.

        Raises:
            ConfigurationError: If it is not what its worker told.
        """
        path = self.path_of(piece)
        with output_errors(path):
            descriptor = os.open(piece.attempt, _READ, dir_fd=self._folder)
            try:
                self._check(os.fstat(descriptor), piece)
                yield descriptor
            finally:
                os.close(descriptor)

    def move(self, piece: Piece, target: Path) -> None:
        """Move a piece's attempt, if it is as its worker reported it.

        Raises:
            ConfigurationError: If it is not.
            OSError: If it cannot be moved.
        """
        found = os.stat(piece.attempt, dir_fd=self._folder, follow_symlinks=False)
        self._check(found, piece)
        os.rename(piece.attempt, target, src_dir_fd=self._folder)

    def _check(self, found: os.stat_result, piece: Piece) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_size != piece.size_bytes:
            raise ConfigurationError(
                f"the attempt {self.path_of(piece)} is not what its worker wrote: "
                f"{found.st_size} bytes instead of {piece.size_bytes}; nothing was published"
            )

    def remove(self, piece: Piece) -> None:
        """Remove a piece's attempt, which is no longer needed."""
        with suppress(OSError):
            os.unlink(piece.attempt, dir_fd=self._folder)
