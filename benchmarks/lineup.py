"""Who takes part in what, and what this package is to reach there."""

import enum
from dataclasses import dataclass
from typing import Final

__all__ = ["EVENTS", "SHARES", "TARGETS", "Entry", "Event", "Per", "Share", "Target"]


class Per(enum.StrEnum):
    """What records are counted by."""

    SECOND = "second"
    PROCESSOR_SECOND = "processor second"  # of all our processes; moves less than the clock


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in an event.

    Attributes:
        label: What the tables call it.
        module: Its module in `benchmarks.contenders`.
        chunk_size: Records a task; None leaves it to the contender.
        every: It takes part in every so manieth round: the slow ones need not run as often.
        options: Further options of its module.
    """

    label: str
    module: str
    chunk_size: int | None = None
    every: int = 1
    options: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it is this package."""
        return self.module.startswith("ours_")


@dataclass(frozen=True, slots=True)
class Event:
    """The same work for several contenders.

    Attributes:
        key: Its short name.
        title: What the tables call it.
        workload: Models, steps and input.
        entries: Who takes part, ours first.
        raw: Objects are migrated and not validated.
    """

    key: str
    title: str
    workload: str
    entries: tuple[Entry, ...]
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio to be reached.

    Attributes:
        number: Its number in docs/performance.md.
        text: What is divided by what.
        event: Key of the event.
        own: Label of the entry whose rate is divided,
        others: by that of the one of these with the better median.
        least: What the ratio is to be.
        per: What both rates are of.
    """

    number: int
    text: str
    event: str
    own: str
    others: tuple[str, ...]
    least: float
    per: Per = Per.SECOND


@dataclass(frozen=True, slots=True)
class Share:
    """A share that is not to be exceeded.

    Attributes:
        number: Its number in docs/performance.md.
        text: What it is a share of.
        event: Key of the event.
        own: Label of the entry.
        name: The name under which the entry prints it.
        most: What it is to be.
    """

    number: int
    text: str
    event: str
    own: str
    name: str
    most: float


_OURS: Final = Entry("ours", "ours_lines")
_LIMIT: Final = Entry("the limit: bare pool of 2, no queue", "limit")
_POOL: Final = Entry("pyrmute, pool of 2", "pyrmute_pool", every=2)
_STREAMING: Final = Entry("pyrmute, streaming", "pyrmute_streaming", every=2)
_CELERY_1000: Final = Entry("plain Celery, chunks of 1,000", "celery_lines", 1000, every=2)
_CELERY_5000: Final = Entry("plain Celery, chunks of 5,000", "celery_lines", 5000, every=2)
_DASK: Final = Entry("Dask bag", "dask_bag", every=2)
_RAY: Final = Entry("Ray Data", "ray_data", every=2)
_EVERYBODY: Final = (
    _OURS,
    _LIMIT,
    _POOL,
    _STREAMING,
    _CELERY_1000,
    _CELERY_5000,
    _DASK,
    _RAY,
)

_OURS_100: Final = Entry("ours, chunks of 100", "ours_lines", 100, every=2)
_CELERY_100: Final = Entry("plain Celery, chunks of 100", "celery_lines", 100, every=2)

_OURS_OBJECTS: Final = Entry("ours", "ours_objects")
_PYRMUTE_OBJECTS: Final = Entry("pyrmute, sequential", "pyrmute_objects", every=2)
_CELERY_RAW_1000: Final = Entry("plain Celery, chunks of 1,000", "celery_objects", 1000, every=2)
_CELERY_RAW_5000: Final = Entry("plain Celery, chunks of 5,000", "celery_objects", 5000, every=2)

_JOINED: Final = Entry("ours, joined", "ours_lines", options=("always",))
_PARTS: Final = Entry("ours, into parts", "ours_lines", options=("always", "parts"))

_LOGGED: Final = Entry("ours, joined, log, policy", "ours_lines", options=("always", "skip"))
_NOT_LOGGED: Final = Entry("ours, joined, --no-log", "ours_lines", options=("always", "no-log"))
_SENT_LOGGED: Final = Entry("ours, sent, log, policy", "ours_lines", options=("never", "skip"))
_SENT_NOT_LOGGED: Final = Entry("ours, sent, --no-log", "ours_lines", options=("never", "no-log"))
_WITH_LOG_AND_WITHOUT: Final = (_LOGGED, _NOT_LOGGED, _SENT_LOGGED, _SENT_NOT_LOGGED)

EVENTS: Final = (
    Event("lines-small", "Lines, small records", "small", _EVERYBODY),
    Event("lines-flights", "Lines, flights", "flights", _EVERYBODY),
    Event(
        "lines-slow",
        "Lines, flights, a step of 100 µs",
        "slow_flights",
        (_OURS, _LIMIT),
    ),
    Event(
        "lines-100",
        "Lines, small records, 100 a task",
        "small",
        (_OURS_100, _CELERY_100),
    ),
    Event(
        "objects",
        "Objects, small records, validated",
        "small",
        (_OURS_OBJECTS, _PYRMUTE_OBJECTS),
    ),
    Event(
        "objects-raw",
        "Objects, small records, raw",
        "small",
        (_OURS_OBJECTS, _PYRMUTE_OBJECTS, _CELERY_RAW_1000, _CELERY_RAW_5000),
        raw=True,
    ),
    Event(
        "by-reference",
        "By reference, small records",
        "small",
        (_JOINED, _PARTS, _LIMIT, _STREAMING),
    ),
    Event(
        "by-reference-flights",
        "By reference, flights",
        "flights",
        (_JOINED, _PARTS, _LIMIT),
    ),
    Event("log", "Log and policy, small records", "small", _WITH_LOG_AND_WITHOUT),
    Event("log-flights", "Log and policy, flights", "flights", _WITH_LOG_AND_WITHOUT),
)

_CELERY: Final = (_CELERY_1000.label, _CELERY_5000.label)
_CELERY_RAW: Final = (_CELERY_RAW_1000.label, _CELERY_RAW_5000.label)

TARGETS: Final = (
    Target(1, "of the limit", "lines-small", _OURS.label, (_LIMIT.label,), 0.80),
    Target(1, "× pyrmute, streaming", "lines-small", _OURS.label, (_STREAMING.label,), 7),
    Target(1, "× Dask bag", "lines-small", _OURS.label, (_DASK.label,), 4),
    Target(1, "× plain Celery, better size", "lines-small", _OURS.label, _CELERY, 4),
    Target(2, "of the limit", "lines-flights", _OURS.label, (_LIMIT.label,), 0.85),
    Target(2, "of the limit", "lines-slow", _OURS.label, (_LIMIT.label,), 0.95),
    Target(
        3, "× pyrmute, sequential", "objects", _OURS_OBJECTS.label, (_PYRMUTE_OBJECTS.label,), 3
    ),
    Target(3, "× plain Celery, better size", "objects-raw", _OURS_OBJECTS.label, _CELERY_RAW, 3),
    Target(4, "× plain Celery", "lines-100", _OURS_100.label, (_CELERY_100.label,), 1.5),
    Target(8, "parts, of the limit", "by-reference", _PARTS.label, (_LIMIT.label,), 1.10),
    Target(8, "joined, of the limit", "by-reference", _JOINED.label, (_LIMIT.label,), 1.03),
    Target(8, "parts, × streaming", "by-reference", _PARTS.label, (_STREAMING.label,), 11),
    Target(8, "joined, × streaming", "by-reference", _JOINED.label, (_STREAMING.label,), 11),
    Target(8, "parts, of the limit", "by-reference-flights", _PARTS.label, (_LIMIT.label,), 1.04),
    Target(8, "joined, of the limit", "by-reference-flights", _JOINED.label, (_LIMIT.label,), 1.04),
    *(
        Target(10, f"{way}, of --no-log, {unit}", event, own.label, (other.label,), 0.98, per)
        for event in ("log", "log-flights")
        for way, own, other in (
            ("joined", _LOGGED, _NOT_LOGGED),
            ("sent", _SENT_LOGGED, _SENT_NOT_LOGGED),
        )
        for unit, per in (("time", Per.SECOND), ("CPU", Per.PROCESSOR_SECOND))
    ),
)

# Not of a million small records: a job costs its coordinator some milliseconds once, and its
# workers take only seconds for them. `benchmarks.growth` looks at ten million.
_COORDINATOR: Final = tuple(
    Share(9, text, "by-reference-flights", entry.label, "coordinator_share", most)
    for entry, text, most in (
        (_PARTS, "parts, coordinator / workers", 0.005),
        (_JOINED, "joined, coordinator / workers", 0.025),
    )
)
# By reference there is a log also with --no-log, which then is only not kept.
_LOG: Final = tuple(
    Share(10, text, event, entry.label, "log_share", 0.02)
    for event in ("by-reference", "by-reference-flights")
    for entry, text in ((_PARTS, "parts, in log and proof"), (_JOINED, "joined, in log and proof"))
)
SHARES: Final = (*_COORDINATOR, *_LOG)
