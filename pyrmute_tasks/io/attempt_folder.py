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

    def __enter__(self) -> Self:
        """Create the folder.

        Raises:
            ConfigurationError: If it cannot be made.
        """
        with output_errors(self.path):
            self.path.mkdir(self._mode)
            (self.path / NONCE).write_text(self.nonce, encoding="ascii")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
            descriptor = os.open(path, _READ)
            try:
                self._check(os.fstat(descriptor), piece)
                yield descriptor
            finally:
                os.close(descriptor)

    def check(self, piece: Piece) -> None:
        """Check that a piece's attempt is as its worker reported it.

        Raises:
            ConfigurationError: If it is not.
        """
        with output_errors(self.path_of(piece)):
            self._check(self.path_of(piece).lstat(), piece)

    def _check(self, found: os.stat_result, piece: Piece) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_size != piece.size_bytes:
            raise ConfigurationError(
                f"the attempt {self.path_of(piece)} is not what its worker wrote: "
                f"{found.st_size} bytes instead of {piece.size_bytes}; nothing was published"
            )

    def remove(self, piece: Piece) -> None:
        """Remove a piece's attempt, which is no longer needed."""
        with suppress(OSError):
            self.path_of(piece).unlink()
