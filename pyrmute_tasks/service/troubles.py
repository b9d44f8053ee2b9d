"""What an error means for a submitted job: only data and code fail it."""

import logging
import traceback
from typing import Final

from pyrmute_tasks.errors import (
    ConfigurationError,
    FrameError,
    InvalidRecordError,
    JobChangedError,
    MigrationError,
    PyrmuteTasksError,
)
from pyrmute_tasks.failures import describe_safely
from pyrmute_tasks.io.earlier_runs import source_change
from pyrmute_tasks.jobs.spec import Spec
from pyrmute_tasks.logs import log
from pyrmute_tasks.service.turns import Ending, Kind

__all__ = ["log_failure", "trouble_of"]

_ENDS: Final = (JobChangedError, FrameError, InvalidRecordError, MigrationError)


def trouble_of(spec: Spec, error: Exception, *, must_keep: bool) -> Ending:
    """Return how an epoch ends that an error has ended.

    Args:
        spec: The job.
        error: The error, which is about no record.
        must_keep: Whether all work is done, and a target is there that must not be replaced.
    """
    if must_keep and isinstance(error, ConfigurationError):
        return Ending(Kind.HELD, f"its output is whole, and held: {error}")
    if isinstance(error, _ENDS):
        return Ending(Kind.FAILED, describe_safely(error))
    try:
        change = source_change(spec)
    except (OSError, PyrmuteTasksError):
        change = None  # out of reach: that is what the error is about
    if change is not None:
        return Ending(Kind.FAILED, f"the source was changed while it was read: {change}")
    if isinstance(error, OSError):
        return Ending(Kind.SUSPENDED, str(error))
    if isinstance(error, PyrmuteTasksError):
        return Ending(Kind.SUSPENDED, describe_safely(error))
    log_failure(spec.job, error)
    return Ending(Kind.SUSPENDED, f"the coordinator raised {describe_safely(error)}; see its log")


def log_failure(job: str, error: Exception) -> None:
    """Log an error that nobody expected: where it was raised, and not what it says."""
    where = "".join(traceback.format_tb(error.__traceback__))
    told = f"a job could not be driven: {type(error).__name__}\n{where}"
    log(logging.ERROR, "driving_failed", told, job=job)
