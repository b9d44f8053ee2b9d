"""The file calls of an `AsyncMigrator`."""

import os
from collections.abc import Sequence

from pyrmute_tasks.engine.async_stream import run_in_thread
from pyrmute_tasks.engine.error_policy import OnErrorLike, OnReject
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pace import Throttle
from pyrmute_tasks.file_options import ByReference
from pyrmute_tasks.io.open_files import SourceFile, TargetFile
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.versions import VersionLike

__all__ = ["AsyncFileCalls"]


class AsyncFileCalls:
    """Migrates files of JSON lines on a fleet, for callers in an event loop."""

    _migrator: Migrator

    async def migrate_file(
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
        """Migrate a file of JSON lines into another; cancelling it leaves no output.

        Args:
            source: JSON objects, one a line.
            target: The output.
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
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.
            rejects: A file for the records that are skipped.
            rejects_with_records: Write these records to it, too.
            resume: Go on with an earlier run that left a log.
            restart: Discard such a log.
            accept_code: Resume although models or steps have changed.
            log: Keep a log while this runs.
            max_rate: Records a second, at most.
            throttle: Called about once a second in its thread; returns the reason to wait, or None.

        Returns:
            The job's report.

        Raises:
            Exception: As `Migrator.migrate_file`.
        """
        return await run_in_thread(
            self._migrator.migrate_file,
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

    async def run_file(
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
        """Migrate a file, but return a record's failure instead of raising it.

        Args:
            source: JSON objects, one a line.
            target: The output.
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
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            on_error: ``"skip"`` leaves out records that fail and goes on; an `ErrorPolicy` limits
                how many.
            on_reject: Called with the failure of each record that is skipped, in order, in the
                job's thread.
            rejects: A file for the records that are skipped.
            rejects_with_records: Write these records to it, too.
            resume: Go on with an earlier run that left a log.
            restart: Discard such a log.
            accept_code: Resume although models or steps have changed.
            log: Keep a log while this runs.
            max_rate: Records a second, at most.
            throttle: Called about once a second in its thread; returns the reason to wait, or None.

        Returns:
            The job's report.

        Raises:
            PyrmuteTasksError: As `Migrator.run_file`.
        """
        return await run_in_thread(
            self._migrator.run_file,
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

    async def retry(
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
        """Retry the rejects of a run from files to a file or a folder, like `Migrator.retry`.

        Args:
            target: The run's target, or its job's folder.
            observers: Called with the job's events, in the job's thread.
            progress: Show a progress bar on stderr.
            max_errors: Most rejects to leave; by default as many as there are.
            on_reject: Called with the failure of each record that is rejected again, in the job's
                thread.
            rejects: A file for what is rejected again.
            rejects_with_records: Write these records to it, too.
            accept_code: Keep what had passed although today's code gives other outputs.
            restart: Begin again with a retry that was killed.
            hold: Prove the output, and leave it to `publish_job`.
            backup: Keep the target that is replaced.
            max_rate: Records a second, at most.

        Returns:
            The job's report.

        Raises:
            PyrmuteTasksError: As `Migrator.retry`.
        """
        return await run_in_thread(
            self._migrator.retry,
            target,
            observers=observers,
            progress=progress,
            max_errors=max_errors,
            on_reject=on_reject,
            rejects=rejects,
            rejects_with_records=rejects_with_records,
            accept_code=accept_code,
            restart=restart,
            hold=hold,
            backup=backup,
            max_rate=max_rate,
        )
