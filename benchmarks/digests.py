"""Outputs as short texts, to see whether two runs made the same.

A digest that begins with ``sha256:`` is of lines in their order, one that begins with
``lines:`` of the same lines in any order.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_DIGEST_BYTES: Final = 16
_READ_BYTES: Final = 1024 * 1024


def of_file(path: Path) -> str:
    """Return the digest of a file's bytes."""
    return of_parts([path])


def of_parts(paths: Iterable[Path]) -> str:
    """Return the digest of the file that is cut into these."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def of_texts(texts: Iterable[str]) -> str:
    """Return the digest of the file that would hold these texts as lines."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{text}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def in_any_order(paths: Iterable[Path]) -> str:
    """Return the digest of all lines of some files, wherever they stand."""
    total = count = 0
    for line in _lines(paths):
        found = hashlib.blake2b(line, digest_size=_DIGEST_BYTES).digest()
        total += int.from_bytes(found, "big")
        count += 1
    return f"lines:{count}:{total % 2 ** (8 * _DIGEST_BYTES):032x}"


def _lines(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")
