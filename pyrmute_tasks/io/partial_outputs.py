"""The outputs of a job that failed, kept as a file: those before the first gap, or its end."""

import os
from collections.abc import Iterable
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import Final

from pyrmute_tasks.jobs.copying import append
from pyrmute_tasks.jobs.entries import Piece, Range
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.output import Output
from pyrmute_tasks.jobs.storage import NO_LINKS

__all__ = ["copy_beginning", "link_stream"]

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_beginning(
    folder: JobFolder, fold: Fold, end: Range | None, tail: Iterable[Piece], path: Path
) -> None:
    """Write the outputs of the settled beginning of a source to a new file.

    Args:
        folder: The job.
        fold: Its settled ranges.
        end: The chunk in which the job ended; None if it did not end in one.
        tail: Outputs of that chunk before its end.
        path: The file.

    Raises:
        OSError: If outputs cannot be read or written.
    """
    gap = next(fold.gaps(folder.spec.wanted), None)
    stops = [place for place in (gap, end) if place is not None]
    settled = takewhile(
        lambda entry: all(entry.range < stop for stop in stops), Output(folder).ranges()
    )
    descriptor = os.open(path, _CREATE, 0o666)
    try:
        for piece in chain((entry.put for entry in settled), tail):
            if piece is not None:
                folder.copy(piece, partial(append, descriptor))
    finally:
        os.close(descriptor)


def link_stream(stream: Path, name: Path) -> bool:
    """Give a stream a second name; False if there is none, or the file system has no links."""
    try:
        os.link(stream, name, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True
