"""The records that a job has rejected, read from its log: so far, or in the end."""

from collections.abc import Iterator
from dataclasses import replace

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.io.logged_rejects import decode_rejects, locate
from pyrmute_tasks.jobs.entries import Piece
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.storage import Storage
from pyrmute_tasks.ranges.frames import Place

__all__ = ["read_rejects", "rejects_of"]


def read_rejects(storage: Storage, piece: Piece) -> tuple[list[RecordFailure], list[Place]]:
    """Return the failures of a range's rejects and their places, counted from its start.

    There are none any more if the job was cancelled.

    Raises:
        JobLogError: If they are damaged.
        JobError: If they cannot be read.
    """
    try:
        data = storage.read(*piece)
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise JobError(f"{piece.name} of the job cannot be read: {error.strerror}") from error
    return decode_rejects(data)


def rejects_of(folder: JobFolder, fold: Fold | None = None) -> Iterator[RecordFailure]:
    """Yield the failures of a job's rejects, in the order of its source; without the records.

    Where something before a record is not settled yet its number is not known: then its ``index``
    is -1, and its place has line 0. Its place always has the offset.

    Args:
        folder: The job.
        fold: The ranges that are settled; by default they are read from its log.

    Raises:
        JobNotFoundError: If the job was discarded.
        JobLogError: If its log is damaged.
        JobError: If the description of rejects cannot be read.
    """
    fold = folder.view().fold if fold is None else fold
    for span in fold.spans():
        if span.rejects is None:
            continue
        failures, places = read_rejects(folder.storage, span.rejects)
        file = folder.spec.sources[span.range.file].path
        for failure, place in zip(failures, places, strict=True):
            found = locate(place, file, span.first_line)
            if span.first_line < 0:
                found = replace(found, line=0)
            index = -1 if span.first_record < 0 else span.first_record + failure.index
            yield replace(failure, index=index, place=found)
