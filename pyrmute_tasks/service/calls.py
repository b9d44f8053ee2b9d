"""The calls of a `Migrator` for submitted jobs."""

import os

from pyrmute_tasks.engine.error_policy import ErrorHandling, OnErrorLike
from pyrmute_tasks.engine.pace import Pace
from pyrmute_tasks.file_calls import FileCalls
from pyrmute_tasks.file_options import ByReference, FileOptions
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import JobsRoot, root_of
from pyrmute_tasks.jobs.terms import GIVE_UP_S, Priority
from pyrmute_tasks.service.embedded_coordinators import EmbeddedCoordinators, embedded_queue
from pyrmute_tasks.service.handles import SubmittedJob
from pyrmute_tasks.service.submitting import SubmitOptions, Submitter, submit
from pyrmute_tasks.versions import VersionLike

__all__ = ["JobCalls"]


class JobCalls(FileCalls):
    """Submits jobs from files to files, and finds them again."""

    _coordinators: EmbeddedCoordinators

    def submit(
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
    ) -> SubmittedJob:
        """Submit the migration of a file as a job, which goes on without this process.

        All that `migrate_file` checks before it needs a fleet is checked now. Then the job is a
        folder of the jobs root, and coordinators drive it (``pyrmute-tasks coordinator``). With an
        embedded fleet this `Migrator` drives it, until it is closed; then the next one with the
        same manager and jobs root does that submits or finds a job.

        Args:
            source: The file, a folder of files, or a pattern.
            target: The file, or a folder of parts, which exists or ends with a slash.
            model: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            jobs: The jobs root; by default that of the settings (``PYRMUTE_TASKS_JOBS_ROOT``).
            name: What people call the job.
            priority: ``low``, ``normal`` or ``high``, among the jobs of the root.
            after: Id or name of a job that must have succeeded before this one begins.
            on_end: A command for when it has ended; only coordinators with ``--allow-on-end`` run
                it.
            give_up_s: How long infrastructure may suspend it without anything being settled.
            why: Why it is submitted, for people.
            chunk_size: Records a chunk; by default about 1 MiB of lines.
            limit: The most records to migrate, the first ones; by default all.
            overwrite: Replace `target` if it exists.
            hold: Prove the output, and leave it to ``pyrmute-tasks publish``.
            backup: Keep a target that is replaced.
            by_reference: Whether workers read and write the files themselves: ``"auto"`` (if they
                can, from 1 MiB on), ``"always"`` or ``"never"``.
            max_line_bytes: Longest line by reference.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            max_rate: Records a second, at most.
            window: Chunks in flight, at most.

        Returns:
            The job.

        Raises:
            ConfigurationError: If there is no jobs root, or the job could not be run.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path.
            JobNotFoundError: If there is no job `after`.
            JobExistsError: If another job that has not ended writes `target`.

        Example:
            ```python
            job = migrator.submit("old.jsonl", "new.jsonl", "User", "1.0.0", "3.0.0", name="users")
            job.wait()
            ```
        """
        fleet = self._jobs
        root = root_of(jobs, fleet.settings.jobs_root)
        plan = fleet.manager.plan(model, from_version, to_version)
        plan.target  # noqa: B018  # raise for a missing target now
        files = FileOptions(
            source=source,
            target=target,
            chunk_size=chunk_size,
            limit=limit,
            overwrite=overwrite,
            hold=hold,
            backup=backup,
            by_reference=ByReference(by_reference),
            max_line_bytes=max_line_bytes,
            errors=ErrorHandling.of(on_error, None),
            pace=Pace(max_rate),
        )
        options = SubmitOptions(
            name=name,
            priority=Priority(priority),
            after=after,
            on_end=on_end,
            give_up_s=give_up_s,
            window=window,
            why=why,
        )
        folder = submit(root, files, self._run_jobs(plan), self._submitter(), options)
        return self._submitted(root, folder)

    def job(self, wanted: str, *, jobs: str | os.PathLike[str] | None = None) -> SubmittedJob:
        """Return a submitted job.

        Args:
            wanted: Its id, the beginning of it, or its name, of which the newest job is meant.
            jobs: The jobs root; by default that of the settings.

        Returns:
            The job.

        Raises:
            ConfigurationError: If there is no jobs root.
            JobNotFoundError: If there is no such job, or several ids begin so.
        """
        root = root_of(jobs, self._jobs.settings.jobs_root)
        return self._submitted(root, root.find(wanted))

    def jobs(self, *, jobs: str | os.PathLike[str] | None = None) -> list[SubmittedJob]:
        """Return all submitted jobs of a jobs root, also those that have ended.

        Args:
            jobs: The jobs root; by default that of the settings.

        Returns:
            The jobs, by id.

        Raises:
            ConfigurationError: If there is no jobs root.
        """
        root = root_of(jobs, self._jobs.settings.jobs_root)
        return [self._submitted(root, folder) for folder in root.jobs()]

    def _submitted(self, root: JobsRoot, folder: JobFolder) -> SubmittedJob:
        fleet = self._jobs
        if fleet.is_embedded:  # nobody else does
            self._coordinators.attend(root, fleet.open(), embedded_queue(fleet.manager_name))
        return SubmittedJob(root, folder, self._submitter())

    def _submitter(self) -> Submitter:
        fleet = self._jobs
        queue = embedded_queue(fleet.manager_name) if fleet.is_embedded else fleet.settings.queue
        return Submitter(fleet.manager, fleet.manager_name, queue, fleet.retry)
