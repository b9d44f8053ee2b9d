"""The one task: claim a chunk, run it, settle it."""

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import redis
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.exceptions import Reject
from celery.worker.request import Request
from celery.worker.state import task_ready

from pyrmute_tasks.adoption import Manager
from pyrmute_tasks.chunks import Outcome, decode_records, encode_outcome
from pyrmute_tasks.codec import Frame, FrameKind, decode_frame, encode_frame, pack
from pyrmute_tasks.distributed.app import TASK_NAME
from pyrmute_tasks.distributed.store import ClaimState, Store
from pyrmute_tasks.errors import (
    CodeMismatchError,
    MigrationError,
    ModelNotFoundError,
    PyrmuteTasksError,
)
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.hooks import HookCounts, use_hooks
from pyrmute_tasks.jobs import JobSpec
from pyrmute_tasks.observability import log
from pyrmute_tasks.plan import MigrationPlan

__all__ = ["ChunkRequest", "ChunkRunner", "RunnerSource", "register_task"]

_STORE_PAUSE_S: Final = 1.0
_EMPTY_OUTPUTS: Final = encode_frame(FrameKind.OBJECTS, 0, pack([]))


class ChunkRunner:
    """Runs chunks of any job against one manager.

    Args:
        manager: The models and steps this worker holds.
        store: Where chunks come from and outcomes go to.
    """

    def __init__(self, manager: Manager, store: Store) -> None:
        self._manager = manager
        self._store = store

    def run(self, job: str, part: str, start: int, task: str, worker: str) -> None:
        """Claim a chunk, run it and settle it; returns quickly if nobody wants it any more.

        Two round trips to the store.

        Args:
            job: The job's id.
            part: The part's key.
            start: Index of its first record.
            task: Id of the task that brought it.
            worker: Name of this worker, as its heartbeat has it.

        Raises:
            Reject: If the store cannot be reached, so that the chunk is delivered again.
        """
        try:
            claim = self._store.claim(job, part, task, worker)
            if claim.state is not ClaimState.CLAIMED:
                log(logging.DEBUG, "chunk_declined", "chunk declined", reason=claim.state.value)
                return
            chunk = int(part.partition(":")[0])
            began = time.perf_counter()
            outcome = self._outcome(claim.spec, claim.frame, chunk, start)
            seconds = time.perf_counter() - began
            outcome = replace(outcome, seconds=seconds, worker=worker)
            self._store.settle(job, part, encode_outcome(outcome))
        except redis.RedisError as error:
            # Out of reach for longer than the store's own retries, or out of memory: the
            # chunk goes back, and not at once, so that it does not run in a tight loop.
            log(logging.ERROR, "store_failed", "the store failed", job=job, part=part)
            time.sleep(_STORE_PAUSE_S)
            raise Reject(reason="the store failed", requeue=True) from error

    def _outcome(self, spec: bytes, frame: bytes, chunk: int, start: int) -> Outcome[bytes]:
        # Whatever goes wrong becomes an outcome: a task that ends without one would leave
        # its collector waiting.
        try:
            return self._migrate(JobSpec.from_wire(spec), frame, chunk, start)
        except PyrmuteTasksError as error:
            failure = RecordFailure.of(start, Stage.DECODE, "", error)
        except Exception as error:
            failure = RecordFailure.of(start, Stage.STEP, "", error)
        return Outcome(chunk, 0, _EMPTY_OUTPUTS, failure)

    def _migrate(self, spec: JobSpec, frame: bytes, chunk: int, start: int) -> Outcome[bytes]:
        plan = self._plan(spec)
        if plan.fingerprint != spec.fingerprint:
            raise CodeMismatchError(
                f"this worker's migrations of {plan} have fingerprint {plan.fingerprint} and the "
                f"producer's have {spec.fingerprint}; deploy the same code to both"
            )
        counts = HookCounts() if spec.count_hooks else None
        hooks = self._manager.hooks.live
        with use_hooks(hooks if counts is None else (counts, *hooks)):
            outputs, count, failure = _run(plan, spec.kind, decode_frame(frame), start)
        return Outcome(
            chunk, count, encode_frame(spec.kind, count, outputs), failure, counts=counts
        )

    def _plan(self, spec: JobSpec) -> MigrationPlan:
        try:
            return self._manager.plan(
                spec.name, spec.from_version, spec.to_version, observe=spec.count_hooks
            )
        except (ModelNotFoundError, MigrationError) as error:
            raise CodeMismatchError(
                f"a worker cannot run {spec}: {str(error).splitlines()[0]}; deploy the same "
                "code to workers and producers"
            ) from None


def _run(
    plan: MigrationPlan, kind: FrameKind, inputs: Frame, start: int
) -> tuple[bytes, int, RecordFailure | None]:
    if kind is FrameKind.LINES:
        return plan.migrate_lines(inputs.payload, start)
    records, failure = plan.migrate(decode_records(inputs), start)
    return pack(records), len(records), failure


class RunnerSource:
    """Makes a child's runner on first use.

    Connections must not be shared with the worker's main process, so nothing is opened
    before the child has been forked.

    Args:
        manager: The manager, loaded once in the main process and shared by forking.
        open_store: Opens a store.
    """

    def __init__(self, manager: Manager, open_store: Callable[[], Store]) -> None:
        self._manager = manager
        self._open_store = open_store
        self._runner: ChunkRunner | None = None
        self._pid = 0

    def __call__(self) -> ChunkRunner:
        """Return this process's runner."""
        if self._runner is None or self._pid != os.getpid():
            self._runner = ChunkRunner(self._manager, self._open_store())
            self._pid = os.getpid()
        return self._runner


class ChunkRequest(Request):
    """A task as the worker's main process sees it: tells the collector if its child dies."""

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Handle a task that ended with an exception, or with its process."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # the pool may wrap it
        if isinstance(error, WorkerLostError) and not self._note_death(_how(error)):
            # Nobody was told: then at least the broker shall deliver it again.
            task_ready(self)
            return self.reject(requeue=True)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Handle a task that took longer than it may; its process has been killed."""
        super().on_timeout(soft, timeout)
        if not soft:
            self._note_death(f"time limit of {timeout:g} s")

    def _note_death(self, how: str) -> bool:
        try:
            job, part, *_ = self.args
            task: Any = self.task
            task.open_store().note_death(job, part, how)
        except (redis.RedisError, TypeError, ValueError) as error:
            log(
                logging.ERROR,
                "death_untold",
                "could not tell of a death",
                error=type(error).__name__,
            )
            return False
        return True


_SIGNAL: Final = re.compile(r"signal (\d+) \((\w+)\)")
_EXIT: Final = re.compile(r"exitcode (-?\d+)")


def _how(error: Exception) -> str:
    """Return how a child died, from what Celery's pool says of it."""
    text = str(error)
    if found := _SIGNAL.search(text):
        return f"signal {found[1]} ({found[2]})"
    found = _EXIT.search(text)
    return f"exit status {found[1]}" if found else "unknown"


def register_task(
    app: Celery,
    runner: RunnerSource,
    worker_name: Callable[[str], str],
    open_store: Callable[[], Store],
) -> None:
    """Register the task with a worker's application.

    Args:
        app: The worker's application.
        runner: Called in the child that runs chunks; returns the child's own runner.
        worker_name: Makes the heartbeat's name of a worker from its node name.
        open_store: Returns the store as the worker's main process uses it.
    """

    def migrate_chunk(task: Any, job: str, part: str, start: int) -> None:
        request = task.request
        runner().run(job, part, start, request.id, worker_name(request.hostname))

    task: Any = app.task(name=TASK_NAME, bind=True)(migrate_chunk)
    task.Request = ChunkRequest
    task.open_store = staticmethod(open_store)
