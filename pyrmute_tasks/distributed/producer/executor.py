"""A Celery fleet as a `ChunkExecutor`."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

import redis

from pyrmute_tasks.distributed.producer.broker import Message
from pyrmute_tasks.distributed.producer.redelivery import Deliveries, FleetSnapshot, Loss, Part
from pyrmute_tasks.distributed.protocol import (
    Arrivals,
    ClaimInfo,
    Decline,
    Rejection,
    WorkerInfo,
)
from pyrmute_tasks.distributed.store import is_full
from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_outcome
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import (
    BrokerUnavailableError,
    CodeMismatchError,
    FrameError,
    JobLostError,
    NoWorkersError,
    SignatureError,
    StoreUnavailableError,
)
from pyrmute_tasks.logs import hide_password, log, task_label
from pyrmute_tasks.plans.fingerprint.differences import describe_held
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import Frame

__all__ = ["CeleryExecutor", "JobStore", "TaskBroker"]

_BATCH_CHUNKS: Final = 32
_BATCH_BYTES: Final = 4 * 1024 * 1024
_FLUSH_EVERY_S: Final = 0.01  # a fast source fills a batch in this time, a slow one must not wait
_LOOK_EVERY_S: Final = 0.05
_WAIT_S: Final = 1.0
_CHECK_EVERY_S: Final = 1.0
_START_ONE: Final = "start one with: pyrmute-tasks worker --manager … --broker … --store …"
_BUSY_FACTOR: Final = 10  # more patience with a worker that is busy with other jobs


class TaskBroker(Protocol):
    """What the executor needs of a broker; see `Broker`."""

    def check(self) -> None:
        """Try it once."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish tasks."""

    def queue_depth(self) -> int | None:
        """Return how many tasks wait in the queue; None if the broker is away."""

    def revoke(self, tasks: Iterable[str]) -> None:
        """Ask the workers to skip tasks."""


class JobStore(Protocol):
    """What the executor needs of a store; see `Store`."""

    def check(self) -> None:
        """Try it once."""

    def open_job(self, spec: JobSpec) -> None:
        """Make a job known to workers."""

    def touch_job(self, job: str) -> bool:
        """Renew the life of a job's keys; False if the job is gone."""

    def stop_job(self, job: str, first: int, pending: Iterable[str]) -> None:
        """Mark the chunks from `first` on as unwanted."""

    def end_job(self, job: str) -> None:
        """Remove everything of a job."""

    def put_parts(self, job: str, frames: Iterable[tuple[str, bytes]], gone: str = "") -> None:
        """Store the inputs of parts, in place of the part `gone` if one is named."""

    def take(self, job: str, *, wait_s: float, forget: Iterable[str] = ()) -> Arrivals:
        """Return what has arrived."""

    def look_for_outcomes(self, job: str, known: Collection[str] = ()) -> list[tuple[str, bytes]]:
        """Return the outcomes in the store, without those that are known."""

    def claims(self, job: str) -> dict[str, ClaimInfo]:
        """Return who has taken which parts."""

    def restore_parts(self, job: str, frames: Iterable[tuple[str, bytes]]) -> None:
        """Forget who has taken parts, and store the inputs of those that are missing."""

    def workers(self) -> list[WorkerInfo]:
        """Return the workers whose heartbeat is fresh."""

    def rejected_workers(self) -> str:
        """Say why workers that were there at the last look do not count; empty if all do."""


class CeleryExecutor:
    """Runs the chunks of one job on a fleet: a `ChunkExecutor` from frames to frames.

    A context manager: entering makes the job known, leaving removes every trace of it.

    Args:
        broker: Where tasks are published.
        store: The claim-check store.
        spec: The job.
        settings: How patient to be.
        supervise: Called about every second; may raise.
        clock: Seconds that only grow.
        code: The producer's tree, to name what differs on a worker.

    Attributes:
        slots: How many chunks the fleet runs at a time, as last seen.
    """

    def __init__(
        self,
        broker: TaskBroker,
        store: JobStore,
        spec: JobSpec,
        settings: Settings,
        supervise: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        code: FingerprintTree | None = None,
    ) -> None:
        self._broker = broker
        self._store = store
        self._spec = spec
        self._settings = settings
        self._supervise = supervise
        self._clock = clock
        self.slots = 1
        self._met_workers = False
        self._deliveries = Deliveries()
        self._unsent: list[Part] = []
        self._unsent_bytes = 0
        self._received: list[str] = []  # outcomes that the store may forget
        self._flushed_at = self._looked_at = self._checked_at = self._clock()
        # Time in which this has looked. A consumer may pause for hours between two outputs,
        # and what the last look found then says nothing about the time since.
        self._watched_s = 0.0
        self._no_worker_since: float | None = 0.0
        self._broker_away_s = 0.0  # time in which it was asked and did not answer
        self._store_is_away = False
        self._code = code
        self._codes: dict[str, str] = {}  # what the workers hold that declined
        self._declined_since: float | None = None  # with nobody at work since
        self._keep_alive = _KeepAlive(store, spec.id, settings.job_ttl_s / 4)

    def __enter__(self) -> Self:
        """Make the job known.

        Raises:
            StoreUnavailableError: If the store does not answer.
            BrokerUnavailableError: If the broker does not answer.
        """
        self._store.check()
        self._broker.check()
        with self._store_errors():
            self._store.open_job(self._spec)
            self._count_slots(self._store.workers())
        self._keep_alive.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.let_go()
        if not self.remove_job():
            # The keys expire by themselves, and the first error matters more.
            log(
                logging.WARNING, "job_left", "the job's keys were left to expire", job=self._spec.id
            )

    def let_go(self) -> None:
        """Keep the job's keys alive no longer; they expire."""
        self._keep_alive.end()

    def remove_job(self) -> bool:
        """Remove every trace of the job; False if the store cannot be reached."""
        if self._store_is_away:
            return False  # it has been waited for
        try:
            self._store.end_job(self._spec.id)
        except redis.RedisError:
            return False
        return True

    # --- ChunkExecutor ----------------------------------------------------------------------

    def submit(self, chunk: Chunk[bytes], /) -> None:
        """Send a chunk, together with others if they come quickly."""
        self._unsent.append(self._deliveries.add(chunk))
        self._unsent_bytes += chunk.size_bytes
        now = self._clock()
        if (
            len(self._unsent) >= _BATCH_CHUNKS
            or self._unsent_bytes >= _BATCH_BYTES
            or now - self._flushed_at >= _FLUSH_EVERY_S
        ):
            self._flush()

    def collect(self, *, wait: bool) -> Iterable[Outcome[Frame]]:
        """Return the outcomes that have arrived; see `ChunkExecutor`.

        Raises:
            NoWorkersError: If no worker is there to wait for.
            CodeMismatchError: If every worker that is there holds other code.
            JobLostError: If the store lost the job.
            StoreUnavailableError: If the store cannot be reached any more.
            BrokerUnavailableError: If chunks cannot be sent any more.
        """
        with self._store_errors():
            if not wait:
                return self._look() if self._may_look() else ()
            self._flush()
            while True:
                outcomes = self._take(_WAIT_S)
                if self._clock() - self._checked_at >= _CHECK_EVERY_S or not outcomes:
                    outcomes += self._check()
                if outcomes:
                    return outcomes

    def cancel(self, first: int) -> None:
        """Withdraw the chunks from `first` on, first in the store, then from the queue."""
        dropped = self._deliveries.drop(first)
        self._unsent = [part for part in self._unsent if part.chunk.index < first]
        if self._store_is_away:
            return  # it has been waited for
        with self._store_errors():
            self._store.stop_job(self._spec.id, first, [part.key for part in dropped])
        tasks = [part.task for part in dropped if part.task]
        if tasks:
            self._broker.revoke(tasks)

    # --- sending ------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushed_at = self._clock()
        if not self._unsent:
            return
        parts, self._unsent, self._unsent_bytes = self._unsent, [], 0
        with self._store_errors():
            self._store.put_parts(self._spec.id, ((part.key, part.chunk.payload) for part in parts))
        self._publish(parts)

    def _send_again(self, parts: list[Part], level: int = logging.WARNING) -> None:
        log(
            level,
            "part_sent_again",
            "chunks are sent again",
            job=self._spec.id,
            parts=[part.key for part in parts],
        )
        frames = [(part.key, part.chunk.payload) for part in parts]
        self._store.restore_parts(self._spec.id, frames)
        self._publish(parts)

    def _publish(self, parts: list[Part]) -> None:
        for part in parts:
            self._deliveries.send(part, self._spec.id, self._clock())
        self._broker.publish([self._message(part) for part in parts])

    def _message(self, part: Part) -> Message:
        chunk = part.chunk
        label = task_label(str(self._spec), chunk.index, chunk.start, chunk.count)
        args = (self._spec.id, part.key, chunk.start, self._spec.fingerprint)
        return Message(part.task, args, label)

    # --- receiving ----------------------------------------------------------------------------

    def _may_look(self) -> bool:
        now = self._clock()
        due = now - self._looked_at >= _LOOK_EVERY_S
        if due:
            self._looked_at = now
        return due

    def _look(self) -> list[Outcome[Frame]]:
        self._flush()
        outcomes = self._take(0)
        if self._clock() - self._checked_at >= _CHECK_EVERY_S:
            outcomes += self._check()  # a slow source must not keep what is lost waiting
        return outcomes

    def _take(self, wait_s: float) -> list[Outcome[Frame]]:
        forget, self._received = self._received, []
        arrived = self._store.take(self._spec.id, wait_s=wait_s, forget=forget)
        outcomes = self._settle(arrived.outcomes)
        for key, how in arrived.crashes:
            self._declined_since = None  # who declines does not die of it
            outcomes += self._after_crash(self._deliveries.crashed(key, how), key)
        self._after_declines(arrived.declines)
        self._after_rejections(arrived.rejections)
        return outcomes

    def _settle(self, found: list[tuple[str, bytes]]) -> list[Outcome[Frame]]:
        outcomes = []
        for key, data in found:
            self._received.append(key)
            if key in self._deliveries:
                self._no_worker_since = self._declined_since = None
                self._broker_away_s = 0.0
                outcome = self._deliveries.settle(key, self._decode(key, data))
                if outcome is not None:
                    outcomes.append(outcome)
        return outcomes

    def _decode(self, key: str, data: bytes) -> Outcome[Frame]:
        try:
            outcome = decode_outcome(data)
        except FrameError as error:
            raise self._damaged(key, str(error)) from None
        if outcome.count and outcome.outputs.kind is not self._spec.kind:
            raise self._damaged(key, "its outputs are of another kind than the job's")
        return outcome

    def _damaged(self, key: str, why: str) -> FrameError:
        return FrameError(f"the outcome of chunk {key} of {self._spec} is damaged: {why}")

    def _after_crash(
        self, verdict: list[Part] | Outcome[Frame] | None, key: str
    ) -> list[Outcome[Frame]]:
        """Do what `Deliveries` decided about a part whose process died."""
        if verdict is None:
            return []
        if isinstance(verdict, Outcome):
            return [verdict]
        if verdict[0].key != key:
            frames = [(part.key, part.chunk.payload) for part in verdict]
            self._store.put_parts(self._spec.id, frames, gone=key)
        self._send_again(verdict)
        return []

    def _after_declines(self, declines: list[Decline]) -> None:
        """Let other workers have what some with other code did not take."""
        again = []
        for decline in declines:
            if decline.worker not in self._codes:
                held = self._codes[decline.worker] = describe_held(self._code, decline.code)
                log(
                    logging.WARNING,
                    "code_declined",
                    "a worker holds other migrations and declines",
                    job=self._spec.id,
                    worker=decline.worker,
                    code=held,
                    wanted=self._spec.fingerprint,
                )
            part = self._deliveries.declined(decline.part, decline.task)
            if part is not None:
                if self._declined_since is None:
                    self._declined_since = self._watched_s
                again.append(part)
        if again:
            self._send_again(again, logging.DEBUG)

    def _after_rejections(self, rejections: list[Rejection]) -> None:
        """Send again what somebody without the secret has written over."""
        again: dict[str, Part] = {}
        for rejection in rejections:
            try:
                part = self._deliveries.rejected(rejection.part, rejection.task)
            except SignatureError as error:
                raise SignatureError(
                    f"chunk {rejection.part} of {self._spec} was rejected {error}, the last time "
                    f"for {rejection.why}. Somebody who has not the secret writes to the store, "
                    "or a worker has another one"
                ) from None
            if part is not None:
                again[part.key] = part
        if again:
            self._send_again(list(again.values()))

    def _check(self) -> list[Outcome[Frame]]:
        """Look after what a lost notice, a lost job, worker or message would leave waiting."""
        now = self._clock()
        paused_s = min(now - self._checked_at, 2 * _CHECK_EVERY_S)
        self._watched_s += paused_s
        self._checked_at = now
        self._supervise()
        if not self._store.touch_job(self._spec.id):
            raise JobLostError(
                f"the store at {hide_password(self._settings.redis_store_url)} no longer knows job "
                f"{self._spec.id}: it was emptied or restarted without its data, or ran out of "
                "memory; what was delivered is complete up to here. Run the job again"
            )
        # In this order, since the fleet goes on meanwhile: a message leaves the queue, is
        # claimed by a worker that beats, and what has no claim any more has an outcome.
        waiting = self._ask_broker(paused_s)
        claims = self._store.claims(self._spec.id)
        workers = self._store.workers()
        outcomes = self._settle(self._store.look_for_outcomes(self._spec.id, self._received))
        self._check_workers(workers)
        if waiting is None:
            self._check_broker()
            return outcomes  # nothing can be sent now
        seen = FleetSnapshot(
            claims,
            {worker.name: worker.running for worker in workers},
            queue_is_empty=waiting == 0,
            leaving={worker.name for worker in workers if worker.slots == 0},
            any_idle=any(worker.slots > len(worker.running) for worker in workers),
            unseen_s=3 * max((worker.beats_every_s for worker in workers), default=1.0),
        )
        self._check_code(seen)
        return outcomes + self._recover(seen)

    def _recover(self, seen: FleetSnapshot) -> list[Outcome[Frame]]:
        """Send again what nobody will settle."""
        outcomes: list[Outcome[Frame]] = []
        forgotten = []
        for part, loss in self._deliveries.lost(self._clock(), seen):
            match loss:
                case Loss.WORKER_GONE:
                    outcomes += self._after_crash(self._deliveries.disappeared(part), part.key)
                case Loss.CLAIM_LOST:
                    outcomes += self._after_crash(self._deliveries.came_to_nothing(part), part.key)
                case Loss.UNCLAIMED | Loss.SLOW:
                    forgotten.append(part)
        if forgotten:
            self._send_again(forgotten)
        return outcomes

    def _check_code(self, seen: FleetSnapshot) -> None:
        """Give up on a fleet whose workers all hold other code."""
        if self._declined_since is None:
            return
        at_work = {claim.worker for claim in seen.claims.values()} & seen.running.keys()
        if at_work - self._codes.keys():
            self._declined_since = None  # somebody with the right code is there
            return
        patience_s = self._settings.code_wait_s
        if seen.running.keys() - seen.leaving - self._codes.keys():
            patience_s *= _BUSY_FACTOR  # one has not been asked: it may be busy with other jobs
        if self._watched_s - self._declined_since < patience_s:
            return
        held = "; ".join(f"{worker}: {code}" for worker, code in self._codes.items())
        raise CodeMismatchError(
            f"no worker took a chunk of {self._spec} within {patience_s:.0f} s: "
            f"their migrations differ from this producer's ({self._spec.fingerprint}). They hold: "
            f"{held}. Deploy the same code to workers and producers"
        )

    def _ask_broker(self, paused_s: float) -> int | None:
        """Return how many tasks wait; note how long it has been away if it is."""
        began = self._clock()
        waiting = self._broker.queue_depth()
        if waiting is None:  # one that is frozen takes its time, too
            self._broker_away_s += paused_s + self._clock() - began
        else:
            self._broker_away_s = 0.0
        return waiting

    def _check_broker(self) -> None:
        """Give up on a broker that is away and through which nothing came meanwhile."""
        if self._broker_away_s >= self._settings.outage_s:
            raise BrokerUnavailableError(
                f"the broker at {hide_password(self._settings.broker_url)} has been out of reach "
                f"for {self._settings.outage_s:.0f} s"
            )

    def _check_workers(self, workers: list[WorkerInfo]) -> None:
        self._count_slots(workers)
        if any(worker.is_serving for worker in workers):
            self._no_worker_since = None
            return
        if self._no_worker_since is None:
            self._no_worker_since = self._watched_s
        # A fleet that was there may be in the middle of a deployment.
        patience_s = self._settings.outage_s if self._met_workers else self._settings.worker_wait_s
        if self._watched_s - self._no_worker_since >= patience_s:
            idle = f" ({len(workers)} are there and take none from it)" if workers else ""
            rejected = self._store.rejected_workers()
            raise NoWorkersError(
                f"no worker answers on queue '{self._settings.queue}' of "
                f"{hide_password(self._settings.broker_url)}{idle}; " + (rejected or _START_ONE)
            )

    def _count_slots(self, workers: list[WorkerInfo]) -> None:
        self.slots = max(1, sum(worker.slots for worker in workers))
        self._met_workers = self._met_workers or any(worker.is_serving for worker in workers)

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            self._store_is_away = isinstance(error, (redis.ConnectionError, redis.TimeoutError))
            # Not its text, nor as a cause: redis-py quotes the commands that failed, and
            # with them the records they carried.
            what = "has no memory left" if is_full(error) else f"failed ({type(error).__name__})"
            url = hide_password(self._settings.redis_store_url)
            raise StoreUnavailableError(f"the store at {url} {what}") from None


class _KeepAlive:
    """Renews the life of a job's keys, however slowly its outputs are consumed."""

    def __init__(self, store: JobStore, job: str, every_s: float) -> None:
        self._store = store
        self._job = job
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread: Any = None

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="keep-alive", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._store.touch_job(self._job)
            except redis.RedisError:
                log(
                    logging.WARNING,
                    "keep_alive_failed",
                    "the store cannot be reached",
                    job=self._job,
                )
