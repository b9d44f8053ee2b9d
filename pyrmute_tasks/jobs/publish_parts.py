"""Publishing a job's output as a folder of parts, with a manifest that lists them."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from pyrmute_tasks.errors import ConfigurationError, ProofError
from pyrmute_tasks.jobs.copying import append
from pyrmute_tasks.jobs.entries import Piece, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.names import short_name
from pyrmute_tasks.jobs.output import Output, Proof, check_digest
from pyrmute_tasks.jobs.storage import NO_LINKS, FolderStorage

__all__ = ["MANIFEST", "PART", "PartsPublication", "check_parts"]

MANIFEST: Final = "_manifest.json"
"""Name of the file that lists the parts."""

PART: Final = "part-{:05d}.jsonl"
"""Name of a part, by its number."""

_VERSION: Final = 1
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PartsPublication:
    """Publishes an output as files ``part-00000.jsonl``, … in input order, and their manifest.

    Parts are the files that workers wrote, with a second name: no byte is copied where the file
    system has links.

    Args:
        folder: The job.
        target: The folder of parts, no link.
    """

    def __init__(self, folder: JobFolder, target: Path) -> None:
        self._folder = folder
        self._target = target

    @property
    def target(self) -> Path:
        """The folder of parts."""
        return self._target

    def temp(self, lease: Lease) -> Path:
        """Return where this epoch makes it."""
        return self._temps / f"{self._prefix}{lease.epoch}"

    @property
    def _temps(self) -> Path:
        is_beside = self._folder.path.parent == self._target.parent
        return self._folder.path if is_beside else self._target.parent

    @property
    def _prefix(self) -> str:
        return f".{short_name(self._target.name)}.{self._folder.spec.job}.staged."

    def compare(self, output: Output, proof: Proof) -> None:
        """Compare each part with its digest."""
        others = {each.name for each in self._target.iterdir()} - {MANIFEST}
        for entry, path, _ in self.places(output):
            if not entry.outputs:
                continue
            if path.name not in others:
                raise ProofError(f"{path} is missing, and holds settled outputs")
            others.remove(path.name)
            check_digest(path.read_bytes(), entry, path)
        if others:
            raise ProofError(f"{self._target / min(others)} is none of the job's parts")
        try:
            is_there = self.is_there(output, proof)
        except (ValueError, KeyError, TypeError):
            is_there = False
        if not is_there:
            raise ProofError(f"{self._target / MANIFEST} is not that of job {self._job}")

    def places(self, output: Output) -> Iterator[tuple[Settled, Path, int]]:
        """Yield the ranges of the published output, with the file and offset of their outputs."""
        number = 0
        for entry in output.ranges():
            yield entry, self._target / PART.format(number), 0
            number += bool(entry.outputs)

    @property
    def _job(self) -> str:
        return self._folder.spec.job

    def is_there(self, output: Output, proof: Proof) -> bool:
        """Return whether the target's manifest is that of the job's output."""
        found = json.loads((self._target / MANIFEST).read_bytes())
        return bool(found["job"] == self._job and found["digest"] == proof.digest)

    def check(self, *, overwrite: bool) -> None:
        """Check that the folder may appear; see `check_parts`."""
        check_parts(self._target, self._target, overwrite=overwrite)

    def remove_temps(self, keep: Path) -> None:
        """Remove the folders that other epochs have made."""
        with contextlib.suppress(PermissionError):  # one may write into a folder, and not read it
            for path in self._temps.iterdir():
                if path.name.startswith(self._prefix) and path != keep:
                    shutil.rmtree(path, ignore_errors=True)

    def make(self, output: Output, lease: Lease, proof: Proof) -> None:
        """Give the settled outputs their names in a folder of its own, and write the manifest."""
        temp = self.temp(lease)
        if temp.exists():
            shutil.rmtree(temp)
        temp.mkdir()
        parts: list[dict[str, Any]] = []
        if lease.epoch > 1:  # others have written, and may have been frozen
            output.verify()
        for entry in output.ranges():
            if entry.put is None or not entry.put.length:
                continue
            name, size = PART.format(len(parts)), entry.put.length
            _name(self._folder, entry.put, temp / name)
            part = {"name": name, "records": entry.outputs, "bytes": size, "blake2b": entry.digest}
            parts.append(part)
        manifest = {
            "version": _VERSION,
            "job": self._job,
            "jobs": [each._asdict() for each in self._folder.spec.lineage],
            "digest": proof.digest,
            "records": proof.outputs,
            "parts": parts,
        }
        with (temp / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        FolderStorage(temp).sync_folder()

    def appear(self, lease: Lease, *, overwrite: bool, backup: Path | None) -> None:
        """Rename it; the folder that it replaces is kept as the backup, or until `clean`.

        Between the two renames neither has the target's name. So the old one keeps one that is
        seen, and that is not removed with the job: nobody knows whether this is gone on with.
        """
        temp, target = self.temp(lease), self._target
        self.check(overwrite=overwrite)
        if not os.path.lexists(target) or not any(target.iterdir()):
            temp.rename(target)
            return
        replaced = backup or self._replaced
        target.rename(replaced)
        try:
            temp.rename(target)
        except BaseException:
            replaced.rename(target)
            raise

    def clean(self) -> None:
        """Remove the folder that was replaced, unless it is the backup."""
        shutil.rmtree(self._replaced, ignore_errors=True)

    @property
    def _replaced(self) -> Path:
        return self._target.with_name(f"{short_name(self._target.name)}.{self._job}.replaced")


def check_parts(name: str | os.PathLike[str], path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a folder of another origin, or without leave to overwrite.

    Args:
        name: The folder, as the user named it.
        path: Where it is.
        overwrite: Replace a folder that an earlier run has written.

    Raises:
        ConfigurationError: If it must not be replaced.
        OSError: If it cannot be listed.
    """
    shown = os.fspath(name)
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise ConfigurationError(f"cannot write {shown}: it is there and is no folder")
    inside = {each.name for each in path.iterdir()}
    if inside and not overwrite:
        raise ConfigurationError(
            f"cannot write {shown}: it is not empty; add --overwrite (overwrite=True in Python) "
            "to replace it, or name another output"
        )
    if inside and MANIFEST not in inside:
        raise ConfigurationError(
            f"cannot write {shown}: it holds other files and no {MANIFEST}; name a new folder"
        )


def _name(folder: JobFolder, piece: Piece, path: Path) -> None:
    """Give the file of a piece a second name; copy it where that cannot be done."""
    found = folder.storage.size(piece.name)
    if found < piece.offset + piece.length:
        raise ProofError(f"{piece.name} has {found} bytes, and its worker wrote more")
    if (piece.offset, piece.length) == (0, found):
        try:
            os.link(folder.path / piece.name, path, follow_symlinks=False)
        except OSError as error:  # there are no links, or only for the file's owner
            if error.errno not in NO_LINKS:
                raise
        else:
            return
    descriptor = os.open(path, _CREATE, 0o666)
    try:
        folder.copy(piece, partial(append, descriptor))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
