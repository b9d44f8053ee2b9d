"""A file system of a test's own: moved away, made read-only, filled, or hidden from one worker.

It is mounted in a mount namespace that ends with the threads and processes in it, so nothing stays
mounted, however these end. It needs root.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.fleets.namespaces import check, libc

__all__ = ["can_mount", "filled", "moved_away", "own_mounts", "read_only", "with_tmpfs"]

_CLONE_NEWNS: Final = 0x20000
_BLOCK: Final = bytes(1 << 16)


@contextmanager
def own_mounts() -> Iterator[None]:
    """Give this thread mounts of its own, and the threads and processes that it starts."""
    home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    folder = Path.cwd()
    try:
        check(libc().unshare(_CLONE_NEWNS))
        _run("mount", "--make-rprivate", "/")
        try:
            yield
        finally:
            check(libc().setns(home, _CLONE_NEWNS))
            os.chdir(folder)  # it is in the root now
    finally:
        os.close(home)


@contextmanager
def with_tmpfs(path: Path, size_bytes: int) -> Iterator[None]:
    """Mount an empty file system of a size, for a block."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "tmpfs", str(path))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(path))


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    """Unmount a file system for a block: in its place is the empty folder below it."""
    away = path.with_name(f"{path.name}-away")
    away.mkdir(exist_ok=True)
    _run("mount", "--move", str(path), str(away))
    try:
        yield
    finally:
        _run("mount", "--move", str(away), str(path))


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a folder read-only for a block, for all who open a file in it from now on."""
    _run("mount", "--bind", str(path), str(path))
    try:
        _run("mount", "-o", "remount,ro,bind", str(path))
        yield
    finally:
        _run("umount", "--lazy", str(path))


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Fill the file system of a folder for a block, up to its last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (len(_BLOCK), 1):
            with contextlib.suppress(OSError):
                while file.write(_BLOCK[:size]):
                    pass
    try:
        yield
    finally:
        filler.unlink()


def can_mount() -> bool:
    """Whether this process may have mounts of its own."""
    try:
        with own_mounts():
            return True
    except (OSError, subprocess.SubprocessError):
        return False


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
