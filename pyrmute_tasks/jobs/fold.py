"""The fold of a job's log: the settled intervals of the source, and the gaps between them.

Adjacent intervals without rejects are merged, so the memory needed follows the number of gaps and
of ranges with rejects, and not the number of ranges.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pyrmute_tasks.errors import JobLogError
from pyrmute_tasks.jobs.entries import Piece, Range, Settled

__all__ = ["Fold", "Prefix", "Span"]


class Span(NamedTuple):
    """A settled interval: one range with rejects, or any number without.

    Attributes:
        range: The interval.
        records: Records in it.
        outputs: Records written.
        rejected: Records rejected.
        lines: Lines in it.
        rejects: Where its rejects are described.
        first_record: Records before it, over all files; -1 while there is a gap before it.
        first_line: Lines before it in its file; -1 while there is a gap before it in the file.
    """

    range: Range
    records: int
    outputs: int
    rejected: int
    lines: int
    rejects: Piece | None
    first_record: int
    first_line: int


class Prefix(NamedTuple):
    """The settled beginning of a source, up to the first gap.

    Attributes:
        records: Records in input order.
        rejected: Rejected ones among them.
    """

    records: int
    rejected: int


@dataclass(slots=True)
class _Span:
    start: int
    end: int
    records: int
    outputs: int
    rejected: int
    lines: int
    rejects: Piece | None

    def absorb(self, other: "_Span") -> None:
        """Add the span that follows."""
        self.end = other.end
        self.records += other.records
        self.outputs += other.outputs
        self.lines += other.lines


@dataclass(slots=True)
class _File:
    """The settled intervals of one file, in order."""

    starts: list[int] = field(default_factory=list)
    spans: list[_Span] = field(default_factory=list)

    def find(self, start: int) -> int:
        """Return the number of intervals that begin at or before a position."""
        starts = self.starts
        if not starts or starts[-1] <= start:  # most ranges come nearly in order
            return len(starts)
        return bisect_right(starts, start)

    def add(self, new: _Span) -> _Span | None:
        """Insert an interval, or return an existing one that overlaps it."""
        at, spans = self.find(new.start), self.spans
        left = spans[at - 1] if at else None
        right = spans[at] if at < len(spans) else None
        if left is not None and left.end > new.start:
            return left
        if right is not None and right.start < new.end:
            return right
        if left is not None and _can_merge(left, new):
            left.absorb(new)
            if right is not None and _can_merge(left, right):
                left.absorb(right)
                del self.starts[at], spans[at]
        elif right is not None and _can_merge(new, right):
            new.absorb(right)
            self.starts[at], spans[at] = new.start, new
        else:
            self.starts.insert(at, new.start)
            spans.insert(at, new)
        return None

    def gaps(self, wanted: Range) -> Iterator[Range]:
        """Yield the unsettled parts of an interval, in order."""
        position = wanted.start
        at = max(0, self.find(position) - 1)
        while at < len(self.spans) and position < wanted.end:
            span = self.spans[at]
            if span.start > position:
                yield Range(wanted.file, position, min(span.start, wanted.end))
            position = max(position, span.end)
            at += 1
        if position < wanted.end:
            yield Range(wanted.file, position, wanted.end)


def _can_merge(left: _Span, right: _Span) -> bool:
    return left.end == right.start and not left.rejected and not right.rejected


class Fold:
    """The settled ranges of a job.

    Attributes:
        ranges: Ranges added.
        records: Records in them.
        outputs: Records written.
        rejected: Records rejected.
    """

    def __init__(self) -> None:
        self.ranges: int = 0
        self.records: int = 0
        self.outputs: int = 0
        self.rejected: int = 0
        self._covered = 0
        self._files: dict[int, _File] = {}

    def add(self, entry: Settled) -> None:
        """Count a settled range.

        Raises:
            JobLogError: If it overlaps one that is settled, or its numbers do not agree.
        """
        fault = entry.fault()
        if fault:
            raise JobLogError(f"{_named(entry.range)} cannot be settled: {fault}")
        lines = entry.lines if entry.lines >= 0 else entry.records
        new = _Span(
            entry.start,
            entry.end,
            entry.records,
            entry.outputs,
            entry.rejected,
            lines,
            entry.rejects,
        )
        file = self._files.get(entry.file)
        if file is None:
            file = self._files[entry.file] = _File()
        other = file.add(new)
        if other is not None:
            settled = _named(Range(entry.file, other.start, other.end))
            raise JobLogError(f"{_named(entry.range)} overlaps a settled range, {settled}")
        self.ranges += 1
        self.records += entry.records
        self.outputs += entry.outputs
        self.rejected += entry.rejected
        self._covered += entry.end - entry.start

    def gaps(self, wanted: Iterable[Range]) -> Iterator[Range]:
        """Yield the unsettled intervals.

        Args:
            wanted: The job's ranges, disjoint and in source order; for a whole source one
                range a file. A file of unknown length ends at `OPEN_END`.
        """
        for each in wanted:
            file = self._files.get(each.file)
            if file is not None:
                yield from file.gaps(each)
            elif each.start < each.end:
                yield each

    def is_settled(self, wanted: Iterable[Range]) -> bool:
        """Whether everything is settled; looks at no range."""
        return self._covered >= sum(each.end - each.start for each in wanted)

    def overlaps(self, range_: Range) -> bool:
        """Return whether a part of an interval is settled."""
        return next(self.gaps([range_]), None) != range_

    def spans(self) -> Iterator[Span]:
        """Yield the settled intervals in source order, with their first records and lines."""
        records = 0
        for number in range(max(self._files, default=-1) + 1):
            file = self._files.get(number)
            position = lines = 0
            for span in file.spans if file else ():
                if span.start != position:
                    records = lines = -1
                yield Span(
                    Range(number, span.start, span.end),
                    span.records,
                    span.outputs,
                    span.rejected,
                    span.lines,
                    span.rejects,
                    records,
                    lines,
                )
                position = span.end
                records = records + span.records if records >= 0 else -1
                lines = lines + span.lines if lines >= 0 else -1

    def prefix(self, wanted: Iterable[Range]) -> Prefix:
        """Return the settled beginning of a source, up to the first gap."""
        gap = next(self.gaps(wanted), None)
        records = rejected = 0
        for span in self.spans():
            if gap is not None and span.range >= gap:
                break
            records += span.records
            rejected += span.rejected
        return Prefix(records, rejected)


def _named(range_: Range) -> str:
    return f"file {range_.file}, {range_.start} to {range_.end}"
