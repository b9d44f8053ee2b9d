"""Outputs as a folder of parts, which appears under its name only when it is whole."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.attempt_folder import AttemptFolder
from pyrmute_tasks.io.output_lock import OutputLock
from pyrmute_tasks.io.output_place import output_errors, sync_directory
from pyrmute_tasks.ranges.frames import Piece

__all__ = ["MANIFEST", "OutputParts", "is_parts"]

MANIFEST: Final = "_manifest.json"
"""Name of the file that lists the parts."""

_VERSION: Final = 1


def is_parts(target: str | os.PathLike[str]) -> bool:
    """Return whether a target is a folder of parts: it is one already, or ends with a slash."""
    name = os.fspath(target)
    return name.endswith("/") or os.path.isdir(name)


class OutputParts:
    """A folder of files ``part-00000.jsonl``, … in input order, and their manifest.

    A context manager, as `OutputFile`: what was written is removed unless `commit` was called.
    Parts are the workers' attempts, renamed: no byte is copied.

    Args:
        target: The folder.
        job: The job's id.
        sources: The files that are read, which must be elsewhere.
        overwrite: Replace a folder that an earlier run has written.

    Raises:
        ConfigurationError: If there is something else, or a folder that must not be replaced.
    """

    kept_path: Path | None = None

    def __init__(
        self,
        target: str | os.PathLike[str],
        job: str,
        *,
        sources: Iterable[str] = (),
        overwrite: bool = True,
    ) -> None:
        self._target = target
        self._path = Path(os.path.realpath(os.fspath(target).rstrip("/") or "/"))
        self._overwrite = overwrite
        self._job = job
        self._lock = OutputLock(self._path, job)
        self._staged = self._lock.path_of("staged")
        self._parts: list[dict[str, Any]] = []
        self._records = 0
        self._pid = os.getpid()
        if any(self._path in Path(os.path.realpath(source)).parents for source in sources):
            raise ConfigurationError(
                f"cannot write {os.fspath(target)}: the source is in it; write to another folder"
            )
        self._check()

    @property
    def attempts_path(self) -> Path:
        """The folder for attempts to be added; removed by the next run."""
        return self._lock.path_of("parts")

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            OutputInUseError: If another run is writing this folder.
            ConfigurationError: If it cannot be written.
        """
        with output_errors(self._target):
            self._lock.acquire()
            try:
                self._staged.mkdir()
            except BaseException:
                self._lock.release()
                raise
        return self

    def add(self, folder: AttemptFolder, piece: Piece) -> None:
        """Add a piece's attempt as the next part.

        Raises:
            ConfigurationError: If that fails, or it is not what its worker told.
        """
        if not piece.size_bytes or piece.is_cut:  # a job that ends inside of it publishes nothing
            return
        self._lock.check()
        name = f"part-{len(self._parts):05d}.jsonl"
        with output_errors(self._target):
            folder.move(piece, self._staged / name)
        self._parts.append(
            {
                "name": name,
                "records": piece.records_out,
                "bytes": piece.size_bytes,
                "blake2b": piece.digest,
            }
        )
        self._records += piece.records_out

    def commit(self) -> None:
        """Move the folder to its final name.

        Raises:
            ConfigurationError: If it cannot be written, or must not be any more.
        """
        manifest = {
            "version": _VERSION,
            "job": self._job,
            "records": self._records,
            "parts": self._parts,
        }
        with output_errors(self._target):
            path = self._staged / MANIFEST
            with path.open("w", encoding="utf-8") as file:
                json.dump(manifest, file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self._staged)
            self._lock.confirm()
            self._check()
            self._publish()
            with contextlib.suppress(OSError):  # not every file system can
                sync_directory(self._path.parent)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return  # a fork owns nothing
        shutil.rmtree(self._staged, ignore_errors=True)  # if it still has that name
        self._lock.release()

    # --- details ----------------------------------------------------------------------------

    def _publish(self) -> None:
        if not os.path.lexists(self._path) or not any(self._path.iterdir()):
            self._staged.rename(self._path)
            return
        replaced = self._lock.path_of("replaced")
        self._path.rename(replaced)
        self._staged.rename(self._path)
        shutil.rmtree(replaced, ignore_errors=True)

    def _check(self) -> None:
        """Refuse to replace a folder of another origin, or without leave to overwrite."""
        name = os.fspath(self._target)
        if not os.path.lexists(self._path):
            return
        if not self._path.is_dir():
            raise ConfigurationError(f"cannot write {name}: it exists and is not a folder")
        with output_errors(self._target):
            inside = {path.name for path in self._path.iterdir()}
        if inside and not self._overwrite:
            raise ConfigurationError(
                f"cannot write {name}: it is not empty; add --overwrite (overwrite=True in Python) "
                "to replace it, or name another output"
            )
        if inside and MANIFEST not in inside:
            raise ConfigurationError(
                f"cannot write {name}: it holds other files and no {MANIFEST}; name a new folder"
            )
