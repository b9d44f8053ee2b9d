"""Halving a range that kills its worker, down to the piece of a single line."""

import os

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.ranges.frames import Piece, Range, to_frame
from pyrmute_tasks.ranges.lines import FileChangedError, line_at, middle_line
from pyrmute_tasks.wire.frames import Frame

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


def given_up(whole: Range) -> Frame:
    """Return the outputs of a range of one line, whose record has none: its place alone.

    Raises:
        ConfigurationError: If its file cannot be read any more.
    """
    try:
        with open(whole.source.path, "rb") as file:
            begin, end = line_at(file, whole.start, whole.stop)
    except (OSError, FileChangedError) as error:
        raise _unreadable(whole, error) from None
    return to_frame([Piece.of_line(whole.start, whole.stop, begin, end)])


def _unreadable(whole: Range, error: Exception) -> ConfigurationError:
    why = error.strerror if isinstance(error, OSError) else "it has changed while it was read"
    return ConfigurationError(f"cannot read {os.fsdecode(whole.source.path)}: {why or error}")
