"""Messages in the store: claims, heartbeats, and notices to a job's collector."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pyrmute_tasks.wire.frames import pack, unpack

__all__ = [
    "STORAGE",
    "STORAGE_NOW",
    "TOO_LARGE",
    "Arrivals",
    "Claim",
    "ClaimInfo",
    "ClaimState",
    "Decline",
    "Outcomes",
    "Rejection",
    "Survey",
    "WorkerInfo",
    "claimant",
    "crash_notice",
    "decline_notice",
    "pack_heartbeat",
    "read_claim",
    "read_heartbeat",
    "rejection_notice",
    "sort_notice",
    "split_claim",
    "storage_trouble",
    "tells_of_outcome",
]

Outcomes: TypeAlias = Sequence[tuple[str, bytes | memoryview]]
"""Parts, each with its outcome."""

TOO_LARGE: Final = "its outputs are more than the store takes as one value"
"""How a part ended whose outputs must travel in halves."""

STORAGE: Final = "storage: "
"""How the reason begins of a worker that cannot run a job's ranges by reference."""

STORAGE_NOW: Final = "storage for now: "
"""How it begins if the worker may be able to in a moment, as when its disk is full."""

_MAX_SLOTS: Final = 10_000  # of one worker
_MAX_BEAT_S: Final = 3600.0
_MISSED_BEATS: Final = 3  # after which a worker counts as gone


class ClaimState(enum.StrEnum):
    """A chunk's state, in answer to a worker's claim."""

    CLAIMED = "claimed"
    SETTLED = "settled"  # another delivery of it was faster, or it was cancelled
    STOPPED = "stopped"  # the job failed at an earlier chunk
    GONE = "gone"  # the job has ended


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim; spec and frame only with `ClaimState.CLAIMED`."""

    state: ClaimState
    spec: bytes = b""
    frame: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker, as described by its heartbeat.

    Attributes:
        name: Its Celery node name, its process id and a token of this start of it.
        slots: How many chunks it runs at a time; 0 once it is leaving.
        running: Ids of the tasks it runs.
        silent_s: Seconds since it last said that it lives, by the store's clock.
        beats_every_s: Interval of its heartbeats.
        has_roots: Whether it takes ranges by reference, in some folders.
    """

    name: str
    slots: int
    running: frozenset[str]
    silent_s: float
    beats_every_s: float = 1.0
    has_roots: bool = False

    @property
    def is_serving(self) -> bool:
        """Whether the worker takes chunks, or has some to finish."""
        return self.slots > 0 or bool(self.running)

    @property
    def is_fresh(self) -> bool:
        """Whether the heartbeat is recent enough for the worker to count as alive.

        A time in the future is from before the store's clock was set back.
        """
        return abs(self.silent_s) < _MISSED_BEATS * self.beats_every_s


@dataclass(frozen=True, slots=True)
class ClaimInfo:
    """The claim of a part: its worker and time.

    Attributes:
        worker: The worker's name, as its heartbeat has it.
        task: Id of the task that brought the part.
        age_s: Seconds since then, by the store's clock.
        at: When that was, by the store's clock.
    """

    worker: str
    task: str
    age_s: float
    at: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """The state of a job and its fleet at one moment, from store and broker.

    Attributes:
        is_known: The store knows the job.
        waiting: How many tasks wait in the queue, of any job; None if the broker is away.
        claims: The claims of parts.
        workers: The workers whose heartbeat is fresh.
        settled: The parts whose outcomes are in the store.
        others: How many other jobs of the queue have chunks under way.
    """

    is_known: bool
    waiting: int | None
    claims: Mapping[str, ClaimInfo]
    workers: Sequence[WorkerInfo]
    settled: Sequence[str]
    others: int = 0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The notices and outcomes that the collector has received.

    Attributes:
        outcomes: Parts and their outcomes.
        crashes: Parts and how a process died that ran them.
        declines: Parts that workers declined.
        rejections: Parts without a valid signature.
    """

    outcomes: list[tuple[str, bytes | memoryview]]
    crashes: list[tuple[str, str]]
    declines: "list[Decline]"
    rejections: "list[Rejection]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Decline:
    """Notice of a worker that did not take a part: its code differs, or it cannot reach a file.

    Attributes:
        part: The part's key.
        task: Id of the task that brought it.
        worker: The worker's name.
        code: Its code: the fingerprint, or a text about a missing model; or, behind `STORAGE` or
            `STORAGE_NOW`, why it cannot read or write the part's range.
    """

    part: str
    task: str
    worker: str
    code: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """Notice of a part whose input or outcome has no valid signature.

    Attributes:
        part: The part's key.
        why: The fault.
        task: Id of the task that brought it, if a worker rejected it; else empty.
    """

    part: str
    why: str
    task: str = ""


def storage_trouble(code: str) -> str:
    """Return why a worker declined that cannot reach files; empty if it declined for its code."""
    for begin in (STORAGE, STORAGE_NOW):
        if code.startswith(begin):
            return code.removeprefix(begin)
    return ""


# --- notices, as the worker's side writes them and the collector's reads them -------------------


def crash_notice(part: str, task: str, how: str) -> str:
    """Return the notice of a process that died while it ran a part; `task` may be empty."""
    return f"!{part} {task or '-'} {how}"


def decline_notice(decline: Decline) -> str:
    """Return the notice of a worker that declines a part."""
    return f"?{decline.part} {decline.task} {decline.worker} {decline.code}"


def rejection_notice(rejection: Rejection) -> str:
    """Return the notice of an input without a valid signature."""
    return f"~{rejection.part} {rejection.task} {rejection.why}"


def tells_of_outcome(notice: bytes) -> bool:
    """Return whether a notice reports a settled part; ``settle.lua`` writes those."""
    return notice[:1].isdigit()


def sort_notice(notice: str, settled: list[tuple[str, int]], arrived: Arrivals) -> None:
    """Add a notice to the arrivals of its kind.

    Raises:
        ValueError: If it is none.
    """
    if notice.startswith("!"):
        key, _, how = notice[1:].split(" ", 2)
        arrived.crashes.append((key, how))
    elif notice.startswith("?"):
        part, task, worker, code = notice[1:].split(" ", 3)
        arrived.declines.append(Decline(part, task, worker, code))
    elif notice.startswith("~"):
        part, task, why = notice[1:].split(" ", 2)
        arrived.rejections.append(Rejection(part, why, task))
    else:
        key, size = notice.split(" ", 1)
        settled.append((key, int(size)))


# --- claims and heartbeats ----------------------------------------------------------------------


def claimant(task: str, worker: str) -> bytes:
    """Return the claimant of a part as bytes; ``claim.lua`` prepends the time."""
    return f"{task} {worker}".encode()


def split_claim(value: bytes) -> tuple[int, bytes]:
    """Return the time of a claim, and its `claimant`, which may be sealed.

    Raises:
        ValueError: If no worker wrote it.
    """
    when, _, sealed = value.partition(b" ")
    return int(when), sealed


def read_claim(when: int, who: bytes, now: int) -> ClaimInfo:
    """Read a claim.

    Args:
        when: When the part was claimed, by the store's clock.
        who: The return value of `claimant`.
        now: The store's clock.

    Raises:
        ValueError: If no worker wrote it.
    """
    task, worker = who.decode().split(" ", 1)
    age_s = abs(now - when)  # from the future: the store's clock was set back
    return ClaimInfo(worker, task, age_s, when)


def pack_heartbeat(
    slots: int,
    running: Iterable[str],
    every_s: float,
    seen: float | None = None,
    *,
    has_roots: bool = False,
) -> bytes:
    """Return a heartbeat as bytes; ``beat.lua`` prepends the time.

    Args:
        slots: How many chunks it runs at a time.
        running: Ids of its tasks.
        every_s: Interval of its heartbeats.
        seen: The store's clock, to be signed with the rest; None without a secret.
        has_roots: Whether it takes ranges by reference.
    """
    told: dict[str, object] = {"slots": slots, "running": list(running), "every_s": every_s}
    if has_roots:
        told["has_roots"] = True
    if seen is not None:
        told["seen"] = seen
    return pack(told)


def read_heartbeat(name: bytes, value: bytes, now: float) -> WorkerInfo:
    """Read a heartbeat.

    Args:
        name: The worker's name.
        value: The time by the store's clock, and the heartbeat.
        now: The store's clock.

    Raises:
        ValueError: Or `FrameError`, `LookupError`, `TypeError`, if no worker wrote it.
    """
    seen, _, packed = value.partition(b" ")
    told = unpack(packed)
    slots, every_s = told["slots"], told["every_s"]
    said_at = float(told.get("seen", seen))  # one that is signed cannot be told again later
    if type(slots) is not int or not 0 <= slots <= _MAX_SLOTS:
        raise ValueError
    if type(every_s) is not float or not 0 < every_s <= _MAX_BEAT_S:
        raise ValueError
    running, has_roots = frozenset(told["running"]), told.get("has_roots") is True
    return WorkerInfo(name.decode(), slots, running, now - said_at, every_s, has_roots)
