"""`SubmittedJob`: a submitted job for Python, by the files of its folder."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobFailedError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.io.kept_jobs import ProvenJob, discard_job, publish_job
from pyrmute_tasks.jobs.discarded import was_discarded
from pyrmute_tasks.jobs.entries import JobResult, Note
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.service import steering
from pyrmute_tasks.service.history import LoggedReport, report_of
from pyrmute_tasks.service.logged_job import glance_status
from pyrmute_tasks.service.rejects import rejects_of
from pyrmute_tasks.service.retrying import RetryOptions, submit_retry
from pyrmute_tasks.service.status import JobStatus, JobWatch
from pyrmute_tasks.service.steering import Bound, Limits
from pyrmute_tasks.service.submitting import Submitter

__all__ = ["Pauses", "SubmittedJob"]

_FIRST_PAUSE_S: Final = 0.01
_MOST_PAUSE_S: Final = 0.5
_MOST_LATE: Final = 0.01  # of the time that was waited


class Pauses:
    """The growing pauses between looks at a job.

    Args:
        job: The job's id.
        timeout_s: How long to look; None for ever.
        monotonic: A clock that is never set.
    """

    def __init__(self, job: str, timeout_s: float | None, monotonic: Callable[[], float]) -> None:
        self._job = job
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._began = monotonic()

    def next_s(self) -> float:
        """Return how long to wait before the next look.

        Raises:
            TimeoutError: If the time is over.
        """
        waited_s = self._monotonic() - self._began
        pause_s = min(max(_FIRST_PAUSE_S, _MOST_LATE * waited_s), _MOST_PAUSE_S)
        if self._timeout_s is None:
            return pause_s
        left_s = self._timeout_s - waited_s
        if left_s <= 0:
            raise TimeoutError(
                f"job {self._job} has not ended after {self._timeout_s:g} s; it goes on"
            )
        return min(pause_s, left_s)


# Above 250 lines: the calls of one job, each a line or two below its description.
class SubmittedJob:
    """A submitted job, steered and watched through its folder.

    Nothing here talks to a fleet, so it does not matter which process drives the job.
    `Migrator.submit` and `Migrator.job` return one.

    Args:
        root: The jobs root.
        folder: The job's folder.
        by: The `Migrator` through which it was found, which submits its retries.

    Attributes:
        id: The job's id.
        path: The job's folder.
    """

    def __init__(self, root: JobsRoot, folder: JobFolder, by: Submitter) -> None:
        self._root = root
        self._folder = folder
        self._by = by
        self.id: str = folder.spec.job
        self.path: Path = folder.path
        self._watch = JobWatch(folder)
        self._lock = threading.Lock()  # of the watch

    def __repr__(self) -> str:
        """Show its id and where it is."""
        return f"SubmittedJob({self.id!r}, {str(self.path)!r})"

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Wait until it has succeeded, or holds its output; a job that nobody drives waits, too.

        Args:
            timeout_s: How long; by default for ever. `progress` tells what it waits for.

        Returns:
            Its status.

        Raises:
            JobFailedError: If it failed, or was cancelled.
            TimeoutError: If it has not ended by then; it goes on.
            JobNotFoundError: If it was discarded.
        """
        pauses = Pauses(self.id, timeout_s, time.monotonic)
        while not self.is_over():
            time.sleep(pauses.next_s())
        return self.progress()

    def is_over(self) -> bool:
        """Return whether it has succeeded, or holds its output, so that `wait` would return.

        Returns:
            Whether it has.

        Raises:
            JobFailedError: If it failed or was cancelled, and nobody has resumed it since.
            JobNotFoundError: If it was discarded.
            JobLogError: If its log is damaged.
        """
        storage = self._folder.storage
        try:
            logged = glance_status(storage)
        except FileNotFoundError:
            if not self._root.path.is_dir() or self.path.is_dir():
                return False  # its storage is away, or another process has just removed a file
            raise was_discarded(self.path) from None
        except OSError:
            return False
        ended = logged.ended
        if ended is None and logged.let_go is not Note.HELD:
            return False
        can_go_on = ended is None or ended.result is JobResult.FAILED
        if can_go_on:  # its users may have steered it since: the status knows
            status = self.progress()
            if not (status.has_ended or status.is_held):
                return False
        if ended is not None and not ended.result.is_success:
            raise JobFailedError(self.id, ended.result.value, ended.why)
        return True

    # --- seeing -----------------------------------------------------------------------------

    def progress(self) -> JobStatus:
        """Return how far it is, who drives it, and why it waits.

        Returns:
            Its status now; from one call to the next, only what was added to its log is read.

        Raises:
            JobNotFoundError: If it was discarded.
            JobLogError: If its log is damaged.
        """
        with self._lock:
            return self._watch.look()

    def report(self) -> LoggedReport:
        """Return what ran, what failed, and what held it up, so far or in the end.

        Returns:
            The report, over all that have driven it.

        Raises:
            JobNotFoundError: If it was discarded.
            JobLogError: If its log is damaged.
        """
        return report_of(self._folder)

    def rejects(self) -> Iterator[RecordFailure]:
        """Yield the failures of the records that it has rejected so far, in order.

        Yields:
            The failures, with their places, and without the records.

        Raises:
            JobNotFoundError: If it was discarded.
            JobLogError: If its log is damaged.
        """
        yield from rejects_of(self._folder)

    # --- steering ---------------------------------------------------------------------------

    def pause(self, why: str = "") -> None:
        """Pause it, within seconds, until somebody resumes it.

        Args:
            why: The reason, for people.

        Raises:
            JobError: If it has ended, or was cancelled.
            ConfigurationError: If this user may not steer it.
        """
        steering.pause(self._folder, why)

    def resume(self, why: str = "", *, accept_code: bool = False) -> None:
        """Resume it, after a pause, a suspension or a failure.

        Args:
            why: The reason, for people.
            accept_code: Go on with this manager's code although it is another one. A job that was
                paused or suspended otherwise goes on with its own.

        Raises:
            JobError: If it goes on anyway, has succeeded, was cancelled, or code that was accepted
                for it is lost, and not accepted again.
            JobChangedError: If it has failed, and the code is another one, and not accepted.
            ConfigurationError: If this user may not steer it.
        """
        code = None
        if accept_code or self._folder.end() is not None:
            code = steering.code_of(self._by.manager, self._folder)
        steering.resume(self._folder, why, code=code, accept_code=accept_code)

    def cancel(self, why: str = "") -> None:
        """Cancel it: it ends within seconds, without its output.

        Args:
            why: The reason, for people.

        Raises:
            JobError: If it has ended, or publishes its output.
            ConfigurationError: If this user may not steer it.
        """
        steering.cancel(self._folder, why)

    def set(
        self,
        *,
        max_rate: float | Bound | None = None,
        window: int | Bound | None = None,
        max_errors: int | str | None = None,
        why: str = "",
    ) -> None:
        """Set other limits, with which it goes on at once; ``"none"`` takes one away.

        Args:
            max_rate: Records a second, at most.
            window: Chunks in flight, at most.
            max_errors: Rejects allowed: a number, or a share such as ``"0.1%"``.
            why: The reason, for people.

        Raises:
            JobError: If it has ended for ever, or was cancelled.
            ConfigurationError: If a limit makes no sense, or this user may not steer it.
        """
        limits = Limits(max_rate=max_rate, window=window, max_errors=max_errors)
        steering.set_limits(self._folder, limits, why)

    def publish(self, *, overwrite: bool = False, backup: bool = False, why: str = "") -> ProvenJob:
        """Publish its output, which was held; this process does it, and needs no coordinator.

        Args:
            overwrite: Replace a target that exists, also if it was not submitted to do that.
            backup: Keep a target that is replaced.
            why: The reason, for people.

        Returns:
            What was proven and published.

        Raises:
            JobError: If it has no whole output, is published already, or was cancelled.
            ProofError: If the output is not whole; nothing is published.
            OutputInUseError: If a run is writing the target.
            ConfigurationError: If the target exists and must not be replaced, or cannot be written.
        """
        self._check_there()
        return publish_job(self.path, overwrite=overwrite, backup=backup, why=why)

    def discard(self, why: str = "") -> None:
        """Remove it, and its history; who did that, when and why is noted for 30 days.

        Args:
            why: The reason, for people.

        Raises:
            JobError: If somebody drives it, or another job retries its rejects.
            JobNotFoundError: If it was discarded before.
            ConfigurationError: If something cannot be removed.
        """
        self._check_there()
        discard_job(self.path, why=why)

    def _check_there(self) -> None:
        if not (self.path / SPEC).is_file():
            raise was_discarded(self.path, str(self.path / SPEC))

    def retry(
        self,
        *,
        max_errors: int | str | None = None,
        accept_code: bool = False,
        hold: bool = False,
        backup: bool = False,
        why: str = "",
    ) -> "SubmittedJob":
        """Submit a job that runs the ranges with rejects again, with today's code.

        It replaces the target by one in which their outputs stand where they belong. Workers must
        take ranges by reference. Source and target must be what they were.

        Args:
            max_errors: Most rejects to leave, a number or a share; by default as many as there are.
            accept_code: Keep what had passed although today's code gives other outputs.
            hold: Prove the output, and leave it to ``pyrmute-tasks publish``.
            backup: Keep the target that is replaced.
            why: The reason, for people.

        Returns:
            The retry's job.

        Raises:
            JobNotFoundError: If it has no rejects.
            JobError: If it has not succeeded, or another job has retried it.
            JobExistsError: If another job that has not ended writes its target.
            JobChangedError: If source or target have changed, or today's code gives other outputs
                for a sample of what had passed.
            ConfigurationError: If a file cannot be read or written.
        """
        self._check_there()
        options = RetryOptions(
            max_errors=max_errors, accept_code=accept_code, hold=hold, backup=backup, why=why
        )
        folder = submit_retry(self._root, self._folder, self._by, options)
        return SubmittedJob(self._root, folder, self._by)
