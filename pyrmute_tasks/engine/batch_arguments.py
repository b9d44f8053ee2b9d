"""Checks and defaults of the arguments shared by the batch calls."""

import os
from collections.abc import Collection, Mapping

from pydantic import BaseModel, RootModel

from pyrmute_tasks.errors import ConfigurationError

__all__ = [
    "check_chunk_size",
    "check_observers",
    "check_records",
    "check_workers",
    "usable_cpus",
]


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


def check_records(records: object) -> None:
    """Refuse what can be iterated over, but yields no records: a single record, or a text.

    Raises:
        ConfigurationError: If `records` is one of these.
    """
    if isinstance(records, (Mapping, BaseModel, str, bytes)) and not isinstance(records, RootModel):
        raise ConfigurationError(
            "a batch takes an iterable of records, as a list of dicts, and got a single "
            f"{type(records).__name__}; migrate() takes one record, and migrate_file() of a "
            "Migrator the path of a file"
        )


def check_observers(observers: object) -> None:
    """Refuse observers that cannot be called, of which a job would only log errors.

    Raises:
        ConfigurationError: If `observers` are not functions.
    """
    if not isinstance(observers, Collection) or not all(map(callable, observers)):
        raise ConfigurationError(
            "observers must be a list of functions that take an event, as [print]"
        )
