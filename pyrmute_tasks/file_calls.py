"""The file calls of a `Migrator`."""

# Above 400 lines: public calls, whose documentation and annotated arguments take most of them.

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pyrmute_tasks.engine.batch_arguments import check_observers
from pyrmute_tasks.engine.error_policy import ErrorHandling, OnErrorLike, OnReject
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pace import Pace, Throttle
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.file_options import ByReference, FileOptions, is_path
from pyrmute_tasks.file_retries import report_if_done, retry_options
from pyrmute_tasks.file_runs import FileRun, Jobs
from pyrmute_tasks.fleet_jobs import FleetJobs
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.log_options import LogOptions
from pyrmute_tasks.io.open_files import OpenSource, SourceFile, TargetFile
from pyrmute_tasks.io.output_place import is_parts, is_stream
from pyrmute_tasks.io.range_source import find_sources
from pyrmute_tasks.io.rejects import check_rejects
from pyrmute_tasks.io.retried_job import RetriedJob
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.settings import compression_of
from pyrmute_tasks.versions import VersionLike

if TYPE_CHECKING:
    from pyrmute_tasks.dry_run import DryRun

__all__ = ["FileCalls"]


# Above 250 lines: public calls, whose documentation and annotated arguments take most of them.
class FileCalls:
    """Migrates files of JSON lines on a fleet."""

    _jobs: FleetJobs

    def migrate_file(
        self,
        source: SourceFile,
        target: TargetFile,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        chunk_size: int | None = None,
        limit: int | None = None,
        overwrite: bool = True,
        hold: bool = False,
        backup: bool = False,
        keep_partial: bool = False,
        by_reference: ByReference | str = ByReference.AUTO,
        max_line_bytes: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
        rejects: str | os.PathLike[str] | None = None,
        rejects_with_records: bool = False,
        resume: bool = False,
        restart: bool = False,
        accept_code: bool = False,
        log: bool = True,
        max_rate: float | None = None,
        throttle: Throttle | None = None,
    ) -> JobReport:
        """Migrate a file of JSON lines into another.

        The workers decode, migrate, validate and write. By reference, they also read the source
        and write what comes of it; otherwise this process moves the bytes. The output equals that
        of a loop of ``migrate`` and ``model_dump_json()``. It appears under its name once it is
        whole, with the mode and owner of the file it replaces. A pipe or a device is written to
        directly.

        Args:
            source: JSON objects, one a line: a file by its path, or an open one, which is read
                from where it stands; or by reference also a folder of files or a pattern, whose
                files are read in sorted order.
            target: The output: a file, a link to one, a pipe, or a device such as ``/dev/stdout``;
                or an open file, which is written to as it goes; or by reference a folder, that
                exists or ends with a slash, which gets files ``part-00000.jsonl``, … in order and
                ``_manifest.json``. Open files are not closed.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default about 1 MiB of lines.
            limit: The most records to migrate, the first ones; by default all.
            overwrite: Replace `target` if it exists, as by default; False makes that an error.
            hold: Prove the output, and leave publishing it to `publish_job`, or to the command
                ``pyrmute-tasks publish``; until then it is in ``.<target>.job``.
            backup: Keep a target that is replaced, as ``<target>.<job>.backup``.
            keep_partial: On failure, keep the output before it; ``last_report.partial_path`` says
                where: ``<target>.partial`` unless that exists.
            by_reference: Whether workers read and write the files themselves: ``"auto"`` (if they
                can, from 1 MiB on), ``"always"`` or ``"never"``. Workers of an embedded fleet can;
                others need ``--root`` for the folders of both, and a secret.
            max_line_bytes: Longest line by reference; a longer one is an error of its record.
            observers: Called with the job's events. Of ranges by reference, `ChunkSubmitted` and
                `ChunkSettled` count bytes, since nobody has counted their records.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves records that fail out of `target` and goes on; an
                `ErrorPolicy` limits how many. By default the first one ends the job.
            on_reject: Called with the failure of each record that is skipped, in order.
            rejects: A file for the records that are skipped, as JSON lines; it is also written if
                too many failed.
            rejects_with_records: Write these records to it, and what errors quote from them.
            resume: Go on with an earlier run with the same arguments that was killed, interrupted
                or failed, from the log that it left in ``.<target>.job``; begin if it left none.
                `on_reject` is not called again for records that it has skipped.
            restart: Discard such a log. Without either argument, finding one is an error.
            accept_code: Resume although models or steps have changed.
            log: Keep a log while this runs. It is gone at the end, unless the run fails or is
                interrupted after ten seconds; what tells of rejects is kept for `retry`. Only runs
                from files to a file or a folder have one.
            max_rate: Records a second, at most. Nothing goes by reference then, unless it must.
            throttle: Called about once a second, here; while it returns a text, nothing is sent to
                the workers, and the text is shown. It must not block.

        Returns:
            The job's report.

        Raises:
            ConfigurationError: If a file cannot be read or written, or two are the same.
            OutputInUseError: If another run is writing `target`.
            JobExistsError: If an earlier run has left its log.
            JobChangedError: If what is to be resumed had another source, other code or arguments.
            ProofError: If the output is not whole.
            InvalidRecordError: If a line is not a JSON object.
            ModelNotFoundError: If the model or a version is not registered.
            MigrationError: If there is no path, or a step raises.
            ValidationError: If a migrated record is not valid.
            FleetError: If the fleet cannot be reached or has no workers.

        Example:
            ```python
            report = migrator.migrate_file("old.jsonl", "new.jsonl", "User", "1.0.0", "3.0.0")
            print(report.records, report.records_per_s)
            ```
        """
        report = self.run_file(
            source,
            target,
            name,
            from_version,
            to_version,
            chunk_size=chunk_size,
            limit=limit,
            overwrite=overwrite,
            hold=hold,
            backup=backup,
            keep_partial=keep_partial,
            by_reference=by_reference,
            max_line_bytes=max_line_bytes,
            observers=observers,
            progress=progress,
            on_error=on_error,
            on_reject=on_reject,
            rejects=rejects,
            rejects_with_records=rejects_with_records,
            resume=resume,
            restart=restart,
            accept_code=accept_code,
            log=log,
            max_rate=max_rate,
            throttle=throttle,
        )
        if report.failure is not None:
            raise report.failure.exception()
        return report

    def run_file(
        self,
        source: SourceFile,
        target: TargetFile,
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        chunk_size: int | None = None,
        limit: int | None = None,
        overwrite: bool = True,
        hold: bool = False,
        backup: bool = False,
        keep_partial: bool = False,
        by_reference: ByReference | str = ByReference.AUTO,
        max_line_bytes: int | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        on_error: OnErrorLike = "raise",
        on_reject: OnReject | None = None,
        rejects: str | os.PathLike[str] | None = None,
        rejects_with_records: bool = False,
        resume: bool = False,
        restart: bool = False,
        accept_code: bool = False,
        log: bool = True,
        max_rate: float | None = None,
        throttle: Throttle | None = None,
    ) -> JobReport:
        """Migrate a file like `migrate_file`, but return a record's failure instead of raising it.

        Args:
            source: JSON objects, one a line: a path, or an open file.
            target: The output: a path, or an open file.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            chunk_size: Records a chunk; by default about 1 MiB of lines.
            limit: The most records to migrate, the first ones; by default all.
            overwrite: Replace `target` if it exists.
            hold: Prove the output, and leave it to `publish_job`.
            backup: Keep a target that is replaced.
            keep_partial: On failure, keep the output before it.
            by_reference: Whether workers read and write the files themselves.
            max_line_bytes: Longest line by reference.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order.
            rejects: A file for the records that are skipped.
            rejects_with_records: Write these records to it, too.
            resume: Go on with an earlier run that left a log.
            restart: Discard such a log.
            accept_code: Resume although models or steps have changed.
            log: Keep a log while this runs.
            max_rate: Records a second, at most.
            throttle: Called about once a second; returns the reason to wait, or None.

        Returns:
            The job's report, with the ``failure`` of the record that ended it, if one did.

        Raises:
            PyrmuteTasksError: As `migrate_file`, except for failures of records.
        """
        errors = ErrorHandling.of(on_error, on_reject)
        options = LogOptions(resume, restart, accept_code, log)
        check_rejects(
            rejects,
            errors.policy,
            source=source,
            target=target,
            overwrite=overwrite or resume,  # whether it is the job's is known below
            with_records=rejects_with_records,
        )
        check_observers(observers)
        jobs = self._jobs
        plan = jobs.manager.plan(name, from_version, to_version)
        plan.target  # noqa: B018  # raise for a missing target before anything is started
        file_options = FileOptions(
            source=source,
            target=target,
            chunk_size=chunk_size,
            limit=limit,
            overwrite=overwrite,
            hold=hold,
            backup=backup,
            keep_partial=keep_partial,
            by_reference=ByReference(by_reference),
            max_line_bytes=max_line_bytes,
            errors=errors,
            rejects=rejects,
            rejects_with_records=rejects_with_records,
            log=options,
            pace=Pace(max_rate, throttle),
        )
        watched = (*observers, *_bar(progress, max_rate))
        return self._run_files(plan, file_options, watched)

    def retry(
        self,
        target: str | os.PathLike[str],
        *,
        observers: Sequence[Observer] = (),
        progress: bool = False,
        max_errors: int | str | None = None,
        on_reject: OnReject | None = None,
        rejects: str | os.PathLike[str] | None = None,
        rejects_with_records: bool = False,
        accept_code: bool = False,
        restart: bool = False,
        hold: bool = False,
        backup: bool = False,
        max_rate: float | None = None,
    ) -> JobReport:
        """Retry the rejects of a run from files to a file or a folder, with today's code.

        The ranges of the source that had rejects are run again, by reference, and the target is
        replaced by one in which their outputs stand where they belong. The source and the target
        must be what they were. A retry that was killed goes on when it is called again; one that
        had come to its end is done, unless other code may do better.

        Args:
            target: The run's target, or its job's folder.
            observers: Called with the job's events.
            progress: Show a progress bar on stderr.
            max_errors: Most rejects to leave, a number or a share; by default as many as there are.
            on_reject: Called with the failure of each record that is rejected again.
            rejects: A file for what is rejected again; it may replace the run's own.
            rejects_with_records: Write these records to it, too.
            accept_code: Keep what had passed although today's code gives other outputs, or go on
                with a retry that began with other code.
            restart: Begin again with a retry that was killed.
            hold: Prove the output, and leave publishing it to `publish_job`.
            backup: Keep the target that is replaced.
            max_rate: Records a second, at most.

        Returns:
            The job's report, in which the records that had passed are ``restored``.

        Raises:
            JobNotFoundError: If no run has left rejects.
            JobChangedError: If source or target have changed, or today's code gives another output
                for a sample of what had passed.
            OutputInUseError: If a run is writing `target`.
            ConfigurationError: If workers cannot take ranges, or a file cannot be written.
            MigrationError: If more records are rejected than `max_errors`.
            FleetError: If the fleet cannot be reached or has no workers.

        Example:
            ```python
            report = migrator.retry("new.jsonl", rejects="bad.jsonl")
            print(report.records, report.rejected)
            ```
        """
        check_observers(observers)
        jobs = self._jobs
        done = report_if_done(target, jobs.manager.plan)
        if done is not None:
            return done
        retried = RetriedJob.find(target)
        plan = jobs.manager.plan(*retried.folder.spec.plan)
        file_options = retry_options(
            retried,
            plan if jobs.retry is None else plan.with_retry(jobs.retry),
            max_errors=max_errors,
            on_reject=on_reject,
            rejects=rejects,
            rejects_with_records=rejects_with_records,
            log=LogOptions(not restart, restart, accept_code and not restart),
            accept_code=accept_code,
            hold=hold,
            backup=backup,
            pace=Pace(max_rate),
        )
        watched = (*observers, *_bar(progress, max_rate))
        report = self._run_files(plan, file_options, watched)
        if report.failure is not None:
            raise report.failure.exception()
        return report

    def _run_files(
        self, plan: MigrationPlan, options: FileOptions, observers: Sequence[Observer]
    ) -> JobReport:
        file_run = FileRun(options, self._run_jobs(plan, observers))
        try:
            file_run.run()
        finally:
            kept = file_run.kept_path, file_run.backup_path
            report = self._jobs.with_paths(file_run.report, *kept)
        return report

    def _run_jobs(self, plan: MigrationPlan, observers: Sequence[Observer] = ()) -> Jobs:
        jobs = self._jobs
        return Jobs(
            settings=jobs.settings,
            hooks=jobs.manager.hooks,
            window_bytes=jobs.window_bytes,
            compression=compression_of(jobs.settings),
            is_embedded=jobs.is_embedded,
            migration=plan,
            model=plan.target,
            new_run=partial(jobs.new_run, observers),
            fleet=jobs.open,
            start=partial(jobs.start, plan),
        )

    def dry_run(
        self,
        source: SourceFile,
        target: str | os.PathLike[str],
        name: str,
        from_version: VersionLike,
        to_version: VersionLike,
        *,
        sample: int = 1000,
        chunk_size: int | None = None,
        limit: int | None = None,
        by_reference: ByReference | str = ByReference.AUTO,
        on_error: OnErrorLike = "raise",
        timeout_s: float = 300.0,
    ) -> "DryRun":
        """Find out what `migrate_file` with these arguments will do, on a sample; writes nothing.

        It runs in a process of its own, not on the fleet, which is not started. Steps run more
        than once a record, with their side effects.

        Args:
            source: JSON objects, one a line: as for `migrate_file`. Of an open file or a pipe, the
                sample are the first records, which are read from it.
            target: The output: as for `migrate_file`.
            name: The model's name.
            from_version: Version of the records.
            to_version: Version of the outputs.
            sample: Number of records to run: the first, some evenly spread, and the last.
            chunk_size: Records a chunk.
            limit: The most records to migrate, the first ones.
            by_reference: Whether workers read and write the files themselves.
            on_error: ``"skip"`` if records that fail are left out.
            timeout_s: Time limit of the dry run.

        Returns:
            The path, each step's place and what changes at each hop; failures of the sample with
            upper bounds, fields that get lost, the time of a record; and estimates: room, ranges,
            time with 1, 4, 16 and 64 workers.

        Raises:
            PyrmuteTasksError: If a file cannot be read or written, the manager cannot be imported,
                or a step ends its process.

        Example:
            ```python
            planned = migrator.dry_run("old.jsonl", "new.jsonl", "User", "1.0.0", "3.0.0")
            print(planned.failed_at_most, planned.seconds_per_record)
            ```
        """
        from pyrmute_tasks.dry_run import Planned, dry_run  # jobs do without
        from pyrmute_tasks.io.line_sample import sample_files, sample_stream

        if sample < 1:
            raise ConfigurationError(f"a sample needs 1 record or more, not {sample}")
        jobs = self._jobs
        plan = jobs.manager.plan(name, from_version, to_version)
        plan.target  # noqa: B018  # raise for a missing target before anything is run
        is_streamed = not is_parts(target) and is_stream(target)
        errors = ErrorHandling.of(on_error, None)
        options = FileOptions(
            source=source,
            target=target,
            chunk_size=chunk_size,
            limit=limit,
            by_reference=ByReference(by_reference),
            errors=errors,
        )
        names = find_sources(source) if is_path(source) else []
        if names:
            may_refer = FileRun(options, self._run_jobs(plan)).may_refer
            taken = sample_files(names, sample, limit)
        else:
            may_refer = False
            opened = OpenSource(source)  # type: ignore[arg-type]  # no path
            taken = sample_stream(opened, opened.name, min(sample, limit or sample))
        planned = Planned(
            sizes=[check_source(each) for each in names],
            target=None if is_streamed else os.fspath(target),
            limit=limit,
            by_reference=may_refer,
            joins=not is_parts(target),
            skips=errors.policy.skips,
            window_bytes=jobs.window_bytes,
        )
        return dry_run(jobs.manager, jobs.manager_name, plan, taken, planned, timeout_s=timeout_s)


def _bar(progress: bool, max_rate: float | None) -> tuple[Observer, ...]:
    if not progress:
        return ()
    from pyrmute_tasks.engine.progress import ProgressBar, ProgressOptions  # calls without a bar

    return (ProgressBar(options=ProgressOptions(max_rate=max_rate)),)
