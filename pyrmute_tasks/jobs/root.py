"""The jobs root: the directory in which submitted jobs live, found by id or by name."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError, JobError, JobNotFoundError
from pyrmute_tasks.jobs.discarded import find_discarded
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.spec import JOB_ID, SPEC, Spec
from pyrmute_tasks.jobs.want import Want

__all__ = ["JobsRoot", "find_jobs", "is_job_name", "root_of"]

_SHORTEST_PREFIX: Final = 4


class JobsRoot:
    """A directory of submitted jobs.

    Args:
        path: The directory.

    Attributes:
        path: The directory, absolute.

    Raises:
        ConfigurationError: If it is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(os.path.abspath(path))
        if not self.path.is_dir():
            raise ConfigurationError(
                f"there is no jobs root {self.path}: create the directory, which submitters, "
                "coordinators and workers must see"
            )

    def create(self, spec: Spec, want: Want, *, path: Path | None = None) -> JobFolder:
        """Create a job; all users who can write to the root can steer it.

        Args:
            spec: The job.
            want: The submitter's wishes.
            path: Where it stays until it is renamed; None for its place.

        Raises:
            JobExistsError: If there is one of this id.
            OSError: If it cannot be written.
        """
        mode = self.path.stat().st_mode & 0o7777
        path = path or self.path / spec.job
        return JobFolder.create(path, spec, is_private=False, mode=mode, want=want)

    def jobs(self) -> Iterator[JobFolder]:
        """Yield all jobs, by id; skips unreadable ones.

        Raises:
            OSError: If the root cannot be listed.
        """
        return find_jobs(self.path)

    def find(self, wanted: str) -> JobFolder:
        """Return a job.

        Args:
            wanted: Its id, the beginning of it, or its name, of which the newest job is meant.

        Raises:
            JobNotFoundError: If there is none, or several ids begin so; of a discarded one it tells
                who did that, when and why.
            ConfigurationError: If it is no text.
        """
        if not isinstance(wanted, str):
            raise ConfigurationError(f"a job is named by its id or name, not by {wanted!r}")
        if is_job_name(wanted) and (self.path / wanted).is_dir():  # raises what is wrong with it
            return JobFolder(self.path / wanted)
        jobs = list(self.jobs())
        named = [
            job
            for job in jobs
            if wanted and job.spec.terms is not None and job.spec.terms.name == wanted
        ]
        if named:
            return max(named, key=lambda job: job.spec.created_at)
        found = [job for job in jobs if wanted and job.spec.job.startswith(wanted)]
        if len(found) == 1 and len(wanted) >= _SHORTEST_PREFIX:
            return found[0]
        discarded = find_discarded(self.path, wanted) if wanted and not found else None
        if discarded is not None:
            raise JobNotFoundError(str(discarded))
        lists = "`pyrmute-tasks jobs` lists them"
        if len(found) > 1:
            raise JobNotFoundError(
                f"{len(found):,} jobs in {self.path} have an id that begins with {wanted!r}: give "
                f"more of it; {lists}"
            )
        told = "none has this id or name"
        if found:
            told = f"of an id at least {_SHORTEST_PREFIX} characters are needed"
        raise JobNotFoundError(f"there is no job {wanted!r} in {self.path}: {told}; {lists}")


def root_of(given: str | os.PathLike[str] | None, setting: str = "") -> JobsRoot:
    """Return the jobs root that a call or the settings name.

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


def is_job_name(name: str) -> bool:
    """Return whether a folder of this name can be a job of a jobs root."""
    return JOB_ID.fullmatch(name) is not None


def find_jobs(root: Path) -> Iterator[JobFolder]:
    """Yield the jobs of a jobs root, by name; skips unreadable ones.

    Raises:
        OSError: If the root cannot be listed.
    """
    for path in sorted(root.iterdir()):
        if not is_job_name(path.name):
            continue
        try:
            if not (path / SPEC).is_file():
                continue
            folder = JobFolder(path)
        except (JobError, OSError):  # discarded in this moment, of a newer version, not for us
            continue
        yield folder
