"""Folders that a worker may touch, and opening their files without following links."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["OutsideRootsError", "Roots", "allow"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class OutsideRootsError(Exception):
    """A path is in no root."""


def allow(listed_in: str, folders: Iterable[Path]) -> None:
    """Add folders to a file of roots."""
    known = _listed(listed_in)
    with open(listed_in, "ab", buffering=0) as file:
        for folder in map(os.fsencode, folders):
            if folder not in known:
                file.write(folder + b"\0")  # in one piece, so that others may do the same


def _listed(listed_in: str) -> list[bytes]:
    return list(filter(None, Path(listed_in).read_bytes().split(b"\0")))


class Roots:
    """The folders in which a worker reads and writes by reference.

    Args:
        roots: The folders; links in their paths are resolved.
        listed_in: A file to which `allow` adds more of them; empty for none.
    """

    def __init__(self, roots: Iterable[str] = (), listed_in: str = "") -> None:
        self._roots = [os.fsencode(root) for root in roots]
        self._listed_in = listed_in

    def __bool__(self) -> bool:
        return bool(self._roots or self._listed_in)

    @contextmanager
    def open_folder(self, path: bytes) -> Iterator[int]:
        """Open a folder.

        Raises:
            OutsideRootsError: If it lies in no root.
            OSError: If it cannot be opened.
        """
        descriptor = self._open(path, _FOLDER)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def open_file(self, path: bytes) -> int:
        """Open a file for reading, without blocking on one that is not regular.

        Raises:
            OutsideRootsError: If it lies in no root.
            OSError: If it cannot be opened.
        """
        return self._open(path, _FILE)

    def _open(self, path: bytes, flags: int) -> int:
        real = os.path.realpath(path)
        for root in self._all():
            base = os.path.realpath(root)
            if real == base or real.startswith(base.rstrip(b"/") + b"/"):
                return _open_below(base, os.path.relpath(real, base).split(b"/"), flags)
        raise OutsideRootsError

    def _all(self) -> list[bytes]:
        if not self._listed_in:
            return self._roots
        return [*self._roots, *_listed(self._listed_in)]


def _open_below(base: bytes, parts: list[bytes], flags: int) -> int:
    """Open a resolved path part by part, so that a link swapped in since is not followed."""
    *folders, name = parts
    at = os.open(base, _FOLDER)
    try:
        for folder in folders:
            below = os.open(folder, _FOLDER, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, flags, dir_fd=at)
    finally:
        os.close(at)
