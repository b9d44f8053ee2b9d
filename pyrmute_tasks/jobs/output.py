"""The output of a job: the outputs of its settled ranges, proven, compared and joined."""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ProofError
from pyrmute_tasks.jobs.copying import append
from pyrmute_tasks.jobs.entries import Piece, Range, Settled, decode
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History, log_name
from pyrmute_tasks.jobs.storage import Storage

__all__ = ["Output", "Proof", "check_digest", "digest_of", "in_order"]

_KEY: Final = struct.Struct(">QQQQI")  # file, start; epoch, offset and length of the line
_BLOCK_BYTES: Final = 1 << 20
_DIGEST_BYTES: Final = 16


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


def check_digest(data: bytes, entry: Settled, file: str | os.PathLike[str], start: int = 0) -> None:
    """Check that bytes are the outputs of a range.

    Args:
        data: The bytes.
        entry: The range.
        file: Where they were read, for the message.
        start: Where they begin in it.

    Raises:
        ProofError: If they are not.
    """
    if digest_of(data) != entry.digest and (data or entry.digest):
        raise ProofError(
            f"{os.fspath(file)} differs between byte {start} and {start + len(data)}: these are "
            f"not the outputs of {_named(entry.range)}"
        )


def in_order(storage: Storage) -> Iterator[Settled]:
    """Yield the settled ranges in source order, keeping only their places meanwhile."""
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
        check: Called between ranges, and blocks that are copied; raises to end what is done.
    """

    def __init__(self, folder: JobFolder, check: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self._check = check

    def ranges(self) -> Iterator[Settled]:
        """Yield the settled ranges in source order."""
        for entry in in_order(self.folder.storage):
            self._check()
            yield entry

    def put_of(self, settled: Range) -> Piece | None:
        """Return where the outputs of a settled range are; None if it has none."""
        return next((entry.put for entry in self.ranges() if entry.range == settled), None)

    def prove(self, *, is_published: bool = False) -> Proof:
        """Prove that the settled ranges are exactly those wanted, and their outputs are there.

        Args:
            is_published: The outputs are in the target, and need not be in the job any more.

        Raises:
            ProofError: If not; it names the first place.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        length = records = outputs = rejected = 0
        expected = list(reversed(self.folder.spec.wanted))  # what is left, the next one last
        sizes = _Sizes(self.folder)
        for entry in self.ranges():
            if not expected or expected[-1][:2] != entry[:2] or entry.end > expected[-1].end:
                raise ProofError(_not_covered(expected, entry.range))
            rest = expected.pop()
            if entry.end < rest.end:
                expected.append(Range(rest.file, entry.end, rest.end))
            put = entry.put or Piece("", 0, 0)
            must_be_there = put.length and not is_published
            if must_be_there and put.offset + put.length > sizes.of(put.name):
                raise ProofError(f"{put.name} lacks outputs of {_named(entry.range)}")
            digest.update(repr((*entry[:6], put.length, entry.digest)).encode())
            length += put.length
            records += entry.records
            outputs += entry.outputs
            rejected += entry.rejected
        if expected:
            raise ProofError(_not_covered(expected, None))
        return Proof(length, digest.hexdigest(), records, outputs, rejected)

    def verify(self) -> Proof:
        """Prove the job, and compare the outputs in its folder with the digests.

        Raises:
            ProofError: If not; it names the first range whose bytes differ.
            OSError: If they cannot be read.
        """
        proof = self.prove()
        for entry in self.ranges():
            if entry.put is not None:
                check_digest(self.folder.storage.read(*entry.put), entry, entry.put.name)
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
            for entry in self.ranges():
                start = file.tell()
                data = file.read(entry.put.length) if entry.put is not None else b""
                check_digest(data, entry, target, start)

    def join(self, descriptor: int) -> None:
        """Write the outputs of all settled ranges to a file, in source order."""
        into = partial(append, descriptor, check=self._check)
        for piece in self.pieces():
            self.folder.copy(piece, into)

    def pieces(self) -> Iterator[Piece]:
        """Yield the places of the outputs in source order, as few long pieces."""
        return _merged(entry.put for entry in self.ranges() if entry.put is not None)


def _merged(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Merge places that follow each other in one file."""
    last: Piece | None = None
    for piece in pieces:
        if last is not None:
            if piece[:2] == (last.name, last.offset + last.length):
                last = last._replace(length=last.length + piece.length)
                continue
            yield last
        last = piece
    if last is not None:
        yield last


class _Sizes:
    """Sizes of output files; looks up a stream once for all of its ranges."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._streams: dict[str, int] = {}

    def of(self, name: str) -> int:
        """Return a file's size."""
        if name in self._streams:
            return self._streams[name]
        try:
            size = self._folder.storage.size(name)
        except FileNotFoundError:
            raise ProofError(f"{name} is missing, and holds settled outputs") from None
        if name.startswith("stream."):
            self._streams[name] = size
        return size


def _not_covered(expected: Sequence[Range], found: Range | None) -> str:
    wanted = f"{_named(expected[-1])} is wanted" if expected else "nothing more is wanted"
    settled = f"{_named(found)} is settled" if found else "nothing more is settled"
    return f"the job's ranges are not its source: {wanted}, and {settled}"


def _named(range_: Range) -> str:
    return f"file {range_.file}, {range_.start} to {range_.end}"
