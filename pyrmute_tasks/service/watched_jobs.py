"""Watching the jobs of a jobs root for a coordinator; only what has changed is read."""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobError, JobNotFoundError
from pyrmute_tasks.jobs.driver import DriverWatch
from pyrmute_tasks.jobs.entries import Ended, JobResult, Noted
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import epochs
from pyrmute_tasks.jobs.root import is_job_name
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import Want, read_submitted
from pyrmute_tasks.service.end_commands import is_due
from pyrmute_tasks.service.turns import Facts

__all__ = ["WatchedJob", "WatchedJobs"]

_SETTLED_NS: Final = 3 * 10**9  # a folder's time of change is trusted when it is older than that
_TRY_AGAIN_S: Final = 5.0
_MOST_TRY_AGAIN_S: Final = 600.0
_MOST_DOUBLINGS: Final = 10
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class WatchedJob:
    """A job that has not ended for ever.

    Attributes:
        folder: The job.
        view: The job by its log, as far as it was looked at.
        want: What its users want.
        want_problem: Why that may be out of date; empty if it is not.
        newest: Its newest epoch, opened or not.
        driven: Who drives it; empty if nobody does.
        seen_at: Since when it is seen like that, by `time.monotonic`.
        failures: How often driving it has failed here without a word in its log.
        not_before: When it may be tried again after that, by `time.monotonic`.
        command_epoch: The newest epoch that ended it whose command was run, or need not be.
        command_at: When to try again to run the command for its end, by `time.monotonic`.
        command_tries: How often that was tried.
    """

    folder: JobFolder
    watch: DriverWatch
    view: JobView = field(default_factory=JobView)
    want: Want = field(default_factory=Want)
    want_problem: str = ""
    newest: int = -1
    driven: str = ""
    seen_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    command_epoch: int = 0
    command_at: float = 0.0
    command_tries: int = 0
    _changed_ns: int = -1

    @property
    def terms(self) -> Terms:
        """Its terms."""
        return self.folder.spec.terms or Terms()

    def forget(self) -> None:
        """Forget what was seen, so that the next look reads all of it."""
        self._changed_ns = self.newest = -1

    def note_command(self) -> None:
        """Note that its command is about to be run here; another one may be running it."""
        wait_s = _TRY_AGAIN_S * 2.0 ** min(self.command_tries, _MOST_DOUBLINGS)
        self.command_at = time.monotonic() + min(wait_s, _MOST_TRY_AGAIN_S)
        self.command_tries += 1

    def look(self) -> None:
        """Read what has changed since the last look.

        Raises:
            JobError: If it was discarded, or its log is damaged.
            OSError: If it cannot be read.
        """
        changed_ns = _changed_ns(self.folder.path)
        is_driven = self.view.state.is_driven
        if changed_ns != self._changed_ns or is_driven or self.driven:
            self._look_closely(is_driven=is_driven)
            self._look_at_wishes()
            is_settled = time.time_ns() - changed_ns > _SETTLED_NS
            self._changed_ns = changed_ns if is_settled else -1

    def _look_at_wishes(self) -> None:
        # If the file cannot be used, the newer of two counts: what was read here before, with its
        # code, or what the log names, which another coordinator may have read since.
        last = max(self.want, Want.of_logged(self.view.wished), key=lambda want: want.at)
        found = read_submitted(self.folder.storage, last)
        self.want, self.want_problem = found.want, found.problem

    def _look_closely(self, *, is_driven: bool) -> None:
        storage = self.folder.storage
        newest = max(epochs(storage), default=0)
        is_unread = newest != self.newest or newest != self.view.epoch  # not opened yet
        if is_unread or (is_driven and self._has_let_go()):
            self._read(newest)
        if not self.view.state.is_driven and newest == self.view.epoch:
            self.driven = ""
            return
        self.driven = self.watch.why_not(self.view)
        if not self.driven and self.view.state.is_driven:
            self._read(newest)  # for what its driver has done before it died

    def _has_let_go(self) -> bool:
        last = self.folder.last()
        entry = last.entry if last is not None else None
        return isinstance(entry, Ended) or (isinstance(entry, Noted) and entry.note.lets_go)

    def _read(self, newest: int) -> None:
        before = (self.newest, self.view.state, self.view.changed_at)
        self.view, self.newest = self.folder.view(), newest
        if before != (newest, self.view.state, self.view.changed_at):
            self.seen_at = time.monotonic()

    def facts(self, turned_at: float, before: JobResult | None) -> Facts:
        """Return what is known of it.

        Args:
            turned_at: When the fleet has come back, by `time.monotonic`.
            before: How the job has ended after which it runs; None if it has not.
        """
        return Facts(
            view=self.view,
            terms=self.terms,
            want=self.want,
            want_problem=self.want_problem,
            created_at=self.folder.spec.created_at,
            driven=self.driven,
            seen_s=time.monotonic() - self.seen_at,
            has_turned=turned_at > self.seen_at,
            before=before,
        )


class WatchedJobs:
    """All jobs of a jobs root; those that have ended for ever are only listed.

    Args:
        root: The directory.
        finds_commands: Whether to find the jobs that have ended, and whose command was not run yet.
        queue: Only those of this queue, or of none.

    Attributes:
        root: The directory.
        open: The jobs that have not ended for ever, by their folders' names.
        with_command: The jobs whose command for their end is due, by their folders' names.
        troubles: What cannot be read, and why, by the folders' names.
    """

    def __init__(self, root: Path, *, finds_commands: bool = False, queue: str = "") -> None:
        self.root = root
        self.open: dict[str, WatchedJob] = {}
        self.with_command: dict[str, WatchedJob] = {}
        self.troubles: dict[str, str] = {}
        self._finds_commands = finds_commands
        self._queue = queue
        self._ended: dict[str, JobResult | None] = {}
        self._changed_ns = -1

    def have_changed(self) -> bool:
        """Return whether jobs came or went since the last look, at the cost of one file's."""
        try:
            return _changed_ns(self.root) != self._changed_ns
        except (JobError, OSError):  # the next look tells
            return False

    def look(self, *, but: frozenset[str]) -> None:
        """Read what has changed since the last look.

        Args:
            but: The jobs that this process drives.

        Raises:
            OSError: If the root cannot be listed.
        """
        with contextlib.suppress(JobError):
            self._changed_ns = _changed_ns(self.root)
        names = set(filter(is_job_name, os.listdir(self.root)))
        for known in (self.open, self.with_command, self._ended, self.troubles):
            for name in known.keys() - names:
                known.pop(name)
        for name in self.with_command.keys() - self.open.keys() - but:  # those are looked at below
            with contextlib.suppress(JobError, OSError):
                self._note_end(name, self.with_command[name])
        for name in names - self._ended.keys() - but:
            try:
                self._look_at(name)
                self.troubles.pop(name, None)
            except (JobError, OSError) as error:
                self.troubles[name] = str(error)
                self._drop(name)

    def _drop(self, name: str) -> None:
        job = self.open.get(name)
        if job is not None:
            job.forget()
            job.driven = "it cannot be read"

    def _look_at(self, name: str) -> None:
        job = self.open.get(name)
        if job is None:
            folder = JobFolder(self.root / name)
            if folder.spec.terms is None:
                self._ended[name] = None  # a run's, which somebody has put there
                return
            job = self.open[name] = WatchedJob(folder, DriverWatch(folder.storage))
        job.look()
        self._note_end(name, job)
        if job.view.state.is_final:
            del self.open[name]
            ended = job.view.ended
            self._ended[name] = ended.result if ended is not None else None

    def _note_end(self, name: str, job: WatchedJob) -> None:
        """Note whether the command for the end of a job is due."""
        if not self._finds_commands or job.terms.queue not in ("", self._queue):
            return
        if job.view.ended is not None and job.command_epoch < job.view.epoch:
            is_tried = job.command_tries > 0 and time.monotonic() >= job.command_at
            if name in self.with_command and not is_tried:
                return  # it waits to be run, which looks again, or was tried just now
            if is_due(job.folder):
                self.with_command[name] = job
                return
            job.command_epoch = job.view.epoch
        self.with_command.pop(name, None)
        job.command_at, job.command_tries = 0.0, 0

    def result(self, job: str) -> JobResult | None:
        """Return how a job has ended; None if it has not, or is not there."""
        if job in self._ended:
            return self._ended[job]
        found = self.open.get(job)
        ended = found.view.ended if found is not None else None
        return ended.result if ended is not None else None


def _changed_ns(path: Path) -> int:
    """Return a directory's time of change; it is opened, so that network file systems look."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        raise JobNotFoundError(f"there is no job in {path}") from None
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
