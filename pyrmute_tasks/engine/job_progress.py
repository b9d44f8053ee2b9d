"""What is known of a job while it runs: folded from its events, and read by what shows it.

Pure: time is an argument.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkResent,
    ChunkSettled,
    ChunkSubmitted,
    Event,
    FleetSeen,
    JobEnded,
    RecordIsolated,
    SourceOpened,
    Wait,
    WaitBegan,
    WorkerDeclined,
    WorkerGone,
)
from pyrmute_tasks.engine.job_report import JobReport

__all__ = ["JobProgress", "Reason", "seconds", "sentence_of"]

_WINDOW_S: Final = 30.0  # of the moving average of rates
_LEAST_SAMPLES: Final = 4  # in it, as chunks may take longer
_SAMPLE_S: Final = 0.5
_LONG_S: Final = 2.0  # a wait this long is shown
_SILENT_S: Final = 5.0  # without a survey, which comes once a second
_TROUBLE_S: Final = 3.0
_PACED_S: Final = 10.0  # shorter pauses between chunks are what a greatest rate is for
_SLOW: Final[Mapping[Wait, tuple[str, float]]] = MappingProxyType(
    {
        Wait.SOURCE: ("the source is slow: nothing read", _LONG_S),
        Wait.OUTPUT: ("the output is slow: nothing taken", _LONG_S),
        Wait.PACE: ("the greatest rate is reached: nothing sent", _PACED_S),
    }
)


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason why nothing moves.

    Attributes:
        what: It, as the beginning of a sentence.
        for_s: For how long that has been so; None if that says nothing.
        detail: What is behind it, and what helps; may be empty.
    """

    what: str
    for_s: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        told = self.what if self.for_s is None else f"{self.what} for {seconds(self.for_s)}"
        return f"{told}: {self.detail}" if self.detail else told

    @property
    def lasting(self) -> str:
        """The reason without its time, which holds as long as it does."""
        return str(Reason(self.what, None, self.detail))


@dataclass(frozen=True, slots=True)
class _Sample:
    """The counts of this run at one time."""

    at: float
    records: int = 0
    done: int = 0


@dataclass(slots=True)
class JobProgress:
    """The progress of a job.

    Attributes:
        total: Where it ends, in records or, of a file, bytes; None if unknown.
        by_bytes: Whether `total` and `done` count bytes.
        max_rate: The greatest rate asked for, in records a second; None for any.
        records: Records delivered.
        rejected: Records skipped.
        done: How much of the total is done.
        workers: Workers that take chunks; None if there is no fleet, or it was not seen yet.
        report: The report of a job that has ended.
        least_trouble_s: How long the fleet must be in trouble until that is shown.
        least_silence_s: How long no survey must have come until that is shown.
        is_surveyed: Whether there is a fleet, so that surveys must come.
    """

    total: int | None = None
    by_bytes: bool = False
    max_rate: float | None = None
    records: int = 0
    rejected: int = 0
    done: int = 0
    workers: int | None = None
    report: JobReport | None = None
    least_trouble_s: float = _TROUBLE_S
    least_silence_s: float = _SILENT_S
    is_surveyed: bool = False
    _samples: deque[_Sample] = field(default_factory=deque)
    _began: float | None = None
    _wait: WaitBegan | None = None
    _wait_began: float = 0.0
    _seen: FleetSeen | None = None
    _seen_at: float = 0.0
    _restored: tuple[int, int] = (0, 0)
    _earlier: set[int] = field(default_factory=set)
    _in_flight: set[int] = field(default_factory=set)

    def note(self, event: Event, now: float) -> None:
        """Take an event into account.

        Args:
            event: The event.
            now: The time, on a clock that only grows.
        """
        if self._began is None:
            self._begin(now)
        self._count_in_flight(event)
        match event:
            case SourceOpened(size_bytes, done_bytes, records, rejected):
                self.total, self.by_bytes = size_bytes, True
                self.done, self.records, self.rejected = done_bytes, records, rejected
                self._restored = records, done_bytes
                self._earlier.clear()
                self.report = None
                self._begin(now)
            case ChunkSettled(chunk, seconds=0.0, worker=""):  # work takes some time
                self._earlier.add(chunk)
            case ChunkDelivered(chunk, count, size_bytes, rejected):
                done = size_bytes if self.by_bytes else count + rejected
                self.records += count
                self.rejected += rejected
                self.done += done
                if chunk in self._earlier:  # by an earlier run: no part of this one's rate
                    self._earlier.remove(chunk)
                    self._restored = self._restored[0] + count, self._restored[1] + done
                self._sample(now)
            case WaitBegan():
                if self._wait is not None and self._wait.wait is Wait.START:
                    self._begin(now)  # as a report's time does
                self._wait, self._wait_began = event, now
            case FleetSeen():
                self.workers = event.workers
                self._seen, self._seen_at = event, now
            case JobEnded(report):
                self.report = report
                self.records, self.rejected = report.records, report.rejected

    def _count_in_flight(self, event: Event) -> None:
        match event:
            case ChunkSubmitted(chunk):
                self._in_flight.add(chunk)
            case ChunkSettled(chunk) | ChunkDiscarded(chunk):
                self._in_flight.discard(chunk)

    def _begin(self, now: float) -> None:
        self._began = now
        self._samples = deque([_Sample(now)])

    def _sample(self, now: float) -> None:
        records, done = self._restored
        latest = _Sample(now, self.records - records, self.done - done)
        if len(self._samples) > 1 and now - self._samples[-1].at < _SAMPLE_S:
            latest = _Sample(self._samples.pop().at, latest.records, latest.done)
        self._samples.append(latest)
        while len(self._samples) > _LEAST_SAMPLES and self._samples[1].at < now - _WINDOW_S:
            self._samples.popleft()

    # --- what is shown ----------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether anything but the fleet's start has been seen."""
        return self._wait is None or self._wait.wait is not Wait.START or self.records > 0

    def elapsed_s(self, now: float) -> float:
        """Return for how long the job runs, or has run."""
        if self.report is not None:
            return self.report.seconds
        return 0.0 if self._began is None else now - self._began

    def rate(self, now: float) -> float:
        """Return the records delivered a second: lately, or of the whole run once it has ended."""
        if self.report is not None:
            return self.report.records_per_s
        begin = self._sample_before(now)
        if begin is None or now <= begin.at:
            return 0.0
        return (self._samples[-1].records - begin.records) / (now - begin.at)

    def fraction(self) -> float | None:
        """Return how much is done, from 0 to 1; None if the total is unknown."""
        if self.report is not None and self.report.state == "succeeded":
            return 1.0  # blank lines count in a file's size
        if self.total is None:
            return None
        return min(self.done / self.total, 1.0) if self.total else 0.0

    def eta_s(self, now: float) -> float | None:
        """Return how long it will take to the end, at the recent rate; None if unknown."""
        begin = self._sample_before(now)
        if self.total is None or begin is None or self.report is not None:
            return None
        done = self._samples[-1].done - begin.done
        if done <= 0 or now <= begin.at:
            return None
        return max(self.total - self.done, 0) * (now - begin.at) / done

    @property
    def in_flight(self) -> int:
        """Chunks that were submitted and have not settled."""
        return len(self._in_flight)

    def waiting(self, now: float) -> str:
        """Return why nothing moves, in words; empty if something does."""
        reason = self.reason(now)
        return "" if reason is None else str(reason)

    def reason(self, now: float) -> Reason | None:
        """Return why nothing moves; None if something does."""
        if self.report is not None or self._wait is None:
            return None
        wait, wait_s = self._wait.wait, now - self._wait_began
        match wait:
            case Wait.WORKERS:
                return self._trouble(now)
            case Wait.PACE if self._in_flight:  # what was sent may wait, too
                return self._trouble(now)
            case Wait.THROTTLE:
                return Reason("throttled", wait_s, self._wait.reason)
            case Wait.START:
                return Reason("the fleet starts")
            case Wait.PUBLISH:
                return Reason("the output is being published") if wait_s >= _LONG_S else None
        what, least_s = _SLOW[wait]
        return Reason(what, wait_s) if wait_s >= least_s else None

    def _trouble(self, now: float) -> Reason | None:
        seen = self._seen
        if seen is None and not self.is_surveyed:
            return None
        silent_s = now - max(self._seen_at, self._wait_began)
        if silent_s >= self.least_silence_s:
            return Reason("broker or store have not answered", silent_s)
        if seen is None:
            return None
        since_s = seen.since_s + now - self._seen_at
        if not seen.trouble or since_s < self.least_trouble_s:
            return None
        return Reason(seen.trouble, since_s, seen.detail)

    def _sample_before(self, now: float) -> _Sample | None:
        """Return where the moving average begins: a while and some samples ago."""
        latest = len(self._samples) - _LEAST_SAMPLES
        for index in range(latest, 0, -1):
            if self._samples[index].at <= now - _WINDOW_S:
                return self._samples[index]
        return self._samples[0] if self._samples else None


def seconds(value: float) -> str:
    """Return a duration as people read it: ``12 s``, or ``1:02:03``."""
    whole = int(value)
    if whole < 100:  # noqa: PLR2004  # two digits are read at a glance
        return f"{whole} s"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def sentence_of(event: Event) -> str:
    """Return what an event means to a person, as a sentence; empty if it is routine."""
    match event:
        case WorkerGone(worker):
            return f"worker {worker} is gone; what it had begun is sent again"
        case WorkerDeclined(worker, why):
            return f"worker {worker} takes no chunk: {why}"
        case ChunkResent(chunk, why, in_halves):
            how = " in two halves, to find the record at fault" if in_halves else ""
            return f"chunk {chunk} is sent again{how}: {why}"
        case RecordIsolated(index, source, how):
            place = f"{source} (record {index})" if source else f"record {index}"
            return f"{place} is skipped: every process that ran it ended ({how})"
        case SourceOpened(records=records, settled=settled) if records or settled:
            return f"resumed: {records + settled:,} records were there already"
        case _:
            return ""
