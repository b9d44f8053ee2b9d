"""The jobs root that a caller means."""

import os

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.jobs.root import JobsRoot

__all__ = ["root_of"]


def root_of(given: str | os.PathLike[str] | None, setting: str = "") -> JobsRoot:
    """Return the jobs root of a call.

    Args:
        given: What the call names.
        setting: What the settings name, if it names none.

    Raises:
        ConfigurationError: If none is named, or it is none.
    """
    path = given or setting
    if not path:
        raise ConfigurationError(
            "which jobs root? --jobs DIR or PYRMUTE_TASKS_JOBS_ROOT names it (jobs=DIR, or "
            "Settings(jobs_root=DIR) in Python)"
        )
    return JobsRoot(path)
