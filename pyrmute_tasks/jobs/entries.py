"""The entries of a job's log, and their encoding as lines.

A line is a JSON object whose last member is a checksum of the rest, seeded with the epoch and the
line's offset: zeros, torn, moved and repeated lines are found, and any line can be checked alone.
"""

import enum
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = [
    "FORMAT",
    "OPEN_END",
    "BadLineError",
    "Ended",
    "Entry",
    "JobResult",
    "Leased",
    "Logged",
    "Note",
    "Noted",
    "Opened",
    "Piece",
    "Publishing",
    "Range",
    "Settled",
    "Wished",
    "decode",
    "encode",
    "format_of",
]

FORMAT: Final = 2
"""The version of the log's format; a log of a newer one is not read, one of an older one is."""

OPEN_END: Final = 2**63 - 1
"""The end of a source whose length is not known yet."""

# A worker may name any file: only the job's own are ever read for it.
_NAME: Final = re.compile(r"parts/[A-Za-z0-9.+-]*[A-Za-z0-9]|(?:stream|rejects)\.[0-9]+", re.ASCII)
_SUM: Final = b',"sum":"'
_TAIL_BYTES: Final = len(_SUM) + 8 + len(b'"}\n')
_EPOCH_FACTOR: Final = 2_654_435_761  # spreads epochs over the seeds, so that offsets do not meet
_DUMPS: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_LOADS: Final = json.JSONDecoder().decode


class BadLineError(ValueError):
    """A line is torn, damaged or foreign; raised and caught within this package."""


class Range(NamedTuple):
    """An interval of a source: the lines that begin in it.

    Attributes:
        file: Number of the file in the job's spec.
        start: First position (bytes, or rows, as the source counts).
        end: Position behind the last one.
    """

    file: int
    start: int
    end: int


class Piece(NamedTuple):
    """Bytes in a file of the job's folder.

    Attributes:
        name: The file, ``parts/0-0-4096.7.1`` or ``stream.7``.
        offset: Where they begin.
        length: How many there are.
    """

    name: str
    offset: int
    length: int


class Settled(NamedTuple):
    """A range whose outcome is recorded.

    Attributes:
        file: Number of the file in the job's spec.
        start: First position.
        end: Position behind the last one.
        records: Records in it.
        outputs: Records written.
        rejected: Records rejected by the policy; with `outputs` all there are.
        put: Where the outputs are; None if there are none.
        digest: Digest of these bytes.
        rejects: Where the rejected are described; None if there are none.
        worker: The worker that ran it.
        seconds: Its duration.
        lines: Lines in it, blank ones too; -1 for as many as records.
    """

    file: int
    start: int
    end: int
    records: int
    outputs: int
    rejected: int = 0
    put: Piece | None = None
    digest: str = ""
    rejects: Piece | None = None
    worker: str = ""
    seconds: float = 0.0
    lines: int = -1

    @property
    def range(self) -> Range:
        """The interval of the source."""
        return Range(self.file, self.start, self.end)

    def fault(self) -> str:
        """Return the fault in its numbers; empty if there is none."""
        if not 0 <= self.start < self.end or self.file < 0:
            return "it is not an interval"
        if self.records != self.outputs + self.rejected:
            return f"{self.records} records in, {self.outputs} out and {self.rejected} rejected"
        if min(self.records, self.outputs, self.rejected) < 0:
            return "a negative count"
        for piece in (self.put, self.rejects):
            if piece is not None and (not _NAME.fullmatch(piece.name) or min(piece[1:]) < 0):
                return "it names a place that is none of the job's"
        if bool(self.outputs) != bool(self.put and self.put.length):
            return f"{self.outputs} outputs in {self.put.length if self.put else 0} bytes"
        return ""


@dataclass(frozen=True, slots=True)
class Leased:
    """The first line of a log: the holder of the lease.

    Attributes:
        epoch: The log's number.
        token: A token that only the taker knows when it is written.
        holder: The taker's host, process and user.
    """

    epoch: int
    token: str
    holder: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Opened:
    """The line that makes a log count.

    Attributes:
        epoch: The log's number.
        code: Fingerprint of the code that the job's driver has accepted.
        seal: How many bytes of each older log count; none of those that are not named.
    """

    epoch: int
    code: str
    seal: Mapping[int, int]


class Note(enum.StrEnum):
    """The kind of a note."""

    STOPPED = "stopped"
    SUSPENDED = "suspended"  # stopped by a fault of infrastructure, and to be tried again
    HELD = "held"  # proven, and not to be published yet
    WAIT = "wait"
    RESUMED = "resumed"
    CRASH = "crash"

    @property
    def lets_go(self) -> bool:
        """Whether a driver ends its epoch with it, so that others need not wait for it."""
        return self in (Note.STOPPED, Note.SUSPENDED, Note.HELD)


@dataclass(frozen=True, slots=True)
class Noted:
    """An event of the job, noted with its reason.

    Attributes:
        note: The kind of event.
        why: The reason, as a sentence for people.
        since: When it began, in seconds since 1970, if it was noted later; else 0.
    """

    note: Note
    why: str
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Wished:
    """A wish from ``want.json`` that was carried out.

    Attributes:
        want: Its fields.
    """

    want: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Publishing:
    """The output is whole and proven; its file is about to appear.

    Attributes:
        length: The output's bytes.
        digest: Digest of the ranges' digests and lengths, in order.
        temp: Name of the joined file beside the target.
    """

    length: int
    digest: str
    temp: str


class JobResult(enum.StrEnum):
    """The result of a job."""

    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_REJECTS = "succeeded with rejects"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_success(self) -> bool:
        """Whether the output was published, with or without rejects."""
        return self in (JobResult.SUCCEEDED, JobResult.SUCCEEDED_WITH_REJECTS)


@dataclass(frozen=True, slots=True)
class Ended:
    """The last entry of a job.

    Attributes:
        result: How it ended.
        records: Records in settled ranges.
        outputs: Records written.
        rejected: Records rejected.
        why: The reason, if it failed or was cancelled.
    """

    result: JobResult
    records: int
    outputs: int
    rejected: int
    why: str = field(default="")


Entry: TypeAlias = Leased | Opened | Settled | Noted | Wished | Publishing | Ended
"""An entry of a log."""


class Logged(NamedTuple):
    """An entry and its place.

    Attributes:
        epoch: The log's number.
        offset: Where its line begins.
        length: The line's bytes.
        at: When it was written, by the writer's clock, in seconds since 1970.
        entry: The entry.
    """

    epoch: int
    offset: int
    length: int
    at: float
    entry: Entry


def encode(entry: Entry, at: float, epoch: int, offset: int) -> bytes:
    """Encode an entry as the line at its place in a log."""
    fields = _fields(entry)
    fields["at"] = round(at, 3)
    text = _DUMPS(fields).encode()[:-1]
    return b'%b%b%08x"}\n' % (text, _SUM, _checksum(text, epoch, offset))


def decode(line: bytes, epoch: int, offset: int) -> Logged:
    """Decode an entry from its line, newline included.

    Raises:
        BadLineError: If the line is not whole, not from this place, or no entry.
    """
    text, end = line[:-_TAIL_BYTES], line[-_TAIL_BYTES:]
    if end != b'%b%08x"}\n' % (_SUM, _checksum(text, epoch, offset)):
        raise BadLineError("its checksum does not match")
    try:
        fields = _LOADS(text.decode() + "}")
        return Logged(epoch, offset, len(line), fields["at"], _entry(fields))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadLineError(f"it is not an entry of format {FORMAT}") from error


def format_of(line: bytes) -> int:
    """Return the format in a log's first line, whatever its checksum; 0 if there is none."""
    try:
        found = json.loads(line).get("format", 0)
    except (ValueError, AttributeError):
        return 0
    return found if isinstance(found, int) else 0


def _checksum(text: bytes, epoch: int, offset: int) -> int:
    return zlib.crc32(text, (epoch * _EPOCH_FACTOR + offset) & 0xFFFFFFFF)


def _fields(entry: Entry) -> dict[str, Any]:
    match entry:
        case Settled():
            return _settled_fields(entry)
        case Noted(note=note, why=why, since=since):
            return {note.value: why, "since": round(since, 3)} if since else {note.value: why}
        case Wished(want=want):
            return {"want": dict(want)}
        case Leased(epoch=epoch, token=token, holder=holder):
            return {"lease": epoch, "format": FORMAT, "token": token, "holder": dict(holder)}
        case Opened(epoch=epoch, code=code, seal=seal):
            return {"open": epoch, "code": code, "seal": seal}
        case Publishing(length=length, digest=digest, temp=temp):
            return {"publishing": length, "digest": digest, "temp": temp}
        case Ended():
            counts = {"in": entry.records, "out": entry.outputs, "rejected": entry.rejected}
            return {"end": entry.result.value, **counts, "why": entry.why}


def _settled_fields(entry: Settled) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "range": entry[:3],
        "in": entry.records,
        "out": entry.outputs,
        "rejected": entry.rejected,
        "put": entry.put,
        "digest": entry.digest,
        "rejects": entry.rejects,
        "worker": entry.worker,
        "s": round(entry.seconds, 3),
    }
    if entry.lines >= 0 and entry.lines != entry.records:
        fields["lines"] = entry.lines
    return fields


def _entry(fields: dict[str, Any]) -> Entry:
    kind = next(iter(fields))
    match kind:
        case "range":
            return _settled(fields)
        case "lease":
            return Leased(fields["lease"], fields["token"], fields["holder"])
        case "open":
            seal = {int(epoch): int(size) for epoch, size in fields["seal"].items()}
            return Opened(fields["open"], fields["code"], seal)
        case "want":
            return Wished(dict(fields["want"]))
        case "publishing":
            return Publishing(fields["publishing"], fields["digest"], fields["temp"])
        case "end":
            counts = (fields["in"], fields["out"], fields["rejected"])
            return Ended(JobResult(fields["end"]), *counts, fields["why"])
        case _:
            return Noted(Note(kind), fields[kind], fields.get("since", 0.0))


def _settled(fields: dict[str, Any]) -> Settled:
    file, start, end = fields["range"]
    put, rejects = fields["put"], fields["rejects"]
    return Settled(
        file,
        start,
        end,
        fields["in"],
        fields["out"],
        fields["rejected"],
        Piece(*put) if put else None,
        fields["digest"],
        Piece(*rejects) if rejects else None,
        fields["worker"],
        fields["s"],
        fields.get("lines", -1),
    )
