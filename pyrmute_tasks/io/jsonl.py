"""JSON lines as a source, moved as bytes: the producer never parses them."""

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from pyrmute_tasks.engine.batch_arguments import check_chunk_size
from pyrmute_tasks.engine.chunk_sizes import ChunkSizer
from pyrmute_tasks.engine.chunks import Chunk, Origin, Outcome
from pyrmute_tasks.engine.events import Event
from pyrmute_tasks.engine.threaded_sources import ConvertedReader, ThreadedReader
from pyrmute_tasks.errors import ConfigurationError, FrameTooLargeError
from pyrmute_tasks.failures import RecordFailure, RecordPlace
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.open_files import OpenSource, SourceFile
from pyrmute_tasks.ranges.lines import BOM, drop_blank_lines, is_blank
from pyrmute_tasks.wire.frames import Compression, Frame, FrameKind, decode_frame, encode_frame

__all__ = [
    "JsonlSink",
    "JsonlSource",
    "Position",
    "check_source",
    "new_sizer",
    "size_of_records",
    "source_errors",
]

_FIRST_BYTES: Final = 512 * 1024
_MOST_BYTES: Final = 1024 * 1024  # a window of them must fit into memory, twice as outputs
_LONG_LINE_BYTES: Final = 64 * 1024 * 1024


def check_source(path: str | os.PathLike[str]) -> int:
    """Return the size of a source file in bytes.

    It is not opened unless it is a regular file: a pipe that is opened and closed ends its
    writer, and one that nobody writes to would be waited for.

    Raises:
        ConfigurationError: If it cannot be read, or is not a regular file.
    """
    with source_errors(path):
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                return os.fstat(file.fileno()).st_size
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise ConfigurationError(
        f"cannot read {os.fspath(path)}: it is a pipe or a device, and a file is read more than "
        "once; write it to a file first"
    )


def new_sizer(window_bytes: int = 0) -> ChunkSizer:
    """Return the rule by which files are cut into chunks.

    Args:
        window_bytes: Size of the window that is to hold enough chunks for all slots; 0 if
            there is none.
    """
    return ChunkSizer(_FIRST_BYTES, _MOST_BYTES, window_bytes)


def size_of_records(path: str | os.PathLike[str], count: int) -> int:
    """Return how many bytes a file has up to the line of the last of its first records.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    with source_errors(path), open(path, "rb") as file:
        return _first_lines(file, count, is_start=True)


class Position(NamedTuple):
    """A place between two lines of a file.

    Attributes:
        byte: Bytes before it.
        record: Records before it.
        line: Number of the line behind it.
    """

    byte: int = 0
    record: int = 0
    line: int = 1

    @classmethod
    def behind(cls, chunk: Chunk[Any], origin: Origin) -> "Position":
        """Return the place behind a chunk's last line."""
        lines = chunk.count + len(origin.blank_lines)
        return cls(origin.end_byte, chunk.start + chunk.count, origin.first_line + lines)


class JsonlSource:
    """A file of JSON lines, cut into chunks of whole lines.

    Blank lines are left out, but count in line numbers. A last line without a newline is
    a line.

    Args:
        source: The file's path, or the open file, which is read from where it stands.
        chunk_size: Records a chunk, exactly; None goes by size and time.
        window_bytes: Size of the window that is to hold enough chunks for all slots; 0 if
            there is none.
        compression: How frames are compressed.
        limit: The most records to read; None for all. Of a file, the lines up to there are counted
            at once, so that `size_bytes` is their size.

    Raises:
        ConfigurationError: If the file does not exist, cannot be read or is not a regular file.

    Attributes:
        position: Where reading stands.
        size_bytes: Size of what is read; None if unknown.
        limit: The most records to read; None for all.
    """

    kind: Final = FrameKind.LINES

    def __init__(
        self,
        source: SourceFile,
        chunk_size: int | None = None,
        window_bytes: int = 0,
        compression: Compression = Compression.NONE,
        limit: int | None = None,
    ) -> None:
        self._open: OpenSource | None = None
        if isinstance(source, (str, os.PathLike)):
            self._name = str(Path(source))
        else:
            self._open = OpenSource(source)
            self._name = self._open.name
        self._may_block = self._open is not None and self._open.may_block
        self._chunk_size = check_chunk_size(chunk_size) if chunk_size is not None else None
        self._sizer = new_sizer(window_bytes)
        self._compression = compression
        self._long_line = b""  # read, and not handed out yet
        self._error: Exception | None = None  # met behind what was handed out
        self.bytes_read: int = 0
        self.position: Position = Position()
        self.size_bytes: int | None = (
            self._open.left_bytes if self._open else check_source(self._name)
        )
        self.limit = limit
        if limit is not None and self._open is None:
            self.size_bytes = size_of_records(self._name, limit)

    def begin_at(self, position: Position) -> None:
        """Skip what an earlier run of the job has read, up to `position`."""
        self.position = position
        self.bytes_read = position.byte

    @property
    def left_bytes(self) -> int | None:
        """Bytes not read yet; None if that is unknown."""
        return None if self.size_bytes is None else max(0, self.size_bytes - self.bytes_read)

    @property
    def total(self) -> int | None:
        """Where it ends: `size_bytes`."""
        return self.size_bytes

    def chunks(self) -> Generator[Chunk[bytes], None, None] | ConvertedReader[Chunk[bytes]]:
        """Return the file's chunks, read no further than asked.

        A pipe, or another open file that may block, is read in a thread of its own.
        """
        if self._may_block:
            return ConvertedReader(ThreadedReader(self._cut), _unchanged)
        return self._cut()

    def _cut(self) -> Generator[Chunk[bytes], None, None]:
        """Yield the file's chunks as lines frames.

        Raises:
            ConfigurationError: If the file cannot be read any more.
        """
        index = 0
        first_byte, start, line = self.position
        with source_errors(self._name), self._opened() as file:
            while block := self._read(file, start):
                if not self.bytes_read and block.startswith(BOM):
                    first_byte = self.bytes_read = len(BOM)
                    block = block.removeprefix(BOM)
                if self.limit is not None:
                    block = block[: _first_lines(io.BytesIO(block), self.limit - start)]
                size_bytes = len(block)
                self.bytes_read += size_bytes
                if not block.endswith(b"\n"):
                    block += b"\n"
                lines = block.count(b"\n")
                kept, blank = drop_blank_lines(block)
                count = lines - len(blank)
                if count:
                    at, sizes = zip(*blank, strict=True) if blank else ((), ())
                    end_byte = first_byte + size_bytes
                    origin = Origin(self._name, line, at, first_byte, sizes, end_byte)
                    frame = self._framed(kept, start, count, origin)
                    self._sizer.cut(index, len(kept))
                    yield Chunk(index, start, count, frame, len(frame), origin)
                    index += 1
                start += count
                line += lines
                first_byte += size_bytes
                self.position = Position(first_byte, start, line)

    def __call__(self, event: Event, /) -> None:
        """Adapt the size of the next chunks to the job's events."""
        self._sizer(event)

    def _framed(self, lines: bytes, start: int, count: int, origin: Origin) -> bytes:
        try:
            return encode_frame(FrameKind.LINES, count, lines, self._compression)
        except FrameTooLargeError as error:
            if count == 1:
                error.record_index = start
                error.record_source = f"{origin.path}, line {origin.line_of(0)}"
                error.add_note(f"record {start} ({error.record_source})")
            raise

    def _opened(self) -> contextlib.AbstractContextManager[IO[bytes] | OpenSource]:
        if self._open is not None:
            return contextlib.nullcontext(self._open)
        return self._opened_at(self.position.byte)

    @contextlib.contextmanager
    def _opened_at(self, byte: int) -> Iterator[IO[bytes]]:
        with open(self._name, "rb") as file:
            file.seek(byte)
            yield file

    def _read(self, file: IO[bytes] | OpenSource, start: int) -> bytes:
        """Read the lines of a chunk; those before an error come first, as in a loop."""
        if self._error is not None:
            raise self._error
        if self.limit is not None and start >= self.limit:
            return b""  # a pipe is not waited for
        read: list[bytes] = []
        try:
            if self._chunk_size is None:
                self._read_block(file, read)
            else:
                left = self._chunk_size if self.limit is None else self.limit - start
                self._read_records(file, read, min(self._chunk_size, left))
        except Exception as error:
            lines = b"".join(read)
            lines = lines[: lines.rfind(b"\n") + 1]
            if not lines:
                raise
            self._error = error
            return lines
        return b"".join(read)

    def _read_records(
        self, file: IO[bytes] | OpenSource, read: list[bytes], chunk_size: int
    ) -> None:
        records = 0
        for text in file:
            read.append(text)
            records += not is_blank(text)
            if records == chunk_size:
                break

    def _read_block(self, file: IO[bytes] | OpenSource, read: list[bytes]) -> None:
        """Read a block that ends with a line; a very long line is a block of its own."""
        if self._long_line:
            read.append(self._long_line)
            self._long_line = b""
            return
        block = file.read(self._sizer.next_bytes(self.left_bytes))
        read.append(block)
        # Whole lines of a pipe must not wait for the next one.
        is_whole = self._may_block and block.endswith(b"\n")
        rest = b"" if is_whole else file.readline()
        end = block.rfind(b"\n") + 1
        if len(rest) <= _LONG_LINE_BYTES or not end:
            read.append(rest)
            return
        self._long_line = block[end:] + rest
        read[0] = block[:end]


@contextlib.contextmanager
def source_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise the system's errors as errors that name the source.

    Raises:
        ConfigurationError: In place of an `OSError`, or of the `EOFError` of a compressed file
            that is cut off.
    """
    try:
        yield
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {os.fspath(path)}: {reason}") from None


class JsonlSink:
    """Delivers lines as workers wrote them, with the places of records that failed.

    Args:
        hooks: The manager's, for what workers counted.
        with_text: Whether places hold the text of the record's line.
    """

    def __init__(self, hooks: HookSet, *, with_text: bool = False) -> None:
        self._hooks = hooks
        self._with_text = with_text

    def receive(self, chunk: Chunk[Any], outcome: Outcome[Frame], /) -> Outcome[Frame]:
        """Add to failures the position of their records in the source."""
        self._hooks.merge(outcome.counts)
        if not outcome.failures or chunk.origin is None:
            return outcome
        failures = _located(outcome.failures, chunk, chunk.origin)
        if chunk.payload is not None:
            lines = bytes(decode_frame(chunk.payload).payload).split(b"\n")
            failures = self._placed(failures, chunk, chunk.origin, lines)
        return replace(outcome, failures=tuple(failures))

    def cut(self, outputs: Frame, count: int, /) -> Frame:
        """Return the first lines of a chunk."""
        lines = bytes(outputs.payload).split(b"\n")[:count]
        return Frame(outputs.kind, count, b"".join(line + b"\n" for line in lines))

    def _placed(
        self,
        failures: Iterable[RecordFailure],
        chunk: Chunk[Any],
        origin: Origin,
        lines: list[bytes],
    ) -> Iterator[RecordFailure]:
        """Yield failures, in order, with the places of their records in the file."""
        begin = before = 0
        for failure in failures:
            position = failure.index - chunk.start
            before += sum(map(len, lines[begin:position])) + position - begin
            begin = position
            text = lines[position]
            place = RecordPlace(
                origin.path,
                origin.line_of(position),
                origin.byte_of(position, before),
                len(text),
                f"sha256:{hashlib.sha256(text).hexdigest()}",
                text if self._with_text else None,
            )
            yield replace(failure, place=place)


def _first_lines(lines: Iterable[bytes], records: int, *, is_start: bool = False) -> int:
    """Return how many bytes the lines have up to that of the last of so many records."""
    size = 0
    for number, line in enumerate(lines):
        size += len(line)
        begins = is_start and number == 0
        records -= not is_blank(line.removeprefix(BOM) if begins else line)
        if not records:
            break
    return size


def _located(
    failures: Iterable[RecordFailure], chunk: Chunk[Any], origin: Origin
) -> Iterator[RecordFailure]:
    """Yield failures with the lines of their records, for messages."""
    for failure in failures:
        line = origin.line_of(failure.index - chunk.start)
        yield replace(failure, source=f"{origin.path}, line {line}")


def _unchanged(chunk: Chunk[bytes]) -> Chunk[bytes]:
    return chunk
