"""Reading both ends of a job's newest log, which tell its state, and not what is between."""

from typing import Final, NamedTuple

from pyrmute_tasks.jobs.entries import BadLineError, Leased, Logged, Opened, Wished, decode
from pyrmute_tasks.jobs.log import epochs, log_name, newest_opened
from pyrmute_tasks.jobs.storage import Storage

__all__ = ["Glance", "glance_at"]

_AT_ONCE_BYTES: Final = 32 * 1024  # a log of that size is read by one call
_LAST_LINE_BYTES: Final = 4096


class Glance(NamedTuple):
    """Both ends of a job's newest log.

    Attributes:
        opened: The `open` entry of its newest log that counts.
        begun: The first line of that log, which says who took the lease; None if it was not read.
        last: The last entry of that log; None if its last line is not whole, or not known.
        wished: The wish with which that epoch began; None if an earlier one has obeyed it.
    """

    opened: Opened
    begun: Logged | None
    last: Logged | None
    wished: Wished | None = None


def glance_at(storage: Storage) -> Glance | None:
    """Return both ends of a job's newest log; None if no log counts yet.

    Raises:
        FileNotFoundError: If the job was discarded.
        JobLogError: If the beginning of a log is damaged.
    """
    found = epochs(storage)
    if not found:
        return None
    name = log_name(found[-1])
    data = storage.read(name, 0, _AT_ONCE_BYTES)
    first = _line_at(data, 0, found[-1])
    second = _line_at(data, first.length, found[-1]) if first is not None else None
    if first and second and isinstance(first.entry, Leased) and isinstance(second.entry, Opened):
        third = _line_at(data, first.length + second.length, found[-1])
        wished = third.entry if third and isinstance(third.entry, Wished) else None
        return Glance(second.entry, first, _last(storage, found[-1], data), wished)
    opened = newest_opened(storage, found)  # being taken over, or a log of very many epochs
    return None if opened is None else Glance(opened, None, _last(storage, opened.epoch, b""))


def _last(storage: Storage, epoch: int, data: bytes) -> Logged | None:
    start = 0
    if not 0 < len(data) < _AT_ONCE_BYTES:
        size = storage.size(log_name(epoch))
        length = _LAST_LINE_BYTES
        while True:  # a reason may be long
            start = max(0, size - length)
            data = storage.read(log_name(epoch), start, size - start)
            if not start or b"\n" in data[:-1]:
                break
            length *= 8
    begins = data.rfind(b"\n", 0, -1) + 1
    return _decoded(data[begins:], epoch, start + begins)


def _line_at(data: bytes, offset: int, epoch: int) -> Logged | None:
    end = data.find(b"\n", offset) + 1
    return _decoded(data[offset:end], epoch, offset) if end else None


def _decoded(line: bytes, epoch: int, offset: int) -> Logged | None:
    try:
        return decode(line, epoch, offset)
    except BadLineError:
        return None
