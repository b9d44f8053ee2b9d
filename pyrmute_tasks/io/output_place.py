"""The place of an output: a file, behind its links, or a stream; and whether it may be written."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError

__all__ = [
    "Place",
    "check_output",
    "is_parts",
    "is_stream",
    "output_errors",
    "parts_path",
    "sync_directory",
]

_MOST_LINKS: Final = 40
_REFUSED: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
)
_OWN_DESCRIPTORS: Final = re.compile(r"/dev/fd|/proc/(\d+)(/task/\d+)?/fd")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an output.

    Attributes:
        path: The path without links.
        descriptor: A descriptor already open in this process, as of ``/dev/stdout``.
        found: The existing file; None for a new one.
    """

    path: Path
    descriptor: int | None
    found: os.stat_result | None

    @property
    def is_stream(self) -> bool:
        """Whether the output is written at once, and not replaced."""
        is_file = self.found is None or stat.S_ISREG(self.found.st_mode)
        return self.descriptor is not None or not is_file


def check_output(
    target: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    overwrite: bool = True,
) -> Place:
    """Resolve an output, and refuse one that must not be written.

    Raises:
        ConfigurationError: If it is a directory, a socket or a block device, the source, or a
            file that exists and must not be overwritten.
    """
    with output_errors(target):
        place = _find(target)
    if place.found is None:
        return place
    if place.descriptor is None:
        for is_kind, what in _REFUSED:
            if is_kind(place.found.st_mode):
                raise ConfigurationError(f"cannot write {os.fspath(target)}: it is {what}")
    if source is not None and not stat.S_ISCHR(place.found.st_mode) and _is(place.found, source):
        raise ConfigurationError(
            f"cannot write {os.fspath(target)}: it is the same file as {os.fspath(source)}, which "
            "is read; write to another file"
        )
    if not place.is_stream and not overwrite:
        raise ConfigurationError(
            f"cannot write {os.fspath(target)}: it exists; add --overwrite (overwrite=True in "
            "Python) to replace it, or name another output"
        )
    return place


def is_parts(target: str | os.PathLike[str]) -> bool:
    """Return whether a target is a folder of parts: it is one already, or ends with a slash."""
    name = os.fspath(target)
    return name.endswith("/") or os.path.isdir(name)


def parts_path(target: str | os.PathLike[str]) -> Path:
    """Return a folder of parts without links."""
    return Path(os.path.realpath(os.fspath(target).rstrip("/") or "/"))


def is_stream(target: str | os.PathLike[str]) -> bool:
    """Return whether an output is written at once; False if that is unknown."""
    try:
        return _find(target).is_stream
    except OSError:
        return False


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: If the file system cannot.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def output_errors(target: str | os.PathLike[str]) -> Iterator[None]:
    """Convert the system's errors to errors that name the output as the user named it.

    Raises:
        ConfigurationError: In place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {os.fspath(target)}: {error.strerror or error}"
        ) from None


def _find(target: str | os.PathLike[str]) -> Place:
    if os.fspath(target).endswith("/"):  # `Path` would take it for the file without the slash
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    path = Path.cwd() / target
    for _ in range(_MOST_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name  # `resolve` raises at a loop
        descriptor = _descriptor_of(path)
        if descriptor is not None:
            return Place(path, descriptor, os.fstat(descriptor))
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    try:
        return Place(path, None, path.stat())
    except FileNotFoundError:
        return Place(path, None, None)


def _descriptor_of(path: Path) -> int | None:
    """Return the descriptor of this process that a path names, as ``/proc/self/fd/1`` does."""
    match = _OWN_DESCRIPTORS.fullmatch(str(path.parent))
    if match is None or not path.name.isdecimal() or match[1] not in {None, str(os.getpid())}:
        return None
    return int(path.name)


def _is(found: os.stat_result, source: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(found, os.stat(source))
    except OSError:
        return False  # told where it is opened
