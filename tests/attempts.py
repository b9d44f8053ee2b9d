"""A folder in which a worker may write attempts, as a job's folder has one."""

import secrets
from pathlib import Path

from pyrmute_tasks.jobs.folder import NONCE
from pyrmute_tasks.ranges.frames import Piece

__all__ = ["Attempts"]


class Attempts:
    """A folder of attempts, with its nonce.

    Args:
        path: Where; nothing may be there.

    Attributes:
        path: Where it is.
        nonce: What workers find in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nonce = secrets.token_hex(16)
        path.mkdir()
        (path / NONCE).write_text(self.nonce)

    def path_of(self, piece: Piece) -> Path:
        """Return the path of a piece's attempt."""
        return self.path / piece.attempt
