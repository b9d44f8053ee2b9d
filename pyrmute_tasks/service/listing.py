"""Listing the jobs of a jobs root; of those that have ended, few files are read."""

import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError, JobError, JobNotFoundError
from pyrmute_tasks.failures import describe_safely
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import JobsRoot, is_job_name
from pyrmute_tasks.jobs.states import ShownState
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.service.logged_job import LoggedStatus, glance_status
from pyrmute_tasks.service.neighbours import Neighbours
from pyrmute_tasks.service.status import JobStatus, JobWatch, may_be_resumed

__all__ = ["ALL_STATES", "Listing", "list_jobs"]

ALL_STATES: Final = frozenset(ShownState)
"""The states of all jobs."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Jobs with their status.

    Attributes:
        jobs: The jobs, the newest first.
        left_out: Jobs that have ended longer ago.
        unreadable: Why jobs cannot be read, by the names of their folders.
    """

    jobs: tuple[JobStatus, ...]
    left_out: int
    unreadable: dict[str, str]


def list_jobs(
    root: JobsRoot,
    *,
    states: Container[ShownState] = ALL_STATES,
    most_ended: int | None = None,
) -> Listing:
    """Return the jobs of a jobs root, with their status at a glance.

    Args:
        root: The jobs root.
        states: Only jobs in one of these states.
        most_ended: Of those that have ended, only so many, which did so last; None for all.

    Raises:
        ConfigurationError: If the root cannot be listed.
    """
    under_way: list[tuple[str, LoggedStatus]] = []
    ended: list[tuple[str, LoggedStatus]] = []
    unreadable: dict[str, str] = {}
    for name in filter(is_job_name, _names_in(root.path)):
        storage = FolderStorage(root.path / name)
        try:
            logged = glance_status(storage)
        except (FileNotFoundError, NotADirectoryError):
            continue  # no folder, or discarded in this moment
        except (JobError, OSError) as error:
            unreadable[name] = describe_safely(error)
            continue
        if logged.ended is None or may_be_resumed(storage, logged):
            under_way.append((name, logged))
        elif ShownState(logged.state.value) in states:
            ended.append((name, logged))
    ended.sort(key=lambda found: found[1].changed_at, reverse=True)
    neighbours, jobs = Neighbours(root.path), []
    for name, logged in (*under_way, *ended[:most_ended]):
        try:
            status = JobWatch(JobFolder(root.path / name), neighbours).glance(logged)
        except (JobNotFoundError, FileNotFoundError):
            continue  # none, or discarded
        except (JobError, OSError) as error:
            unreadable[name] = describe_safely(error)
            continue
        if status.state in states:
            jobs.append(status)
    jobs.sort(key=lambda status: status.submitted_at, reverse=True)
    left_out = 0 if most_ended is None else max(0, len(ended) - most_ended)
    return Listing(tuple(jobs), left_out, unreadable)


def _names_in(root: Path) -> list[str]:
    try:
        return os.listdir(root)
    except OSError as error:
        raise ConfigurationError(f"cannot list the jobs root {root}: {error.strerror}") from None
