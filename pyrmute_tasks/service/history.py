"""The report of a job from all its logs: what ran, what failed, what held it up."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from pyrmute_tasks.jobs.driver import Driver
from pyrmute_tasks.jobs.entries import (
    Ended,
    Leased,
    Logged,
    Note,
    Noted,
    Opened,
    Publishing,
    Settled,
    Wished,
)
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.service.logged_job import LoggedJob
from pyrmute_tasks.service.rates import RateOverTime, RateTally
from pyrmute_tasks.service.rejects import rejects_of
from pyrmute_tasks.service.status import JobStatus, JobWatch

__all__ = [
    "Crash",
    "EpochReport",
    "FailureGroup",
    "LoggedReport",
    "Period",
    "WishReport",
    "report_of",
]

_MOST_KEPT: Final = 1000  # epochs, periods, wishes, crashes, workers: of more, the last
_MOST_GROUPS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """An epoch of a job; times are in seconds since 1970.

    Attributes:
        epoch: Its number.
        host: The host of its driver.
        pid: The driver's process.
        who: The driver's user.
        code: Root of the tree of fingerprints of its code.
        begun_at: When it began.
        ended_at: When its last entry was written.
        ended: Why it ended; empty if it has not.
        ranges: Ranges that it has settled.
        records: Records in them.
    """

    epoch: int
    host: str = "?"
    pid: int = 0
    who: str = "?"
    code: str = ""
    begun_at: float = 0.0
    ended_at: float = 0.0
    ended: str = ""
    ranges: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which a job was not driven, or waited.

    Attributes:
        kind: ``queued``, ``paused``, ``suspended``, ``stopped``, ``held``, ``waiting``, or
            ``unattended``: its driver was gone.
        since: When it began, in seconds since 1970.
        until: When it was over; 0 if it is not.
        why: The reason.
    """

    kind: str
    since: float
    until: float
    why: str


@dataclass(frozen=True, slots=True)
class WishReport:
    """A wish that was obeyed.

    Attributes:
        at: When, in seconds since 1970.
        want: Its fields: what, who, and why.
    """

    at: float
    want: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash that a job has survived.

    Attributes:
        at: When, in seconds since 1970.
        why: What happened.
    """

    at: float
    why: str


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The rejects that failed in the same way.

    Attributes:
        step: The step, or the stage outside of steps.
        field: The first invalid field; empty if it is not about fields.
        cause: Name of the exception's class.
        count: How many there are.
        first_index: Index of the first one, counted from 0; None if not known yet.
        first_line: Its line, counted from 1; None if not known yet.
    """

    step: str
    field: str
    cause: str
    count: int
    first_index: int | None
    first_line: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedReport:
    """The report of a job by its log, over all its epochs.

    Attributes:
        status: Its status.
        options: Options that affect the result, such as the error policy.
        fingerprint: Root of the tree of fingerprints of the code it was submitted with.
        codes: All code that it ran with: root of the tree, and the first epoch.
        parents: Ids of the jobs whose rejects it retries.
        epochs: Its epochs; of very many the last.
        epoch_count: How many there are.
        ranges: Ranges that are settled.
        driven_s: Time in which it was driven.
        periods: When it was not, or waited; of very many the last.
        wishes: Wishes that were obeyed; of very many the last.
        failures: Its rejects in groups, the greatest first.
        rate: Its records over time.
        crashes: Crashes that it has survived; of very many the last.
        crash_count: How many there were.
        takeovers: Epochs that ended with their driver's death.
        suspension_count: How often it was suspended.
        workers: Ranges that each worker has run; of very many the busiest.
        output_bytes: Bytes of the output; None before it is published.
        output_digest: Digest of its ranges' digests and lengths; empty before.
    """

    status: JobStatus
    options: Mapping[str, object] = field(default_factory=dict)
    fingerprint: str = ""
    codes: Mapping[str, int] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    epochs: tuple[EpochReport, ...] = ()
    epoch_count: int = 0
    ranges: int = 0
    driven_s: float = 0.0
    periods: tuple[Period, ...] = ()
    wishes: tuple[WishReport, ...] = ()
    failures: tuple[FailureGroup, ...] = ()
    rate: RateOverTime = field(default_factory=lambda: RateOverTime(0.0, 60, ()))
    crashes: tuple[Crash, ...] = ()
    crash_count: int = 0
    takeovers: int = 0
    suspension_count: int = 0
    workers: Mapping[str, int] = field(default_factory=dict)
    output_bytes: int | None = None
    output_digest: str = ""

    def as_fields(self) -> dict[str, object]:
        """Return the report as fields of a JSON object.

        Returns:
            The fields.
        """
        wishes = [{**each.want, "obeyed_at": each.at} for each in self.wishes]
        bare = replace(self, wishes=())
        return {**asdict(bare), "status": self.status.as_fields(), "wishes": wishes}


def report_of(folder: JobFolder) -> LoggedReport:
    """Return the report of a job, so far or in the end.

    Reads its log once, and its rejects; the memory needed follows neither, but the gaps and the
    ranges with rejects.

    Raises:
        JobNotFoundError: If it was discarded.
        JobLogError: If its log is damaged.
        JobError: If it cannot be read.
    """
    tally = _Tally(folder.spec.created_at)
    log = LoggedJob(folder.storage, tally.note)
    status = JobWatch(folder, log=log).look()
    spec = folder.spec
    report = LoggedReport(
        status=status,
        options=dict(spec.options),
        fingerprint=spec.fingerprint,
        parents=tuple(each.job for each in spec.parents),
        ranges=log.fold.ranges,
        failures=_groups(folder, log),
    )
    return tally.fill(report)


def _groups(folder: JobFolder, log: LoggedJob) -> tuple[FailureGroup, ...]:
    found: dict[tuple[str, str, str], FailureGroup] = {}
    for failure in rejects_of(folder, log.fold):
        key = (failure.step or failure.stage.value, failure.field, failure.type_name)
        group = found.get(key)
        if group is None and len(found) >= _MOST_GROUPS:
            key = ("other", "", "")
            group = found.get(key)
        if group is None:
            index = failure.index if failure.index >= 0 else None
            line = failure.place.line or None if failure.place is not None else None
            found[key] = FailureGroup(*key, 1, index, line)
        else:
            found[key] = replace(group, count=group.count + 1)
    return tuple(sorted(found.values(), key=lambda group: -group.count))


class _Tally:
    """Collects a report from the entries of a job's log, one after another."""

    def __init__(self, created_at: float) -> None:
        self._epochs: deque[EpochReport] = deque(maxlen=_MOST_KEPT)
        self._periods: deque[Period] = deque(maxlen=_MOST_KEPT)
        self._wishes: deque[WishReport] = deque(maxlen=_MOST_KEPT)
        self._crashes: deque[Crash] = deque(maxlen=_MOST_KEPT)
        self._codes: dict[str, int] = {}
        self._workers: Counter[str] = Counter()
        self._rate = RateTally()
        self._counts: Counter[str] = Counter()
        self._driven_s = 0.0
        self._published: Publishing | None = None
        self._leased: Leased | None = None
        self._wished: Mapping[str, object] = {}
        self._epoch: EpochReport | None = None
        self._settled = [0, 0]  # ranges and records of this epoch
        self._open: Period | None = Period("queued", created_at, 0.0, "")
        self._last_at = created_at

    def note(self, logged: Logged) -> None:
        """Take an entry into account."""
        entry, at = logged.entry, logged.at
        if isinstance(entry, Settled):
            self._settle(entry, at)
        elif isinstance(entry, Leased):
            self._leased = entry
            return  # it counts from `open` on
        else:
            self._event(entry, at)
        self._last_at = at

    def _settle(self, entry: Settled, at: float) -> None:
        self._rate.add(at, entry.records)
        if entry.worker in self._workers or len(self._workers) < _MOST_KEPT:
            self._workers[entry.worker] += 1
        self._settled[0] += 1
        self._settled[1] += entry.records

    def _event(self, entry: Opened | Noted | Wished | Publishing | Ended, at: float) -> None:
        match entry:
            case Opened():
                self._begin(entry, at)
            case Wished(want):
                self._wished = want
                self._wishes.append(WishReport(at, want))
            case Noted(Note.CRASH, why):
                self._crashes.append(Crash(at, why))
                self._counts["crashes"] += 1
            case Noted(Note.WAIT, why, since):
                least = 0.0 if self._epoch is None else self._epoch.begun_at
                since = min(max(since or at, least), at)
                if self._open is not None and since <= self._open.since:
                    since = at  # both were true; a report has one after the other
                self._close(since)
                self._open = Period("waiting", since, 0.0, why)
            case Noted(Note.RESUMED):
                self._close(at)
            case Noted(note, why):
                self._close(at)
                self._let_go(note, why, at)
            case Publishing():
                self._published = entry
            case Ended(result=result, why=why):
                self._close(at)
                self._end_epoch(f"{result}: {why}" if why else str(result), at)

    def _begin(self, entry: Opened, at: float) -> None:
        if self._epoch is not None:  # nobody noted its end
            self._end_epoch("its driver was gone", self._last_at)
            self._counts["takeovers"] += 1
            self._close(self._last_at)
            self._open = Period("unattended", self._last_at, 0.0, "its driver was gone")
        self._close(at)
        driver = Driver.of(self._leased.holder if self._leased is not None else {})
        self._codes.setdefault(entry.code, entry.epoch)
        self._epoch = EpochReport(
            epoch=entry.epoch,
            host=driver.host,
            pid=driver.pid,
            who=driver.who,
            code=entry.code,
            begun_at=at,
        )
        self._counts["epochs"] += 1
        self._wished = {}
        self._settled = [0, 0]

    def _let_go(self, note: Note, why: str, at: float) -> None:
        is_pause = note is Note.STOPPED and self._wished.get("wish") == Wish.PAUSE.value
        kind = "paused" if is_pause else note.value
        if note is Note.SUSPENDED:
            self._counts["suspensions"] += 1
        self._end_epoch(f"suspended: {why}" if note is Note.SUSPENDED else why or kind, at)
        self._open = Period(kind, at, 0.0, why.removeprefix(f"{kind} "))

    def _end_epoch(self, ended: str, at: float) -> None:
        if self._epoch is not None:
            ranges, records = self._settled
            done = replace(self._epoch, ended=ended, ended_at=at, ranges=ranges, records=records)
            self._epochs.append(done)
            self._driven_s += max(0.0, at - done.begun_at)
        self._epoch = None

    def _close(self, at: float) -> None:
        if self._open is not None:
            self._periods.append(replace(self._open, until=at))
        self._open = None

    def fill(self, report: LoggedReport) -> LoggedReport:
        """Return a report with what was collected."""
        self._end_epoch("", self._last_at)  # the one under way
        waiting = [] if self._open is None else [self._open]
        published = self._published
        return replace(
            report,
            codes=self._codes,
            epochs=tuple(self._epochs),
            epoch_count=self._counts["epochs"],
            driven_s=self._driven_s,
            periods=(*self._periods, *waiting),
            wishes=tuple(self._wishes),
            rate=self._rate.over_time(),
            crashes=tuple(self._crashes),
            crash_count=self._counts["crashes"],
            takeovers=self._counts["takeovers"],
            suspension_count=self._counts["suspensions"],
            workers=dict(self._workers.most_common()),
            output_bytes=None if published is None else published.length,
            output_digest="" if published is None else published.digest,
        )
