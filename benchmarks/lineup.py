"""Who takes part in what, and what this package is to reach there."""

from dataclasses import dataclass
from typing import Final

__all__ = ["EVENTS", "TARGETS", "Entry", "Event", "Target"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in an event.

    Attributes:
        label: What the tables call it.
        module: Its module in `benchmarks.contenders`.
        chunk_size: Records a task; None leaves it to the contender.
        every: It takes part in every so manieth round: the slow ones need not run as often.
    """

    label: str
    module: str
    chunk_size: int | None = None
    every: int = 1

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
        number: That of the target in the issue.
        text: What is divided by what.
        event: Key of the event.
        own: Label of the entry whose rate is divided,
        others: by that of the one of these with the better median.
        least: What the ratio is to be.
    """

    number: int
    text: str
    event: str
    own: str
    others: tuple[str, ...]
    least: float


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
)
