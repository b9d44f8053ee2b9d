"""Checks and defaults of the arguments shared by the batch calls."""

import os

from pyrmute_tasks.errors import ConfigurationError

__all__ = ["check_chunk_size", "check_workers", "usable_cpus"]


def usable_cpus() -> int:
    """Return the number of CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_workers(max_workers: int | None) -> int:
    """Return the number of workers; None means one for each usable CPU.

    Raises:
        ConfigurationError: If it is not a positive integer.
    """
    if max_workers is None:
        return usable_cpus()
    if type(max_workers) is not int or max_workers < 1:
        raise ConfigurationError(f"max_workers must be a positive integer, not {max_workers!r}")
    return max_workers


def check_chunk_size(chunk_size: int) -> int:
    """Return `chunk_size` if it is valid.

    Raises:
        ConfigurationError: If it is not a positive integer.
    """
    if type(chunk_size) is not int or chunk_size < 1:
        raise ConfigurationError(f"chunk_size must be a positive integer, not {chunk_size!r}")
    return chunk_size
