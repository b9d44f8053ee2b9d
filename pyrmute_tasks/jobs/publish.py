"""Publishing: prove that a job's output is whole, join its parts, and rename it to the target.

The order is: prove, join into a temporary file beside the target, log `publishing`, rename, log
`end`. Who takes over from any of these points begins with the proof again, and finds out whether
the target is there already.
"""

import contextlib
import errno
import hashlib
import heapq
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError, LeaseLostError, ProofError
from pyrmute_tasks.jobs.entries import (
    Ended,
    JobResult,
    Piece,
    Publishing,
    Range,
    Settled,
    decode,
)
from pyrmute_tasks.jobs.folder import JobFolder, short_name
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.log import History, log_name
from pyrmute_tasks.jobs.storage import NO_LINKS, FolderStorage, Storage

__all__ = ["Output", "Proof", "digest_of", "in_order", "publish"]

_KEY: Final = struct.Struct(">QQQQI")  # file, start; epoch, offset and length of the line
_BLOCK_BYTES: Final = 1 << 20
_DIGEST_BYTES: Final = 16
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CANNOT_COPY: Final = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of a job's output.

    Attributes:
        length: Its bytes.
        digest: Digest of the ranges, the lengths and digests of their outputs, in order.
        records: Records in the source.
        outputs: Records written.
        rejected: Records rejected.
    """

    length: int
    digest: str
    records: int
    outputs: int
    rejected: int


def digest_of(data: bytes | memoryview) -> str:
    """Return the digest of a range's outputs, in the form of its entry."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def in_order(storage: Storage) -> Iterator[Settled]:
    """Yield the settled ranges in source order; only their positions are kept in memory."""
    keys = sorted(
        _KEY.pack(entry.file, entry.start, logged.epoch, logged.offset, logged.length)
        for logged in History(storage)
        if isinstance(entry := logged.entry, Settled)
    )
    blocks: dict[int, tuple[int, bytes]] = {}  # by epoch; ranges are logged nearly in order
    for key in keys:
        _, _, epoch, offset, length = _KEY.unpack(key)
        start, block = blocks.get(epoch, (0, b""))
        if not start <= offset <= offset + length <= start + len(block):
            start = max(0, offset - _BLOCK_BYTES // 2)
            block = storage.read(log_name(epoch), start, _BLOCK_BYTES + length)
            blocks[epoch] = (start, block)
        entry = decode(block[offset - start : offset - start + length], epoch, offset).entry
        assert isinstance(entry, Settled)
        yield entry


class Output:
    """The output of a job: the outputs of its settled ranges, in source order.

    Args:
        folder: The job.
        parent: The job it retries, in whose output its own takes the place of ranges with rejects.
    """

    def __init__(self, folder: JobFolder, parent: "Output | None" = None) -> None:
        self.folder = folder
        self.parent = parent

    @property
    def wanted(self) -> Sequence[Range]:
        """The ranges of the whole output."""
        return self.folder.spec.wanted if self.parent is None else self.parent.wanted

    def ranges(self) -> Iterator[tuple[JobFolder, Settled]]:
        """Yield the settled ranges in source order, each with the job that holds its outputs."""
        own = ((self.folder, entry) for entry in in_order(self.folder.storage))
        if self.parent is None:
            return own
        kept = (pair for pair in self.parent.ranges() if not pair[1].rejected)
        return heapq.merge(kept, own, key=lambda pair: pair[1][:2])

    def prove(self) -> Proof:
        """Prove that the settled ranges are exactly those wanted, and their outputs are there.

        Raises:
            ProofError: If not; it names the first place.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        length = records = outputs = rejected = 0
        expected = list(reversed(self.wanted))  # what is left, the next one last
        sizes = _Sizes()
        for folder, entry in self.ranges():
            if not expected or expected[-1][:2] != entry[:2] or entry.end > expected[-1].end:
                raise ProofError(_not_covered(expected, entry.range))
            rest = expected.pop()
            if entry.end < rest.end:
                expected.append(Range(rest.file, entry.end, rest.end))
            put = entry.put or Piece("", 0, 0)
            if put.length and put.offset + put.length > sizes.of(folder, put.name):
                raise ProofError(f"{put.name} lacks outputs of {_named(entry.range)}")
            digest.update(repr((*entry[:6], put.length, entry.digest)).encode())
            length += put.length
            records += entry.records
            outputs += entry.outputs
            rejected += entry.rejected
        if expected:
            raise ProofError(_not_covered(expected, None))
        return Proof(length, digest.hexdigest(), records, outputs, rejected)

    def verify(self, target: Path) -> Proof:
        """Prove the job again, and that a file equals its output byte for byte.

        Raises:
            ProofError: If not; it names the first range whose bytes differ.
            OSError: If the file cannot be read.
        """
        proof = self.prove()
        self.compare(proof, target)
        return proof

    def compare(self, proof: Proof, target: Path) -> None:
        """Compare a file with the digests of the settled ranges.

        Raises:
            ProofError: If one differs.
            OSError: If the file cannot be read.
        """
        size = target.stat().st_size
        if size != proof.length:
            raise ProofError(f"{target} has {size} bytes, and the job has written {proof.length}")
        with target.open("rb") as file:
            for _, entry in self.ranges():
                start = file.tell()
                data = file.read(entry.put.length) if entry.put is not None else b""
                if digest_of(data) != entry.digest and (data or entry.digest):
                    raise ProofError(
                        f"{target} differs between byte {start} and {start + len(data)}: these are "
                        f"not the outputs of {_named(entry.range)}"
                    )

    def join(self, descriptor: int) -> None:
        """Write the outputs of all settled ranges to a file, in source order."""
        for folder, (name, offset, length) in _merged(self.ranges()):
            source = os.open(folder.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _copy(source, offset, length, descriptor, name)
            finally:
                os.close(source)


def publish(
    output: Output,
    lease: Lease,
    target: Path,
    *,
    overwrite: bool = False,
    prepare: Callable[[int], None] | None = None,
) -> Proof:
    """Publish a job's output as one file, and end the job.

    Args:
        output: The job's output.
        lease: The right to drive the job; its log is closed at the end.
        target: The file, no link.
        overwrite: Replace a file that exists.
        prepare: Called with the descriptor of the new file, to set its mode and owner.

    Raises:
        ProofError: If the output is not whole; nothing is published.
        ConfigurationError: If the target exists and must not be replaced.
        LeaseLostError: If another process drives the job now.
        OSError: If it cannot be written.
    """
    lease.log.commit()
    proof = output.prove()
    temp = target.with_name(f"{_prefix(output, target)}{lease.epoch}")
    was_published = _is_published(output, lease, proof, target)
    _remove_temps(output, target)
    if not was_published:
        if not overwrite and os.path.lexists(target):
            raise ConfigurationError(f"cannot write {target}: it exists")
        if not _link(output, lease, proof, temp, prepare):
            _write(output, temp, prepare)
            output.compare(proof, temp)
    lease.log.log(Publishing(proof.length, proof.digest, temp.name))
    lease.log.commit()
    if not was_published:
        _appear(temp, target, overwrite=overwrite)
    FolderStorage(target.parent).sync_folder()
    result = JobResult.SUCCEEDED_WITH_REJECTS if proof.rejected else JobResult.SUCCEEDED
    lease.log.log(Ended(result, proof.records, proof.outputs, proof.rejected))
    lease.log.commit()
    lease.log.close()
    return proof


def _is_published(output: Output, lease: Lease, proof: Proof, target: Path) -> bool:
    """Return whether an earlier epoch renamed the output and only failed to log the end."""
    before = lease.view.publishing
    if before is None or before.digest != proof.digest:
        return False
    try:
        output.compare(proof, target)
    except (OSError, ProofError):
        return False
    return True


def _prefix(output: Output, target: Path) -> str:
    return f".{short_name(target.name)}.{output.folder.spec.job}.joined."


def _remove_temps(output: Output, target: Path) -> None:
    """Remove joined files of earlier epochs, so that a frozen one finds nothing to rename."""
    prefix = _prefix(output, target)
    with contextlib.suppress(PermissionError):  # one may write into a folder, and not read it
        for path in target.parent.iterdir():
            if path.name.startswith(prefix):
                path.unlink(missing_ok=True)


def _link(
    output: Output,
    lease: Lease,
    proof: Proof,
    temp: Path,
    prepare: Callable[[int], None] | None,
) -> bool:
    """Name the lease's own stream if that is the whole output; it is not read again.

    Nobody else has written it, unlike the streams of older epochs, whose writers may be frozen.
    """
    stream = f"stream.{lease.epoch}"
    pieces = list(islice(_merged(output.ranges()), 2))
    is_whole = pieces == [(output.folder, Piece(stream, 0, proof.length))]
    if not is_whole or output.folder.storage.size(stream) != proof.length:
        return False
    try:
        os.link(output.folder.path / stream, temp, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    try:
        _prepare(temp, prepare)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    return True


def _prepare(path: Path, prepare: Callable[[int], None] | None) -> None:
    if prepare is None:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        prepare(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(output: Output, temp: Path, prepare: Callable[[int], None] | None) -> None:
    descriptor = os.open(temp, _CREATE, 0o666)
    try:
        if prepare is not None:
            prepare(descriptor)
        output.join(descriptor)
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    finally:
        os.close(descriptor)


def _appear(temp: Path, target: Path, *, overwrite: bool) -> None:
    try:
        if overwrite:
            temp.replace(target)
        else:
            _appear_new(temp, target)
    except FileNotFoundError:
        raise LeaseLostError(f"{temp} was removed: another process drives this job now") from None
    except FileExistsError:
        raise ConfigurationError(f"cannot write {target}: another process has created it") from None


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


def _merged(ranges: Iterator[tuple[JobFolder, Settled]]) -> Iterator[tuple[JobFolder, Piece]]:
    """Yield the places of the outputs, as few long pieces."""
    last: tuple[JobFolder, Piece] | None = None
    for folder, entry in ranges:
        put = entry.put
        if put is None:
            continue
        if last is not None:
            other, (name, offset, length) = last
            if other is folder and (put.name, put.offset) == (name, offset + length):
                last = (folder, Piece(name, offset, length + put.length))
                continue
            yield last
        last = (folder, put)
    if last is not None:
        yield last


def _copy(source: int, offset: int, length: int, target: int, name: str) -> None:
    copy = getattr(os, "copy_file_range", None)  # Linux has it
    while length:
        done = 0
        if copy is not None:
            try:
                done = copy(source, target, length, offset)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                copy = None
        if copy is None:
            done = os.write(target, os.pread(source, min(length, _BLOCK_BYTES), offset))
        if not done:
            raise ProofError(f"{name} ends {length} bytes too early")
        offset += done
        length -= done


class _Sizes:
    """Sizes of output files; looks up a stream once for all of its ranges."""

    def __init__(self) -> None:
        self._streams: dict[tuple[Path, str], int] = {}

    def of(self, folder: JobFolder, name: str) -> int:
        """Return a file's size."""
        key = (folder.path, name)
        if key in self._streams:
            return self._streams[key]
        try:
            size = folder.storage.size(name)
        except FileNotFoundError:
            raise ProofError(f"{name} is missing, and holds settled outputs") from None
        if name.startswith("stream."):
            self._streams[key] = size
        return size


def _not_covered(expected: Sequence[Range], found: Range | None) -> str:
    wanted = f"{_named(expected[-1])} is wanted" if expected else "nothing more is wanted"
    settled = f"{_named(found)} is settled" if found else "nothing more is settled"
    return f"the job's ranges are not its source: {wanted}, and {settled}"


def _named(range_: Range) -> str:
    return f"file {range_.file}, {range_.start} to {range_.end}"
