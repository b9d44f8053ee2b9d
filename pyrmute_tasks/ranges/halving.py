"""Halving a range that kills its worker, down to the piece of a single line."""

import os

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.ranges.frames import Piece, Place, Range
from pyrmute_tasks.ranges.lines import FileChangedError, line_at, middle_line

__all__ = ["given_up", "halves_of"]


def halves_of(whole: Range) -> list[Range]:
    """Return the halves of a range, cut where a line begins; none if it holds one line.

    Raises:
        ConfigurationError: If its file cannot be read any more.
    """
    try:
        with open(whole.source.path, "rb") as file:
            middle = middle_line(file, whole.start, whole.stop)
    except (OSError, FileChangedError) as error:
        raise _unreadable(whole, error) from None
    if middle is None:
        return []
    return [whole.part(whole.start, middle), whole.part(middle, whole.stop)]


def given_up(whole: Range) -> Piece:
    """Return the piece of a range of one line: the place of its record, if it holds one.

    Raises:
        ConfigurationError: If its file cannot be read any more.
    """
    try:
        with open(whole.source.path, "rb") as file:
            line = line_at(file, whole.start, whole.stop)
    except (OSError, FileChangedError) as error:
        raise _unreadable(whole, error) from None
    if line is None or not line.holds_record:
        return Piece(whole.start, whole.stop, lines=int(line is not None))
    place = Place(0, 0, line.offset, line.length, line.digest)
    return Piece(whole.start, whole.stop, records_in=1, lines=1, places=(place,))


def _unreadable(whole: Range, error: Exception) -> ConfigurationError:
    why = error.strerror if isinstance(error, OSError) else "it has changed while it was read"
    return ConfigurationError(f"cannot read {os.fsdecode(whole.source.path)}: {why or error}")
