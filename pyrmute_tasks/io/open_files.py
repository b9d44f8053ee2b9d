"""Files opened by the caller: read from their position, written as results come, not closed.

Binary and text files of any kind will do, also compressed ones, pipes and files in memory.
"""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.nonblocking import (
    WaitingReader,
    nonblocking_descriptor,
    wait_until_writable,
)
from pyrmute_tasks.io.output_place import output_errors

__all__ = [
    "OpenOutput",
    "OpenSource",
    "ReadableFile",
    "SourceFile",
    "TargetFile",
    "WritableFile",
    "refuse_same_file",
]


class ReadableFile(Protocol):
    """An open file to read, binary or text."""

    def read(self, size: int = ..., /) -> bytes | str:
        """Read up to `size` bytes or characters.

        Args:
            size: The most to read.

        Returns:
            The data; empty at the end.
        """
        ...

    def readline(self, size: int = ..., /) -> bytes | str:
        """Read to the end of the line.

        Args:
            size: The most to read.

        Returns:
            The line; empty at the end.
        """
        ...


class WritableFile(Protocol):
    """An open file to write to, binary or text."""

    def write(self, data: Any, /) -> object:
        """Write `data`.

        Args:
            data: Bytes, or text to a text file.

        Returns:
            The size of the written data.
        """
        ...


SourceFile: TypeAlias = str | os.PathLike[str] | ReadableFile
"""A file to read: its path, or the open file."""

TargetFile: TypeAlias = str | os.PathLike[str] | WritableFile
"""A file to write: its path, or the open file."""


class OpenSource:
    """An open file to read, as bytes.

    Args:
        file: The file.

    Attributes:
        name: Its name, for messages.
        left_bytes: Bytes left in it; None if unknown.
        may_block: Whether reading may wait for somebody who writes.

    Raises:
        ConfigurationError: If it is no open file, or a text file over a descriptor that does not
            block.
    """

    def __init__(self, file: ReadableFile) -> None:
        _check_open("source", file, ("read", "readline"))
        self.name: str = _name_of(file)
        self._file = file = _blocking(file)
        self.left_bytes: int | None = _left_bytes(file)
        self.may_block: bool = _may_block(file)
        read_what_is_there = getattr(file, "read1", None) if self.may_block else None
        self._read: Callable[[int], bytes | str] = read_what_is_there or file.read
        self._error: Exception | None = None

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes or characters; what was read before an error comes first."""
        if self._error is not None:
            raise self._error
        read_some = None if self.may_block else getattr(self._file, "read1", None)
        if read_some is None:
            return _encoded(self._read(size))
        # `read` of a compressed file that is cut off would lose what stands before its end.
        parts: list[bytes] = []
        left = size
        try:
            while left > 0 and (part := _encoded(read_some(left))):
                parts.append(part)
                left -= len(part)
        except Exception as error:
            if not parts:
                raise
            self._error = error
        return b"".join(parts)

    def readline(self) -> bytes:
        """Read to the end of the line."""
        if self._error is not None:
            raise self._error
        return _encoded(self._file.readline())

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line


class OpenOutput:
    """An open file that takes lines as they are ready; a context manager that does not close it.

    Args:
        file: The file.

    Raises:
        ConfigurationError: If it is no open file, or a text file over a descriptor that does not
            block.
    """

    kept_path: Path | None = None

    def __init__(self, file: WritableFile) -> None:
        _check_open("target", file, ("write",))
        self._file = file
        self._name = _name_of(file)
        descriptor = nonblocking_descriptor(file)
        if descriptor is not None and _is_text(file):  # which drops what finds no room
            raise _refused("write", file, descriptor)

    def __enter__(self) -> Self:
        return self

    def write(self, lines: bytes | memoryview) -> None:
        """Write whole lines.

        Raises:
            ConfigurationError: If they cannot be written.
        """
        with output_errors(self._name):
            if _is_text(self._file):
                self._write_text(bytes(lines).decode())
                return
            left = memoryview(lines)
            while left:
                left = left[self._write_some(left) :]

    def commit(self) -> None:
        """Flush the file.

        Raises:
            ConfigurationError: If that fails.
        """
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            with output_errors(self._name):
                self._flush(flush)

    def __exit__(self, *_: object) -> None:
        """Leave the file open."""

    def _write_text(self, text: str) -> None:
        try:
            self._file.write(text)
        except UnicodeEncodeError as error:  # which holds the records
            raise ConfigurationError(
                f"cannot write {self._name}: its encoding, {error.encoding}, lacks a character of "
                "the outputs; open it with encoding='utf-8'"
            ) from None

    def _write_some(self, data: memoryview) -> int:
        try:
            written = self._file.write(data)
        except BlockingIOError as error:  # of a buffered file, which has taken a part
            written = error.characters_written or None
        if written is None:
            descriptor = nonblocking_descriptor(self._file)
            if descriptor is None:
                return len(data)  # it does not tell
            wait_until_writable(descriptor)
            return 0
        if not isinstance(written, int):
            return len(data)
        if written <= 0:
            raise OSError(errno.EIO, "it takes nothing")
        return written

    def _flush(self, flush: Callable[[], object]) -> None:
        while True:
            try:
                flush()
            except BlockingIOError:
                descriptor = nonblocking_descriptor(self._file)
                if descriptor is None:
                    raise
                wait_until_writable(descriptor)
            else:
                return


def _check_open(role: str, file: object, methods: Sequence[str]) -> None:
    if not all(callable(getattr(file, method, None)) for method in methods):
        raise ConfigurationError(
            f"the {role} must be a path or an open file, not a {type(file).__name__}; records that "
            "are in memory are for migrate_batch"
        )
    if getattr(file, "closed", False) is True:
        raise ConfigurationError(f"the {role}, {_name_of(file)}, is a file that is closed")


def refuse_same_file(source: SourceFile, target: TargetFile) -> None:
    """Refuse to write to the source file.

    Raises:
        ConfigurationError: If both are the same regular file.
    """
    read, written = _stat_of(source), _stat_of(target)
    if read is None or written is None or not stat.S_ISREG(read.st_mode):
        return
    if os.path.samestat(read, written):
        raise ConfigurationError(
            f"cannot write {_name_of(target)}: it is the file that is read; write to another file"
        )


def _stat_of(file: object) -> os.stat_result | None:
    try:
        if isinstance(file, (str, os.PathLike)):
            return os.stat(file)
        return os.fstat(file.fileno())  # type: ignore[attr-defined]  # it may have none
    except (AttributeError, OSError, ValueError):
        return None  # in memory, or told where it is opened


def _left_bytes(file: object) -> int | None:
    if hasattr(file, "peek") and not hasattr(file, "raw"):
        return None  # a compressed file tells the size of what is on the disk
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found = os.fstat(file.fileno())  # type: ignore[attr-defined]  # it may have none
        if stat.S_ISREG(found.st_mode) and not _is_text(file):
            return max(0, found.st_size - int(file.tell()))  # type: ignore[attr-defined]  # as above
    return None


def _may_block(file: object) -> bool:
    if isinstance(file, (io.BytesIO, io.StringIO)):
        return False
    found = _stat_of(file)
    return found is None or not stat.S_ISREG(found.st_mode)


def _blocking(file: ReadableFile) -> ReadableFile:
    descriptor = nonblocking_descriptor(file)
    if descriptor is None:
        return file
    if _is_text(file):  # which takes a moment without data for the end
        raise _refused("read", file, descriptor)
    return io.BufferedReader(WaitingReader(file, descriptor))


def _refused(verb: str, file: object, descriptor: int) -> ConfigurationError:
    return ConfigurationError(
        f"cannot {verb} {_name_of(file)}: its descriptor does not block; give the binary file, or "
        f"call os.set_blocking({descriptor}, True) first"
    )


def _is_text(file: object) -> bool:
    return hasattr(file, "encoding")


def _encoded(read: bytes | str | None) -> bytes:
    if read is None:
        raise BlockingIOError(errno.EAGAIN, "it does not block, and has no descriptor to wait for")
    # What a text file could not decode is reported for the record that holds it, with its line.
    return read.encode("utf-8", "surrogateescape") if isinstance(read, str) else bytes(read)


def _name_of(file: object) -> str:
    if isinstance(file, (str, os.PathLike)):
        return os.fspath(file)
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else f"<{type(file).__name__}>"
