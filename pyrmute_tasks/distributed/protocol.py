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
    """What a worker learns when it asks for a chunk."""

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
    """A worker as its heartbeat tells.

    Attributes:
        name: Its Celery node name, its process id and a token of this start of it.
        slots: How many chunks it runs at a time; 0 once it is leaving.
        running: Ids of the tasks it runs.
        silent_s: Seconds since it last said that it lives, by the store's clock.
        beats_every_s: How often it says so.
        has_roots: It takes ranges by reference, in some folders.
    """

    name: str
    slots: int
    running: frozenset[str]
    silent_s: float
    beats_every_s: float = 1.0
    has_roots: bool = False

    @property
    def is_serving(self) -> bool:
        """Whether it takes chunks, or has some to finish."""
        return self.slots > 0 or bool(self.running)

    @property
    def is_fresh(self) -> bool:
        """Whether it said so lately enough to count as alive.

        What was said in the future was said before the store's clock was set back.
        """
        return abs(self.silent_s) < _MISSED_BEATS * self.beats_every_s


@dataclass(frozen=True, slots=True)
class ClaimInfo:
    """Who has taken a part.

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
    """What store and broker told of a job and its fleet at one moment.

    Attributes:
        is_known: The store knows the job.
        waiting: How many tasks wait in the queue, of any job; None if the broker is away.
        claims: Who has taken which parts.
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
    """What the collector found.

    Attributes:
        outcomes: Parts and their outcomes.
        crashes: Parts and how a process died that ran them.
        declines: Who did not want which parts.
        rejections: What is not signed as it must be.
    """

    outcomes: list[tuple[str, bytes | memoryview]]
    crashes: list[tuple[str, str]]
    declines: "list[Decline]"
    rejections: "list[Rejection]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Decline:
    """A worker did not take a part: it holds other code than the producer, or cannot reach it.

    Attributes:
        part: The part's key.
        task: Id of the task that brought it.
        worker: The worker's name.
        code: What it holds: the fingerprint, or what is missing; or, behind `STORAGE` or
            `STORAGE_NOW`, why it cannot read or write the part's range.
    """

    part: str
    task: str
    worker: str
    code: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A part whose input, or whose outcome, is not signed as it must be.

    Attributes:
        part: The part's key.
        why: What is wrong with it.
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
    """Return the notice of a worker that does not take a part."""
    return f"?{decline.part} {decline.task} {decline.worker} {decline.code}"


def rejection_notice(rejection: Rejection) -> str:
    """Return the notice of an input that is not signed as it must be."""
    return f"~{rejection.part} {rejection.task} {rejection.why}"


def tells_of_outcome(notice: bytes) -> bool:
    """Whether a notice tells that a part was settled; ``settle.lua`` writes those."""
    return notice[:1].isdigit()


def sort_notice(notice: str, settled: list[tuple[str, int]], arrived: Arrivals) -> None:
    """Put a notice where it belongs.

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
    """Return who claims a part; ``claim.lua`` puts the time in front of it."""
    return f"{task} {worker}".encode()


def split_claim(value: bytes) -> tuple[int, bytes]:
    """Return when a part was claimed, and the `claimant`, which may be sealed.

    Raises:
        ValueError: If no worker wrote it.
    """
    when, _, sealed = value.partition(b" ")
    return int(when), sealed


def read_claim(when: int, who: bytes, now: int) -> ClaimInfo:
    """Read a claim.

    Args:
        when: When the part was claimed, by the store's clock.
        who: What `claimant` returned.
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
    """Return what a worker tells; ``beat.lua`` puts the time in front of it.

    Args:
        slots: How many chunks it runs at a time.
        running: Ids of its tasks.
        every_s: How often it tells.
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
    """Read what a worker told.

    Args:
        name: The worker's name.
        value: When it said so, by the store's clock, and what.
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
