"""Files of JSON lines as ranges that workers read themselves, and the sink of their pieces."""

import glob
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pyrmute_tasks.engine.chunk_sizes import RangeSizer
from pyrmute_tasks.engine.chunks import Chunk, Origin, Outcome
from pyrmute_tasks.engine.events import ChunkDelivered, Event
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.failures import RecordFailure, RecordPlace
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.ranges.frames import Piece, Place, Range, SourceFile, read_pieces
from pyrmute_tasks.wire.frames import Frame, FrameKind

__all__ = ["RangeSink", "RangeSource", "find_sources"]

_ENDINGS: Final = (".jsonl", ".ndjson")


def find_sources(source: str | os.PathLike[str]) -> list[str]:
    """Return the files that a source names, in sorted order: a file, a folder or a pattern.

    Of a folder, those that end in ``.jsonl`` or ``.ndjson``.

    Raises:
        ConfigurationError: If there is none.
    """
    name = os.fspath(source)
    if os.path.isdir(name):
        inside = sorted(entry.path for entry in os.scandir(name) if entry.is_file())
        found = [
            path
            for path in inside
            if path.endswith(_ENDINGS) and not os.path.basename(path).startswith(".")
        ]
        what = f"no file in it ends in {' or '.join(_ENDINGS)}"
    elif glob.has_magic(name) and not os.path.lexists(name):
        found = sorted(path for path in glob.glob(name) if os.path.isfile(path))
        what = "no file matches it"
    else:
        return [name]
    if not found:
        raise ConfigurationError(f"cannot read {name}: {what}")
    return found


@dataclass(frozen=True, slots=True)
class _Planned:
    """A file whose ranges are planned.

    Attributes:
        name: The file, as the user named it.
        file: The file as it was.
    """

    name: str
    file: SourceFile

    @classmethod
    def of(cls, name: str) -> "_Planned":
        check_source(name)
        real = os.path.realpath(name)
        found = os.stat(real)
        return cls(name, SourceFile(os.fsencode(real), found.st_size, found.st_mtime_ns))

    def check(self) -> None:
        """Check that the file is unchanged.

        Raises:
            ConfigurationError: If it is not.
        """
        try:
            found = os.stat(self.file.path)
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {self.name} any more: {error.strerror or error}"
            ) from None
        if (found.st_size, found.st_mtime_ns) != (self.file.size_bytes, self.file.mtime_ns):
            raise ConfigurationError(
                f"{self.name} has changed while it was read, from {self.file.size_bytes} to "
                f"{found.st_size} bytes; nothing was published: migrate a copy that nobody "
                "writes to"
            )


class RangeSource:
    """Files of JSON lines, cut into ranges of bytes without reading them; a `Source`.

    Args:
        names: The files, in the order in which their records are numbered.
        folder: Where workers write attempts.
        nonce: What they find there.
        max_line_bytes: Longest line.
        skips: Whether records that fail are skipped.

    Attributes:
        size_bytes: Of all files.

    Raises:
        ConfigurationError: If one cannot be read, or is not a regular file.
    """

    kind: Final = FrameKind.RANGES

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        nonce: str,
        max_line_bytes: int,
        *,
        skips: bool = False,
    ) -> None:
        self._files = [_Planned.of(name) for name in names]
        self._folder = os.fsencode(folder)
        self._nonce = nonce
        self._longest = max_line_bytes
        self._sizer = RangeSizer(skips=skips)
        self._underway: dict[int, _Planned] = {}  # by chunk
        self.size_bytes: int = sum(planned.file.size_bytes for planned in self._files)

    @property
    def folders(self) -> list[Path]:
        """The folders of the files, without links."""
        return [Path(os.fsdecode(planned.file.path)).parent for planned in self._files]

    def chunks(self) -> Generator[Chunk[bytes], None, None]:
        """Yield the files' ranges, none of which spans two files."""
        index = done = 0
        for planned in self._files:
            start, size = 0, planned.file.size_bytes
            while start < size:
                stop = min(start + self._sizer.next_bytes(self.size_bytes - done), size)
                wanted = Range(planned.file, start, stop, self._folder, self._nonce, self._longest)
                length = stop - start
                self._sizer.cut(index, length)
                self._underway[index] = planned
                yield Chunk(
                    index,
                    done,
                    length,
                    wanted.to_frame(),
                    length,
                    Origin(str(Path(planned.name)), 1),
                    is_range=True,
                )
                index, done, start = index + 1, done + length, stop

    def __call__(self, event: Event, /) -> None:
        """Record durations of ranges, and settled ranges."""
        self._sizer(event)
        if isinstance(event, ChunkDelivered):
            self._underway.pop(event.chunk, None)

    def check(self) -> None:
        """Check that the files with ranges under way are unchanged.

        Raises:
            ConfigurationError: If one is not.
        """
        for planned in set(self._underway.values()):
            planned.check()

    def check_all(self) -> None:
        """Check that all files are unchanged.

        Raises:
            ConfigurationError: If one is not.
        """
        for planned in self._files:
            planned.check()


class RangeSink:
    """Delivers pieces, with the indexes and line numbers of records that failed.

    Args:
        hooks: The manager's, for what workers counted.
        with_text: Whether places hold the text of the record's line.
    """

    def __init__(self, hooks: HookSet, *, with_text: bool = False) -> None:
        self._hooks = hooks
        self._with_text = with_text
        self._records = 0  # before the next piece, in all files
        self._lines = 0  # before it, in its file
        self._name = ""

    def receive(self, chunk: Chunk[Any], outcome: Outcome[Frame], /) -> Outcome[Sequence[Piece]]:
        """Add to failures the position of their records in the source.

        Raises:
            ConfigurationError: If the text of a record is wanted and cannot be read.
        """
        self._hooks.merge(outcome.counts)
        assert chunk.origin is not None
        if chunk.origin.path != self._name:
            self._name, self._lines = chunk.origin.path, 0
        pieces = read_pieces(outcome.outputs)
        start = self._records
        places: list[RecordPlace] = []
        for piece in pieces:
            places += [self._place(place) for place in piece.places]
            self._records += piece.records_in
            self._lines += piece.lines
        failures = self._located(outcome.failures, places, start)
        if places and chunk.payload is not None:  # the policy may skip them
            if self._with_text:
                places = list(_with_text(places, Range.from_frame(chunk.payload)))
            failures = [
                replace(each, place=place)
                for each, place in zip(failures, chain(places, [None]), strict=False)
            ]
        return Outcome(
            outcome.index,
            outcome.count,
            pieces,
            tuple(failures),
            counts=outcome.counts,
            is_final=outcome.is_final,
            start=start,
        )

    def cut(self, outputs: Sequence[Piece], count: int, /) -> Sequence[Piece]:
        """Return the pieces of the first outputs; of the last one maybe a part."""
        kept: list[Piece] = []
        for piece in outputs:
            if count < piece.records_out:
                return [*kept, piece.cut(count)] if count else kept
            kept.append(piece)
            count -= piece.records_out
        return kept

    def _place(self, place: Place) -> RecordPlace:
        line = self._lines + place.line + 1
        digest = f"sha256:{place.digest}"
        return RecordPlace(self._name, line, place.offset, place.length, digest)

    def _located(
        self, failures: Sequence[RecordFailure], places: Sequence[RecordPlace], start: int
    ) -> list[RecordFailure]:
        """Return failures with the indexes and lines of their records in the whole source."""
        # Without a place, what failed is the range itself, or a part of it: it could not be run.
        lines = chain((place.line for place in places), [self._lines + 1])
        return [
            replace(each, index=start + each.index, source=f"{self._name}, line {line}")
            for each, line in zip(failures, lines, strict=False)
        ]


def _with_text(places: Iterable[RecordPlace], wanted: Range) -> Iterator[RecordPlace]:
    """Yield places with the text of their lines, which did not travel and is read here.

    Raises:
        ConfigurationError: If the file cannot be read, or holds something else now.
    """
    path = wanted.source.path
    try:
        with open(path, "rb") as file:
            for place in places:
                file.seek(place.offset)
                text = file.read(place.length)
                if place.digest != f"sha256:{sha256(text).hexdigest()}":
                    raise ConfigurationError(
                        f"{place.file} has changed while it was read, at line {place.line}; "
                        "nothing was published: migrate a copy that nobody writes to"
                    )
                yield replace(place, text=text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {os.fsdecode(path)} any more: {error.strerror or error}"
        ) from None
