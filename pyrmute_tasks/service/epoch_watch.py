"""What goes on beside an epoch, in a thread of its own: wishes, signs of life, and what is seen."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

from pyrmute_tasks.engine.events import Event, FleetSeen
from pyrmute_tasks.engine.job import Job
from pyrmute_tasks.engine.job_progress import JobProgress, Reason, sentence_of
from pyrmute_tasks.engine.stopping import JobStopped, Stop
from pyrmute_tasks.errors import JobError, LeaseLostError
from pyrmute_tasks.io.job_output import DrivenJob
from pyrmute_tasks.jobs.driver import BEAT_EVERY_S
from pyrmute_tasks.jobs.entries import Note, Noted
from pyrmute_tasks.jobs.now import Now, write_now
from pyrmute_tasks.jobs.want import Want, locked, read_want
from pyrmute_tasks.logs import log
from pyrmute_tasks.service.turns import Ending, Kind, ending_of

__all__ = ["Board", "EpochWatch"]

_EVERY_S: Final = 1.0
_LONG_S: Final = 5.0  # a reason that holds for so long is part of the history
_MOST_NOTES: Final = 10


class Board:
    """What is seen of an epoch: an `Observer` of its run, read by another thread.

    Attributes:
        way: Which way it goes.
        changed: Set when the fleet gets into trouble, or out of it.
    """

    def __init__(self) -> None:
        self.way: str = ""
        self._job: Job[Any, Any, Any] | None = None
        self._lock = threading.Lock()
        self.changed: threading.Event = threading.Event()
        # A reason is told within 3 s.
        self._progress = JobProgress(least_trouble_s=1.0, least_silence_s=2.0, is_surveyed=True)
        self._trouble = ""
        self._notes: deque[str] = deque(maxlen=_MOST_NOTES)
        self._reason: Reason | None = None
        self._waits_since = 0.0

    def __call__(self, event: Event, /) -> None:
        """Take an event into account."""
        told = sentence_of(event)
        with self._lock:
            self._progress.note(event, time.monotonic())
            if isinstance(event, FleetSeen) and event.trouble != self._trouble:
                self._trouble = event.trouble
                self.changed.set()
            if told:
                self._notes.append(told)

    def follow(self, job: Job[Any, Any, Any]) -> None:
        """Tell what is seen of a job."""
        self._job = job

    def note(self, sentence: str) -> None:
        """Add a sentence."""
        with self._lock:
            if sentence not in self._notes:
                self._notes.append(sentence)

    def now(self, epoch: int) -> Now:
        """Return what is seen."""
        with self._lock:
            clock, seen, at = time.monotonic(), self._progress, time.time()
            before, reason = self._reason, seen.reason(clock)
            if reason is None:
                self._waits_since = 0.0
            elif reason.for_s is not None:
                self._waits_since = at - reason.for_s
            elif before is None or before.lasting != reason.lasting:
                self._waits_since = at
            self._reason = reason
            is_bytes, job = seen.by_bytes, self._job
            return Now(
                epoch=epoch,
                at=at,
                records=seen.records + seen.rejected,
                outputs=seen.records,
                rejected=seen.rejected,
                done_bytes=seen.done if is_bytes else 0,
                total_bytes=(seen.total or 0) if is_bytes else 0,
                rate=seen.rate(clock),
                eta_s=seen.eta_s(clock),
                workers=seen.workers,
                window=job.window.chunks if job is not None else 0,
                in_flight=seen.in_flight,
                jobs=job.jobs if job is not None else 1,
                waits="" if reason is None else str(reason),
                waits_since=self._waits_since,
                causes=dict(job.report.rejected_by_cause) if job is not None else {},
                way=self.way,
                notes=tuple(self._notes),
            )

    def waits(self) -> Noted | None:
        """Return why nothing moves, as the last `now` found it; None if something does."""
        with self._lock:
            reason = self._reason
            if reason is None:
                return None
            return Noted(Note.WAIT, reason.lasting, self._waits_since)


class EpochWatch:
    """Watches an epoch: ends it when its users wish it, and shows that its driver lives.

    A context manager, whose thread goes on while the driver waits for whatever.

    Args:
        driven: The job.
        want: The wishes with which the epoch begins.
        board: What is seen of it.

    Attributes:
        stop: Ends the driver's job.
        ending: What has ended the epoch; None before.
    """

    def __init__(self, driven: DrivenJob, want: Want, board: Board) -> None:
        self.stop: Stop = Stop()
        self.ending: Ending | None = None
        self._folder, self._lease = driven.folder, driven.lease
        self._want = self._found = want
        self._board = board
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._beaten_at = time.monotonic()
        self._waits: Noted | None = None
        self._noted = ""
        self._thread = threading.Thread(target=self._run, name="epoch-watch", daemon=True)

    def __enter__(self) -> Self:
        # At once: what was wished while the lease was taken ends the epoch before it begins.
        self._look_safely()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, LeaseLostError):
            self.end(Ending(Kind.LOST, str(error)))
        self._is_over.set()
        self._board.changed.set()
        self._thread.join(_EVERY_S)  # it may hang at the storage

    def end(self, ending: Ending) -> None:
        """End the epoch; the first ending is kept."""
        with self._lock:
            self.ending = self.ending or ending
        self.stop.request()

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Keep users from changing their wishes while it is logged that the output will appear.

        So a user who cancels the job is either obeyed, or told that it is publishing.

        Raises:
            JobStopped: If the job is cancelled or paused.
        """
        with locked(self._folder.path):
            seen = self.ending.want if self.ending is not None else None
            wanted = read_want(self._folder.storage, seen or self._found).want
            ending = ending_of(self._want, wanted, self._lease.view)
            if ending is not None and ending.kind in (Kind.CANCELLED, Kind.PAUSED):
                self.end(ending)
                raise JobStopped
            yield

    def log_changes(self) -> None:
        """Log wishes that do not end the epoch, and waits; for the driver's thread, every second.

        Wishes that were not logged would seem new when the epoch has ended.
        """
        if not self._found.is_obeyed(self._lease.view.wished):
            self._lease.log.log(self._found.as_entry())
        waits = self._waits
        if waits is None:
            if self._noted:
                self._note(Noted(Note.RESUMED, "it goes on"))
        else:
            self.log_wait()

    def log_wait(self) -> None:
        """Log why it waits, once that has lasted.

        Also at the end of an epoch: its driver's thread may have hung at what is away until then.
        """
        waits = self._waits
        is_new = waits is not None and _without_numbers(waits.why) != self._noted
        if waits is not None and is_new and time.time() - waits.since >= _LONG_S:
            self._note(waits)

    def _note(self, note: Noted) -> None:
        self._noted = _without_numbers(note.why) if note.note is Note.WAIT else ""
        self._lease.log.log(note)
        self._lease.log.commit_if_due()

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._board.changed.wait(_EVERY_S)
            self._board.changed.clear()
            if self._is_over.is_set():
                if self.ending is None or self.ending.kind is not Kind.LOST:
                    self._tell(self._board.now(self._lease.epoch))  # it stays, as its log does
                return
            self._look_safely()

    def _look_safely(self) -> None:
        try:
            self._look()
        except Exception as error:  # it must go on: others would take the job over
            log(
                logging.WARNING,
                "watch_failed",
                "a look at a job's folder failed",
                job=self._folder.spec.job,
                error=type(error).__name__,
            )

    def _look(self) -> None:
        self._beat()
        found = read_want(self._folder.storage, self._found)
        if found.problem:
            self._board.note(found.problem)
        ending = ending_of(self._want, found.want, self._lease.view)
        if ending is not None:
            self.end(ending)
        elif self.ending is None:
            self._found = found.want
        now = self._board.now(self._lease.epoch)
        self._waits = self._board.waits()
        self._tell(now)

    def _tell(self, now: Now) -> None:
        with contextlib.suppress(OSError):  # nothing depends on it
            write_now(self._folder.path, now)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten_at < BEAT_EVERY_S:
            return
        self._beaten_at = time.monotonic()
        try:
            self._lease.log.beat()
        except LeaseLostError as error:
            self.end(Ending(Kind.LOST, str(error)))
        except (OSError, JobError):  # the storage is away, or it has been published
            pass


def _without_numbers(reason: str) -> str:
    return "".join(letter for letter in reason if not letter.isdigit())
