"""Checks and defaults of the arguments shared by the batch calls."""

import inspect
import os
from collections.abc import AsyncIterable, Collection, Iterable, Mapping
from io import IOBase
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel

from pyrmute_tasks.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

__all__ = [
    "check_chunk_size",
    "check_observers",
    "check_records",
    "check_target_type",
    "check_workers",
    "is_function",
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
    """Refuse what yields no records: a single record, a text, a file, what is not iterable.

    Raises:
        ConfigurationError: If `records` is one of these.
    """
    if isinstance(records, AsyncIterable):
        raise ConfigurationError(
            f"a batch takes an iterable of records, and got a {type(records).__name__}, which is "
            "asynchronous; use AsyncMigrator"
        )
    if isinstance(records, IOBase):
        raise ConfigurationError(
            "a batch takes an iterable of records, as a list of dicts, and got an open file; "
            "migrate_file() of a Migrator takes files of JSON lines"
        )
    if not isinstance(records, Iterable) and not hasattr(type(records), "__getitem__"):
        advice = "; call it" if callable(records) else ""
        raise ConfigurationError(
            "a batch takes an iterable of records, as a list of dicts, and got a "
            f"{type(records).__name__}{advice}"
        )
    if isinstance(records, (Mapping, BaseModel, str, bytes)) and not isinstance(records, RootModel):
        raise ConfigurationError(
            "a batch takes an iterable of records, as a list of dicts, and got a single "
            f"{type(records).__name__}; migrate() takes one record, and migrate_file() of a "
            "Migrator the path of a file"
        )


def check_target_type(target_type: type[Model]) -> type[Model]:
    """Return `target_type` if it is a class of a pydantic model.

    Raises:
        ConfigurationError: If it is not.
    """
    given: Any = target_type
    if isinstance(given, type) and issubclass(given, BaseModel):
        return target_type
    shown = given.__name__ if isinstance(given, type) else f"a {type(given).__name__}"
    raise ConfigurationError(
        f"target_type must be a class of a pydantic model, not {shown}; migrate_batch validates "
        "with the class that is registered"
    )


def check_observers(observers: object) -> None:
    """Refuse observers that cannot be called, of which a job would only log errors.

    Raises:
        ConfigurationError: If `observers` are not functions.
    """
    if not isinstance(observers, Collection) or not all(map(is_function, observers)):
        raise ConfigurationError(
            "observers must be a list of functions that take an event, as [print], and not "
            "asynchronous ones"
        )


def is_function(given: object) -> bool:
    """Return whether `given` can be called and does what it does then, without being awaited."""
    return callable(given) and not any(
        map(inspect.iscoroutinefunction, (given, type(given).__call__))
    )
