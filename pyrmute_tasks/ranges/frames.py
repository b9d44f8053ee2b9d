"""Frames by reference: a range of a file, and the pieces written for it.

Both are small msgpack lists in frames of the kind `RANGES`. What a worker tells is checked before
it is used: a piece's attempt is a name in the job's folder, and no path.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Final, Self

from pyrmute_tasks.errors import FrameError
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame, encode_frame, pack, unpack

__all__ = ["MAX_RANGE_BYTES", "Piece", "Place", "Range", "SourceFile", "read_pieces", "to_frame"]

MAX_RANGE_BYTES: Final = 1024 * 1024 * 1024
"""Upper bound of a range's length: a frame's header counts with 32 bits."""

_NAME: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,199}")
_NONCE: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(r"[0-9a-f]{32}|")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MAX: Final = 2**62


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it was when its ranges were planned.

    Attributes:
        path: Its path without links.
        size_bytes: Its size.
        mtime_ns: When it was modified last.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Range:
    """The records whose lines begin in an interval of a file.

    Attributes:
        source: The file.
        start: First byte.
        stop: The byte after the last one.
        folder: Where attempts are written.
        nonce: What the file ``nonce`` in that folder holds.
        max_line_bytes: Longest line.
    """

    source: SourceFile
    start: int
    stop: int
    folder: bytes
    nonce: str
    max_line_bytes: int

    def to_frame(self) -> bytes:
        """Return the range as a frame, whose count is its length."""
        source = self.source
        return encode_frame(
            FrameKind.RANGES,
            self.stop - self.start,
            pack(
                [
                    source.path,
                    source.size_bytes,
                    source.mtime_ns,
                    self.start,
                    self.stop,
                    self.folder,
                    self.nonce,
                    self.max_line_bytes,
                ]
            ),
        )

    def part(self, start: int, stop: int) -> Self:
        """Return the part of the range between two bytes."""
        return replace(self, start=start, stop=stop)

    @classmethod
    def from_frame(cls, frame: Frame | bytes) -> Self:
        """Decode a range from `to_frame`.

        Raises:
            FrameError: If it is something else.
        """
        frame = frame if isinstance(frame, Frame) else decode_frame(frame)
        if frame.kind is not FrameKind.RANGES:
            raise FrameError("a frame is of another kind than its job")
        match unpack(frame.payload):
            case [
                bytes() as path,
                int() as size,
                int() as mtime,
                int() as start,
                int() as stop,
                bytes() as folder,
                str() as nonce,
                int() as longest,
            ]:
                found = cls(SourceFile(path, size, mtime), start, stop, folder, nonce, longest)
            case _:
                raise FrameError("a frame does not hold a range")
        if not found._is_sound():
            raise FrameError("a range contradicts itself")
        return found

    def _is_sound(self) -> bool:
        paths = (self.source.path, self.folder)
        return (
            all(path.startswith(b"/") and b"\0" not in path for path in paths)
            and 0 <= self.start < self.stop <= self.source.size_bytes < _MAX
            and self.stop - self.start <= MAX_RANGE_BYTES
            and _NONCE.fullmatch(self.nonce) is not None
            and 0 < self.max_line_bytes < _MAX
        )


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a record that failed.

    Attributes:
        record: Its position among the piece's records.
        line: Its line, counted from the first one that begins in the piece.
        offset: Its first byte in the file.
        length: Bytes of its line, without the newline.
        digest: SHA-256 of these bytes, hexadecimal.
    """

    record: int
    line: int
    offset: int
    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The result of an interval of a file: an attempt, and the number of its records.

    Attributes:
        start: First byte of the interval.
        stop: The byte after the last one.
        attempt: Name of the file that holds the outputs; empty if there are none.
        size_bytes: Size of that file.
        records_in: Records read, those that failed included.
        records_out: Outputs.
        lines: Lines that begin in the interval, blank ones included; up to the last record
            that was read, if a failure ended it.
        digest: Of the outputs (BLAKE2b, 16 bytes, hexadecimal).
        places: Where the records stand that failed, in order.
    """

    start: int
    stop: int
    attempt: str = ""
    size_bytes: int = 0
    records_in: int = 0
    records_out: int = 0
    lines: int = 0
    digest: str = ""
    places: tuple[Place, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether only its first outputs count, since the job ends inside of it."""
        return self.records_out + len(self.places) < self.records_in

    def cut(self, count: int) -> Self:
        """Return it with only its first `count` outputs; its attempt holds all of them."""
        return replace(self, records_out=count)

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """Return a piece from a worker's values.

        Raises:
            FrameError: If it contradicts itself, or its attempt is not a plain file name.
        """
        try:
            *front, places = values
            piece = cls(*[*front, tuple(Place(*place) for place in places)])
            is_sound = piece._is_sound()
        except (TypeError, ValueError):
            is_sound = False
        if not is_sound:
            raise FrameError("an outcome does not hold the pieces that it announces")
        return piece

    def _is_sound(self) -> bool:
        numbers = [
            *(self.start, self.stop, self.size_bytes, self.records_in, self.records_out),
            self.lines,
            *(number for place in self.places for number in astuple(place)[:-1]),
        ]
        failed = [place.record for place in self.places]
        return (
            all(type(number) is int and 0 <= number < _MAX for number in numbers)
            and self.start < self.stop
            and (_NAME.fullmatch(self.attempt) is not None if self.size_bytes else not self.attempt)
            and _DIGEST.fullmatch(self.digest) is not None
            and self.records_in == self.records_out + len(failed)
            and self.lines >= self.records_in
            and bool(self.size_bytes) == bool(self.records_out)
            and failed == sorted(set(failed))
            and all(record < self.records_in for record in failed)
            and all(_SHA256.fullmatch(place.digest) for place in self.places)
        )


def to_frame(pieces: Iterable[Piece]) -> Frame:
    """Return pieces as outputs; the frame's count is that of the records they hold."""
    pieces = list(pieces)
    payload = pack([_to_values(piece) for piece in pieces])
    return Frame(FrameKind.RANGES, sum(piece.records_out for piece in pieces), payload)


def _to_values(piece: Piece) -> list[Any]:
    *front, places = astuple(piece)
    return [*front, [list(place) for place in places]]


def read_pieces(frame: Frame) -> Sequence[Piece]:
    """Return the pieces of an outcome; none if it is that of a range that could not be run.

    Raises:
        FrameError: If it holds something else.
    """
    if frame.kind is not FrameKind.RANGES:
        if frame.count:
            raise FrameError("an outcome is of another kind than its job")
        return ()
    values = unpack(frame.payload)
    if not isinstance(values, list):
        raise FrameError("an outcome does not hold pieces")
    pieces = [Piece.from_values(value) for value in values]
    if sum(piece.records_out for piece in pieces) != frame.count:
        raise FrameError("an outcome does not hold the outputs that it announces")
    return pieces
