"""Submitting a job: it is checked as a run is, and becomes a folder for coordinators."""

import contextlib
import re
from dataclasses import dataclass, replace
from typing import Final

from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.errors import ConfigurationError, JobExistsError, JobLogError
from pyrmute_tasks.file_options import FileOptions, is_path
from pyrmute_tasks.file_runs import NOT_FILES, FileRun, Jobs
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.not_lines import refuse_other_formats
from pyrmute_tasks.io.output_place import output_errors
from pyrmute_tasks.io.range_source import find_sources
from pyrmute_tasks.jobs.checked import check_given
from pyrmute_tasks.jobs.driver import this_user
from pyrmute_tasks.jobs.entries import JobResult
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import Spec
from pyrmute_tasks.jobs.terms import GIVE_UP_S, Priority, Terms
from pyrmute_tasks.jobs.want import Want, check_reason
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.pyrmute_adapter import FleetManager

__all__ = ["SubmitOptions", "Submitter", "refuse_other_writers", "submit"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. :+@-]{0,79}")
_MOST_SHOWN: Final = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """Options of a submitted job beside those of its run; none changes its output.

    Attributes:
        name: What people call the job; empty for none.
        priority: Its priority.
        after: Id or name of the job that must have succeeded before; empty for none.
        on_end: A command that coordinators run when the job has ended; empty for none.
        give_up_s: How long it may be suspended without a range being settled.
        window: Ranges in flight, at most; None for the default.
        why: Why it is submitted, for people; empty for no reason.

    Raises:
        ConfigurationError: If a value makes no sense.
    """

    name: str = ""
    priority: Priority = Priority.NORMAL
    after: str = ""
    on_end: str = ""
    give_up_s: float = GIVE_UP_S
    window: int | None = None
    why: str = ""

    def __post_init__(self) -> None:
        check_given(self)
        check_reason(self.why)
        if self.name and not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"a job cannot be named {self.name[:_MOST_SHOWN]!r}: take up to 80 letters "
                "(a-z, A-Z), digits, spaces and _ . : + @ -, the first one a letter, digit or _"
            )
        if not self.give_up_s > 0:
            raise ConfigurationError(f"give_up_s must be a positive number, not {self.give_up_s!r}")
        if self.window is not None and self.window < 1:
            raise ConfigurationError(f"window must be 1 chunk or more, not {self.window!r}")


@dataclass(frozen=True, slots=True)
class Submitter:
    """The `Migrator` that submits a job: whose migrations it runs, and where.

    Attributes:
        manager: The manager.
        manager_name: Its name.
        queue: The queue whose workers run it.
        retry: Which exceptions of steps to retry; None for none.
    """

    manager: FleetManager
    manager_name: str
    queue: str
    retry: Retry | None

    @property
    def wire_retry(self) -> list[object] | None:
        """The retries as a job's terms have them."""
        return None if self.retry is None else self.retry.to_wire()


def submit(
    root: JobsRoot, files: FileOptions, jobs: Jobs, by: Submitter, options: SubmitOptions
) -> JobFolder:
    """Create a job, after all checks of a run that need no fleet.

    Args:
        root: Where it lives.
        files: The options of its run.
        jobs: The migration.
        by: Who submits it.
        options: Everything else.

    Returns:
        The job.

    Raises:
        ConfigurationError: If it could not be run, its files belong to this process, or the job
            `after` which it is to begin was cancelled.
        JobNotFoundError: If there is no job `after` which it is to begin.
        JobExistsError: If another job that has not ended writes the same target.
    """
    if not (is_path(files.source) and is_path(files.target)) or files.pace.throttle is not None:
        raise ConfigurationError(NOT_FILES)
    for name in find_sources(files.source):
        check_source(name)  # a pipe would be waited for
        refuse_other_formats(name, "> LINES.jsonl")
    # Whether workers may open files is between them and the coordinators: it is not asked here.
    run = FileRun(files, replace(jobs, is_embedded=True))
    after = _before(root, options.after)
    terms = Terms(
        manager=by.manager_name,
        name=options.name,
        queue=by.queue,
        priority=options.priority,
        after=after,
        by_reference=files.by_reference.value,
        chunk_size=files.chunk_size,
        overwrite=files.overwrite,
        backup=files.backup,
        hold=files.hold,
        retry=by.wire_retry,
        on_end=options.on_end,
        give_up_s=float(options.give_up_s),
        why=options.why,
    )
    # Long ids, since they stay for weeks, and are what messages are signed for.
    spec = run.submitted(new_job_id(unique=True), terms)
    refuse_other_writers(root, spec)
    want = Want(
        max_rate=files.pace.max_rate or 0.0,
        window=options.window or 0,
        who=this_user(),
        why=options.why,
        at=spec.created_at,
    )
    with output_errors(root.path):
        return root.create(spec, want)


def _before(root: JobsRoot, wanted: str) -> str:
    """Return the id of the job after which one is to begin; empty for none."""
    if not wanted:
        return ""
    before = root.find(wanted)
    end, job = before.end(), before.spec.job
    if end is not None and end.ended.result is JobResult.CANCELLED:
        raise ConfigurationError(f"nothing can begin after job {job}: it was cancelled")
    return job


def refuse_other_writers(root: JobsRoot, spec: Spec) -> None:
    """Refuse a target that another job is about to write.

    Raises:
        JobExistsError: If there is one.
    """
    for other in root.jobs():
        if other.spec.target == spec.target and other.end() is None:
            raise JobExistsError(
                f"job {other.spec.job} of {other.spec.created_by}, which has not ended, writes "
                f"{spec.target}, too: wait for it, or cancel it"
            )
    path = beside(spec.target)
    if not path.exists():
        return
    with contextlib.suppress(JobLogError):
        if JobFolder(path).has_succeeded():
            return
    raise JobExistsError(
        f"an earlier run to {spec.target} has left its log in {path}: `pyrmute-tasks run --resume` "
        f"goes on with it, `pyrmute-tasks discard {spec.target}` removes it"
    )
