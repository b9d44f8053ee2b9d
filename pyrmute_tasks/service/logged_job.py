"""The status of a job by its log: beyond its state also times, rates and causes."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pyrmute_tasks.jobs.entries import (
    Ended,
    Logged,
    Note,
    Noted,
    Opened,
    Piece,
    Publishing,
    Settled,
)
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.following import Following
from pyrmute_tasks.jobs.glance import glance_at
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.storage import Storage
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import Want

__all__ = ["LEAST_DONE", "RATE_OVER_S", "LoggedJob", "LoggedStatus", "glance_status"]

RATE_OVER_S: Final = 60.0
"""The time over which a rate is averaged."""

LEAST_DONE: Final = 0.01
"""Share of the source that must be done before an ETA is shown."""

_LEAST_TIME_S: Final = 1.0
_MOST_DECODED: Final = 10_000  # rejects whose causes a status counts; a report counts all


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedStatus:
    """The status of a job by its log; times are in seconds since 1970, and 0 if they are not known.

    Attributes:
        state: Its state.
        epoch: The newest epoch that was opened; 0 before the first.
        epochs: Epochs that were opened.
        begun_at: When the first one was.
        leased_at: When the lease of the newest one was taken; 0 if not known.
        changed_at: When the last entry was written.
        let_go: How the driver of the newest epoch let go; None if it has not.
        stopped: Why it did.
        waits: Why the job waits.
        ended: How it ended; None if it has not.
        suspensions: How often it was suspended since anything was settled; 0 if not known.
        crashes: Crashes noted.
        wished: The wish that was obeyed last; empty before the first, and if not known.
        wished_first: The wish with which the newest epoch began, of a status at a glance; empty if
            not known.
        records: Records in settled ranges.
        outputs: Records written.
        rejected: Records rejected.
        done_bytes: Bytes of the source that are settled; None if not known.
        rate: Records settled a second, in the last minute.
        bytes_rate: Bytes of the source settled a second.
        has_counts: Whether records are known.
    """

    state: LoggedState = LoggedState.QUEUED
    epoch: int = 0
    epochs: int = 0
    begun_at: float = 0.0
    leased_at: float = 0.0
    changed_at: float = 0.0
    let_go: Note | None = None
    stopped: str = ""
    waits: str = ""
    ended: Ended | None = None
    suspensions: int = 0
    crashes: int = 0
    wished: Mapping[str, object] = field(default_factory=dict)
    wished_first: Mapping[str, object] = field(default_factory=dict)
    records: int = 0
    outputs: int = 0
    rejected: int = 0
    done_bytes: int | None = 0
    rate: float = 0.0
    bytes_rate: float = 0.0
    has_counts: bool = True

    def eta_s(self, total: int | None) -> float | None:
        """Return the time to the end at its rate; None if that, or how much there is, is unknown.

        Args:
            total: Bytes of the source; None if unknown.
        """
        done = self.done_bytes
        if total is None or done is None or not self.bytes_rate or done < total * LEAST_DONE:
            return None
        return max(0, total - done) / self.bytes_rate

    @property
    def want(self) -> Want:
        """The wishes that were obeyed last."""
        try:
            return Want.of(self.wished)
        except ValueError:  # of a newer version
            return Want()


def glance_status(storage: Storage) -> LoggedStatus:
    """Return the status of a job by both ends of its newest log, whatever its length.

    Counts are known only of a job that has ended or not begun.

    Raises:
        FileNotFoundError: If the job was discarded.
        JobLogError: If the log is damaged.
    """
    found = glance_at(storage)
    if found is None:
        return LoggedStatus()
    opened, begun, last, wished = found
    logged = LoggedStatus(
        state=LoggedState.RUNNING,
        epoch=opened.epoch,
        epochs=len(opened.seal) + 1,
        begun_at=begun.at if begun is not None and not opened.seal else 0.0,
        leased_at=begun.at if begun is not None else 0.0,
        changed_at=last.at if last is not None else 0.0,
        wished_first=wished.want if wished is not None else {},
        done_bytes=None,
        has_counts=False,
    )
    match last.entry if last is not None else None:
        case Noted(note=note, why=why) if note.lets_go:
            return replace(logged, state=LoggedState.STOPPED, let_go=note, stopped=why)
        case Publishing():
            return replace(logged, state=LoggedState.PUBLISHING)
        case Ended(result, records, outputs, rejected) as ended:
            return replace(
                logged,
                state=LoggedState(result.value),
                ended=ended,
                records=records,
                outputs=outputs,
                rejected=rejected,
                has_counts=True,
            )
    return logged


@dataclass(slots=True)
class _Second:
    """What was settled in a second."""

    at: float
    records: int = 0
    done: int = 0


class LoggedJob:
    """A job's log, which can be looked at again and again: each entry is read once.

    Args:
        storage: The job's files.
        note: Called with each entry; None for nothing.
    """

    def __init__(self, storage: Storage, note: Callable[[Logged], None] | None = None) -> None:
        self._storage = storage
        self._called = note
        self._following = Following(storage)
        self._begin()

    def _begin(self) -> None:
        self._view = JobView()
        self._epochs = 0
        self._begun_at = 0.0
        self._done_bytes = 0
        self._recent: deque[_Second] = deque()
        self._causes: Counter[str] = Counter()
        self._to_decode: deque[Piece] = deque()

    def look(self, clock: float) -> LoggedStatus:
        """Return the status by the log, with what was added to it since the last look.

        Args:
            clock: The time, in seconds since 1970.

        Raises:
            FileNotFoundError: If the job was discarded.
            JobLogError: If the log is damaged.
        """
        added = self._following.look()
        if added.starts_over:
            self._begin()
        for logged in added.entries:
            self._view.read(logged)
            self._note(logged)
            if self._called is not None:
                self._called(logged)
        return self._status(clock)

    @property
    def fold(self) -> Fold:
        """The ranges that are settled."""
        return self._view.fold

    def causes(self) -> dict[str, int]:
        """Return how many records failed, by cause, the most frequent first.

        Raises:
            JobError: If the description of rejects cannot be read.
            JobLogError: If it is damaged.
        """
        from pyrmute_tasks.service.rejects import read_rejects  # most jobs have none

        while self._to_decode and self._causes.total() < _MOST_DECODED:
            failures, _ = read_rejects(self._storage, self._to_decode.popleft())
            self._causes.update(failure.cause for failure in failures)
        return dict(self._causes.most_common())

    def _note(self, logged: Logged) -> None:
        match logged.entry:
            case Settled() as settled:
                self._done_bytes += settled.end - settled.start
                self._count_recent(settled, logged.at)
                if settled.rejects is not None:
                    self._to_decode.append(settled.rejects)
            case Opened():
                self._epochs += 1
                self._begun_at = self._begun_at or logged.at

    def _count_recent(self, settled: Settled, at: float) -> None:
        recent = self._recent
        if not recent or at - recent[-1].at >= 1:
            recent.append(_Second(at))
        recent[-1].records += settled.records
        recent[-1].done += settled.end - settled.start
        while recent[0].at < at - RATE_OVER_S:
            recent.popleft()

    def _status(self, clock: float) -> LoggedStatus:
        view, fold = self._view, self._view.fold
        rate, bytes_rate = self._rates(clock)
        return LoggedStatus(
            state=view.state,
            epoch=view.epoch,
            epochs=self._epochs,
            begun_at=self._begun_at,
            changed_at=view.changed_at,
            let_go=view.let_go,
            stopped=view.stopped,
            waits=view.waits,
            ended=view.ended,
            suspensions=view.suspensions,
            crashes=view.crashes,
            wished=view.wished,
            records=fold.records,
            outputs=fold.outputs,
            rejected=fold.rejected,
            done_bytes=self._done_bytes,
            rate=rate,
            bytes_rate=bytes_rate,
        )

    def _rates(self, clock: float) -> tuple[float, float]:
        since = max(clock - RATE_OVER_S, self._begun_at)
        recent = [each for each in self._recent if each.at >= since]
        time_s = max(clock - since, _LEAST_TIME_S)
        records, done = sum(each.records for each in recent), sum(each.done for each in recent)
        return records / time_s, done / time_s
