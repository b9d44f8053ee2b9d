"""A Celery fleet as a `ChunkExecutor`."""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from types import TracebackType
from typing import Final, Protocol, Self

import redis

from pyrmute_tasks.distributed.internals.redis_client import is_out_of_memory
from pyrmute_tasks.distributed.producer.parts import Part
from pyrmute_tasks.distributed.producer.recovery import PartsStore, Recovery, TaskPublisher
from pyrmute_tasks.distributed.producer.surveys import SurveyedStore, Surveyor, ThreadedSurveyor
from pyrmute_tasks.distributed.protocol import Arrivals, Outcomes, Survey, WorkerInfo
from pyrmute_tasks.distributed.queue_depth import CountsTasks, depth_of
from pyrmute_tasks.distributed.refusals import passing_refusal, trouble_of
from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_outcome
from pyrmute_tasks.engine.events import FleetSeen, Observer
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import FleetError, FrameError, StoreUnavailableError
from pyrmute_tasks.logs import hide_password, log
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import Frame

__all__ = ["CeleryExecutor", "JobStore", "TaskBroker"]

_BATCH_CHUNKS: Final = 32
_BATCH_BYTES: Final = 4 * 1024 * 1024
_FLUSH_EVERY_S: Final = 0.01  # a fast source fills a batch in this time, a slow one must not wait
_LOOK_EVERY_S: Final = 0.05
_WAIT_S: Final = 1.0
_SURVEY_EVERY_S: Final = 1.0
_ANSWER_S: Final = 0.2  # a survey under way is looked for after this time


class TaskBroker(TaskPublisher, CountsTasks, Protocol):
    """The part of a broker that the executor needs; see `Broker`."""

    def check(self) -> None:
        """Check that the broker answers."""

    def revoke(self, tasks: Iterable[str]) -> None:
        """Ask the workers to skip tasks."""


class JobStore(PartsStore, SurveyedStore, Protocol):
    """The part of a store that the executor needs; see `Store`."""

    def check(self) -> None:
        """Check that the store answers."""

    def open_job(self, spec: JobSpec) -> int:
        """Register a job for workers; return the number of other jobs on the queue."""

    def stop_job(self, job: str, first: int, pending: Iterable[str]) -> None:
        """Mark the chunks from `first` on as unwanted."""

    def end_job(self, job: str) -> None:
        """Remove all keys of a job."""

    def take(self, job: str, *, wait_s: float, forget: Iterable[str] = ()) -> Arrivals:
        """Return the notices and outcomes that have arrived."""

    def read_outcomes(self, job: str, parts: Collection[str]) -> Outcomes:
        """Return the outcomes of parts."""

    def workers(self) -> list[WorkerInfo]:
        """Return the workers with a fresh heartbeat."""


# Above 250 lines: submitting, collecting and surveying share what is in flight.
class CeleryExecutor:
    """Runs the chunks of one job on a fleet: a `ChunkExecutor` from frames to frames.

    A context manager: entering makes the job known, leaving removes every trace of it.

    Args:
        broker: Publishes the tasks.
        store: The claim-check store.
        spec: The job.
        settings: Its timeouts.
        supervise: Called about every second; may raise.
        clock: Seconds that only grow.
        code: The producer's tree, to name what differs on a worker.
        surveyor: Surveys the fleet; by default in a thread of its own.
        tell: Called with what happens to workers and chunks.

    Attributes:
        slots: How many chunks the fleet runs at a time, as last seen.
        jobs: How many jobs share the fleet, this one included, as last seen.
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
        surveyor: Surveyor | None = None,
        tell: Observer = lambda _: None,
    ) -> None:
        self._broker = broker
        self._store = store
        self._spec, self._settings = spec, settings
        self._supervise = supervise
        self._clock = clock
        self.slots: int = 1
        self.jobs: int = 1
        self._tell = tell
        self._recovery = Recovery(broker, store, spec, settings, clock, code, tell)
        self._deliveries = self._recovery.deliveries
        self._unsent: list[Part] = []
        self._unsent_bytes = 0
        self._received: list[str] = []  # outcomes that the store may forget
        self._flushed_at = self._looked_at = self._surveyed_at = self._clock()
        self._asked_at = self._surveyed_at  # when the survey was requested that comes next
        self._is_surveying = False  # it has not come yet
        self._flush_s = self._look_s = 0.0  # how long the latest took
        self._store_is_away = False
        self._surveyor = surveyor or ThreadedSurveyor(
            store, depth_of(settings, broker), spec.id, settings.job_ttl_s / 4
        )

    def __enter__(self) -> Self:
        """Register the job with the store.

        Raises:
            StoreUnavailableError: If the store does not answer.
            BrokerUnavailableError: If the broker does not answer.
        """
        self._supervise()
        self._store.check()
        self._broker.check()
        try:
            with self._store_errors():
                self.jobs = 1 + self._store.open_job(self._spec)
                self._count_slots(self._store.workers())
            self._surveyor.begin()
        except BaseException:  # nobody leaves what was not entered
            self.let_go()
            self.remove_job()
            raise
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
        """Stop surveying the job, whose keys then expire."""
        self._surveyor.end()

    def remove_job(self) -> bool:
        """Remove every trace of the job; False if the store cannot be reached."""
        if self._store_is_away:
            return False  # it has been waited for
        try:
            self._store.end_job(self._spec.id)
        except (redis.RedisError, FleetError):  # or the embedded server has ended
            return False
        return True

    # --- ChunkExecutor ----------------------------------------------------------------------

    def submit(self, chunk: Chunk[bytes], /) -> None:
        """Send a chunk, together with others if they come quickly."""
        if not len(self._deliveries):
            self._recovery.liveness.sent_first(self._recovery.watched_s)
        self._unsent.append(self._deliveries.add(chunk))
        self._unsent_bytes += chunk.size_bytes
        every_s = _rarely(_FLUSH_EVERY_S, self._flush_s)
        if (
            len(self._unsent) >= _BATCH_CHUNKS
            or self._unsent_bytes >= _BATCH_BYTES
            or self._clock() - self._flushed_at >= every_s
        ):
            self._flush()

    def collect(self, *, wait: bool) -> Iterable[Outcome[Frame]]:
        """Return the outcomes that have arrived; see `ChunkExecutor`.

        Raises:
            NoWorkersError: If no worker is there to wait for.
            CodeMismatchError: If every worker that is there holds other code.
            StalledError: If idle workers are there and nothing moves.
            JobLostError: If the store lost the job.
            StoreUnavailableError: If the store cannot be reached any more.
            BrokerUnavailableError: If chunks cannot be sent any more.
        """
        with self._store_errors():
            if not wait:
                return self._look() if self._may_look() else ()
            self._flush()
            return self._take(self._wait_s()) + self._survey()

    def cancel(self, first: int) -> None:
        """Withdraw the chunks from `first` on, first in the store, then from the queue.

        A store that fails meanwhile is only logged: whatever led to this comes first, and nobody
        waits for what these chunks come to.
        """
        dropped = self._deliveries.drop(first)
        self._unsent = [part for part in self._unsent if part.chunk.index < first]
        if self._store_is_away:
            return  # it has been waited for
        try:
            with self._store_errors():
                self._store.stop_job(self._spec.id, first, [part.key for part in dropped])
        except FleetError as error:  # also of an embedded server that has ended
            log(
                logging.WARNING,
                "chunks_not_withdrawn",
                "discarded chunks could not be withdrawn",
                job=self._spec.id,
                error=type(error).__name__,
            )
            return
        tasks = [part.task for part in dropped if part.task]
        if tasks:
            self._broker.revoke(tasks)

    # --- sending ------------------------------------------------------------------------------

    def _flush(self) -> None:
        began = self._flushed_at = self._clock()
        if not self._unsent:
            return
        parts, self._unsent, self._unsent_bytes = self._unsent, [], 0
        with self._store_errors():
            self._store.put_parts(self._spec.id, ((part.key, part.chunk.payload) for part in parts))
        self._recovery.send(parts)
        self._flushed_at = self._clock()
        self._flush_s = self._flushed_at - began

    # --- receiving ----------------------------------------------------------------------------

    def _wait_s(self) -> float:
        """Return how long to wait for outcomes: until a survey is due, or may have its answer."""
        if self._is_surveying:
            return _ANSWER_S
        due_s = self._surveyed_at + self._survey_every_s - self._clock()
        return min(max(due_s, _LOOK_EVERY_S), _WAIT_S)

    @property
    def _survey_every_s(self) -> float:
        # Sooner while heartbeats are late: that workers are away is told within three seconds.
        return _SURVEY_EVERY_S / 2 if self._recovery.liveness.is_late else _SURVEY_EVERY_S

    def _may_look(self) -> bool:
        return self._clock() - self._looked_at >= _rarely(_LOOK_EVERY_S, self._look_s)

    def _look(self) -> list[Outcome[Frame]]:
        began = self._clock()
        self._flush()
        # A slow source must not keep what is lost waiting.
        outcomes = self._take(0) + self._survey()
        self._looked_at = self._clock()
        self._look_s = self._looked_at - began
        return outcomes

    def _take(self, wait_s: float) -> list[Outcome[Frame]]:
        forget, self._received = self._received, []
        arrived = self._store.take(self._spec.id, wait_s=wait_s, forget=forget)
        outcomes = self._settle(arrived.outcomes)
        outcomes += self._recovery.after_deaths(arrived.crashes)
        self._recovery.after_declines(arrived.declines)
        self._recovery.after_rejections(arrived.rejections)
        return outcomes

    def _settle(self, found: Outcomes) -> list[Outcome[Frame]]:
        outcomes = []
        for key, data in found:
            self._received.append(key)
            if key in self._deliveries:
                outcome = self._decode(key, data)
                self._recovery.settled_by(outcome.worker)
                if (whole := self._deliveries.settle(key, outcome)) is not None:
                    outcomes.append(whole)
        return outcomes

    def _decode(self, key: str, data: bytes | memoryview) -> Outcome[Frame]:
        try:
            outcome = decode_outcome(data)
        except FrameError as error:
            raise self._damaged(key, str(error)) from None
        if outcome.count and outcome.outputs.kind is not self._spec.kind:
            raise self._damaged(key, "its outputs are of another kind than the job's")
        return outcome

    def _damaged(self, key: str, why: str) -> FrameError:
        return FrameError(f"the outcome of chunk {key} of {self._spec} is damaged: {why}")

    # --- looking after what is lost -----------------------------------------------------------

    def _survey(self) -> list[Outcome[Frame]]:
        """Survey the fleet to recover from a lost notice, job, worker or message."""
        survey = self._surveyor.report()
        outcomes = self._heed(survey) if survey is not None else []
        self._is_surveying = self._is_surveying and survey is None
        now = self._clock()
        if now - self._surveyed_at >= self._survey_every_s:
            self._supervise()
            self._recovery.watched_s += min(now - self._surveyed_at, 2 * _SURVEY_EVERY_S)
            self._surveyed_at = now
            if self._surveyor.request(is_busy=len(self._deliveries) > 0):
                self._asked_at, self._is_surveying = now, True
        return outcomes

    def _heed(self, survey: Survey) -> list[Outcome[Frame]]:
        if not survey.is_known:
            raise self._recovery.lost_job()
        self.jobs = 1 + survey.others
        self._count_slots(survey.workers)
        unknown = [part for part in survey.settled if part in self._deliveries]
        self._received += [part for part in survey.settled if part not in self._deliveries]
        outcomes = self._settle(self._store.read_outcomes(self._spec.id, unknown))
        outcomes += self._recovery.look(survey, self._asked_at)
        serving = sum(worker.is_serving for worker in survey.workers)
        trouble = self._recovery.trouble
        self._tell(FleetSeen(serving, trouble.what, trouble.since_s, trouble.detail))
        return outcomes

    def _count_slots(self, workers: Collection[WorkerInfo]) -> None:
        self.slots = max(1, sum(worker.slots for worker in workers))
        if any(worker.is_serving for worker in workers):
            self._recovery.liveness.met_workers = True

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            lost = isinstance(error, (redis.ConnectionError, redis.TimeoutError))
            self._store_is_away = lost or passing_refusal(error) is not None
            # Not its text, nor as a cause: redis-py quotes the commands that failed, and
            # with them the records they carried.
            what = (
                "has no memory left" if is_out_of_memory(error) else f"failed ({trouble_of(error)})"
            )
            url = hide_password(self._settings.redis_store_url)
            raise StoreUnavailableError(f"the store at {url} {what}") from None


def _rarely(every_s: float, took_s: float) -> float:
    """Return the interval for requests of this duration: distant servers are asked less often."""
    return min(max(every_s, took_s), _WAIT_S)
