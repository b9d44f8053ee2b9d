"""Files of JSON lines as ranges that workers read themselves, and the sink of their pieces."""

import glob
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pyrmute_tasks.engine.chunk_sizes import RangeSizer
from pyrmute_tasks.engine.chunks import Chunk, Origin, Outcome
from pyrmute_tasks.engine.events import ChunkDelivered, Event
from pyrmute_tasks.errors import ConfigurationError, JobChangedError
from pyrmute_tasks.failures import RecordFailure, RecordPlace
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.logged_rejects import Restored, locate, with_texts
from pyrmute_tasks.io.passing_faults import when_back
from pyrmute_tasks.jobs.entries import Range as SourceRange
from pyrmute_tasks.ranges.frames import Piece, Range, SourceFile
from pyrmute_tasks.wire.frames import FrameKind

__all__ = ["RangeSink", "RangeSource", "find_sources", "refuse_among_sources"]

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


def refuse_among_sources(
    name: str | os.PathLike[str], path: Path, source: str | os.PathLike[str]
) -> None:
    """Refuse to write a file that the source's folder or pattern takes for one of its own.

    Args:
        name: The file to write, as the user named it.
        path: That file, no link; it need not be there.
        source: What is read: a file, a folder or a pattern.

    Raises:
        ConfigurationError: If a run from the same source would read the file.
    """
    if _takes(os.fspath(source), path):
        raise ConfigurationError(
            f"cannot write {os.fspath(name)}: it would be read as one of the files of "
            f"{os.fspath(source)}; write to another folder"
        )


def _takes(source: str, path: Path) -> bool:
    """Return whether a folder or a pattern names a file; see `find_sources`."""
    if os.path.isdir(source):
        is_hidden = path.name.startswith(".")
        is_inside = path.parent == Path(os.path.realpath(source))
        return is_inside and path.name.endswith(_ENDINGS) and not is_hidden
    if not glob.has_magic(source) or os.path.lexists(source):
        return False
    first = next(at for at, each in enumerate(Path(source).parts) if glob.has_magic(each))
    fixed, rest = Path(source).parts[:first], Path(source).parts[first:]
    wanted = (*Path(os.path.realpath(Path(*fixed))).parts, *rest)
    return len(wanted) == len(path.parts) and all(
        fnmatchcase(part, each) and (part[0] != "." or each[0] == ".")
        for part, each in zip(path.parts, wanted, strict=True)
    )


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
            JobChangedError: If it is not.
            ConfigurationError: If it cannot be read any more.
        """
        try:
            found = when_back(partial(os.stat, self.file.path))
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {self.name} any more: {error.strerror or error}"
            ) from None
        if (found.st_size, found.st_mtime_ns) != (self.file.size_bytes, self.file.mtime_ns):
            raise JobChangedError(
                f"the source was changed while it was read: {self.name} had "
                f"{self.file.size_bytes} bytes, and has {found.st_size}; nothing was published: "
                "migrate a copy that nobody writes to"
            )


class RangeSource:
    """Files of JSON lines, cut into ranges of bytes without reading them; a `Source`.

    Args:
        names: The files, in the order in which their records are numbered.
        folder: Where workers write attempts.
        nonce: What they find there.
        max_line_bytes: Longest line.
        skips: Whether records that fail are skipped.
        wanted: The ranges to read, in order; empty for all of the files.
        settled: What earlier runs of the job have settled, in source order.

    Attributes:
        size_bytes: Of all ranges to read.
        restored: What earlier runs have settled, by the chunk that stands for it.

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
        wanted: Sequence[SourceRange] = (),
        settled: Iterable[Restored] = (),
    ) -> None:
        self._files = [_Planned.of(name) for name in names]
        self._settled = list(settled)
        self.restored: dict[int, Restored] = {}
        self._folder = os.fsencode(folder)
        self._nonce = nonce
        self._longest = max_line_bytes
        self._sizer = RangeSizer(skips=skips)
        self._underway: dict[int, SourceRange] = {}  # by chunk
        self._all = wanted or [
            SourceRange(number, 0, planned.file.size_bytes)
            for number, planned in enumerate(self._files)
        ]
        self.size_bytes: int = sum(each.end - each.start for each in self._all)

    @property
    def total(self) -> int:
        """Where it ends: `size_bytes`."""
        return self.size_bytes

    @property
    def folders(self) -> list[Path]:
        """The folders of the files, without links."""
        return [Path(os.fsdecode(planned.file.path)).parent for planned in self._files]

    def chunks(self) -> Generator[Chunk[bytes], None, None]:
        """Yield the files' ranges, none of which spans two files.

        What is settled is a chunk, too, which `restored` tells from the others.
        """
        index = done = 0
        for range_, settled in self._ranges():
            planned = self._files[range_.file]
            length = range_.end - range_.start
            payload = b""
            if settled is None:
                self._sizer.cut(index, length)
            else:
                self.restored[index] = settled
            if settled is None or settled.places:
                payload = self._wanted(range_).to_frame()
            self._underway[index] = range_
            origin = Origin(str(Path(planned.name)), 1)
            yield Chunk(index, done, length, payload, length, origin, is_range=True)
            index, done = index + 1, done + length

    def _ranges(self) -> Iterator[tuple[SourceRange, Restored | None]]:
        """Yield what is settled and, cut when they are asked for, the ranges between."""
        settled = deque(self._settled)
        left = self.size_bytes
        for number, first, last in self._all:
            at = first
            while at < last:
                is_next = bool(settled) and settled[0].span.range.file == number
                if is_next and settled[0].span.range.start == at:
                    found = settled.popleft()
                    yield found.span.range, found
                    stop = found.span.range.end
                else:
                    end = settled[0].span.range.start if is_next else last
                    stop = min(at + self._sizer.next_bytes(left), end)
                    yield SourceRange(number, at, stop), None
                left, at = left - (stop - at), stop

    def _wanted(self, range_: SourceRange) -> Range:
        file = self._files[range_.file].file
        return Range(file, range_.start, range_.end, self._folder, self._nonce, self._longest)

    def range_of(self, chunk: int) -> SourceRange:
        """Return the range of a chunk under way."""
        return self._underway[chunk]

    def __call__(self, event: Event, /) -> None:
        """Record durations of ranges, and settled ranges."""
        self._sizer(event)
        if isinstance(event, ChunkDelivered):
            self._underway.pop(event.chunk, None)

    def check(self) -> None:
        """Check that the files with ranges under way are unchanged.

        Raises:
            JobChangedError: If one is not.
            ConfigurationError: If one cannot be read any more.
        """
        for number in {range_.file for range_ in self._underway.values()}:
            self._files[number].check()


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

    def receive(
        self, chunk: Chunk[Any], outcome: Outcome[Sequence[Piece]], /
    ) -> Outcome[Sequence[Piece]]:
        """Tell failures where their records stand in the source.

        Raises:
            ConfigurationError: If the text of a record is wanted and cannot be read.
        """
        self._hooks.merge(outcome.counts)
        assert chunk.origin is not None
        if chunk.origin.path != self._name:
            self._name, self._lines = chunk.origin.path, 0
        pieces = outcome.outputs
        start = self._records
        places: list[RecordPlace] = []
        for piece in pieces:
            places += [locate(place, self._name, self._lines) for place in piece.places]
            self._records += piece.records_in
            self._lines += piece.lines
        failures = self._located(outcome.failures, places, start)
        if places and chunk.payload is not None:  # the policy may skip them
            if self._with_text:
                path = Range.from_frame(chunk.payload).source.path
                places = list(with_texts(places, path))
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
