"""The one task: claim a chunk, run it, settle it."""

import logging
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import redis
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.exceptions import Reject
from celery.worker.request import Request
from celery.worker.state import task_ready

from pyrmute_tasks.distributed.app import TASK_NAME
from pyrmute_tasks.distributed.protocol import TOO_LARGE, Claim, ClaimState
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.distributed.worker.children import allow_processes
from pyrmute_tasks.engine.chunks import Outcome, decode_records, encode_outcome
from pyrmute_tasks.engine.job_spec import JobSpec, OnCodeMismatch
from pyrmute_tasks.errors import (
    FrameError,
    FrameTooLargeError,
    MigrationError,
    ModelNotFoundError,
    PyrmuteTasksError,
    RemoteError,
    SignatureError,
)
from pyrmute_tasks.failures import RecordFailure, Stage, causes_of, describe_safely
from pyrmute_tasks.hooks import HookCounts, use_hooks
from pyrmute_tasks.logs import log
from pyrmute_tasks.plans.codegen import Interruption, Output, OutputKind
from pyrmute_tasks.plans.fingerprint.differences import root_of
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.pyrmute_adapter import Manager
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import (
    Frame,
    FrameKind,
    decode_frame,
    encode_frame,
    join_packed,
    pack,
    pack_record,
)

__all__ = ["Assignment", "ChunkRequest", "ChunkRunner", "RunnerSource", "register_task"]

_STORE_PAUSE_S: Final = 1.0
_DECLINE_PAUSE_S: Final = 0.5
_MAX_PREPARED: Final = 64
_LEAST_LINE: Final = 3
_TERMINATING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_EMPTY_OUTPUTS: Final = encode_frame(FrameKind.OBJECTS, 0, pack([]))
_PACKED: Final = Output(OutputKind.PACKED, pack=pack_record)
_NO_INPUTS: Final = Frame(FrameKind.OBJECTS, 0, b"")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a task asks for.

    Attributes:
        arguments: The task's arguments.
        task: The task's id.
        worker: Name of this worker, as its heartbeat has it.
    """

    arguments: TaskArguments
    task: str
    worker: str

    @property
    def job(self) -> str:
        """The job's id."""
        return self.arguments.job

    @property
    def part(self) -> str:
        """The part's key."""
        return self.arguments.part

    @property
    def chunk(self) -> int:
        """Index of the chunk that the part belongs to."""
        return int(self.part.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Declined:
    """A chunk that this worker cannot or must not run, as its code differs.

    Attributes:
        held: What it holds instead: `FingerprintTree.to_wire`, or what is missing.
    """

    held: str

    @property
    def root(self) -> str:
        """What it holds, without the tree's entries, which are told once a job."""
        return root_of(self.held)


class ChunkRunner:
    """Runs chunks of any job against one manager.

    Args:
        manager: The models and steps this worker holds.
        store: Where chunks come from and outcomes go to.
        soft_time_limit_s: How long a chunk may take, for messages.
    """

    def __init__(self, manager: Manager, store: Store, soft_time_limit_s: float) -> None:
        self._manager = manager
        self._store = store
        self._limit_s = soft_time_limit_s
        self._prepared: dict[bytes, tuple[JobSpec, MigrationPlan]] = {}
        self._declined: dict[str, Declined] = {}  # by job
        self._is_running = False
        self._interruption: Interruption | None = None

    def run(self, asked: Assignment) -> None:
        """Claim a chunk, run it and settle it; returns quickly if nobody wants it any more.

        Two round trips to the store.

        Raises:
            Reject: If the store cannot be reached, so that the chunk is delivered again.
        """
        try:
            if asked.job in self._declined:
                self._decline(asked, self._declined[asked.job])
                return
            claim = self._store.claim(asked.job, asked.part, asked.task, asked.worker)
            if claim.state is not ClaimState.CLAIMED:
                gone = claim.state is ClaimState.GONE
                log(
                    logging.INFO if gone else logging.DEBUG,
                    "chunk_declined",
                    "chunk declined",
                    reason=claim.state.value,
                    job=asked.job,
                    part=asked.part,
                )
                return
            self._run_claimed(asked, claim)
        except SignatureError as error:
            _reject(asked.task, f"what the store holds for it is not to be trusted: {error}")
            self._store.reject(asked.job, asked.part, asked.task, f"its input: {error}")
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
            if "WRONGTYPE" in str(error):
                return  # it will never be right: no worker of ours wrote that key
            time.sleep(_STORE_PAUSE_S)
            raise Reject(reason="the store failed", requeue=True) from None

    def _run_claimed(self, asked: Assignment, claim: Claim) -> None:
        self._interruption = None
        try:
            self._is_running = True
            outcome = self._outcome(asked, claim)
        except _ForeignTaskError:
            _reject(asked.task, "it names another fingerprint than its job does")
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
        """The chunk did not kill this process, but might as well have."""
        log(logging.WARNING, "chunk_given_up", why, job=asked.job, part=asked.part)
        self._store.note_crash(asked.job, asked.part, why, asked.task)

    def _decline_job(self, asked: Assignment, declined: Declined) -> None:
        """Decline a job's first chunk with all that this worker holds; later ones by its root."""
        if len(self._declined) >= _MAX_PREPARED:
            self._declined.clear()
        self._declined[asked.job] = Declined(declined.root)
        log(
            logging.WARNING,
            "code_declined",
            "this worker's migrations differ from the producer's: its chunks are declined",
            job=asked.job,
            worker=asked.worker,
            code=declined.root,
            wanted=asked.arguments.fingerprint,
        )
        self._decline(asked, declined)

    def _decline(self, asked: Assignment, declined: Declined) -> None:
        held = declined.held
        wanted = self._store.decline(asked.job, asked.part, asked.task, asked.worker, held)
        if wanted:
            # It comes back at once. Workers that can run it shall be quicker to take it.
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
        except FrameTooLargeError as error:
            outcome = _too_large(asked, inputs, error)
        except PyrmuteTasksError as error:
            outcome = _failed(asked, Stage.DECODE, error)
        except Exception as error:
            outcome = _failed(asked, Stage.STEP, error)
        if inputs.count > 1 and any(_ran_out_of_memory(bad.error) for bad in outcome.failures):
            raise MemoryError  # the record is found by halving; its own it may keep
        seconds = time.perf_counter() - began
        try:
            return _encoded(_signed_off(outcome, asked.worker, seconds))
        except FrameTooLargeError as error:
            outcome = _too_large(asked, inputs, error)
            return _encoded(_signed_off(outcome, asked.worker, seconds))

    def _migrate(
        self, asked: Assignment, spec: JobSpec, plan: MigrationPlan, inputs: Frame
    ) -> Outcome[bytes]:
        counts = HookCounts(hooks=self._manager.hooks) if spec.count_hooks else None
        hooks = self._manager.hooks.live
        with use_hooks(hooks if counts is None else (counts, *hooks)):
            outputs, count, failure = _run(plan, spec.kind, inputs, asked.arguments.start)
        framed = encode_frame(spec.kind, count, outputs, spec.compression)
        failures = (failure,) if failure is not None else ()
        return Outcome(asked.chunk, count, framed, failures, counts=counts)

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


def _reject(task: str, why: str) -> None:
    log(logging.ERROR, "message_rejected", f"a message is rejected: {why}", task=task)


def _failed(asked: Assignment, stage: Stage, error: Exception) -> Outcome[bytes]:
    log(
        logging.ERROR,
        "chunk_rejected",
        "a chunk cannot be run",
        job=asked.job,
        part=asked.part,
        error=describe_safely(error),
    )
    failure = RecordFailure.of(asked.arguments.start, stage, "", error)
    return Outcome(asked.chunk, 0, _EMPTY_OUTPUTS, (failure,))


def _too_large(asked: Assignment, inputs: Frame, error: FrameTooLargeError) -> Outcome[bytes]:
    """Return the outcome of a part whose outputs are too large to travel.

    Raises:
        FrameTooLargeError: If it can be halved: then each half may travel.
    """
    if inputs.count > 1:
        raise error
    return _failed(asked, Stage.ENCODE, error)


def _signed_off(outcome: Outcome[bytes], worker: str, seconds: float) -> Outcome[bytes]:
    """Note on an outcome, and on its failures, who worked on it and how long."""
    failures = tuple(replace(failure, worker=worker) for failure in outcome.failures)
    return replace(outcome, failures=failures, seconds=seconds, worker=worker)


def _encoded(outcome: Outcome[bytes]) -> bytes:
    try:
        return encode_outcome(outcome)
    except Exception:
        if not outcome.failures:
            raise
        # A step's exception is somebody's code, and may not even let itself be looked at.
        failures = tuple(map(_stood_in_for, outcome.failures))
        return encode_outcome(replace(outcome, failures=failures))


def _stood_in_for(failure: RecordFailure) -> RecordFailure:
    kind = type(failure.error)
    stand_in = RemoteError(f"{kind.__module__}.{kind.__qualname__}", "")
    return replace(failure, error=stand_in, traceback="not available")


def _ran_out_of_memory(error: BaseException) -> bool:
    return any(isinstance(cause, MemoryError) for cause in causes_of(error))


def _run(
    plan: MigrationPlan, kind: FrameKind, inputs: Frame, start: int
) -> tuple[bytes, int, RecordFailure | None]:
    if inputs.kind is not kind:
        raise FrameError("a frame is of another kind than its job")
    if kind is FrameKind.LINES:
        lines = bytes(inputs.payload)
        # A line holds {} at least. A bomb of empty ones would become a list many times its size.
        if lines.count(b"\n") != inputs.count or len(lines) < _LEAST_LINE * inputs.count:
            raise FrameError("a frame does not hold the records it announces")
        return plan.migrate_lines(lines, start)
    records, failure = plan.run(decode_records(inputs), _PACKED, start)
    return join_packed(records), len(records), failure


class RunnerSource:
    """Makes a child's runner on first use.

    Connections must not be shared with the worker's main process, so nothing is opened
    before the child has been forked.

    Args:
        manager: The manager, loaded once in the main process and shared by forking.
        settings: Where the store is, and what a chunk may use.
    """

    def __init__(self, manager: Manager, settings: Settings) -> None:
        self._manager = manager
        self._settings = settings
        self._runner: ChunkRunner | None = None
        self._handlers: dict[signal.Signals, Callable[..., object]] = {}
        self._pid = 0

    def __call__(self) -> ChunkRunner:
        """Return this process's runner, to run a chunk at once."""
        if self._runner is None or self._pid != os.getpid():
            self._runner = self._begin()
            self._pid = os.getpid()
        for number, handler in self._handlers.items():
            # A step, or what it has imported, may have put its own in place.
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        return self._runner

    def _begin(self) -> ChunkRunner:
        settings = self._settings
        allow_processes()
        runner = ChunkRunner(self._manager, Store(settings), settings.soft_time_limit_s)
        # The pool sends this signal at the soft limit. Its own handler raises what a step
        # may catch, and what would be taken for the step's error.
        self._handlers = {signal.SIGUSR1: lambda *_: runner.interrupt(TimeIsUp())}
        for number in _TERMINATING:
            end = signal.getsignal(number)
            if callable(end):
                self._handlers[number] = _interrupting(number, end, runner)
        if settings.memory_limit_bytes:
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (settings.memory_limit_bytes, most))
        return runner


def _interrupting(
    number: signal.Signals, end: Callable[..., object], runner: ChunkRunner
) -> Callable[..., object]:
    """Let a signal that ends this process interrupt the chunk that runs first.

    The pool's own handler, `end`, calls `sys.exit`, which would look as if the step had.
    """
    interruption = Terminated(partial(end, number, None))

    def handle(*_: object) -> None:
        runner.interrupt(interruption)
        end(number, None)

    return handle


class ChunkRequest(Request):
    """A task as the worker's main process sees it: tells the collector if its child dies."""

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Handle a task that ended with an exception, or with its process."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # the pool may wrap it
        if isinstance(error, WorkerLostError) and not self._note_crash(_how(error)):
            # Nobody was told: then at least the broker shall deliver it again.
            task_ready(self)
            return self.reject(requeue=True)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Handle a task that took longer than it may; its process has been killed."""
        super().on_timeout(soft, timeout)
        if not soft:
            self._note_crash(f"time limit of {timeout:g} s")

    def _note_crash(self, how: str) -> bool:
        try:
            asked = TaskArguments.parse(self.args)
            task: Any = self.task
            task.open_store().note_crash(asked.job, asked.part, how, self.id)
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

    # The signature has been checked before Celery looked at the message.
    def migrate_chunk(task: Any, *args: str | int) -> None:
        request = task.request
        worker = worker_name(request.hostname)
        runner().run(Assignment(TaskArguments.parse(args), request.id, worker))

    task: Any = app.task(name=TASK_NAME, bind=True)(migrate_chunk)
    task.Request = ChunkRequest
    task.open_store = staticmethod(open_store)
