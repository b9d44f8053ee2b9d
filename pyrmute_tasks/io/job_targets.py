"""The targets of jobs: a file, or a folder of parts."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.output_file import take_after
from pyrmute_tasks.io.output_place import (
    Place,
    check_output,
    is_parts,
    output_errors,
    parts_path,
)
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.publish import Publication
from pyrmute_tasks.jobs.publish_file import FilePublication, JoinedFile
from pyrmute_tasks.jobs.publish_parts import PartsPublication, check_parts
from pyrmute_tasks.jobs.spec import Spec

__all__ = ["FileTarget", "JobTarget", "PartsTarget", "is_parts", "parts_path", "target_of"]


class JobTarget(Protocol):
    """Where a job's output appears."""

    @property
    def name(self) -> str | os.PathLike[str]:
        """The target, as the user named it."""

    @property
    def path(self) -> Path:
        """The target, no link."""

    def check(self, *, overwrite: bool) -> None:
        """Refuse a target that must not be replaced.

        Raises:
            ConfigurationError: If it must not.
        """

    def prepare(self, descriptor: int) -> None:
        """Give a new file the mode and owner of the one it replaces.

        Raises:
            ConfigurationError: If this process may not give it to that owner.
        """

    def join(self, path: Path) -> JoinedFile | None:
        """Return a file to which the outputs are joined while the job runs, if they are.

        Raises:
            OSError: If it cannot be created.
        """

    def publication(self, folder: JobFolder, joined: JoinedFile | None) -> Publication:
        """Return the way to publish a job's output there."""


def target_of(spec: Spec) -> "FileTarget | PartsTarget":
    """Return the target of a job.

    Raises:
        ConfigurationError: If it cannot be one any more, such as a directory in place of a file.
    """
    if spec.is_parts:
        return PartsTarget(spec.target)
    return FileTarget(spec.target, check_output(spec.target))


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file that appears when it is whole, with the mode and owner of the one it replaces.

    Attributes:
        name: The file, as the user named it.
        place: Where it is.
    """

    name: str | os.PathLike[str]
    place: Place

    @property
    def path(self) -> Path:
        """The file, no link."""
        return self.place.path

    def check(self, *, overwrite: bool) -> None:
        """Refuse a file that must not be replaced."""
        check_output(self.name, overwrite=overwrite)

    def join(self, path: Path) -> JoinedFile:
        """Return a file to which the outputs are joined while the job runs."""
        return JoinedFile(path, self.prepare if self.place.found is not None else None)

    def prepare(self, descriptor: int) -> None:
        """Give a new file the mode and owner of the one it replaces."""
        if self.place.found is not None:
            take_after(descriptor, self.place.found, self.name)

    def publication(self, folder: JobFolder, joined: JoinedFile | None) -> Publication:
        """Return the way to publish a job's output there."""
        return FilePublication(folder, self.path, self.prepare, joined)


@dataclass(frozen=True, slots=True)
class PartsTarget:
    """A folder of files ``part-00000.jsonl``, … in input order, and their manifest.

    Attributes:
        name: The folder, as the user named it.
    """

    name: str | os.PathLike[str]

    @classmethod
    def of(cls, name: str | os.PathLike[str], sources: Iterable[str]) -> "PartsTarget":
        """Return the target of a name.

        Raises:
            ConfigurationError: If one of the sources is in it.
        """
        target = cls(name)
        if any(target.path in Path(os.path.realpath(source)).parents for source in sources):
            raise ConfigurationError(
                f"cannot write {os.fspath(name)}: the source is in it; write to another folder"
            )
        return target

    @property
    def path(self) -> Path:
        """The folder, no link."""
        return parts_path(self.name)

    def check(self, *, overwrite: bool) -> None:
        """Refuse to replace a folder of another origin, or without leave to overwrite."""
        with output_errors(self.name):
            check_parts(self.name, self.path, overwrite=overwrite)

    def prepare(self, descriptor: int) -> None:
        """Do nothing: parts are new files."""

    def join(self, path: Path) -> None:
        """Join nothing: each part stays a file of its own."""

    def publication(self, folder: JobFolder, joined: JoinedFile | None) -> Publication:
        """Return the way to publish a job's output there."""
        return PartsPublication(folder, self.path)
