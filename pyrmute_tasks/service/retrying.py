"""Retrying the rejects of a submitted job by a job of its own, which keeps what had passed.

As for runs in the foreground (``docs/decisions/0034-retry-and-publish.md``), the retry is a job for
the whole source; what had passed is in its log when it appears in the jobs root. Ranges with
rejects are left, and coordinators drive it like any job that was interrupted.
"""

import json
import secrets
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial

from pyrmute_tasks.engine.error_policy import ErrorPolicy
from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.errors import JobError, JobNotFoundError
from pyrmute_tasks.file_options import ByReference
from pyrmute_tasks.io.code_sample import compare_sample
from pyrmute_tasks.io.output_lock import held_lock
from pyrmute_tasks.io.output_place import output_errors
from pyrmute_tasks.io.retried_job import RetriedJob
from pyrmute_tasks.jobs.checked import check_given
from pyrmute_tasks.jobs.driver import this_process, this_user
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import Spec
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.want import Want, check_reason
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.service.submitting import Submitter, refuse_other_writers

__all__ = ["RetryOptions", "submit_retry"]

_TOKEN_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """Options of the retry of a submitted job.

    Attributes:
        max_errors: Most rejects to leave, a number or a share; None for as many as there are.
        accept_code: Keep what had passed, whatever today's code makes of it.
        hold: Prove the output, and leave publishing it to a later call.
        backup: Keep the target that is replaced.
        why: The reason, for people.

    Raises:
        ConfigurationError: If a value makes no sense.
    """

    max_errors: int | str | None = None
    accept_code: bool = False
    hold: bool = False
    backup: bool = False
    why: str = ""

    def __post_init__(self) -> None:
        check_given(self)
        check_reason(self.why)
        ErrorPolicy.skip(self.max_errors)


def submit_retry(
    root: JobsRoot, parent: JobFolder, by: Submitter, options: RetryOptions
) -> JobFolder:
    """Create the job that retries what another one has rejected.

    Args:
        root: Where both live.
        parent: The job, which has succeeded with rejects.
        by: Who submits it: its manager has today's code.
        options: Everything else.

    Returns:
        The retry's job.

    Raises:
        JobNotFoundError: If it has no rejects.
        JobError: If it has not succeeded, or another job has retried it.
        JobExistsError: If another job that has not ended writes its target.
        JobChangedError: If source or target have changed, or today's code gives other outputs for
            a sample of what had passed.
        ConfigurationError: If a file cannot be read or written.
    """
    _check(root, parent)
    retried = RetriedJob(parent)
    retried.check_sources()
    today = by.manager.plan(*parent.spec.plan)
    if parent.spec.fingerprint != today.fingerprint and not options.accept_code:
        wrapped = today if by.retry is None else today.with_retry(by.retry)
        retried.sample = partial(compare_sample, plan=wrapped)
    spec = _spec_of(parent, today, by, options)
    refuse_other_writers(root, spec)
    want = Want(who=spec.created_by, why=options.why, at=spec.created_at)
    # Hidden until it has what had passed; then coordinators find it.
    hidden = root.path / f".{spec.job}.{secrets.token_hex(_TOKEN_BYTES)}.new"
    with output_errors(spec.target), held_lock(retried.target.path, spec.job):
        try:
            folder = root.create(spec, want, path=hidden)
            lease = folder.take(this_process(), spec.fingerprint)
            try:
                retried.take_over(folder, lease)
                lease.let_go(f"the rejects of job {parent.spec.job} are to be retried")
            finally:
                lease.log.close()
            hidden.rename(root.path / spec.job)
            FolderStorage(root.path).sync_folder()
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
    return JobFolder(root.path / spec.job)


def _check(root: JobsRoot, parent: JobFolder) -> None:
    job = parent.spec.job
    end = parent.end()
    if not parent.has_succeeded() or end is None:
        raise JobError(f"job {job} has not succeeded: only then its rejects can be retried")
    if not end.ended.rejected:
        raise JobNotFoundError(f"there is nothing to retry: job {job} has no rejects")
    for other in root.jobs():
        parents = other.spec.parents
        if parents and parents[-1].job == job and other.has_succeeded():
            raise JobError(
                f"job {other.spec.job} has retried the rejects of job {job}: retry that one's"
            )


def _spec_of(parent: JobFolder, plan: MigrationPlan, by: Submitter, options: RetryOptions) -> Spec:
    before = parent.spec
    limit = options.max_errors
    if limit is None:  # a retry that is worse than the job replaces nothing
        limit = parent.view().fold.rejected
    terms = replace(
        before.terms or Terms(),
        manager=by.manager_name,
        after="",
        by_reference=ByReference.ALWAYS.value,
        chunk_size=None,
        overwrite=True,
        backup=options.backup,
        hold=options.hold,
        retry=by.wire_retry,
        why=options.why,
    )
    return replace(
        before,
        job=new_job_id(unique=True),
        fingerprint=plan.fingerprint,
        code=json.dumps(plan.fingerprint_tree.to_dict()),
        options={**before.options, "on_error": "skip", "max_errors": limit, "limit": None},
        parents=before.lineage,
        created_at=time.time(),
        created_by=this_user(),
        terms=terms,
    )
