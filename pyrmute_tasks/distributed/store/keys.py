"""Names of the store's keys."""

from typing import Final

__all__ = ["JOB_KEYS", "job_key", "jobs_key", "workers_key"]

JOB_KEYS: Final = ("job", "in", "claims", "out", "done")
"""What the keys of one job hold."""


def job_key(job: str, part: str) -> str:
    """Return a key of one job: its id is the hash tag."""
    return f"pt:{{{job}}}:{part}"


def workers_key(queue: str) -> str:
    """Return the key of a queue's workers."""
    return f"pt:workers:{queue}"


def jobs_key(queue: str) -> str:
    """Return the key of the jobs that share a queue."""
    return f"pt:jobs:{queue}"
