"""The status of a job, read from its folder: how far it is, who drives it, and why it waits."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.jobs.discarded import was_discarded
from pyrmute_tasks.jobs.driver import Driver, DriverWatch
from pyrmute_tasks.jobs.entries import OPEN_END, Note
from pyrmute_tasks.jobs.folder import ON_END, JobFolder
from pyrmute_tasks.jobs.now import Now, read_now
from pyrmute_tasks.jobs.spec import Spec
from pyrmute_tasks.jobs.states import LoggedState, ShownState, Wish, shown
from pyrmute_tasks.jobs.storage import Storage
from pyrmute_tasks.jobs.want import Want, read_submitted, read_want
from pyrmute_tasks.service.beats import BeatWatch
from pyrmute_tasks.service.logged_job import LEAST_DONE, LoggedJob, LoggedStatus, glance_status
from pyrmute_tasks.service.neighbours import Neighbours
from pyrmute_tasks.service.reasons import Waiting, reason_of

__all__ = ["JobStatus", "JobWatch", "may_be_resumed", "status_of"]

_WHOLE: Final = (ShownState.SUCCEEDED, ShownState.SUCCEEDED_WITH_REJECTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The status of a job.

    Times are in seconds since 1970, and 0 if they are not known.

    Attributes:
        job: Its id.
        name: What people call it; may be empty.
        model: The model.
        from_version: Version of the records that are read.
        to_version: Version of those written.
        sources: The files that are read, in order.
        target: Where the output goes.
        state: Its state.
        reason: Why it waits, or ended as it did; empty if there is nothing to say.
        priority: Its priority: ``low``, ``normal`` or ``high``.
        queue: The queue of its workers; empty for a run in the foreground.
        after: The job that must have succeeded first; empty for none.
        submitted_by: Who submitted it, as ``user@host``.
        submitted_at: When.
        submitted_why: Why, for people; empty for no reason.
        begun_at: When it was driven first.
        changed_at: When its log was last written.
        ended_at: When it ended.
        elapsed_s: The time since it began, until now or its end.
        driver: Who drives it; None if nobody does.
        way: ``by reference`` or ``through the coordinator``; empty if unknown.
        records: Records read.
        outputs: Records written.
        rejected: Records rejected.
        done_bytes: Bytes of the source that are done; None if unknown.
        total_bytes: Bytes there are; None if unknown.
        rate: Records a second, in the last minute or less.
        eta_s: Time to the end at this rate; None if unknown, while it waits, and before 1 % is
            done.
        causes: How many records failed, by cause; of very many rejects only the first.
        workers: Workers that serve its queue; None if unknown.
        window: Chunks that may be in flight; 0 if unknown.
        in_flight: Chunks in flight.
        jobs: Jobs that share the fleet, this one included.
        notes: The last sentences about workers and chunks, the newest last.
        want: Users' wishes in force, with who and why.
        want_problem: Why `want.json` cannot be used, so that earlier wishes hold; or empty.
        epochs: Epochs so far.
        suspensions: How often it was suspended since anything was settled.
        next_try_at: When it is tried again, if it is suspended.
        crashes: Crashes that it has survived.
        is_held: Whether its output is proven, and waits for `publish`; not if a user wants more.
        is_live: Whether its driver told these numbers within the last seconds; else they are
            those of its log.
        on_end: ``due`` if a command for its end is to be run, ``run`` if it was; empty if there is
            none, and in lists.
    """

    job: str
    name: str = ""
    model: str = ""
    from_version: str = ""
    to_version: str = ""
    sources: tuple[str, ...] = ()
    target: str = ""
    state: ShownState = ShownState.QUEUED
    reason: str = ""
    priority: str = ""
    queue: str = ""
    after: str = ""
    submitted_by: str = ""
    submitted_at: float = 0.0
    submitted_why: str = ""
    begun_at: float = 0.0
    changed_at: float = 0.0
    ended_at: float = 0.0
    elapsed_s: float = 0.0
    driver: Driver | None = None
    way: str = ""
    records: int = 0
    outputs: int = 0
    rejected: int = 0
    done_bytes: int | None = 0
    total_bytes: int | None = None
    rate: float = 0.0
    eta_s: float | None = None
    causes: Mapping[str, int] = field(default_factory=dict)
    workers: int | None = None
    window: int = 0
    in_flight: int = 0
    jobs: int = 1
    notes: tuple[str, ...] = ()
    want: Want = field(default_factory=Want)
    want_problem: str = ""
    epochs: int = 0
    suspensions: int = 0
    next_try_at: float = 0.0
    crashes: int = 0
    is_held: bool = False
    is_live: bool = False
    on_end: str = ""

    @property
    def fraction(self) -> float | None:
        """How much is done, from 0 to 1; None if unknown."""
        if self.is_held or self.state in _WHOLE:
            return 1.0
        if self.total_bytes is None or self.done_bytes is None:
            return None
        return min(self.done_bytes / self.total_bytes, 1.0) if self.total_bytes else 0.0

    @property
    def has_ended(self) -> bool:
        """Whether it has ended; one that failed may be resumed."""
        return self.ended_at > 0

    def as_fields(self) -> dict[str, object]:
        """Return the status as fields of a JSON object.

        Returns:
            The fields.
        """
        fields: dict[str, object] = asdict(self)
        fields["state"] = self.state.value
        fields["want"] = self.want.as_entry().want
        return {**fields, "fraction": self.fraction, "has_ended": self.has_ended}


def status_of(folder: JobFolder) -> JobStatus:
    """Return the status of a job, as it is now.

    To look again and again, keep a `JobWatch`, which reads only what was added.

    Raises:
        JobNotFoundError: If it was discarded.
        JobLogError: If its log is damaged.
    """
    return JobWatch(folder).look()


class JobWatch:
    """Watches a job: each look reads what was added since the last one.

    Args:
        folder: The job.
        neighbours: The jobs beside it; by default it looks at them itself.
        log: Its log, if another one follows it, too.
        clock: Seconds since 1970.
        monotonic: A clock that is never set.
    """

    def __init__(
        self,
        folder: JobFolder,
        neighbours: Neighbours | None = None,
        *,
        log: LoggedJob | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._neighbours = neighbours
        self._clock = clock
        self._log = log or LoggedJob(folder.storage)
        self._drivers = DriverWatch(folder.storage, monotonic, clock)
        self._want = Want()
        self._beats = BeatWatch(folder.path.parent, clock)

    def look(self) -> JobStatus:
        """Return the status as it is now.

        Raises:
            JobNotFoundError: If the job was discarded.
            JobLogError: If its log is damaged.
            JobError: If it cannot be read.
        """
        with self._reading():
            logged = self._log.look(self._clock())
            status = self._status(logged)
            if logged.rejected and not status.causes:
                status = replace(status, causes=self._log.causes())
            return replace(status, on_end=self._on_end(logged))

    def glance(self, logged: LoggedStatus | None = None) -> JobStatus:
        """Return the status without reading a long log, if that can be avoided.

        Left out are causes and crashes, when a job of several epochs began, and how many bytes are
        done of one that has failed.

        Args:
            logged: What both ends of its log tell, if they were just looked at.

        Raises:
            JobNotFoundError: If the job was discarded.
            JobLogError: If its log is damaged.
            JobError: If it cannot be read.
        """
        with self._reading():
            logged = logged or glance_status(self._folder.storage)
            is_held = logged.let_go is Note.HELD  # what its driver told last is not the end
            is_unknown = not logged.has_counts and (is_held or self._now(logged) is None)
            if is_unknown or may_be_resumed(self._folder.storage, logged):
                logged = self._log.look(self._clock())
            return self._status(logged)

    def _on_end(self, logged: LoggedStatus) -> str:
        terms = self._folder.spec.terms
        if terms is None or not terms.on_end:
            return ""
        was_run = (self._folder.path / f"{ON_END}.{logged.epoch}").exists()
        return "run" if was_run and logged.ended is not None else "due"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        job = self._folder.spec.job
        try:
            yield
        except FileNotFoundError as error:
            raise was_discarded(self._folder.path, error.filename or "") from None
        except OSError as error:
            told = error.strerror or type(error).__name__
            raise JobError(f"job {job} in {self._folder.path} cannot be read: {told}") from error

    def _now(self, logged: LoggedStatus) -> Now | None:
        """Return what the driver of the newest epoch has told; None if nothing.

        Where only the ends of the log were read, of a job that nobody drives, what an earlier one
        has told last.
        """
        now = read_now(self._folder.path) if logged.epoch and not logged.ended else None
        is_last = logged.state is LoggedState.STOPPED and not logged.has_counts
        return now if now is not None and (is_last or now.epoch == logged.epoch) else None

    def _status(self, logged: LoggedStatus) -> JobStatus:
        spec, clock = self._folder.spec, self._clock()
        if logged.state.is_final and logged.ended is not None:
            status, why = _described(spec, logged, clock), logged.ended.why
            return replace(status, state=ShownState(logged.state.value), reason=why)
        last = max(logged.want, self._want, key=lambda want: want.at)
        read = read_want if spec.terms is None else read_submitted
        found = read(self._folder.storage, last)
        self._want = found.want
        if _is_resumed(logged, found.want):
            logged = replace(logged, state=LoggedState.STOPPED, ended=None, stopped="")
        status, now = _described(spec, logged, clock), self._now(logged)
        driver = self._drivers.look(logged.epoch, logged.state, tells=now is not None)
        is_live = now is not None and driver is not None and not driver.is_missing
        waiting = Waiting(
            clock=clock,
            job=spec.job,
            logged=logged,
            want=found.want,
            want_problem=found.problem,
            after=status.after,
            queue=status.queue,
            driver=driver,
            waits=now.waits if now is not None and is_live else logged.waits,
            neighbours=self._beside() if spec.terms is not None else None,
        )
        reason = reason_of(waiting)
        status = replace(
            status,
            state=_shown(waiting, reason),
            reason=reason,
            driver=driver,
            want=found.want,
            want_problem=found.problem,
            is_held=status.is_held and not found.want.is_pending(logged.wished, logged.changed_at),
            next_try_at=waiting.next_try_at,
            eta_s=None if reason else status.eta_s,
        )
        return status if now is None else _with_now(status, now, is_live=is_live)

    def _beside(self) -> Neighbours:
        return self._neighbours or Neighbours(self._folder.path.parent, self._clock, self._beats)


def may_be_resumed(storage: Storage, logged: LoggedStatus) -> bool:
    """Return whether a job that has failed may be resumed, by the times of log and wishes.

    Wishes later than the beginning of the last epoch may be new to it, unless it began with them:
    then only their clock is ahead.
    """
    if logged.state is not LoggedState.FAILED:
        return False
    want = read_want(storage, Want()).want
    return want.at > logged.leased_at and not want.is_obeyed(logged.wished_first)


def _is_resumed(logged: LoggedStatus, want: Want) -> bool:
    """Return whether a job that has failed is to go on, but was not taken yet."""
    if logged.state is not LoggedState.FAILED or want.wish is Wish.PAUSE:
        return False
    if want.is_obeyed(logged.wished_first):
        return False
    return want.is_pending(logged.wished, logged.changed_at)


def _shown(waiting: Waiting, reason: str) -> ShownState:
    logged = waiting.logged
    is_suspended = logged.let_go is Note.SUSPENDED
    state = shown(logged.state, waiting.want.wish, reason, is_suspended=is_suspended)
    if state is not ShownState.STOPPED:
        return state
    if logged.let_go is Note.HELD:
        return ShownState.HELD
    return state if waiting.neighbours is None else ShownState.WAITING


def _described(spec: Spec, logged: LoggedStatus, clock: float) -> JobStatus:
    """Return what spec and log tell of a job."""
    terms = spec.terms
    ended_at = logged.changed_at if logged.ended else 0.0
    wanted = sum(each.end - each.start for each in spec.wanted)
    total = None if wanted >= OPEN_END else wanted
    is_running = logged.state is LoggedState.RUNNING
    return JobStatus(
        job=spec.job,
        name=terms.name if terms else "",
        model=spec.plan[0],
        from_version=spec.plan[1],
        to_version=spec.plan[2],
        sources=tuple(each.path for each in spec.sources),
        target=spec.target,
        priority=terms.priority.value if terms else "",
        queue=terms.queue if terms else "",
        after=terms.after if terms else "",
        submitted_by=spec.created_by,
        submitted_why=terms.why if terms else "",
        submitted_at=spec.created_at,
        begun_at=logged.begun_at,
        changed_at=logged.changed_at,
        ended_at=ended_at,
        elapsed_s=max(0.0, (ended_at or clock) - logged.begun_at) if logged.begun_at else 0.0,
        records=logged.records,
        outputs=logged.outputs,
        rejected=logged.rejected,
        done_bytes=logged.done_bytes,
        total_bytes=total,
        rate=logged.rate if is_running else 0.0,
        eta_s=logged.eta_s(total) if is_running else None,
        want=logged.want,
        epochs=logged.epochs,
        suspensions=logged.suspensions,
        crashes=logged.crashes,
        is_held=logged.let_go is Note.HELD and logged.state is LoggedState.STOPPED,
    )


def _with_now(status: JobStatus, now: Now, *, is_live: bool) -> JobStatus:
    """Return the status with what its driver tells, or last told."""
    status = replace(status, way=now.way, causes=dict(now.causes), notes=now.notes)
    if now.records >= status.records:
        status = replace(
            status,
            records=now.records,
            outputs=now.outputs,
            rejected=now.rejected,
            done_bytes=max(status.done_bytes or 0, now.done_bytes),
        )
    if not is_live:
        return status
    is_early = now.done_bytes < now.total_bytes * LEAST_DONE
    return replace(
        status,
        rate=now.rate,
        eta_s=None if status.reason or is_early else now.eta_s,
        workers=now.workers,
        window=now.window,
        in_flight=now.in_flight,
        jobs=now.jobs,
        is_live=True,
    )
