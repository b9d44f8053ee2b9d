"""Celery's worker: its process, command line, event loop, tasks and signals."""

import sys
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NoReturn, Protocol

from celery import Celery
from celery.apps.worker import Worker
from celery.bootsteps import StartStopStep
from celery.concurrency.prefork import TaskPool
from celery.exceptions import CPendingDeprecationWarning, Reject, WorkerShutdown
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down
from celery.utils.dispatch import Signal
from celery.utils.text import str_to_list
from celery.worker import state
from celery.worker.request import Request

from pyrmute_tasks.distributed.internals import billiard_pool
from pyrmute_tasks.distributed.internals.kombu_transport import forget_cancelled

__all__ = [
    "EventLoop",
    "LoopStep",
    "WatchedRequest",
    "WorkerHooks",
    "WorkerOptions",
    "end_worker",
    "hide_connection_loss_warnings",
    "new_signal",
    "requeue_task",
    "run_command_line",
    "running_tasks",
    "send_task_event",
    "stop_if_asked",
    "stop_worker",
    "use_hooks",
]

_state: Final[Any] = state


# --- the process ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker was started with.

    Attributes:
        is_prefork: Its pool has a child process per slot.
        queues: Queues named by ``-Q``.
        excluded: Queues named by ``-X``.
    """

    is_prefork: bool
    queues: frozenset[str]
    excluded: frozenset[str]


class WorkerHooks(Protocol):
    """Called by the worker of one application, in its main process."""

    def check_options(self, options: WorkerOptions) -> None:
        """Raise `SystemExit` if the worker must not start with these options."""

    def load(self) -> None:
        """Import what the worker runs; Celery has imported its modules, and Django is set up."""

    def change_process(self) -> None:
        """Make process-wide changes; the process is the worker's own."""

    def about_to_fork(self) -> None:
        """Prepare for children: everything is imported."""

    def became_ready(self, node: str, slots: int) -> None:
        """Register the worker `node`, which runs up to `slots` tasks at a time."""

    def began_leaving(self) -> None:
        """Handle the start of a shutdown: the worker takes no more tasks."""

    def ended(self) -> None:
        """Handle the end of the worker."""


_Base: Any = Worker  # its stubs lack most of it


class _HookedWorker(_Base):  # type: ignore[misc]  # it is a class
    hooks: ClassVar[WorkerHooks]

    def on_before_init(self, **options: Any) -> None:
        """Import models and steps: after Celery's own imports, and before its first warning."""
        self.hooks.load()
        super().on_before_init(**options)

    def setup_instance(
        self, queues: Any = None, exclude_queues: Any = None, **options: Any
    ) -> None:
        """Check the options and set the worker up."""
        pool = self.pool_cls
        self.hooks.check_options(
            WorkerOptions(
                pool == "prefork" or (isinstance(pool, type) and issubclass(pool, TaskPool)),
                frozenset(str_to_list(queues) or ()),
                frozenset(str_to_list(exclude_queues) or ()),
            )
        )
        self.hooks.change_process()
        _Signals(self, self.hooks).connect()
        super().setup_instance(queues=queues, exclude_queues=exclude_queues, **options)


def use_hooks(app: Celery, hooks: WorkerHooks) -> None:
    """Let the worker of `app` call `hooks`."""
    owner: Any = app
    kind = type("ChunkWorker", (_HookedWorker,), {"hooks": hooks})
    owner.Worker = app.subclass_with_self(kind)  # Celery makes its own on first use


class _Signals:
    """Forwards the signals of one worker to its hooks, and those of no other in this process."""

    def __init__(self, worker: Any, hooks: WorkerHooks) -> None:
        self._worker = worker
        self._hooks = hooks

    def connect(self) -> None:
        # Celery keeps only weak references to receivers otherwise.
        worker_init.connect(self._init, weak=False)
        worker_ready.connect(self._ready, weak=False)
        worker_shutting_down.connect(self._leaving, weak=False)
        worker_shutdown.connect(self._ended, weak=False)

    def _init(self, sender: Any, **_: Any) -> None:
        if sender is self._worker:
            self._hooks.about_to_fork()

    def _ready(self, sender: Any, **_: Any) -> None:  # the sender is the worker's consumer
        if sender.app is self._worker.app:
            self._hooks.became_ready(sender.hostname, sender.controller.concurrency)

    def _leaving(self, sender: Any, **_: Any) -> None:
        if sender == self._worker.hostname:
            self._hooks.began_leaving()

    def _ended(self, sender: Any, **_: Any) -> None:
        if sender is self._worker:
            self._hooks.ended()


def run_command_line(app: Celery, arguments: list[str] | None) -> int:
    """Run Celery's command line for `app` and return its status, which Celery's own drops.

    The variables that it reads besides (``APP``, ``BROKER_URL``…) are somebody else's.

    Raises:
        click.ClickException: If an argument is wrong.
        click.exceptions.Exit: With the status, if the command ends by itself.
        ImportError: If the options name a pool that is not installed.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["worker"]:
        return _run_worker(app, given[1:])
    from celery.bin.celery import celery as celery_command  # slow: all commands and plugins

    command: Any = celery_command
    command.params[0].default = app
    for option in command.params:
        option.envvar = None
    status: int = command.main(args=given, standalone_mode=False)
    return status


def _run_worker(app: Celery, arguments: list[str]) -> int:
    """Run the one command, without the imports of the others: a fifth of a worker's start."""
    from celery.bin.base import CLIContext
    from celery.bin.worker import worker  # for workers only, as the former

    command: Any = worker
    context = CLIContext(app=app, no_color=False, workdir=None)
    status: int = command.main(arguments, "celery worker", standalone_mode=False, obj=context)
    return status


def hide_connection_loss_warnings() -> None:
    """Hide a warning at each lost connection, about a setting that is chosen with care."""
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


def stop_worker(status: int) -> None:
    """Ask this process's worker to end with a status; from any thread."""
    _state.should_stop = status


def stop_if_asked() -> None:
    """End the worker if it was asked to; from its main thread, while it pauses.

    Raises:
        SystemExit: Celery's, which ends the worker.
    """
    _state.maybe_shutdown()


def end_worker(status: int) -> NoReturn:
    """End the worker with a status; from its main thread.

    Raises:
        SystemExit: Celery's, which ends the worker.
    """
    raise WorkerShutdown(status)


def running_tasks() -> list[str]:
    """Return the ids of the tasks that this process's worker holds; from any thread."""
    while True:
        try:
            # What was running when the connection was lost is no longer among the reserved.
            requests = {*state.reserved_requests, *state.active_requests}
            return [request.id for request in requests]
        except RuntimeError:
            continue  # the main thread changed the set meanwhile


# --- the event loop ---------------------------------------------------------------------------


class EventLoop:
    """A worker's event loop and pool, until its connection to the broker is lost.

    Args:
        hub: Celery's event loop.
        pool: Celery's pool.
    """

    def __init__(self, hub: Any, pool: Any) -> None:
        self._hub = hub
        self._pool = pool

    def call_every(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function periodically, in the main thread."""
        self._hub.call_repeatedly(seconds, function)

    def child_pids(self) -> Iterable[int]:
        """Return the process ids of the pool's children."""
        return [child.pid for child in self._pool._pool._pool]  # noqa: SLF001  # no public way

    def replace_dead_children(self) -> None:
        """Replace children that have died; Celery looks for them every five seconds."""
        self._pool.maintain_pool()

    def forget_cancelled_timers(self) -> None:
        """Drop cancelled timers: Celery sets two a task, for a quarter of an hour."""
        forget_cancelled(self._hub.timer)


class LoopStep(StartStopStep):
    """A step of the consumer, started again with each connection to the broker.

    The event loop forgets its timers when the connection is lost.
    """

    requires: Any = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Begin; called by Celery."""
        if parent.hub is not None:
            self.begin(EventLoop(parent.hub, parent.pool))

    @abstractmethod
    def begin(self, loop: EventLoop) -> None:
        """Set timers."""


# --- tasks ------------------------------------------------------------------------------------


def new_signal(name: str, arguments: Iterable[str]) -> Any:
    """Return a signal like Celery's own: receivers are connected, and what they raise is logged.

    Args:
        name: Its name.
        arguments: Names of what it is sent with.
    """
    return Signal(name=name, providing_args=list(arguments))


def send_task_event(task: Any, kind: str, **fields: object) -> None:
    """Send an event about the task that runs in this child, once, if the worker sends events.

    Args:
        task: The task.
        kind: The event's type, ``task-…``.
        **fields: What it tells, as plain JSON.
    """
    if task.app.conf.worker_send_task_events:
        task.send_event(kind, retry=False, **fields)


def requeue_task(reason: str) -> NoReturn:
    """Return the task that runs in this child to the broker.

    Raises:
        Reject: Celery's; nothing follows.
    """
    raise Reject(reason=reason, requeue=True) from None


class WatchedRequest(Request):
    """A task in the worker's main process, with handlers for the death of its child."""

    @abstractmethod
    def note_crash(self, how: str) -> bool:
        """Report that the child died; False if that is not possible."""

    @property
    def arguments(self) -> list[Any]:
        """The task's arguments."""
        return list(self.args)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Handle a task that ended with an exception, or with its process."""
        how = billiard_pool.crash_description(exc_info.exception)
        if how is not None and not self.note_crash(how):
            # The collector was not told: have the broker deliver it again.
            _state.task_ready(self)
            return self.reject(requeue=True)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Handle a task that took longer than it may; its process has been killed."""
        super().on_timeout(soft, timeout)
        if not soft:
            self.note_crash(f"time limit of {timeout:g} s")
