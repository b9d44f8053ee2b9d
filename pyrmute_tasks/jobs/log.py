"""The logs of a job: reading the entries that count, and writing an epoch's log.

``log.<epoch>`` has one writer. Which bytes of older logs count is said by the seal in the newest
log that was opened; see ``docs/decisions/0024-job-log.md`` for why nothing is lost by it.
"""

import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from pyrmute_tasks.errors import JobError, JobFormatError, JobLogError, LeaseLostError
from pyrmute_tasks.jobs.entries import (
    FORMAT,
    BadLineError,
    Entry,
    Leased,
    Logged,
    Opened,
    Piece,
    Settled,
    decode,
    encode,
    format_of,
)
from pyrmute_tasks.jobs.storage import Appender, Storage
from pyrmute_tasks.jobs.view import JobView

__all__ = [
    "COMMIT_EVERY_S",
    "History",
    "LogReader",
    "LogWriter",
    "epochs",
    "log_name",
    "newest_opened",
]

COMMIT_EVERY_S: Final = 1.0
"""The time between two commits of a log, at least."""

_BLOCK_BYTES: Final = 1 << 20
_FIRST_BYTES: Final = 1 << 14  # often only the first lines are asked for
_PREFIX: Final = "log."
_LOG: Final = re.compile(r"log\.([1-9][0-9]*)")  # and no other file, such as log.007


def log_name(epoch: int) -> str:
    """Return the name of an epoch's log."""
    return f"{_PREFIX}{epoch}"


def epochs(storage: Storage) -> list[int]:
    """Return the epochs that have a log, in order."""
    found = [_LOG.fullmatch(name) for name in storage.names()]
    return sorted(int(match[1]) for match in found if match is not None)


class LogReader:
    """The entries of one log.

    Args:
        storage: The job's files.
        epoch: The log's number.
        limit: How many bytes count, by the seal; None for all whole lines.
        start: Where the first entry to read begins.

    Attributes:
        end: Where the last entry that was read ends.
        torn_bytes: Bytes behind the last whole line, once all is read.
    """

    def __init__(
        self, storage: Storage, epoch: int, limit: int | None = None, start: int = 0
    ) -> None:
        self.end: int = start
        self.torn_bytes: int = 0
        self._storage = storage
        self._epoch = epoch
        self._limit = limit

    def __iter__(self) -> Iterator[Logged]:
        """Yield the entries that count.

        Raises:
            JobLogError: If not all sealed bytes are whole lines.
            JobFormatError: If a newer version has written the log.
        """
        for line in self._lines():
            if self.end == 0:
                self._check_format(line)
            try:
                logged = decode(line, self._epoch, self.end)
            except BadLineError as error:
                if self._limit is not None:
                    raise self._damaged(str(error)) from None
                self._count_torn()
                return
            self.end += len(line)
            yield logged
        if self._limit is not None and self.end != self._limit:
            raise self._damaged(f"{self._limit - self.end} sealed bytes are missing")
        self._count_torn()

    def _lines(self) -> Iterator[bytes]:
        """Yield whole lines, newlines included, of the bytes that count."""
        rest, position = b"", self.end
        while self._limit is None or position < self._limit:
            most = _BLOCK_BYTES if position else _FIRST_BYTES
            left = most if self._limit is None else self._limit - position
            block = self._storage.read(self._name, position, min(left, most))
            if not block:
                return
            position += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line + b"\n"

    def _check_format(self, line: bytes) -> None:
        found = format_of(line)
        if found > FORMAT:
            raise JobFormatError(
                f"{self._name} has format {found}, and this version reads up to {FORMAT}: "
                "use the version that wrote it, or a newer one"
            )

    def _count_torn(self) -> None:
        if self._limit is None:
            self.torn_bytes = max(0, self._storage.size(self._name) - self.end)

    def _damaged(self, why: str) -> JobLogError:
        return JobLogError(
            f"{self._name} is damaged at byte {self.end}: {why}. What it says of the job cannot "
            "be trusted; restore the file, or start the job again"
        )

    @property
    def _name(self) -> str:
        return log_name(self._epoch)


class History:
    """All entries of a job that count, in the order of epochs.

    Args:
        storage: The job's files.
        before: Read only logs of older epochs.

    Attributes:
        seal: How many bytes of each log were read, once all are.
    """

    def __init__(self, storage: Storage, before: int | None = None) -> None:
        self.seal: dict[int, int] = {}
        self._storage = storage
        self._before = before

    def __iter__(self) -> Iterator[Logged]:
        """Yield the entries.

        Raises:
            JobLogError: If a log is damaged, or one that counts is gone.
            JobFormatError: If a newer version has written one.
        """
        found = [each for each in epochs(self._storage) if not self._before or each < self._before]
        opened = newest_opened(self._storage, found)
        if opened is None:
            return
        newest = opened.epoch
        for epoch, limit in sorted(opened.seal.items()):
            if epoch not in found:
                raise JobLogError(
                    f"{log_name(epoch)} is missing, and {limit} bytes of it are sealed"
                )
            yield from LogReader(self._storage, epoch, limit)
        self.seal.update(opened.seal)
        reader = LogReader(self._storage, newest)
        yield from reader
        self.seal[newest] = reader.end

    def sync(self) -> None:
        """Make the read part of the newest log durable; sealed ones are already."""
        if self.seal:
            self._storage.sync(log_name(max(self.seal)))


def newest_opened(storage: Storage, found: list[int]) -> Opened | None:
    """Return the `open` entry of the newest of some logs that has one."""
    for epoch in reversed(found):
        opened = _opened(storage, epoch)
        if opened is not None:
            return opened
    return None


def _opened(storage: Storage, epoch: int) -> Opened | None:
    """Return the `open` entry of a log; None if its writer died before writing it.

    Nothing is written behind that entry before it is durable, so more lines behind a bad one mean
    damage, and not a death.
    """
    while True:
        reader = LogReader(storage, epoch)
        entries = [logged.entry for logged in islice(reader, 2)]
        match entries:
            case [Leased(), Opened() as opened]:
                return opened
        behind = storage.read(log_name(epoch), reader.end, _BLOCK_BYTES)
        if behind.count(b"\n") <= 1:
            return None
        line = behind[: behind.index(b"\n") + 1]
        if len(entries) > 1 or not _is_whole(line, epoch, reader.end):
            raise JobLogError(
                f"{log_name(epoch)} is damaged at byte {reader.end}: the rest cannot be trusted; "
                "restore the file, or start the job again"
            )
        # It was written while this was read: again.


def _is_whole(line: bytes, epoch: int, offset: int) -> bool:
    try:
        decode(line, epoch, offset)
    except BadLineError:
        return False
    return True


class LogWriter:
    """The writer of an epoch's log, and of the files of outputs and rejects beside it.

    Entries are kept until `commit`. Once a write, a sync or the look for a newer epoch has failed,
    everything raises that error: what the files then have is unknown, and a new epoch goes on.
    Not for several threads, but for `beat`.

    Args:
        storage: The job's files.
        epoch: The log's number.
        file: The log, which has its first line.
        offset: Its length.
        view: The view of the logs; kept up to date.
        now: Seconds since 1970, for entries.
        monotonic: A clock that is never set, for the time between commits.
    """

    def __init__(
        self,
        storage: Storage,
        epoch: int,
        file: Appender,
        offset: int,
        view: JobView,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._epoch = epoch
        self._file = file
        self._offset = offset
        self._view = view
        self._now, self._monotonic = now, monotonic
        self._committed_at = monotonic()
        self._lines: list[bytes] = []
        self._settled: list[Settled] = []
        self._growing: dict[str, tuple[Appender, int]] = {}
        self._unsynced: set[str] = set()  # growing files
        self._has_new_names = False  # which may not be durable
        self._failed: BaseException | None = None

    def put(self, data: bytes | memoryview) -> Piece:
        """Append outputs to the epoch's stream, and return their place."""
        return self._grow(f"stream.{self._epoch}", data)

    def put_rejects(self, data: bytes | memoryview) -> Piece:
        """Append descriptions of rejects to the epoch's file, and return their place."""
        return self._grow(f"rejects.{self._epoch}", data)

    def settle(self, entry: Settled) -> None:
        """Add a settled range to the next commit.

        An attempt's file must be durable, and its name: its worker sees to both.

        Raises:
            JobLogError: If it contradicts what is settled; the log is as before.
        """
        self.log(entry)
        self._settled.append(entry)

    def log(self, entry: Entry) -> None:
        """Add an entry to the next commit.

        Raises:
            JobLogError: If it contradicts those before it; the log is as before.
        """
        self._check()
        self._view.apply(entry)
        line = encode(entry, self._now(), self._epoch, self._offset)
        self._offset += len(line)
        self._lines.append(line)

    def commit(self) -> list[Settled]:
        """Make all entries durable, and return the ranges among them, which count for good.

        Raises:
            LeaseLostError: If a newer epoch has begun; then they do not count.
            OSError: If they cannot be written.
        """
        self._check()
        self._committed_at = self._monotonic()
        try:
            self._sync_data()
            if self._lines:
                self._file.append(b"".join(self._lines))
                self._file.sync()
            self._confirm()
        except BaseException as error:
            self._failed = error
            raise
        settled, self._settled, self._lines = self._settled, [], []
        return settled

    def commit_if_due(self) -> list[Settled]:
        """Commit if a second has passed since the last commit and entries are pending."""
        if not self._lines or self._monotonic() - self._committed_at < COMMIT_EVERY_S:
            return []
        return self.commit()

    def beat(self) -> None:
        """Touch the log as a sign of life, and check that no newer epoch has begun.

        May be called by a thread of its own, so that it goes on while an output is joined.

        Raises:
            LeaseLostError: If one has.
            OSError: If the log cannot be reached; the next time it may be.
        """
        self._check()
        try:
            self._storage.touch(log_name(self._epoch))
            self._confirm()
        except LeaseLostError as error:
            self._failed = error
            raise

    def close(self) -> None:
        """Close the files; uncommitted entries are lost."""
        self._file.close()
        for file, _ in self._growing.values():
            file.close()
        self._failed = self._failed or JobLogError("the job's log is closed")

    # --- details ----------------------------------------------------------------------------

    def _check(self) -> None:
        if isinstance(self._failed, Exception):
            raise self._failed
        if self._failed is not None:
            raise JobError("the job's log was interrupted while it was written") from self._failed

    def _grow(self, name: str, data: bytes | memoryview) -> Piece:
        self._check()
        try:
            if name not in self._growing:
                self._growing[name] = (self._storage.create(name), 0)
                self._has_new_names = True
            file, size = self._growing[name]
            self._unsynced.add(name)
            file.append(data)
        except BaseException as error:
            self._failed = error
            raise
        length = memoryview(data).nbytes
        self._growing[name] = (file, size + length)
        return Piece(name, size, length)

    def _sync_data(self) -> None:
        """Sync outputs before their entries are written, as others may read these at once."""
        for name in self._unsynced:
            self._growing[name][0].sync()
        if self._has_new_names:
            self._storage.sync_folder()
        self._unsynced.clear()
        self._has_new_names = False

    def _confirm(self) -> None:
        newest = epochs(self._storage)[-1:]
        if newest > [self._epoch]:
            raise LeaseLostError(
                f"another process drives this job now: log.{newest[0]} was created while this one "
                f"had log.{self._epoch}"
            )
        if newest < [self._epoch]:
            raise LeaseLostError(f"log.{self._epoch} of this job was removed while it ran")
