"""The output of a run of files: one with a job's folder, or a plain one."""

import json
import time
from collections.abc import Sequence

from pyrmute_tasks.file_options import FileOptions, is_path
from pyrmute_tasks.io.job_output import DrivenJob, JobOutput
from pyrmute_tasks.io.job_targets import FileTarget, JobTarget, PartsTarget, is_parts, target_of
from pyrmute_tasks.io.jsonl import size_of_records, source_errors
from pyrmute_tasks.io.output_file import Output, open_output
from pyrmute_tasks.io.output_place import check_output
from pyrmute_tasks.io.range_source import refuse_among_sources
from pyrmute_tasks.jobs.driver import this_user
from pyrmute_tasks.jobs.entries import Range
from pyrmute_tasks.jobs.publish_parts import PART
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.plans.migration import Migration

__all__ = ["driven_output", "job_target", "output_of", "spec_of"]


def output_of(
    options: FileOptions,
    names: Sequence[str],
    plan: Migration,
    *,
    job: str,
    needs_job: bool,
    is_private: bool,
) -> Output | JobOutput:
    """Return the output of a run, to be entered before the job begins.

    Args:
        options: The run's options.
        names: The source's files; none if it is an open file.
        plan: The migration.
        job: The run's id, which becomes the job's if it begins here.
        needs_job: The run may go by reference, which needs a job's folder.
        is_private: Nobody else may look into that folder; workers run as the same user.

    Raises:
        ConfigurationError: If it cannot be written or must not be, or what was asked for needs a
            log that this run cannot have.
    """
    target = job_target(options, names)
    if target is None:
        options.refuse_streams()
    elif needs_job or options.log.log:
        return JobOutput(
            target,
            spec_of(target, options, names, plan, job),
            options.log,
            overwrite=options.overwrite,
            hold=options.hold,
            backup=options.backup,
            retried=options.retried,
            keep_partial=options.keep_partial and not isinstance(target, PartsTarget),
            is_private=is_private,
        )
    return open_output(
        options.target,
        job=job,
        source=names[0] if names else options.source,
        overwrite=options.overwrite,
        keep_partial=options.keep_partial,
    )


def driven_output(options: FileOptions, driven: DrivenJob) -> JobOutput:
    """Return the output of a submitted job, for one epoch.

    Args:
        options: What its terms and its users want of it.
        driven: The job.

    Raises:
        ConfigurationError: If it cannot be written any more.
    """
    spec = driven.folder.spec
    return JobOutput(
        target_of(spec),
        spec,
        options.log,
        overwrite=options.overwrite,
        hold=options.hold,
        backup=options.backup,
        driven=driven,
    )


def job_target(options: FileOptions, names: Sequence[str]) -> JobTarget | None:
    """Return the target of a run from files to a file or a folder; None for another run.

    Raises:
        ConfigurationError: If it cannot be written, or must not be.
    """
    if not names or not is_path(options.target) or not is_path(options.source):
        return None
    if is_parts(options.target):
        parts = PartsTarget.of(options.target, names)
        refuse_among_sources(options.target, parts.path / PART.format(0), options.source)
        return parts
    # It may be the job's own; and what is held replaces nothing.
    overwrite = options.overwrite or options.log.resume or options.hold
    for name in names:
        place = check_output(options.target, source=name, overwrite=overwrite)
    refuse_among_sources(options.target, place.path, options.source)
    return None if place.is_stream else FileTarget(options.target, place)


def spec_of(
    target: JobTarget,
    options: FileOptions,
    names: Sequence[str],
    plan: Migration,
    job: str,
    terms: Terms | None = None,
) -> Spec:
    """Return the spec of a job.

    Args:
        target: Where its output appears.
        options: Its options.
        names: The source's files.
        plan: The migration.
        job: Its id.
        terms: What else was asked for, if it is submitted.

    Raises:
        ConfigurationError: If a file of the source cannot be read.
    """
    sources = []
    retried = None if options.retried is None else options.retried.folder.spec
    for name in names:
        with source_errors(name):
            sources.append(SourceFile.of(name))
    return Spec(
        job,
        tuple(sources),
        str(target.path),
        (plan.name, str(plan.from_version), str(plan.to_version)),
        plan.fingerprint,
        json.dumps(plan.fingerprint_tree.to_dict()),
        options.of_result(),
        is_parts=isinstance(target, PartsTarget),
        only=_first_records(names[0], options.limit) if retried is None else retried.only,
        parents=() if retried is None else retried.lineage,
        created_at=time.time(),
        created_by=this_user(),
        terms=terms,
    )


def _first_records(name: str, limit: int | None) -> tuple[Range, ...]:
    """Return the range of a file's first records; none for all of it."""
    size_bytes = 0 if limit is None else size_of_records(name, limit)
    return (Range(0, 0, size_bytes),) if size_bytes else ()
