"""The names of what stands beside an output."""

import hashlib
import os
from pathlib import Path
from typing import Final

__all__ = ["NONCE", "beside", "beside_retry", "short_name"]

NONCE: Final = "nonce"
"""Name of the file among a job's attempts that workers open to prove that they see it."""

_LONGEST_NAME_BYTES: Final = 180  # file systems allow 255, and a token and endings are added


def beside(target: str | os.PathLike[str]) -> Path:
    """Return the job folder of a local target."""
    path = Path(target)
    return path.with_name(f".{short_name(path.name)}.job")


def beside_retry(target: str | os.PathLike[str]) -> Path:
    """Return the folder of the job that retries the one of a local target."""
    path = Path(target)
    return path.with_name(f".{short_name(path.name)}.retry.job")


def short_name(name: str) -> str:
    """Return how the names of all files beside an output begin."""
    raw = os.fsencode(name)
    if len(raw) <= _LONGEST_NAME_BYTES:
        return name
    digest = hashlib.blake2b(raw, digest_size=8).hexdigest()
    return os.fsdecode(raw[: _LONGEST_NAME_BYTES - len(digest)]) + digest
