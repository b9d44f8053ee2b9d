"""Claim a chunk, run it and settle it; or decline it, or give it up."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import redis

from pyrmute_tasks.distributed.internals.celery_worker import requeue_task
from pyrmute_tasks.distributed.protocol import (
    STORAGE,
    STORAGE_NOW,
    TOO_LARGE,
    Claim,
    ClaimState,
    storage_trouble,
)
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.worker.outcomes import (
    Assignment,
    encode_safely,
    failed_outcome,
    ran_out_of_memory,
    too_large_outcome,
    with_worker,
)
from pyrmute_tasks.distributed.worker.range_runner import RangeRunner, UnreachableError
from pyrmute_tasks.distributed.worker.task_results import TaskResult
from pyrmute_tasks.engine.chunk_runs import run_plan
from pyrmute_tasks.engine.chunks import Outcome
from pyrmute_tasks.engine.job_spec import JobSpec, OnCodeMismatch
from pyrmute_tasks.errors import (
    FrameError,
    FrameTooLargeError,
    MigrationError,
    ModelNotFoundError,
    PyrmuteTasksError,
    SignatureError,
)
from pyrmute_tasks.failures import Stage
from pyrmute_tasks.hooks import HookCounts, use_hooks
from pyrmute_tasks.logs import log
from pyrmute_tasks.plans.codegen_helpers import Interruption
from pyrmute_tasks.plans.fingerprint.differences import root_of
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.pyrmute_adapter import FleetManager
from pyrmute_tasks.ranges.roots import Roots
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame, encode_frame

__all__ = ["ChunkRunner", "Declined", "Terminated", "TimeIsUp"]

_STORE_PAUSE_S: Final = 1.0
_DECLINE_PAUSE_S: Final = 0.5
_MAX_PREPARED: Final = 64
_NO_INPUTS: Final = Frame(FrameKind.OBJECTS, 0, b"")


@dataclass(frozen=True, slots=True)
class Declined:
    """A chunk that this worker cannot or must not run, for its code or its storage.

    Attributes:
        held: What it holds instead: `FingerprintTree.to_wire`, or what is missing; or why it
            cannot run a range by reference.
        is_lasting: It declines the job's other chunks, too.
    """

    held: str
    is_lasting: bool = True

    @property
    def root(self) -> str:
        """What it holds, without the tree's entries: these are sent once a job."""
        return root_of(self.held)


# Above 250 lines: from claim to settling, each way a chunk can end.
class ChunkRunner:
    """Runs chunks of any job against one manager.

    Args:
        manager: The models and steps this worker holds.
        store: Where chunks come from and outcomes go to.
        soft_time_limit_s: How long a chunk may take, for messages.
        roots: Where it may read and write by reference; by default nowhere.
    """

    def __init__(
        self,
        manager: FleetManager,
        store: Store,
        soft_time_limit_s: float,
        roots: Roots | None = None,
    ) -> None:
        self._manager = manager
        self._store = store
        self._limit_s = soft_time_limit_s
        self._ranges = RangeRunner(roots or Roots())
        self._prepared: dict[bytes, tuple[JobSpec, MigrationPlan]] = {}
        self._declined: dict[str, Declined] = {}  # by job
        self._is_running = False
        self._interruption: Interruption | None = None
        self._result = TaskResult("")  # of the chunk that runs

    def run(self, asked: Assignment) -> TaskResult:
        """Claim a chunk, run it and settle it; returns quickly if it is no longer wanted.

        Two round trips to the store.

        Returns:
            What became of it.

        Raises:
            Reject: If the store cannot be reached, so that the chunk is delivered again.
        """
        try:
            if asked.job in self._declined:
                self._decline(asked, self._declined[asked.job])
            else:
                self._claim_and_run(asked)
        except SignatureError as error:
            _log_rejected(asked.task, f"what the store holds for it is not to be trusted: {error}")
            self._store.reject(asked.job, asked.part, asked.task, f"its input: {error}")
            return TaskResult.trouble(f"rejected: {error}")
        except redis.RedisError as error:
            # Out of reach for longer than the store's own retries, or out of memory: the
            # chunk goes back, and not at once, so that it does not run in a tight loop.
            log(
                logging.ERROR,
                "store_failed",
                "the store failed",
                job=asked.job,
                part=asked.part,
                error=type(error).__name__,
            )
            if "WRONGTYPE" not in str(error):
                time.sleep(_STORE_PAUSE_S)
                requeue_task("the store failed")
            # Else it will never be right: no worker of ours wrote that key.
            return TaskResult.trouble("not settled: the store holds something else in its place")
        return self._result

    def _claim_and_run(self, asked: Assignment) -> None:
        claim = self._store.claim(asked.job, asked.part, asked.task, asked.worker)
        if claim.state is ClaimState.CLAIMED:
            self._run_claimed(asked, claim)
            return
        self._result = TaskResult.of_unclaimed(claim.state)
        log(
            logging.INFO if claim.state is ClaimState.GONE else logging.DEBUG,
            "chunk_declined",
            "chunk declined",
            reason=claim.state.value,
            job=asked.job,
            part=asked.part,
        )

    def _run_claimed(self, asked: Assignment, claim: Claim) -> None:
        self._interruption = None
        try:
            self._is_running = True
            outcome = self._outcome(asked, claim)
        except _ForeignTaskError:
            why = "it names another fingerprint than its job does"
            _log_rejected(asked.task, why)
            self._result = TaskResult.trouble(f"rejected: {why}")
            return
        except MemoryError:
            self._give_up(asked, "out of memory")
            return
        except FrameTooLargeError:
            self._give_up(asked, TOO_LARGE)
            return
        except Interruption:
            outcome = b""
        finally:
            self._is_running = False
        if isinstance(outcome, Declined):
            self._decline_job(asked, outcome)
            return
        # Also if a step has swallowed it: what it made of the record says nothing then.
        match self._interrupted_by():
            case TimeIsUp():
                self._give_up(asked, f"time limit of {self._limit_s:g} s")
            case Terminated() as terminated:
                log(
                    logging.WARNING,
                    "chunk_interrupted",
                    "the pool ends this process; its chunk is sent again",
                    job=asked.job,
                    part=asked.part,
                )
                terminated.end_process()
            case _:
                self._store.settle(asked.job, asked.part, outcome)

    def _interrupted_by(self) -> Interruption | None:
        return self._interruption

    def interrupt(self, interruption: Interruption) -> None:
        """End the chunk that runs, if one does; called from a signal handler.

        Raises:
            Interruption: Through whatever the chunk was doing.
        """
        if self._is_running:
            self._is_running = False
            self._interruption = interruption
            raise interruption

    # --- chunks that are not run to their end --------------------------------------------

    def _give_up(self, asked: Assignment, why: str) -> None:
        """Report a chunk that is given up like one that has killed its process."""
        self._result = TaskResult.trouble(f"given up: {why}")
        log(logging.WARNING, "chunk_given_up", why, job=asked.job, part=asked.part)
        self._store.note_crash(asked.job, asked.part, why, asked.task)

    def _decline_job(self, asked: Assignment, declined: Declined) -> None:
        """Decline a job's first chunk with all that this worker holds; later ones by its root."""
        if declined.is_lasting:
            if len(self._declined) >= _MAX_PREPARED:
                self._declined.clear()
            self._declined[asked.job] = Declined(declined.root)
        by_reference = bool(storage_trouble(declined.held))
        log(
            logging.WARNING,
            "range_declined" if by_reference else "code_declined",
            "this worker cannot run a range by reference"
            if by_reference
            else "this worker's migrations differ from the producer's: its chunks are declined",
            job=asked.job,
            worker=asked.worker,
            code=declined.root,
            wanted=asked.arguments.fingerprint,
        )
        self._decline(asked, declined)

    def _decline(self, asked: Assignment, declined: Declined) -> None:
        held = declined.held
        why = storage_trouble(held) or "this worker has other migrations"
        self._result = TaskResult.trouble(f"declined: {why}")
        wanted = self._store.decline(asked.job, asked.part, asked.task, asked.worker, held)
        if wanted:
            # It is redelivered at once: give workers that can run it time to take it first.
            time.sleep(_DECLINE_PAUSE_S)

    # --- running --------------------------------------------------------------------------

    def _outcome(self, asked: Assignment, claim: Claim) -> bytes | Declined:
        # Whatever goes wrong becomes an outcome: a task that ends without one would leave
        # its collector waiting.
        began = time.perf_counter()
        inputs = _NO_INPUTS
        try:
            prepared = self._prepare(asked, claim.spec)
            if isinstance(prepared, Declined):
                return prepared
            spec, plan = prepared
            inputs = decode_frame(claim.frame)
            outcome = self._migrate(asked, spec, plan, inputs)
        except (MemoryError, _ForeignTaskError):
            raise
        except UnreachableError as error:
            begin = STORAGE if error.is_lasting else STORAGE_NOW
            return Declined(f"{begin}{error.reason}", error.is_lasting)
        except FrameTooLargeError as error:
            outcome = too_large_outcome(asked, inputs, error)
        except PyrmuteTasksError as error:
            outcome = failed_outcome(asked, Stage.DECODE, error, inputs.kind)
        except Exception as error:
            outcome = failed_outcome(asked, Stage.STEP, error, inputs.kind)
        # A range has seen to that: its count is not a number of records.
        is_many = inputs.count > 1 and inputs.kind is not FrameKind.RANGES
        if is_many and any(ran_out_of_memory(bad.error) for bad in outcome.failures):
            raise MemoryError  # the record is found by halving; its own it may keep
        seconds = time.perf_counter() - began
        try:
            encoded = encode_safely(with_worker(outcome, asked.worker, seconds))
        except FrameTooLargeError as error:
            outcome = too_large_outcome(asked, inputs, error)
            encoded = encode_safely(with_worker(outcome, asked.worker, seconds))
        self._result = TaskResult.of(outcome, seconds, self._spec_of(claim), asked.worker)
        return encoded

    def _migrate(
        self, asked: Assignment, spec: JobSpec, plan: MigrationPlan, inputs: Frame
    ) -> Outcome[bytes]:
        counts = HookCounts(hooks=self._manager.hooks) if spec.count_hooks else None
        hooks = self._manager.hooks.live
        with use_hooks(hooks if counts is None else (counts, *hooks)):
            if spec.kind is FrameKind.RANGES:
                framed, count, failures = self._ranges.run(
                    plan, asked.part, inputs, skips=spec.skips
                )
            else:
                outputs, count, failures = run_plan(
                    plan, spec.kind, inputs, asked.arguments.start, skips=spec.skips
                )
                framed = encode_frame(spec.kind, count, outputs, spec.compression)
        return Outcome(
            asked.chunk,
            count,
            framed,
            tuple(failures.found),
            counts=counts,
            is_final=failures.ended,
        )

    def _spec_of(self, claim: Claim) -> JobSpec | None:
        if claim.spec in self._prepared:
            return self._prepared[claim.spec][0]
        spec = _spec(claim.spec)  # its plan could not be made
        return spec if isinstance(spec, JobSpec) else None

    def _prepare(self, asked: Assignment, data: bytes) -> tuple[JobSpec, MigrationPlan] | Declined:
        found = self._prepared.get(data)
        if found is None:
            spec = _spec(data)
            if isinstance(spec, Declined):
                return spec
            if spec.fingerprint != asked.arguments.fingerprint:
                raise _ForeignTaskError
            plan = self._plan(asked, spec)
            if isinstance(plan, Declined):
                return plan
            found = spec, plan
            if len(self._prepared) >= _MAX_PREPARED:
                self._prepared.clear()
            self._prepared[data] = found
        if found[0].fingerprint != asked.arguments.fingerprint:
            raise _ForeignTaskError
        return found

    def _plan(self, asked: Assignment, spec: JobSpec) -> MigrationPlan | Declined:
        """Return the plan for a job, unless this worker cannot or must not run it."""
        try:
            plan = self._manager.plan(
                spec.name, spec.from_version, spec.to_version, observe=spec.count_hooks
            )
        except (ModelNotFoundError, MigrationError) as error:
            return Declined(" ".join(str(error).split()))
        if plan.fingerprint != spec.fingerprint:
            if spec.on_code_mismatch is OnCodeMismatch.REJECT:
                return Declined(plan.fingerprint_tree.to_wire())
            log(
                logging.WARNING,
                "code_differs",
                "this worker's migrations differ from the producer's and run all the same",
                job=spec.id,
                worker=asked.worker,
                code=plan.fingerprint,
                wanted=spec.fingerprint,
            )
        return plan if spec.retry is None else plan.with_retry(spec.retry)


def _spec(data: bytes) -> JobSpec | Declined:
    try:
        return JobSpec.from_wire(data)
    except FrameError as error:
        # A release that writes it otherwise: during an upgrade others can read it.
        return Declined(f"a pyrmute-tasks that cannot read the job: {error}")


class _ForeignTaskError(Exception):
    """A message that this job's producer has not written."""


class TimeIsUp(Interruption):
    """The soft time limit has passed."""


class Terminated(Interruption):
    """The pool ends this process, as it does when the connection to the broker is lost.

    Args:
        end_process: Ends it as the pool wants it.
    """

    def __init__(self, end_process: Callable[[], object]) -> None:
        self.end_process = end_process
        super().__init__()


def _log_rejected(task: str, why: str) -> None:
    log(logging.ERROR, "message_rejected", f"a message is rejected: {why}", task=task)
