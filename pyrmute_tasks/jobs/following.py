"""Following a job's logs as they grow: each entry is read once."""

from collections.abc import Iterator
from typing import NamedTuple

from pyrmute_tasks.errors import JobLogError
from pyrmute_tasks.jobs.entries import Logged, Opened
from pyrmute_tasks.jobs.log import LogReader, epochs, log_name, newest_opened
from pyrmute_tasks.jobs.storage import Storage

__all__ = ["Added", "Following"]


class Added(NamedTuple):
    """What was added to the logs of a job.

    Attributes:
        starts_over: Whether these are all entries: some of those read before count no more.
        entries: The entries; to be read before the next look.
    """

    starts_over: bool
    entries: Iterator[Logged]


class Following:
    """Follows the logs of a job.

    Args:
        storage: The job's files.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._read: dict[int, int] = {}  # bytes of each log
        self._opened: Opened | None = None

    def look(self) -> Added:
        """Return what was added since the last look.

        Raises:
            JobLogError: If a log is damaged, or one that counts is gone; also while reading.
            JobFormatError: If a newer version has written one.
        """
        found = epochs(self._storage)
        if self._opened is None or found[-1:] != [self._opened.epoch]:
            self._opened = newest_opened(self._storage, found)
        if self._opened is None:
            return Added(False, iter(()))
        limits = dict(sorted(self._opened.seal.items()))
        for epoch in limits:
            if epoch not in found:
                raise JobLogError(f"{log_name(epoch)} is missing, and a newer log counts on it")
        newest = self._opened.epoch
        starts_over = any(
            size > limits.get(epoch, 0) for epoch, size in self._read.items() if epoch != newest
        )  # its writer was frozen, and wrote behind the seal
        if starts_over:
            self._read = {}
        return Added(starts_over, self._entries({**limits, newest: None}))

    def _entries(self, limits: dict[int, int | None]) -> Iterator[Logged]:
        for epoch, limit in limits.items():
            start = self._read.get(epoch, 0)
            if limit is not None and start == limit:
                continue
            reader = LogReader(self._storage, epoch, limit, start)
            for logged in reader:
                yield logged
                self._read[epoch] = reader.end
