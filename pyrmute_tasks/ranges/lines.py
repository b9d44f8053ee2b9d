"""Lines of a range: a line belongs to the range in which its first byte stands."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BufferedReader
from typing import Final

__all__ = [
    "BOM",
    "FileChangedError",
    "Line",
    "LineBlock",
    "drop_blank_lines",
    "first_line",
    "is_blank",
    "line_at",
    "line_of",
    "middle_line",
    "read_lines",
]

BOM: Final = b"\xef\xbb\xbf"
_BLOCK_BYTES: Final = 1024 * 1024  # a worker's memory, however long its range is
_SKIP_BYTES: Final = 64 * 1024
_MAYBE_BLANK: Final = re.compile(rb"\n[\n\r\t ]")


class FileChangedError(Exception):
    """A file is shorter or longer than planned: it is being written to."""


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines of a range, each ended by a newline.

    Attributes:
        offset: Where they begin in the file.
        text: The lines.
    """

    offset: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """The position of a line, without its text, as of one that is longer than allowed.

    Attributes:
        offset: Where it begins in the file.
        stop: The byte after its newline.
        length: Its bytes, without the newline.
        digest: SHA-256 of these bytes, hexadecimal.
        holds_record: It is not blank.
    """

    offset: int
    stop: int
    length: int
    digest: str
    holds_record: bool = True


def read_lines(
    file: BufferedReader, start: int, stop: int, size_bytes: int, max_line_bytes: int
) -> Iterator[LineBlock | Line]:
    """Read the lines that begin in an interval of a file, block by block.

    One that is too long comes alone and without its text.
    A byte order mark at the file's start is left out; a last line without a newline gets one.

    Args:
        file: The file, buffered.
        start: First byte of the interval.
        stop: The byte after the last one.
        size_bytes: The file's size.
        max_line_bytes: Longest line, with its newline.

    Raises:
        FileChangedError: If the file ends elsewhere than at `size_bytes`.
    """
    at = first_line(file, start, stop)
    if start == 0 and at:  # behind a byte order mark, which the first line begins with
        stop = min(max(stop, at + 1), size_bytes)
    step = min(_BLOCK_BYTES, max_line_bytes)  # so that no line inside a block is too long
    while at < stop:
        text = file.read(min(step, stop - at))
        if not text:
            raise FileChangedError
        begun = text.rfind(b"\n") + 1  # where the line begins that is cut off
        rest = b"" if begun == len(text) else file.readline(max_line_bytes - len(text) + begun)
        at_end = at + len(text) + len(rest)
        if at_end > size_bytes:
            raise FileChangedError
        if begun == len(text) or rest.endswith(b"\n"):
            yield LineBlock(at, text + rest)
        elif at_end == size_bytes and not file.peek(1):
            yield LineBlock(at, text + rest + b"\n")
        elif len(text) - begun + len(rest) < max_line_bytes:
            raise FileChangedError
        else:
            if begun:
                yield LineBlock(at, text[:begun])
            long_line = _measure_line(file, at + begun)
            at_end = long_line.stop
            yield long_line
        at = at_end


def first_line(file: BufferedReader, start: int, stop: int) -> int:
    """Seek the first line that begins in an interval; return its start, or the interval's end.

    Raises:
        FileChangedError: If the file ends before.
    """
    if start == 0:
        file.seek(0)
        if file.read(len(BOM)) == BOM:
            return len(BOM)
        file.seek(0)
        return 0
    at = start - 1  # if a newline stands there, a line begins at the start
    file.seek(at)
    return _skip_line(file, at, stop)


def _skip_line(file: BufferedReader, at: int, stop: int | None = None) -> int:
    """Return the position after a line, or `stop`; reads in blocks, however long the line is."""
    while stop is None or at < stop:
        most = _SKIP_BYTES if stop is None else min(_SKIP_BYTES, stop - at)
        text = file.readline(most)
        if not text and stop is None:
            return at
        if not text:
            raise FileChangedError
        at += len(text)
        if text.endswith(b"\n"):
            return at
    return at


def middle_line(file: BufferedReader, start: int, stop: int) -> int | None:
    """Return where a line begins inside of an interval, near its middle; None if none does.

    A line that begins at the interval's own start, or is the first to begin in it, does not
    count: both halves are to hold one.
    """
    first = first_line(file, start, stop)
    if first >= stop:
        return None
    middle = max((first + stop) // 2, first + 1)
    file.seek(middle - 1)
    found = _skip_line(file, middle - 1, stop)
    if found < stop:
        return found
    return _last_line_before(file, first, middle)


def _last_line_before(file: BufferedReader, first: int, middle: int) -> int | None:
    """Return where the last line begins before `middle`, and behind `first`."""
    end = middle - 1
    while end > first:
        begin = max(first, end - _SKIP_BYTES)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return None


def line_at(file: BufferedReader, start: int, stop: int) -> Line | None:
    """Return the first line that begins in an interval; None if none does."""
    begin = first_line(file, start, stop)
    if begin >= stop and start:
        return None
    line = _measure_line(file, begin)
    return line if line.stop > begin else None


def _measure_line(file: BufferedReader, begin: int) -> Line:
    """Read a line in little memory."""
    file.seek(begin)
    digest, stop, length, holds_record = sha256(), begin, 0, False
    while text := file.readline(_SKIP_BYTES):
        stop += len(text)
        line = text.removesuffix(b"\n")
        length += len(line)
        digest.update(line)
        holds_record = holds_record or not is_blank(line)
        if len(line) < len(text):
            break
    return Line(begin, stop, length, digest.hexdigest(), holds_record)


def drop_blank_lines(block: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the block without its blank lines, and their offsets and sizes."""
    # One search at the speed of memory, eight times that of four searches for two bytes each;
    # splitting is for the rare block that may need it.
    if block[:1] not in b"\n\r\t " and not _MAYBE_BLANK.search(block):
        return block, []
    lines = block.split(b"\n")[:-1]
    blank = [(at, len(text) + 1) for at, text in enumerate(lines) if is_blank(text)]
    return b"".join(text + b"\n" for text in lines if not is_blank(text)), blank


def is_blank(line: bytes) -> bool:
    """Return whether a line holds no record."""
    return not line.strip(b" \t\r\n")


def line_of(position: int, blank_lines: Sequence[int]) -> int:
    """Return the line, counted from 0, of the record at `position` among lines."""
    offset = position
    for blank in blank_lines:
        if blank > offset:
            break
        offset += 1
    return offset
