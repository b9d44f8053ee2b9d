"""Deadlines for a job's progress, judged from surveys of its fleet.

Pure: neither broker nor store is touched, time is an argument. All times are seconds in
which somebody has looked; a consumer that pauses between two outputs looks at nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pyrmute_tasks.distributed.producer.sharing import Sharing
from pyrmute_tasks.distributed.protocol import ClaimInfo, WorkerInfo

__all__ = [
    "BrokerAway",
    "Deadlines",
    "Liveness",
    "NoWorkers",
    "OtherCode",
    "Stall",
    "Trouble",
    "Verdict",
    "View",
]

_BUSY_FACTOR: Final = 10  # more patience with a worker that is busy with other jobs
_LATE_BEATS: Final = 1.25  # workers count as alive for three
_QUIET_BEATS: Final = 2.0
_MOST_BEGINS: Final = 4  # of one task: a broker may deliver it again, but not for ever


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits for a job that makes no progress, by cause.

    Attributes:
        stall_s: Idle workers, and no chunk moves.
        worker_wait_s: No worker, and there was none before.
        outage_s: No worker where there was one, or no broker.
        code_wait_s: Only workers with other code.
        time_limit_s: A chunk that runs.
    """

    stall_s: float
    worker_wait_s: float
    outage_s: float
    code_wait_s: float
    time_limit_s: float


@dataclass(frozen=True, slots=True)
class View:
    """The result of one survey of a job and its fleet.

    Attributes:
        waiting: How many tasks wait in the queue, of any job; None if the broker is away.
        workers: The workers whose heartbeat is fresh.
        claims: The claims of parts.
        tasks: The latest tasks of the parts on their way, and how often each part was sent.
        job: Its tasks' ids begin with this.
        jobs: Jobs that share the workers, this one included.
        unseen_s: A claim older than this shows in its worker's heartbeat.
    """

    waiting: int | None
    workers: Sequence[WorkerInfo]
    claims: Mapping[str, ClaimInfo]
    tasks: Mapping[str, tuple[str, int]]
    job: str
    unseen_s: float = 3.0
    jobs: int = 1


@dataclass(frozen=True, slots=True)
class Trouble:
    """The reason why nothing moves, long before a job ends for it.

    Attributes:
        what: It, in words; empty if nothing is wrong.
        since_s: For how long that has been so.
        detail: What is behind it, and what helps; may be empty.
    """

    what: str = ""
    since_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NoWorkers:
    """No worker takes chunks; `idle` workers are alive and take none from the queue."""

    idle: int


@dataclass(frozen=True, slots=True)
class OtherCode:
    """Every worker declines, for `patience_s`."""

    patience_s: float


@dataclass(frozen=True, slots=True)
class BrokerAway:
    """The broker does not answer, and no chunk arrived through it."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Idle workers are there, and no chunk moves.

    Attributes:
        workers: How many have room.
        free_slots: How many chunks these could begin.
        waiting: How many tasks wait in the queue.
        claimed: How many of the job's chunks are claimed.
        unclaimed: How many are not.
        last: The last movement; empty if there was none.
        ago_s: How long ago that was, or how long nothing has been moving.
        repeats: How often the same tasks were begun again.
        declined: How many workers hold other code.
    """

    workers: int
    free_slots: int
    waiting: int
    claimed: int
    unclaimed: int
    last: str
    ago_s: float
    repeats: int
    declined: int


Verdict = NoWorkers | OtherCode | BrokerAway | Stall


@dataclass(slots=True)
class _Begins:
    """A task's claims of a part: the time of the latest, and their number."""

    task: str
    at: int
    count: int = 1


class Liveness:
    """Judges a job's progress by deadlines.

    Args:
        deadlines: The time limits.

    Attributes:
        met_workers: A worker that takes chunks has been seen.
        is_late: The next heartbeat of every worker is overdue.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.met_workers: bool = False
        self.is_late: bool = False
        self._no_worker_since: float | None = 0.0
        self._quiet_since: float | None = None  # no heartbeat of any worker since
        self._settled_at = 0.0
        self._broker_away_since: float | None = None
        self._judged_at = 0.0
        self._declined_since: float | None = None  # with nobody at work since
        self._declined: Collection[str] = ()
        self._decline_patience_s = deadlines.code_wait_s
        self._moved_at = self._still_since = 0.0
        self._last = ""
        self._begins: dict[str, _Begins] = {}
        self._others: frozenset[str] = frozenset()  # what workers had of other jobs
        self._declining = ""
        self._sharing = Sharing()

    # --- what happens --------------------------------------------------------------------

    def settled(self, now: float) -> None:
        """Record that an outcome arrived."""
        self._no_worker_since = self._declined_since = self._broker_away_since = None
        self._quiet_since, self._settled_at = None, now
        self._move(now, "a chunk was settled")

    def crashed(self, now: float) -> None:
        """Record that a process died running a part; a worker that declines has not."""
        self._declined_since = None
        self._move(now, "a process died that ran a chunk")

    def sent_first(self, now: float) -> None:
        """Record that a chunk was sent while none was under way."""
        self._still_since = now
        self._sharing.sent_first(now)

    def declined(
        self, now: float, workers: Collection[str], patience_s: float | None = None, why: str = ""
    ) -> None:
        """Record that a worker declined a part.

        Args:
            now: The time for which the job was watched.
            workers: All workers that cannot run the job's parts.
            patience_s: How long to wait for another worker; None for the default with other code.
            why: Why they decline, for people.
        """
        self._declined = workers
        self._declining = why
        self._decline_patience_s = self._deadlines.code_wait_s if patience_s is None else patience_s
        if self._declined_since is None:
            self._declined_since = now

    def _move(self, now: float, what: str) -> None:
        self._moved_at = self._still_since = now
        self._sharing.moved(now)
        self._last = what

    # --- what is seen ----------------------------------------------------------------------

    def judge(self, now: float, seen: View) -> Verdict | None:
        """Return the reason to end the job, or None.

        Args:
            now: The time for which the job was watched.
            seen: The result of the latest survey.
        """
        earlier, self._judged_at = self._judged_at, now
        self._sharing.not_waiting()
        if (verdict := self._judge_workers(now, seen)) is not None:
            return verdict
        if seen.waiting is None:
            self._still_since = now  # nothing can move, and there is another deadline for it
            self._sharing.kept(now)
            if self._broker_away_since is None:
                self._broker_away_since = earlier  # a survey of a frozen one takes long to fail
            is_over = now - self._broker_away_since >= self._deadlines.outage_s
            return BrokerAway() if is_over else None
        self._broker_away_since = None
        if self._no_worker_since is not None or self._quiet_since is not None:
            self._sharing.kept(now)
        return self._judge_code(now, seen) or self._judge_movement(now, seen)

    def trouble(self, now: float) -> Trouble:
        """Return why nothing moves.

        Args:
            now: The time for which the job was watched.
        """
        for since, what, detail in (
            (
                self._no_worker_since if self._quiet_since is None else self._quiet_since,
                "no worker answers",
                "",
            ),
            (self._broker_away_since, "the broker does not answer", ""),
            (self._declined_since, "no worker takes chunks", self._declining),
            (self._sharing.since, "no worker is free", self._sharing.detail),
            (self._still_since, "workers are idle, and no chunk moves", ""),
        ):
            if since is not None and since < now:
                return Trouble(what, now - since, detail)
        return Trouble()

    def _judge_workers(self, now: float, seen: View) -> NoWorkers | None:
        serving = [worker for worker in seen.workers if worker.is_serving]
        self.is_late = False
        if serving:
            self._quiet_since = self._quiet(now, serving)
            self.met_workers = True
            self._no_worker_since = None
            return None
        if self._no_worker_since is None:
            self._no_worker_since = now
        # A fleet that was there may be in the middle of a deployment.
        limits = self._deadlines
        patience_s = limits.outage_s if self.met_workers else limits.worker_wait_s
        return NoWorkers(len(seen.workers)) if now - self._no_worker_since >= patience_s else None

    def _quiet(self, now: float, serving: Sequence[WorkerInfo]) -> float | None:
        """Return since when no worker has been heard of; None if one has, lately."""
        beats = min(abs(worker.silent_s) / worker.beats_every_s for worker in serving)
        self.is_late = beats >= _LATE_BEATS
        if beats < _QUIET_BEATS:
            return None
        silent_s = min(abs(worker.silent_s) for worker in serving)
        return max(now - silent_s, self._settled_at)

    def _judge_code(self, now: float, seen: View) -> OtherCode | None:
        if self._declined_since is None:
            return None
        there = {worker.name for worker in seen.workers}
        if ({claim.worker for claim in seen.claims.values()} & there) - set(self._declined):
            self._declined_since = None  # somebody with the right code is there
            return None
        patience_s = self._decline_patience_s
        serving = {worker.name for worker in seen.workers if worker.slots > 0}
        if serving - set(self._declined):
            patience_s *= _BUSY_FACTOR  # one has not been asked: it may be busy with other jobs
        return OtherCode(patience_s) if now - self._declined_since >= patience_s else None

    def _judge_movement(self, now: float, seen: View) -> Stall | None:
        what = self._movement(seen)
        if what:
            self._move(now, what)
        others_move = self._others_move(seen)
        idle = [(worker, free) for worker in seen.workers if (free := self._room(worker, seen)) > 0]
        if not seen.tasks or not idle or others_move:
            self._still_since = now
            self._look_at_others(now, seen)
        if now - self._still_since < self._deadlines.stall_s:
            return None
        claimed = len(seen.claims.keys() & seen.tasks.keys())
        return Stall(
            workers=len(idle),
            free_slots=sum(free for _, free in idle),
            waiting=seen.waiting or 0,
            claimed=claimed,
            unclaimed=len(seen.tasks) - claimed,
            last=self._last,
            ago_s=now - self._moved_at,
            repeats=sum(begins.count - 1 for begins in self._begins.values()),
            declined=len(self._declined),
        )

    def _movement(self, seen: View) -> str:
        """Return the movement that was seen, in words; empty if there is none."""
        found = ""
        for part in self._begins.keys() - seen.tasks.keys():
            del self._begins[part]
        running = {worker.name: worker.running for worker in seen.workers}
        for part, claim in seen.claims.items():
            if part not in seen.tasks:
                continue
            begins = self._begins.get(part)
            if begins is None or begins.task != claim.task:
                begins = self._begins[part] = _Begins(claim.task, claim.at)
                found = found or "a chunk was claimed"
            elif begins.at != claim.at:
                begins.at = claim.at
                begins.count += 1
            is_shown = claim.age_s <= seen.unseen_s or claim.task in running.get(claim.worker, ())
            is_in_time = claim.age_s <= self._deadlines.time_limit_s
            if is_shown and claim.worker in running and is_in_time and begins.count <= _MOST_BEGINS:
                found = "a chunk ran"
        return found

    def _others_move(self, seen: View) -> bool:
        """Return whether other jobs' messages are ahead of ours and workers take them."""
        others = frozenset(
            task for worker in seen.workers for task in worker.running if not _is_of(task, seen.job)
        )
        has_changed, self._others = others != self._others, others
        own = sum(sends for part, (_, sends) in seen.tasks.items() if part not in seen.claims)
        return has_changed and (seen.waiting or 0) > own

    def _look_at_others(self, now: float, seen: View) -> None:
        """Find out whether workers run only other chunks."""
        if seen.tasks and self._others and not seen.claims.keys() & seen.tasks.keys():
            serving = [each for each in seen.workers if each.is_serving]
            able = sum(each.name not in self._declined for each in serving)
            self._sharing.waiting(now, seen.jobs, able)

    def _room(self, worker: WorkerInfo, seen: View) -> int:
        """Return the number of chunks a worker could run beside those of other jobs."""
        if worker.name in self._declined:
            return 0
        return worker.slots - sum(not _is_of(task, seen.job) for task in worker.running)


def _is_of(task: str, job: str) -> bool:
    return task.startswith(f"{job}-")
