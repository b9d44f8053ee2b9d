"""The calls of an `AsyncMigrator` for submitted jobs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Final

from pyrmute_tasks.async_file_calls import AsyncFileCalls
from pyrmute_tasks.engine.async_stream import run_in_thread
from pyrmute_tasks.engine.error_policy import OnErrorLike
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.file_options import ByReference
from pyrmute_tasks.io.kept_jobs import ProvenJob
from pyrmute_tasks.jobs.terms import GIVE_UP_S, Priority
from pyrmute_tasks.service.handles import Pauses, SubmittedJob
from pyrmute_tasks.service.history import LoggedReport
from pyrmute_tasks.service.status import JobStatus
from pyrmute_tasks.service.steering import Bound
from pyrmute_tasks.versions import VersionLike

__all__ = ["AsyncJobCalls", "AsyncSubmittedJob"]

_AT_ONCE: Final = 1000  # rejects that a thread reads before they are handed over


class AsyncSubmittedJob:
    """A `SubmittedJob` for callers in an event loop, which it never blocks.

    Args:
        job: The job.

    Attributes:
        id: The job's id.
        path: The job's folder.
    """

    def __init__(self, job: SubmittedJob) -> None:
        self._job = job
        self.id: str = job.id
        self.path: Path = job.path

    def __repr__(self) -> str:
        """Show its id and where it is."""
        return f"AsyncSubmittedJob({self.id!r}, {str(self.path)!r})"

    async def wait(self, timeout_s: float | None = None) -> JobStatus:
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
        while not await self.is_over():
            await asyncio.sleep(pauses.next_s())
        return await self.progress()

    async def is_over(self) -> bool:
        """Return whether it has succeeded, or holds its output, so that `wait` would return.

        Returns:
            Whether it has.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.is_over`.
        """
        return await run_in_thread(self._job.is_over)

    async def progress(self) -> JobStatus:
        """Return how far it is, who drives it, and why it waits.

        Returns:
            Its status now.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.progress`.
        """
        return await run_in_thread(self._job.progress)

    async def report(self) -> LoggedReport:
        """Return what ran, what failed, and what held it up, so far or in the end.

        Returns:
            The report, over all that have driven it.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.report`.
        """
        return await run_in_thread(self._job.report)

    async def rejects(self) -> AsyncIterator[RecordFailure]:
        """Yield the failures of the records that it has rejected so far, in order.

        Yields:
            The failures, with their places, and without the records.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.rejects`.
        """
        found = self._job.rejects()
        while some := await run_in_thread(lambda: list(islice(found, _AT_ONCE))):
            for each in some:
                yield each

    async def pause(self, why: str = "") -> None:
        """Pause it, within seconds, until somebody resumes it.

        Args:
            why: The reason, for people.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.pause`.
        """
        await run_in_thread(self._job.pause, why)

    async def resume(self, why: str = "", *, accept_code: bool = False) -> None:
        """Resume it, after a pause, a suspension or a failure.

        Args:
            why: The reason, for people.
            accept_code: Go on with this manager's code although it is another one.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.resume`.
        """
        await run_in_thread(self._job.resume, why, accept_code=accept_code)

    async def cancel(self, why: str = "") -> None:
        """Cancel it: it ends within seconds, without its output.

        Args:
            why: The reason, for people.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.cancel`.
        """
        await run_in_thread(self._job.cancel, why)

    async def set(
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
            PyrmuteTasksError: As `SubmittedJob.set`.
        """
        await run_in_thread(
            self._job.set, max_rate=max_rate, window=window, max_errors=max_errors, why=why
        )

    async def publish(
        self, *, overwrite: bool = False, backup: bool = False, why: str = ""
    ) -> ProvenJob:
        """Publish its output, which was held; this process does it, and needs no coordinator.

        Args:
            overwrite: Replace a target that exists, also if it was not submitted to do that.
            backup: Keep a target that is replaced.
            why: The reason, for people.

        Returns:
            What was proven and published.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.publish`.
        """
        return await run_in_thread(self._job.publish, overwrite=overwrite, backup=backup, why=why)

    async def discard(self, why: str = "") -> None:
        """Remove it, and its history; who did that, when and why is noted for 30 days.

        Args:
            why: The reason, for people.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.discard`.
        """
        await run_in_thread(self._job.discard, why)

    async def retry(
        self,
        *,
        max_errors: int | str | None = None,
        accept_code: bool = False,
        hold: bool = False,
        backup: bool = False,
        why: str = "",
    ) -> "AsyncSubmittedJob":
        """Submit a job that runs the ranges with rejects again, with today's code.

        Args:
            max_errors: Most rejects to leave, a number or a share; by default as many as there are.
            accept_code: Keep what had passed although today's code gives other outputs.
            hold: Prove the output, and leave it to ``pyrmute-tasks publish``.
            backup: Keep the target that is replaced.
            why: The reason, for people.

        Returns:
            The retry's job.

        Raises:
            PyrmuteTasksError: As `SubmittedJob.retry`.
        """
        job = await run_in_thread(
            self._job.retry,
            max_errors=max_errors,
            accept_code=accept_code,
            hold=hold,
            backup=backup,
            why=why,
        )
        return AsyncSubmittedJob(job)


class AsyncJobCalls(AsyncFileCalls):
    """Submits jobs from files to files, and finds them again, for callers in an event loop."""

    async def submit(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        model: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        jobs: str | os.PathLike[str] | None = None,
        name: str = "",
        priority: Priority | str = Priority.NORMAL,
        after: str = "",
        on_end: str = "",
        give_up_s: float = GIVE_UP_S,
        why: str = "",
        chunk_size: int | None = None,
        limit: int | None = None,
        overwrite: bool = True,
        hold: bool = False,
        backup: bool = False,
        by_reference: ByReference | str = ByReference.AUTO,
        max_line_bytes: int | None = None,
        on_error: OnErrorLike = "raise",
        max_rate: float | None = None,
        window: int | None = None,
    ) -> AsyncSubmittedJob:
        """Submit the migration of a file as a job, which goes on without this process.

        Args:
            source: The file, a folder of files, or a pattern.
            target: The file, or a folder of parts, which exists or ends with a slash.
            model: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            jobs: The jobs root; by default that of the settings.
            name: What people call the job.
            priority: ``low``, ``normal`` or ``high``, among the jobs of the root.
            after: Id or name of a job that must have succeeded before this one begins.
            on_end: A command for when it has ended, if coordinators may run it.
            give_up_s: How long infrastructure may suspend it without anything being settled.
            why: Why it is submitted, for people.
            chunk_size: Records a chunk; by default about 1 MiB of lines.
            limit: The most records to migrate, the first ones; by default all.
            overwrite: Replace `target` if it exists.
            hold: Prove the output, and leave it to ``pyrmute-tasks publish``.
            backup: Keep a target that is replaced.
            by_reference: Whether workers read and write the files themselves.
            max_line_bytes: Longest line by reference.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            max_rate: Records a second, at most.
            window: Chunks in flight, at most.

        Returns:
            The job.

        Raises:
            PyrmuteTasksError: As `Migrator.submit`.

        Example:
            ```python
            job = await migrator.submit("old.jsonl", "new.jsonl", "User", "1.0.0", "3.0.0")
            await job.wait()
            ```
        """
        job = await run_in_thread(
            self._migrator.submit,
            source,
            target,
            model,
            from_version,
            to_version,
            jobs=jobs,
            name=name,
            priority=priority,
            after=after,
            on_end=on_end,
            give_up_s=give_up_s,
            why=why,
            chunk_size=chunk_size,
            limit=limit,
            overwrite=overwrite,
            hold=hold,
            backup=backup,
            by_reference=by_reference,
            max_line_bytes=max_line_bytes,
            on_error=on_error,
            max_rate=max_rate,
            window=window,
        )
        return AsyncSubmittedJob(job)

    async def job(
        self, wanted: str, *, jobs: str | os.PathLike[str] | None = None
    ) -> AsyncSubmittedJob:
        """Return a submitted job.

        Args:
            wanted: Its id, the beginning of it, or its name, of which the newest job is meant.
            jobs: The jobs root; by default that of the settings.

        Returns:
            The job.

        Raises:
            PyrmuteTasksError: As `Migrator.job`.
        """
        return AsyncSubmittedJob(await run_in_thread(self._migrator.job, wanted, jobs=jobs))

    async def jobs(self, *, jobs: str | os.PathLike[str] | None = None) -> list[AsyncSubmittedJob]:
        """Return all submitted jobs of a jobs root, also those that have ended.

        Args:
            jobs: The jobs root; by default that of the settings.

        Returns:
            The jobs, by id.

        Raises:
            PyrmuteTasksError: As `Migrator.jobs`.
        """
        found = await run_in_thread(self._migrator.jobs, jobs=jobs)
        return [AsyncSubmittedJob(each) for each in found]
