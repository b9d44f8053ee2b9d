"""JSON lines, moved as bytes: the producer never parses them."""

import contextlib
import os
import re
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from pyrmute_tasks.chunks import Chunk, Origin, check_chunk_size
from pyrmute_tasks.codec import Compression, FrameKind, encode_frame
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.sizing import ChunkSizer

__all__ = ["FIRST_BYTES", "MOST_BYTES", "JsonlSink", "JsonlSource"]

FIRST_BYTES: Final = 512 * 1024
MOST_BYTES: Final = 1024 * 1024  # a window of them must fit into memory, twice as outputs
_SYNC_BYTES: Final = 8 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_MAYBE_BLANK: Final = re.compile(rb"\n[\n\r\t ]")


class JsonlSource:
    """A file of JSON lines, cut into chunks of whole lines.

    Blank lines are left out, but count in line numbers. A last line without a newline is
    a line.

    Args:
        path: The file.
        chunk_size: Records a chunk, exactly; None leaves it to `sizer`.
        sizer: Chooses sizes in bytes.
        compression: How frames are compressed.

    Raises:
        ConfigurationError: If the file does not exist or cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        chunk_size: int | None = None,
        sizer: ChunkSizer | None = None,
        compression: Compression = Compression.NONE,
    ) -> None:
        self._path = Path(path)
        self._chunk_size = check_chunk_size(chunk_size) if chunk_size is not None else None
        self._sizer = sizer or ChunkSizer(FIRST_BYTES, MOST_BYTES)
        self._compression = compression
        self.bytes_read = 0
        try:
            with self._path.open("rb") as file:
                self.size_bytes = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {self._path}: {error.strerror or error}"
            ) from None

    def chunks(self) -> Generator[Chunk[bytes], None, None]:
        """Yield the file's chunks as lines frames, reading no further than asked."""
        start = index = 0
        line = 1
        with self._path.open("rb") as file:
            if file.read(len(_BOM)) != _BOM:
                file.seek(0)
            while block := self._read(file):
                self.bytes_read = file.tell()
                if not block.endswith(b"\n"):
                    block += b"\n"
                lines = block.count(b"\n")
                kept, blank = _drop_blank_lines(block)
                count = lines - len(blank)
                if count:
                    frame = encode_frame(FrameKind.LINES, count, kept, self._compression)
                    origin = Origin(str(self._path), line, blank)
                    self._sizer.cut(index, len(kept))
                    yield Chunk(index, start, count, frame, len(frame), origin)
                    index += 1
                start += count
                line += lines

    def _read(self, file: IO[bytes]) -> bytes:
        if self._chunk_size is None:
            size_bytes = self._sizer.next_bytes(self.size_bytes - self.bytes_read)
            return file.read(size_bytes) + file.readline()
        lines: list[bytes] = []
        records = 0
        for text in file:
            lines.append(text)
            records += not _is_blank(text)
            if records == self._chunk_size:
                break
        return b"".join(lines)


def _drop_blank_lines(block: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return the block without its blank lines, and their offsets."""
    # One search at the speed of memory, eight times that of four searches for two bytes each;
    # splitting is for the rare block that may need it.
    if block[:1] not in b"\n\r\t " and not _MAYBE_BLANK.search(block):
        return block, ()
    lines = block.split(b"\n")[:-1]
    offsets = tuple(offset for offset, text in enumerate(lines) if _is_blank(text))
    return b"".join(text + b"\n" for text in lines if not _is_blank(text)), offsets


def _is_blank(line: bytes) -> bool:
    return not line.strip(b" \t\r\n")


class JsonlSink:
    """A file that appears under its name only when it is whole.

    Lines go to a file beside it, which takes the name at the end. A context manager: left
    with an exception, or given up, the partial file is removed, or kept if asked to.

    Args:
        path: The file to write.
        keep_partial: Keep what was written when the job fails.

    Attributes:
        partial_path: Where lines go until the end.

    Raises:
        ConfigurationError: When entering, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], keep_partial: bool = False) -> None:
        self._path = Path(path)
        self._keep_partial = keep_partial
        self.partial_path = self._path.with_name(f"{self._path.name}.partial")
        self._file: IO[bytes] | None = None
        self._syncs = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._sync: Future[None] | None = None
        self._unsynced_bytes = 0
        self._given_up = False

    def __enter__(self) -> Self:
        if self._path.is_dir():
            raise ConfigurationError(f"cannot write {self._path}: it is a directory")
        try:
            with self._errors_told():
                self._file = self.partial_path.open("wb")
        except ConfigurationError:
            raise
        except BaseException:  # interrupted, when the file may be there already
            self._remove_partial()
            raise
        return self

    def write(self, lines: bytes | memoryview) -> None:
        """Append whole lines.

        Raises:
            ConfigurationError: If they cannot be written, as on a full disk.
        """
        assert self._file is not None
        with self._errors_told():
            self._file.write(lines)
            self._unsynced_bytes += len(lines)
            if self._unsynced_bytes >= _SYNC_BYTES:
                self._sync_ahead(self._file)

    def give_up(self) -> None:
        """Do not let the file appear: it is not whole, and will not be."""
        self._given_up = True

    def _sync_ahead(self, file: IO[bytes]) -> None:
        """Let the disk begin with what it has to do at the end, unless it is busy with that."""
        if self._sync is not None:
            if not self._sync.done():
                return
            self._sync.result()
        self._unsynced_bytes = 0
        self._sync = self._syncs.submit(os.fsync, file.fileno())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._file is not None
        is_whole = False
        try:
            if error is None and not self._given_up:
                with self._errors_told():
                    self._finish(self._file)
                is_whole = True
        finally:
            self._close(self._file, keep=is_whole or self._keep_partial)

    def _close(self, file: IO[bytes], *, keep: bool) -> None:
        if not keep:
            self._remove_partial()
        # Behind a sync that still runs: its descriptor must not become another file's.
        self._syncs.submit(file.close)
        self._syncs.shutdown(wait=keep)

    def _remove_partial(self) -> None:
        with contextlib.suppress(OSError):
            self.partial_path.unlink()

    def _finish(self, file: IO[bytes]) -> None:
        if self._sync is not None:
            self._sync.result()
        file.flush()
        os.fsync(file.fileno())
        self.partial_path.replace(self._path)

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"cannot write {self._path}: {error.strerror or error}"
            ) from None
