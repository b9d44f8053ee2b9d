"""Recovery of a job: resends lost chunks, and gives up when no worker can run them."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pyrmute_tasks.distributed.producer.broker import Message
from pyrmute_tasks.distributed.producer.job_errors import JobErrors, declining
from pyrmute_tasks.distributed.producer.liveness import (
    Deadlines,
    Liveness,
    NoWorkers,
    Trouble,
    Verdict,
    View,
)
from pyrmute_tasks.distributed.producer.parts import AfterCrash, Ignored, Part, Resend, Settled
from pyrmute_tasks.distributed.producer.redelivery import Deliveries, FleetSnapshot, Loss
from pyrmute_tasks.distributed.producer.task_labels import TaskLabels
from pyrmute_tasks.distributed.protocol import (
    STORAGE_NOW,
    TOO_LARGE,
    Decline,
    Rejection,
    Survey,
    storage_trouble,
)
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.engine.chunks import Outcome
from pyrmute_tasks.engine.events import ChunkResent, Observer, WorkerDeclined, WorkerGone
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import FleetError, JobLostError, SignatureError
from pyrmute_tasks.logs import log
from pyrmute_tasks.plans.fingerprint.differences import describe_held
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import Frame

__all__ = ["PartsStore", "Recovery", "TaskPublisher"]


class TaskPublisher(Protocol):
    """The part of a broker that recovery needs; see `Broker`."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish tasks."""


class PartsStore(Protocol):
    """The part of a store that recovery needs; see `Store`."""

    def put_parts(self, job: str, frames: Iterable[tuple[str, bytes]], gone: str = "") -> None:
        """Store the inputs of parts, replacing the part `gone` if given."""

    def restore_parts(self, job: str, frames: Iterable[tuple[str, bytes]]) -> None:
        """Delete the claims of parts, and store their missing inputs."""

    def rejected_workers(self) -> str:
        """Explain why workers seen in the last survey do not count; empty if all do."""


class Recovery:
    """Sends a job's parts, resends lost ones, and gives up when its fleet cannot run them.

    Args:
        broker: Publishes the tasks.
        store: The claim-check store.
        spec: The job.
        settings: Its timeouts.
        clock: Seconds that only grow.
        code: The producer's tree, to name what differs on a worker.
        tell: Called with what happens to workers and chunks.

    Attributes:
        deliveries: The parts under way.
        liveness: Judges the job's progress.
        watched_s: The time for which the job was watched. A consumer may pause for hours between
            two outputs, and the last survey then says nothing about the time since.
    """

    def __init__(
        self,
        broker: TaskPublisher,
        store: PartsStore,
        spec: JobSpec,
        settings: Settings,
        clock: Callable[[], float],
        code: FingerprintTree | None,
        tell: Observer = lambda _: None,
    ) -> None:
        self._broker = broker
        self._store = store
        self._spec = spec
        self._settings = settings
        self._errors = JobErrors(spec, settings)
        self._label = TaskLabels(spec)
        self._clock = clock
        self._code = code
        self._tell = tell
        self._gone: set[str] = set()  # the workers told of as gone
        self._codes: dict[str, str] = {}  # what the workers hold that declined
        self.deliveries: Deliveries = Deliveries(skips=spec.skips)
        self.liveness: Liveness = Liveness(
            Deadlines(
                stall_s=settings.stall_s,
                worker_wait_s=settings.worker_wait_s,
                outage_s=settings.outage_s,
                code_wait_s=settings.code_wait_s,
                time_limit_s=settings.time_limit_s,
            )
        )
        self.watched_s: float = 0.0

    # --- sending ------------------------------------------------------------------------------

    def send(self, parts: Sequence[Part]) -> None:
        """Send parts whose inputs are in the store."""
        for part in parts:
            self.deliveries.send(part, self._spec.id, self._clock())
        self._broker.publish([self._message(part) for part in parts])

    def _send_again(self, parts: Sequence[Part], level: int = logging.WARNING) -> None:
        log(
            level,
            "part_sent_again",
            "chunks are sent again",
            job=self._spec.id,
            parts=[part.key for part in parts],
        )
        frames = [(part.key, part.chunk.payload) for part in parts]
        self._store.restore_parts(self._spec.id, frames)
        self.send(parts)

    def _message(self, part: Part) -> Message:
        asked = TaskArguments(self._spec.id, part.key, part.chunk.start, self._spec.fingerprint)
        return Message(part.task, asked, self._label(part.chunk))

    # --- what workers tell --------------------------------------------------------------------

    def after_deaths(self, crashes: list[tuple[str, str]]) -> list[Outcome[Frame]]:
        """Resend parts whose processes died, or return their outcomes."""
        outcomes = []
        for key, how in crashes:
            self.liveness.crashed(self.watched_s)
            outcomes += self._after_crash(self.deliveries.crashed(key, how), _death(how))
        return outcomes

    def _after_crash(self, decided: AfterCrash, why: str) -> list[Outcome[Frame]]:
        """Carry out the decision of `Deliveries` about a part whose process died."""
        match decided:
            case Resend(parts, replaced):
                if replaced:
                    frames = [(part.key, part.chunk.payload) for part in parts]
                    self._store.put_parts(self._spec.id, frames, gone=replaced)
                self._send_again(parts)
                self._tell(ChunkResent(parts[0].chunk.index, why, bool(replaced)))
                return []
            case Settled(part, outcome):
                self._store.put_parts(self._spec.id, [], gone=part)
                return [outcome] if outcome is not None else []
            case Ignored():
                return []

    def after_declines(self, declines: list[Decline]) -> None:
        """Resend to other workers the parts that workers with other code declined."""
        again = []
        for decline in declines:
            self._note_decline(decline)
            part = self.deliveries.declined(decline.part, decline.task)
            if part is not None:
                self.liveness.declined(
                    self.watched_s, self._codes.keys(), self._patience_s, declining(self._codes)
                )
                again.append(part)
        if again:
            self._send_again(again, logging.DEBUG)

    def _note_decline(self, decline: Decline) -> None:
        held = describe_held(self._code, decline.code)
        known = self._codes.get(decline.worker)
        if known == held or (known is not None and not storage_trouble(held)):
            return  # its tree is logged once
        self._codes[decline.worker] = held
        self._tell(WorkerDeclined(decline.worker, held))
        trouble = storage_trouble(held)
        if trouble:
            told = f"worker {decline.worker} takes no range: {trouble}"
            log(logging.WARNING, "range_declined", told, job=self._spec.id, worker=decline.worker)
            return
        log(
            logging.WARNING,
            "code_declined",
            "a worker with other migrations declined a chunk",
            job=self._spec.id,
            worker=decline.worker,
            code=held,
            wanted=self._spec.fingerprint,
        )

    @property
    def _patience_s(self) -> float:
        """The wait for a worker that takes parts; longer while a storage fault may be temporary."""
        settings = self._settings
        passes = any(held.startswith(STORAGE_NOW) for held in self._codes.values())
        return max(settings.outage_s if passes else 0.0, settings.code_wait_s)

    def settled_by(self, worker: str) -> None:
        """Record that a worker settled a part: it no longer counts as declining."""
        self.liveness.settled(self.watched_s)
        self._codes.pop(worker, None)

    def after_rejections(self, rejections: list[Rejection]) -> None:
        """Resend parts that were overwritten without the secret.

        Raises:
            SignatureError: If that has been done too often.
        """
        again: dict[str, Part] = {}
        for rejection in rejections:
            try:
                part = self.deliveries.rejected(rejection.part, rejection.task)
            except SignatureError as error:
                raise SignatureError(
                    f"chunk {rejection.part} of {self._spec} was rejected {error}, the last time "
                    f"for {rejection.why}. Somebody without the secret writes to the store, "
                    "or a worker has another secret"
                ) from None
            if part is not None:
                again[part.key] = part
        if again:
            self._send_again(list(again.values()))

    # --- what surveys tell --------------------------------------------------------------------

    def look(self, survey: Survey, asked_at: float) -> list[Outcome[Frame]]:
        """Resend parts that will not be settled, once the survey's outcomes have been settled.

        Args:
            survey: The survey's result.
            asked_at: When it was requested, by the clock.

        Raises:
            FleetError: If it is given up.
        """
        unseen_s = 3 * max((worker.beats_every_s for worker in survey.workers), default=1.0)
        tasks = self.deliveries.tasks
        view = View(
            survey.waiting,
            survey.workers,
            survey.claims,
            tasks,
            self._spec.id,
            unseen_s,
            1 + survey.others,
        )
        verdict = self.liveness.judge(self.watched_s, view)
        if verdict is not None:
            raise self._given_up(verdict)
        if survey.waiting is None:
            return []  # nothing can be sent now
        seen = FleetSnapshot(
            survey.claims,
            {worker.name: worker.running for worker in survey.workers},
            queue_is_empty=survey.waiting == 0,
            leaving={worker.name for worker in survey.workers if worker.slots == 0},
            any_idle=any(worker.slots > len(worker.running) for worker in survey.workers),
            unseen_s=unseen_s,
        )
        return self._recover(asked_at, seen)

    def _recover(self, asked_at: float, seen: FleetSnapshot) -> list[Outcome[Frame]]:
        outcomes: list[Outcome[Frame]] = []
        forgotten = []
        for part, loss in self.deliveries.lost(asked_at, seen):
            match loss:
                case Loss.WORKER_GONE:
                    worker = seen.claims[part.key].worker
                    self._tell_gone(worker)
                    decided = self.deliveries.disappeared(part, worker)
                    outcomes += self._after_crash(decided, loss.value)
                case Loss.CLAIM_LOST:
                    decided = self.deliveries.came_to_nothing(part)
                    outcomes += self._after_crash(decided, loss.value)
                case Loss.UNCLAIMED | Loss.SLOW:
                    forgotten.append(part)
                    self._tell(ChunkResent(part.chunk.index, loss.value))
        if forgotten:
            self._send_again(forgotten)
        return outcomes

    def _tell_gone(self, worker: str) -> None:
        if worker not in self._gone:
            self._gone.add(worker)
            self._tell(WorkerGone(worker))

    @property
    def trouble(self) -> Trouble:
        """Why nothing moves."""
        return self.liveness.trouble(self.watched_s)

    # --- giving up ----------------------------------------------------------------------------

    def lost_job(self) -> JobLostError:
        """Return the error of a job that the store no longer knows."""
        return self._errors.lost_job()

    def _given_up(self, verdict: Verdict) -> FleetError:
        # Only the error of missing workers tells what the store knows of them.
        rejected = self._store.rejected_workers() if isinstance(verdict, NoWorkers) else ""
        return self._errors.given_up(verdict, rejected, self._codes)


def _death(how: str) -> str:
    """Return why a part came to nothing, in words."""
    return "its outputs are too large" if how == TOO_LARGE else f"its process ended: {how}"
