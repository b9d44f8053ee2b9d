"""Halving a range that kills its worker, down to the piece of a single line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.ranges.frames import Piece, Place, Range
from pyrmute_tasks.ranges.lines import FileChangedError, line_at, middle_line

__all__ = ["given_up", "halves_of"]


def halves_of(whole: Range) -> list[Range]:
    """Return the halves of a range, cut where a line begins; none if it holds one line.

    Raises:
        ConfigurationError: If its file cannot be read any more.
    """
    with _opened(whole) as file:
        middle = middle_line(file, whole.start, whole.stop)
    if middle is None:
        return []
    return [whole.part(whole.start, middle), whole.part(middle, whole.stop)]


def given_up(whole: Range) -> Piece:
    """Return the piece of a range of one line: the place of its record, if it holds one.

    Raises:
        ConfigurationError: If its file cannot be read any more.
    """
    with _opened(whole) as file:
        line = line_at(file, whole.start, whole.stop)
    if line is None or not line.holds_record:
        return Piece(whole.start, whole.stop, lines=int(line is not None))
    place = Place(0, 0, line.offset, line.length, line.digest)
    return Piece(whole.start, whole.stop, records_in=1, lines=1, places=(place,))


@contextmanager
def _opened(whole: Range) -> Iterator[BufferedReader]:
    """Open the file of a range; errors name it."""
    try:
        with open(whole.source.path, "rb") as file:
            yield file
    except (OSError, FileChangedError) as error:
        why = error.strerror if isinstance(error, OSError) else "it has changed while it was read"
        path = os.fsdecode(whole.source.path)
        raise ConfigurationError(f"cannot read {path}: {why or error}") from None
