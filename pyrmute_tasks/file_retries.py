"""Retries of what a run of files has rejected."""

import logging
import os
from collections.abc import Callable
from functools import partial

from pyrmute_tasks.engine.error_policy import ErrorHandling, ErrorPolicy, OnReject
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.engine.pace import Pace
from pyrmute_tasks.file_options import ByReference, FileOptions
from pyrmute_tasks.io.code_sample import compare_sample
from pyrmute_tasks.io.earlier_runs import LogOptions
from pyrmute_tasks.io.rejects import check_rejects
from pyrmute_tasks.io.retried_job import RetriedJob, ended_retry
from pyrmute_tasks.logs import log as write_log
from pyrmute_tasks.plans.plan import MigrationPlan

__all__ = ["report_if_done", "retry_options"]


def report_if_done(
    target: str | os.PathLike[str], plan_of: Callable[[str, str, str], MigrationPlan]
) -> JobReport | None:
    """Return the report of a retry that was killed after its end; None if one can begin.

    If it has left rejects and the code is another one now, the next one can begin.

    Args:
        target: The run's target, or its job's folder.
        plan_of: Returns today's plan of a model and two versions.

    Raises:
        OutputInUseError: If a run is writing the target.
    """
    retry = ended_retry(target)
    if retry is None:
        return None
    end, spec = retry.end, retry.spec
    if end.rejected and plan_of(*spec.plan).fingerprint != spec.fingerprint:
        return None
    write_log(
        logging.WARNING,
        "retry_done",
        f"the retry to {os.fspath(target)} is done already: it was killed after its end",
    )
    return JobReport(
        spec.job,
        JobState.SUCCEEDED,
        end.outputs,
        chunks=0,
        wasted_chunks=0,
        seconds=0.0,
        chunks_by_worker={},
        rejected=end.rejected,
        restored=end.outputs,
    )


def retry_options(
    retried: RetriedJob,
    plan: MigrationPlan,
    *,
    max_errors: int | str | None,
    on_reject: OnReject | None,
    rejects: str | os.PathLike[str] | None,
    rejects_with_records: bool,
    log: LogOptions,
    accept_code: bool,
    hold: bool,
    backup: bool,
    pace: Pace,
) -> FileOptions:
    """Return the options of the run that retries a job's rejects.

    Args:
        retried: The job.
        plan: Today's plan.
        max_errors: Most rejects to leave; None for as many as there are.
        on_reject: Called with the failure of each record that is rejected again.
        rejects: A file for these.
        rejects_with_records: Write the records to it.
        log: What becomes of a retry that was killed.
        accept_code: Keep what had passed, whatever today's code makes of it.
        hold: Prove the output, and do not publish it.
        backup: Keep the target that is replaced.
        pace: How fast it may go.

    Raises:
        JobChangedError: If the source has changed.
        ConfigurationError: If a file cannot be read or written, or a limit not be understood.
    """
    spec = retried.folder.spec
    retried.check_sources()
    if spec.fingerprint != plan.fingerprint and not accept_code:
        retried.sample = partial(compare_sample, plan=plan)
    if max_errors is None:  # a retry that is worse than the run replaces nothing
        max_errors = retried.folder.view().fold.rejected
    errors = ErrorHandling.of(ErrorPolicy.skip(max_errors), on_reject)
    is_own = rejects is not None and os.path.abspath(rejects) == spec.options.get("rejects")
    for name in retried.names:
        check_rejects(
            rejects,
            errors.policy,
            source=name,
            target=spec.target,
            overwrite=is_own or retried.path.is_dir(),  # or that of this retry, which was killed
            with_records=rejects_with_records,
        )
    longest = spec.options.get("max_line_bytes")
    return FileOptions(
        source=retried.names[0],
        target=spec.target,
        by_reference=ByReference.ALWAYS,
        max_line_bytes=longest if isinstance(longest, int) else None,
        errors=errors,
        rejects=rejects,
        rejects_with_records=rejects_with_records,
        retried=retried,
        log=log,
        hold=hold,
        backup=backup,
        pace=pace,
    )
