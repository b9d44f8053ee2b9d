"""Publishing a job's output as one file."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.jobs.copying import SyncAhead, append
from pyrmute_tasks.jobs.entries import Piece, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.names import short_name
from pyrmute_tasks.jobs.output import Output, Proof
from pyrmute_tasks.jobs.storage import NO_LINKS

__all__ = ["FilePublication", "JoinedFile"]

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Prepare = Callable[[int], None]
"""Given the descriptor of a new file; sets its mode and owner."""


class JoinedFile:
    """The outputs that this epoch joins in source order while its job runs.

    Args:
        path: Where; nothing may be there.
        prepare: Sets the file's mode and owner.

    Attributes:
        path: Where it is.
        size_bytes: What was appended.
        was_cut: Whether something was appended only at a further try.

    Raises:
        OSError: If it cannot be created.
    """

    def __init__(self, path: Path, prepare: Prepare | None = None) -> None:
        self.path = path
        self.size_bytes: int = 0
        self.was_cut: bool = False
        self._descriptor = os.open(path, _CREATE, 0o666 if prepare is None else 0o600)
        try:
            if prepare is not None:
                prepare(self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._ahead = SyncAhead(self._descriptor)

    def append(self, source: int, size_bytes: int, offset: int) -> None:
        """Append bytes of a file, or nothing if that fails.

        Raises:
            OSError: If they cannot be read or written, or there are fewer.
        """
        try:
            append(self._descriptor, source, size_bytes, offset)
        except OSError:
            self.was_cut = True
            os.ftruncate(self._descriptor, self.size_bytes)
            os.lseek(self._descriptor, self.size_bytes, os.SEEK_SET)
            raise
        self.size_bytes += size_bytes

    def sync_ahead(self, size_bytes: int) -> None:
        """Sync in another thread, if much was appended by now.

        Args:
            size_bytes: What was appended since the last call.

        Raises:
            OSError: If an earlier sync has failed; trying again would not tell.
        """
        self._ahead.wrote(size_bytes)

    def finish(self) -> None:
        """Make it durable.

        Raises:
            OSError: If that fails.
        """
        self._ahead.finish()

    def close(self) -> None:
        """Close it; a sync that still runs is not waited for."""
        self._ahead.close(lambda: os.close(self._descriptor))


class FilePublication:
    """Publishes an output as one file, its outputs joined in source order.

    Args:
        folder: The job.
        target: The file, no link.
        prepare: Sets the mode and owner of the new file.
        joined: What this epoch has joined already.
    """

    def __init__(
        self,
        folder: JobFolder,
        target: Path,
        prepare: Prepare | None = None,
        joined: JoinedFile | None = None,
    ) -> None:
        self._folder = folder
        self._target = target
        self._prepare = prepare
        self._joined = joined

    @property
    def target(self) -> Path:
        """The file."""
        return self._target

    def temp(self, lease: Lease) -> Path:
        """Return where this epoch joins the file: in the job's folder, if that is beside it."""
        return self._temps / f"{self._prefix}{lease.epoch}"

    @property
    def _temps(self) -> Path:
        is_beside = self._folder.path.parent == self._target.parent
        return self._folder.path if is_beside else self._target.parent

    @property
    def _prefix(self) -> str:
        return f".{short_name(self._target.name)}.{self._folder.spec.job}.joined."

    def compare(self, output: Output, proof: Proof) -> None:
        """Compare the file with the digests."""
        output.compare(proof, self._target)

    def places(self, output: Output) -> Iterator[tuple[Settled, Path, int]]:
        """Yield the ranges of the published output, with the file and offset of their outputs."""
        offset = 0
        for entry in output.ranges():
            yield entry, self._target, offset
            offset += entry.put.length if entry.put is not None else 0

    def is_there(self, output: Output, proof: Proof) -> bool:
        """Return whether the target is the job's output, byte for byte."""
        self.compare(output, proof)
        return True

    def check(self, *, overwrite: bool) -> None:
        """Check that the file may appear."""
        if not overwrite and os.path.lexists(self._target):
            raise ConfigurationError(f"cannot write {self._target}: it exists")

    def remove_temps(self, keep: Path) -> None:
        """Remove the joined files of other epochs."""
        with contextlib.suppress(PermissionError):  # one may write into a folder, and not read it
            for path in self._temps.iterdir():
                if path.name.startswith(self._prefix) and path != keep:
                    path.unlink(missing_ok=True)

    def make(self, output: Output, lease: Lease, proof: Proof) -> None:
        """Join the outputs, unless that is done; compare what another process has written."""
        temp = self.temp(lease)
        if self._joined is not None and self._joined.size_bytes == proof.length:
            self._joined.finish()
            if self._joined.was_cut:  # whether reading or writing failed is not known
                output.compare(proof, temp)
            return
        if self._joined is not None:
            temp.unlink()
        if not _link(output, lease, proof, temp, self._prepare):
            _write(output, proof, temp, self._prepare)

    def appear(self, lease: Lease, *, overwrite: bool, backup: Path | None) -> None:
        """Rename it; a file that it replaces has a second name before, if it is kept."""
        temp = self.temp(lease)
        if overwrite:
            if backup is not None:
                _back_up(self._target, backup)
            temp.replace(self._target)
        else:
            _appear_new(temp, self._target)

    def clean(self) -> None:
        """Do nothing: one rename replaces a file."""


def _link(output: Output, lease: Lease, proof: Proof, temp: Path, prepare: Prepare | None) -> bool:
    """Name the lease's own stream if that is the whole output; it is not read again.

    Nobody else has written it, unlike the streams of older epochs, whose writers may be frozen.
    """
    stream = f"stream.{lease.epoch}"
    pieces = list(islice(output.pieces(), 2))
    is_whole = pieces == [Piece(stream, 0, proof.length)]
    if not is_whole or output.folder.storage.size(stream) != proof.length:
        return False
    try:
        os.link(output.folder.path / stream, temp, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    try:
        if prepare is not None:
            _prepare(temp, prepare)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    return True


def _prepare(path: Path, prepare: Prepare) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        prepare(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(output: Output, proof: Proof, temp: Path, prepare: Prepare | None) -> None:
    """Join the outputs, and compare what another process has written of them."""
    descriptor = os.open(temp, _CREATE, 0o666)
    try:
        if prepare is not None:
            prepare(descriptor)
        output.join(descriptor)
        os.fsync(descriptor)
        output.compare(proof, temp)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    finally:
        os.close(descriptor)


def _back_up(target: Path, backup: Path) -> None:
    """Give a file a second name, or copy it where that cannot be done."""
    backup.unlink(missing_ok=True)  # of this job, which was killed before it replaced the file
    try:
        os.link(target, backup)
    except FileNotFoundError:  # there is nothing to replace
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copy2(target, backup)
        _prepare(backup, lambda _: None)


def _appear_new(temp: Path, target: Path) -> None:
    try:
        os.link(temp, target)  # unlike renaming, this replaces nothing
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        temp.replace(target)
    else:
        temp.unlink()
