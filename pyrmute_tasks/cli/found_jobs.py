"""Finding the job that an argument names: by a run's target, or in the jobs root."""

import os

from pyrmute_tasks.cli.errors import usage_checked
from pyrmute_tasks.errors import JobNotFoundError
from pyrmute_tasks.io.kept_jobs import find_job
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import root_of

__all__ = ["found_job"]


def found_job(wanted: str, jobs_root: str | None) -> JobFolder:
    """Return a job; what a run has left comes first, as for `publish`, `discard` and `retry`.

    Args:
        wanted: Its id, the beginning of it, or its name; or the target of a run, or a job's folder.
        jobs_root: The jobs root; None for none.

    Raises:
        JobNotFoundError: If there is none.
    """
    is_path = os.sep in wanted
    if jobs_root is not None and not is_path:
        with usage_checked():
            root_of(jobs_root)
    try:
        return find_job(wanted, jobs=jobs_root)
    except JobNotFoundError:
        if jobs_root is None and not is_path:
            with usage_checked():
                root_of(jobs_root)
        raise
