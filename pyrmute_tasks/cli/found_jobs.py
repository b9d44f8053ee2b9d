"""The job that an argument means: in the jobs root, or what a run has left beside its target."""

import os

from pyrmute_tasks.cli.errors import usage_checked
from pyrmute_tasks.errors import JobNotFoundError
from pyrmute_tasks.io.kept_jobs import find_job
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import root_of

__all__ = ["found_job"]


def found_job(wanted: str, jobs_root: str | None) -> JobFolder:
    """Return a job.

    Args:
        wanted: Its id, the beginning of it, or its name; or the target of a run, or a job's folder.
        jobs_root: The jobs root; None for none.

    Raises:
        JobNotFoundError: If there is none.
    """
    if jobs_root is None or os.sep in wanted:
        try:
            return find_job(wanted)
        except JobNotFoundError:
            if os.sep in wanted:
                raise
    with usage_checked():
        root = root_of(jobs_root)
    try:
        return root.find(wanted)
    except JobNotFoundError:
        try:
            return find_job(wanted)
        except JobNotFoundError:
            pass
        raise
