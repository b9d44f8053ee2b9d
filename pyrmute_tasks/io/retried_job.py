"""A published job whose rejects another job retries.

The retry is a job for the whole source. What had passed is in its log from the beginning, with its
outputs in the published target, which gets a second name in the retry's folder. So only ranges
with rejects are left, and the rest is that of a run that is resumed: gaps, numbers, proof and
publishing; see ``docs/decisions/0034-retry-and-publish.md``.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pyrmute_tasks.errors import (
    JobChangedError,
    JobError,
    JobExistsError,
    JobLogError,
    JobNotFoundError,
    ProofError,
)
from pyrmute_tasks.io.earlier_runs import real_target, source_change
from pyrmute_tasks.io.job_targets import JobTarget, target_of
from pyrmute_tasks.io.output_lock import held_lock
from pyrmute_tasks.io.output_place import output_errors
from pyrmute_tasks.jobs.entries import Ended, JobResult, Piece, Settled
from pyrmute_tasks.jobs.folder import PARTS, JobFolder, beside, beside_retry, discard
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.output import Output
from pyrmute_tasks.jobs.publish import Publication
from pyrmute_tasks.jobs.spec import SPEC, Spec
from pyrmute_tasks.jobs.storage import NO_LINKS, FolderStorage
from pyrmute_tasks.jobs.view import JobView

__all__ = [
    "EndedRetry",
    "RetriedJob",
    "confirm_retried",
    "ended_retry",
    "is_published",
    "replace_retried",
    "retried_by",
    "settle_retry",
]

_KEPT: Final = f"{PARTS}/kept"

_Places = Iterator[tuple[Settled, Path, int]]


class RetriedJob:
    """A published job with rejects, whose outputs its retry takes over.

    Args:
        folder: The job.

    Attributes:
        folder: The job.
        target: Its target.
        path: The folder of the retry.
        sample: Compares some outputs with those of today's code, before anything is taken over;
            None if the code is the same, or accepted.
    """

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.target: JobTarget = target_of(folder.spec)
        self.path: Path = beside_retry(self.target.path)
        self.sample: Callable[[RetriedJob], None] | None = None
        self._seen: object = None  # what identifies the target that was compared

    @classmethod
    def find(cls, name: str | os.PathLike[str]) -> Self:
        """Return the job of a target, or in a folder, that has rejects.

        Raises:
            JobNotFoundError: If there is none.
            JobError: If it is not published.
            OutputInUseError: If a run is writing the target.
        """
        target = _target_of(name)
        ended_retry(name)
        try:
            folder = JobFolder(beside(target))
        except JobNotFoundError:
            raise JobNotFoundError(
                f"there is nothing to retry for {os.fspath(name)}: no run has left rejects in "
                f"{beside(target)}"
            ) from None
        if not folder.has_succeeded():
            raise JobError(
                f"the run to {os.fspath(name)} has not come to its end: go on with it by the same "
                "command and --resume, and retry its rejects then"
            )
        return cls(folder)

    @property
    def names(self) -> list[str]:
        """The files of its source."""
        return [each.path for each in self.folder.spec.sources]

    def places(self) -> _Places:
        """Yield its ranges in source order, with the file and offset of their outputs."""
        return self._publication.places(Output(self.folder))

    def check_sources(self) -> None:
        """Check that the source is what it was.

        Raises:
            JobChangedError: If it is not.
            ConfigurationError: If it cannot be read.
        """
        changed = source_change(self.folder.spec)
        if changed is not None:
            raise JobChangedError(f"the rejects cannot be retried: {changed}; run it all again")

    def take_over(self, retry: JobFolder, lease: Lease) -> None:
        """Log what had passed in the retry's job, unless that is done.

        Args:
            retry: The retry's job.
            lease: The right to drive it.

        Raises:
            JobChangedError: If the target has changed since, or today's code gives other outputs.
            OSError: If the target cannot be read or linked.
        """
        if is_published(retry, lease.view, self.target):
            self._seen = _identity(self.target.path)
            return
        self.compare()
        if self.sample is not None and not lease.fold.ranges:
            self.sample(self)
        named = ""
        for entry, path in self._kept():
            if entry.put is not None and entry.put.name != named:
                named = entry.put.name
                _name(path, retry.path / named)
        FolderStorage(retry.parts_path).sync_folder()  # before any entry speaks of them
        for entry, _ in self._kept():
            if not lease.fold.overlaps(entry.range):
                lease.log.settle(entry)
                lease.log.commit_if_due()
        lease.log.commit()

    def compare(self) -> None:
        """Compare the target with the job's digests.

        Raises:
            JobChangedError: If it differs.
            OSError: If it cannot be read.
        """
        self._seen = _identity(self.target.path)
        output = Output(self.folder)
        try:
            self._publication.compare(output, output.prove(is_published=True))
        except ProofError as error:
            raise JobChangedError(
                f"{self.target.name} is not what its run has published, so its rejects cannot be "
                f"retried: {error}"
            ) from None

    def confirm(self) -> None:
        """Check that the target is still the one that was compared.

        Raises:
            JobChangedError: If it is not.
        """
        if _identity(self.target.path) != self._seen:
            raise JobChangedError(
                f"{self.target.name} was changed while its rejects were retried; nothing was "
                "published"
            )

    @property
    def _publication(self) -> Publication:
        return self.target.publication(self.folder, None)

    def _kept(self) -> Iterator[tuple[Settled, Path]]:
        """Yield the ranges without rejects as entries of the retry, with the target's file."""
        files, last = -1, None
        for entry, path, offset in self.places():
            if path != last:
                files, last = files + 1, path
            if not entry.rejected:
                length = entry.put.length if entry.put is not None else 0
                put = Piece(f"{_KEPT}.{files}", offset, length) if length else None
                yield entry._replace(put=put), path


@dataclass(frozen=True, slots=True)
class EndedRetry:
    """A retry that has come to its end.

    Attributes:
        spec: Its spec.
        end: How it ended.
    """

    spec: Spec
    end: Ended


def ended_retry(name: str | os.PathLike[str]) -> EndedRetry | None:
    """Make a retry that was killed after its end the job of its target, and return it.

    Args:
        name: The target, or a job's folder.

    Raises:
        OutputInUseError: If a run is writing the target.
        ConfigurationError: If a folder cannot be renamed or removed.
    """
    target = _target_of(name)
    if not beside_retry(target).is_dir():
        return None
    with output_errors(name), held_lock(target, "retry"):
        return settle_retry(target, name, refuses=False)


def _target_of(name: str | os.PathLike[str]) -> Path:
    is_folder = (Path(name) / SPEC).is_file()
    return Path(JobFolder(Path(name)).spec.target) if is_folder else real_target(name)


def settle_retry(
    target: Path, name: str | os.PathLike[str], *, restart: bool = False, refuses: bool = True
) -> EndedRetry | None:
    """Make a retry that has succeeded the job of its target; call this with the target's lock.

    Args:
        target: The target, no link.
        name: The target, as the user named it.
        restart: Discard one that has not succeeded.
        refuses: Refuse one that has not.

    Returns:
        The retry that has succeeded; None if there is none.

    Raises:
        JobExistsError: If it has not, and is refused.
        OSError: If it cannot be renamed or removed.
    """
    path = beside_retry(target)
    if not path.is_dir():
        return None
    end = None
    with contextlib.suppress(JobLogError):
        retry = JobFolder(path)
        end = retry.end()
    if end is not None and end.ended.result != JobResult.FAILED:
        replace_retried(retry, beside(target))
        return EndedRetry(retry.spec, end.ended)
    if restart:
        discard(path)
    elif refuses:
        raise JobExistsError(
            f"a retry to {os.fspath(name)} has not ended, and is in {path}: `pyrmute-tasks retry` "
            "goes on with it, --restart discards it (restart=True in Python)"
        )
    return None


def replace_retried(retry: JobFolder, retried: Path) -> None:
    """Put a published retry in the place of the job that it retried.

    Raises:
        OSError: If one cannot be removed or renamed.
    """
    if retried.is_dir():
        discard(retried)
    retry.finish()
    if retry.path.is_dir():
        retry.path.rename(retried)
        FolderStorage(retried.parent).sync_folder()


def retried_by(retry: JobFolder) -> RetriedJob | None:
    """Return the job whose rejects another one retries; None if it retries none.

    Or if the one is not known any more: the history of submitted jobs is bounded.

    Raises:
        JobNotFoundError: If it should be there, beside the target.
    """
    spec = retry.spec
    if not spec.parents:
        return None
    if spec.terms is None:
        return RetriedJob(JobFolder(beside(spec.target)))
    path = retry.path.parent / spec.parents[-1].job
    return RetriedJob(JobFolder(path)) if (path / SPEC).is_file() else None


def confirm_retried(retry: JobFolder, view: JobView, target: JobTarget) -> None:
    """Check that the target of a submitted retry still is the output of the job that it retries.

    Raises:
        JobChangedError: If it is not.
        OSError: If it cannot be read.
    """
    retried = retried_by(retry)
    if retried is not None and not is_published(retry, view, target):
        retried.compare()


def is_published(folder: JobFolder, view: JobView, target: JobTarget) -> bool:
    """Return whether an earlier epoch has given a job's output the target's name.

    Or was about to: a folder of parts is renamed before the one that replaces it.
    """
    if view.publishing is None:
        return False
    if not os.path.lexists(target.path):
        return True
    output = Output(folder)
    try:
        target.publication(folder, None).compare(output, output.prove())
    except (OSError, ProofError):
        return False
    return True


def _identity(path: Path) -> object:
    """Return what changes if somebody writes to a file, or to one in a folder."""
    try:
        paths = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
        found = [os.stat(each) for each in paths]
    except OSError:
        return None
    return [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found]


def _name(path: Path, name: Path) -> None:
    """Give a file a second name, durably; copy it where that cannot be done."""
    name.unlink(missing_ok=True)  # from an earlier try
    try:
        os.link(path, name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(path, name)
        with name.open("rb") as file:
            os.fsync(file.fileno())
