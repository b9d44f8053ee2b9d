"""A sample of the lines of files, read by byte offsets: the first, some evenly spread, the last."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from pyrmute_tasks.io.jsonl import source_errors
from pyrmute_tasks.ranges.lines import BOM, is_blank

__all__ = ["LineSample", "SampledLine", "sample_files", "sample_stream"]

_BLOCK_BYTES: Final = 64 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024  # of each third, so that long lines do not fill the memory


@dataclass(frozen=True, slots=True)
class SampledLine:
    """A line of a file, which is not blank.

    Attributes:
        file: The file, as the user named it.
        offset: The byte at which it begins.
        number: Its number, counted from 1; 0 if unknown, as the lines before it were not read.
        text: Its bytes, with the newline if it has one.
    """

    file: str
    offset: int
    number: int
    text: bytes

    @property
    def place(self) -> str:
        """Where it stands, ``"in.jsonl, line 7"`` or ``"in.jsonl, byte 1,234"``."""
        at = f"line {self.number:,}" if self.number else f"byte {self.offset:,}"
        return f"{self.file}, {at}"


@dataclass(frozen=True, slots=True)
class LineSample:
    """The lines of a sample, in the order of the source.

    Attributes:
        lines: The lines.
        size_bytes: Size of the source; None for a pipe.
        records: Number of lines in the source that are not blank: exact if `is_whole`, otherwise
            estimated from the lengths of the lines that are spread; None if unknown.
        is_whole: Whether these are all lines.
    """

    lines: tuple[SampledLine, ...]
    size_bytes: int | None
    records: int | None
    is_whole: bool


def sample_stream(file: Iterable[bytes], name: str, count: int) -> LineSample:
    """Read the first lines of a pipe, or of another file that can be read once.

    Args:
        file: The file, by lines.
        name: Its name, for messages.
        count: The most lines.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    with source_errors(name):
        lines = _most(_lines_of(file, name), count + 1)
    is_whole = len(lines) <= count and _bytes_of(lines) < _MOST_BYTES
    return LineSample(tuple(lines[:count]), None, len(lines) if is_whole else None, is_whole)


def sample_files(names: Sequence[str], count: int, limit: int | None = None) -> LineSample:
    """Sample the lines of files that are read one after the other, without reading all of them.

    A third are the first lines, a third the last, and a third the lines at offsets that are
    evenly spread between.

    Args:
        names: The files.
        count: The most lines.
        limit: The number of lines that are read at all, the first ones; if these are no more than
            the sample, it is of them, and otherwise of all.

    Raises:
        ConfigurationError: If one cannot be read.
    """
    files: list[_File] = []
    begin = 0
    for name in names:
        with source_errors(name):
            files.append(_File(name, begin, os.stat(name).st_size))
        begin = files[-1].end
    first = _most(itertools.chain.from_iterable(map(_lines_from_start, files)), count + 1)
    if limit is not None and limit <= min(count, len(first)):
        first = first[:limit]
        return LineSample(tuple(first), _bytes_of(first), len(first), is_whole=True)
    if len(first) <= count and _bytes_of(first) < _MOST_BYTES:
        return LineSample(tuple(first), begin, len(first), is_whole=True)
    third = count // 3
    first = first[: count - 2 * third]
    last = _last_lines(files, third)[::-1]
    starts = {file.name: file.begin for file in files}
    low = starts[first[-1].file] + first[-1].offset + len(first[-1].text)
    high = starts[last[0].file] + last[0].offset if last else begin
    offsets = (low + (high - low) * (2 * at + 1) // (2 * third) for at in range(third))
    spread = _most(_lines_at(files, offsets), third)
    kept: dict[tuple[str, int], SampledLine] = {}
    for line in (*first, *spread, *last):
        kept.setdefault((line.file, line.offset), line)
    # A byte belongs to a long line more probably than to a short one: so each counts by what it
    # says about the number of lines a byte, and not by its length.
    known = spread or [*first, *last]
    records = max(len(kept), round(begin * sum(1 / len(line.text) for line in known) / len(known)))
    return LineSample(tuple(kept.values()), begin, records, is_whole=False)


# --- reading ------------------------------------------------------------------------------


class _File(NamedTuple):
    """A file, and where it begins in the bytes of all."""

    name: str
    begin: int
    size: int

    @property
    def end(self) -> int:
        return self.begin + self.size


def _most(lines: Iterable[SampledLine], count: int) -> list[SampledLine]:
    taken: list[SampledLine] = []
    size = 0
    for line in itertools.islice(lines, count):
        taken.append(line)
        size += len(line.text)
        if size >= _MOST_BYTES:
            break
    return taken


def _bytes_of(lines: Iterable[SampledLine]) -> int:
    return sum(len(line.text) for line in lines)


def _lines_from_start(file: _File) -> Iterator[SampledLine]:
    with source_errors(file.name), open(file.name, "rb") as opened:
        yield from _lines_of(opened, file.name)


def _lines_of(file: Iterable[bytes], name: str) -> Iterator[SampledLine]:
    offset = 0
    for number, text in enumerate(file, 1):
        line = _line(name, offset, number, text)
        offset += len(text)
        if line is not None:
            yield line


def _line(name: str, offset: int, number: int, text: bytes) -> SampledLine | None:
    kept = text.removeprefix(BOM) if offset == 0 else text
    if is_blank(kept):
        return None
    return SampledLine(name, offset + len(text) - len(kept), number, kept)


def _last_lines(files: Sequence[_File], count: int) -> list[SampledLine]:
    """Return the last lines, the very last one first."""

    def backwards() -> Iterator[SampledLine]:
        for file in reversed(files):
            with source_errors(file.name), open(file.name, "rb") as opened:
                end = file.size
                while end:
                    start = _start_of_line(opened, end - 1)
                    opened.seek(start)
                    line = _line(file.name, start, 0, opened.read(end - start))
                    end = start
                    if line is not None:
                        yield line

    return _most(backwards(), count)


def _lines_at(files: Sequence[_File], offsets: Iterable[int]) -> Iterator[SampledLine]:
    """Yield the lines to which the bytes at `offsets` belong, each once."""
    rest = iter(offsets)
    offset = next(rest, None)
    for file in files:
        with source_errors(file.name), open(file.name, "rb") as opened:
            done = 0
            while offset is not None and offset < file.end:
                start = _start_of_line(opened, offset - file.begin)
                if start >= done:
                    opened.seek(start)
                    text = opened.readline()
                    done = start + len(text)
                    line = _line(file.name, start, 0, text)
                    if line is not None:
                        yield line
                offset = next(rest, None)


def _start_of_line(file: BinaryIO, offset: int) -> int:
    """Return where the line begins to which a byte belongs; its newline does, too."""
    end = offset
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
