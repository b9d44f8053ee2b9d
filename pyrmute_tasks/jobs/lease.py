"""Leases: the right to drive a job, which belongs to the creator of its newest log.

A lease is taken by linking ``log.<n+1>``, which replaces nothing, so one of many wins. Then the
older logs are read, and the new one is opened with a seal that says how much of them counts.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pyrmute_tasks.errors import JobError, LeaseLostError
from pyrmute_tasks.jobs.driver import BEAT_EVERY_S
from pyrmute_tasks.jobs.entries import Leased, Note, Noted, Opened, encode
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.log import History, LogReader, LogWriter, epochs, log_name
from pyrmute_tasks.jobs.storage import NO_LINKS, Appender, Storage
from pyrmute_tasks.jobs.view import JobView

__all__ = ["Lease", "reserved", "take"]

_TOKEN_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive a job.

    Attributes:
        epoch: Its number.
        view: The view of the logs; the writer keeps it up to date.
        log: The epoch's log.
    """

    epoch: int
    view: JobView
    log: LogWriter

    @property
    def fold(self) -> Fold:
        """The ranges that are settled."""
        return self.view.fold

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Tell others every few seconds that this process lives, however long the block takes."""
        is_over = threading.Event()

        def beat() -> None:
            while not is_over.wait(BEAT_EVERY_S):
                with contextlib.suppress(OSError, JobError):  # the next commit raises it
                    self.log.beat()

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()  # without waiting for the thread, which may hang at the storage

    def let_go(self, why: str, note: Note = Note.STOPPED) -> None:
        """Commit all entries and release the lease; others need not wait for this process then.

        Args:
            why: The reason, as a sentence for people.
            note: What is noted with it: that it stopped, or that its output is held.

        Raises:
            LeaseLostError: If another one drives it already.
        """
        try:
            if not self.view.state.has_ended:
                self.log.log(Noted(note, why))
            self.log.commit()
        finally:
            self.log.close()


def take(
    storage: Storage,
    holder: Mapping[str, str | int],
    code: str,
    *,
    after: int | None = None,
    token: str = "",
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Lease:
    """Take the lease of a job, even from a living holder.

    Args:
        storage: The job's files.
        holder: The taker, for others to read.
        code: Fingerprint of the code that goes on with the job.
        after: The newest epoch that the taker has seen; None for whatever is the newest.
        token: A token that nobody else knows; random if empty.
        now: Seconds since 1970.
        monotonic: A clock that is never set.

    Raises:
        LeaseLostError: If another process was quicker, or has ended the job for ever.
        JobLogError: If the logs are damaged; nobody has the lease then.
    """
    epoch = (max(epochs(storage), default=0) if after is None else after) + 1
    leased = Leased(epoch, token or secrets.token_hex(_TOKEN_BYTES), holder)
    line = encode(leased, now(), epoch, 0)
    file = _create(storage, leased, line)
    try:
        storage.sync_folder()
        history = History(storage, before=epoch)
        view = JobView.of(history)
        history.sync()
        _refuse_ended(view, storage, epoch)
        view.apply(leased)
        log = LogWriter(storage, epoch, file, len(line), view, now=now, monotonic=monotonic)
        log.log(Opened(epoch, code, history.seal))
        log.commit()
    except BaseException:
        file.close()
        raise
    return Lease(epoch, view, log)


@contextlib.contextmanager
def reserved(storage: Storage, holder: Mapping[str, str | int], after: int) -> Iterator[None]:
    """Keep others from driving a job, whose state is as before if the block fails.

    The next epoch's log is created, and not opened. So it says nothing, and others look past it
    once its creator has ended.

    Args:
        storage: The job's files.
        holder: This process, for others to read.
        after: The newest epoch that it has seen.

    Raises:
        LeaseLostError: If another process was quicker.
        OSError: If it cannot be written.
    """
    leased = Leased(after + 1, secrets.token_hex(_TOKEN_BYTES), holder)
    # Closed at once, as some network file systems keep the names of open files.
    _create(storage, leased, encode(leased, time.time(), leased.epoch, 0)).close()
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            storage.remove(log_name(leased.epoch))
        raise


def _create(storage: Storage, leased: Leased, line: bytes) -> Appender:
    """Create the epoch's log with its first line."""
    candidate, name = f".lease.{leased.token}", log_name(leased.epoch)
    file = storage.create(candidate)
    try:
        file.append(line)
        file.sync()
        try:
            storage.link(candidate, name)
        except FileExistsError:
            if not _is_ours(storage, leased):  # or the answer to a first try was lost
                raise _too_late(leased.epoch) from None
        except FileNotFoundError:
            storage.names()  # raises if the job itself is gone
            # A quicker process, or the driver before, has ended it: only its history is kept then.
            raise LeaseLostError("another process has ended this job meanwhile") from None
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            file.close()
            file = _create_directly(storage, leased.epoch, line)
    except BaseException:
        file.close()
        raise
    finally:
        with contextlib.suppress(OSError):
            storage.remove(candidate)
    return file


def _refuse_ended(view: JobView, storage: Storage, epoch: int) -> None:
    """Refuse a job that its earlier driver has ended while the lease was taken."""
    if view.state.is_final:
        # Nobody reads a log that was not opened, and no other one will be opened; but left there,
        # it would make this process look like the driver.
        with contextlib.suppress(OSError):
            storage.remove(log_name(epoch))
        raise LeaseLostError(f"another process has ended this job meanwhile: {view.state}")


def _create_directly(storage: Storage, epoch: int, line: bytes) -> Appender:
    """Create a log without hard links; others may see its first line half written."""
    try:
        file = storage.create(log_name(epoch))
    except FileExistsError:
        raise _too_late(epoch) from None
    file.append(line)
    file.sync()
    return file


def _is_ours(storage: Storage, leased: Leased) -> bool:
    first = next(iter(LogReader(storage, leased.epoch)), None)
    return first is not None and first.entry == leased


def _too_late(epoch: int) -> LeaseLostError:
    return LeaseLostError(f"another process drives this job now: it was quicker with log.{epoch}")
