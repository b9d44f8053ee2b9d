"""What makes a Celery worker one of ours: its manager, its task and its heartbeat."""

import atexit
import gc
import heapq
import importlib
import logging
import os
import secrets
import sys
import threading
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, Final, NoReturn

import billiard.pool
import click
import redis
from celery import Celery
from celery.apps.worker import Worker
from celery.bootsteps import StartStopStep
from celery.concurrency.prefork import TaskPool
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down
from celery.utils.text import str_to_list
from celery.worker import state

from pyrmute_tasks.distributed.app import FleetApp
from pyrmute_tasks.distributed.refusals import find_refusal, reason_of
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.worker.children import FrozenChildren
from pyrmute_tasks.distributed.worker.message_filter import consumer_of
from pyrmute_tasks.distributed.worker.runner_source import RunnerSource
from pyrmute_tasks.distributed.worker.task import register_task
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.logs import hide_password, log
from pyrmute_tasks.pyrmute_adapter import load_manager
from pyrmute_tasks.settings import Settings, signer_of

__all__ = ["Heartbeat", "create_worker_app"]

_GOODBYE_S: Final = 2.0
_LAST_RESULT_TRIES: Final = 10  # of a tenth of a second
_LOOK_AFTER_CHILDREN_S: Final = 0.25
_FORGET_TIMERS_S: Final = 2.0
_OTHER_POOL: Final = (
    "error: workers need --pool=prefork: threads and greenlets can be neither interrupted at a "
    "time limit nor lost alone"
)


def create_worker_app(settings: Settings) -> Celery:
    """Return the application of a worker: ``celery -A`` may point at it.

    Raises:
        ConfigurationError: If `settings` names no manager.
        ManagerImportError: If the manager cannot be imported.
    """
    if not settings.manager:
        raise ConfigurationError(
            "a worker needs to know its manager: set PYRMUTE_TASKS_MANAGER or --manager to "
            "package.module:attribute or path/to/file.py:attribute"
        )
    app = WorkerApp(settings)
    signer = signer_of(settings)
    app.conf.worker_consumer = consumer_of(signer)
    # Whoever can publish could shut workers down with it, and nothing of it can be signed.
    app.conf.worker_enable_remote_control = not signer.is_on
    _change_process()
    # A container that is started again has the same host name and process id as before, and
    # what the one before had claimed must not seem to be in its hands.
    start = f"{os.getpid()}-{secrets.token_hex(2)}"  # of the main process: children inherit it

    def name_of(node: str) -> str:
        return f"{node}:{start}"

    @cache
    def open_store() -> Store:
        return Store(settings)

    import_ahead()
    manager = load_manager(settings.manager)
    register_task(app, RunnerSource(manager, settings), name_of, open_store)
    app.steps["consumer"].add(Housekeeping)
    _connect_signals(app, Heartbeat(settings, app.serves), name_of)
    return app


def _change_process() -> None:
    """Change what holds for the whole process, which is a worker's alone."""
    # A child that is to end waits up to 30 s for its last result to be read, which is
    # often read by nobody any more. Ours are in the store.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = _LAST_RESULT_TRIES
    # It quotes the value that a model's field should not have, and workers log warnings.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")
    # Told at each lost connection, of a setting that is chosen with care.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


def _connect_signals(
    app: Celery, heartbeat: "Heartbeat", worker_name: Callable[[str], str]
) -> None:
    """Connect a worker's signals to its heartbeat, and freeze what is imported at its start."""

    # Celery keeps only weak references to receivers, and signals are global: the
    # application holds them, and they heed their own application only.
    def begin(sender: Any, **_: Any) -> None:
        if sender.app is not app:
            return
        heartbeat.begin(worker_name(sender.hostname), sender.controller.concurrency)
        atexit.register(heartbeat.end)  # a cold shutdown sends no signal

    def leave(**_: Any) -> None:
        heartbeat.leave()

    def end(**_: Any) -> None:
        heartbeat.end()

    def set_aside(**_: Any) -> None:
        # What was imported stays. Otherwise each child's first collection walks over all of
        # it, and copies the memory that it shares with this process.
        gc.collect()
        gc.freeze()

    worker_init.connect(set_aside, weak=False)
    worker_ready.connect(begin, weak=False)
    worker_shutting_down.connect(leave, weak=False)
    worker_shutdown.connect(end, weak=False)


_ON_FIRST_USE: Final = (
    "pyrmute_tasks.plans.fingerprint.tree",
    "pyrmute_tasks.plans.generated_steps",
)


def import_ahead() -> None:
    """Import what a chunk would import, before children are forked.

    Each child would else load it anew: in its own memory, within its limit of that, and while
    its first chunk waits.
    """
    for module in _ON_FIRST_USE:
        importlib.import_module(module)


class WorkerApp(FleetApp):
    """The application of a worker, which refuses what would not work.

    Args:
        settings: As of a `FleetApp`.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.queue: str = settings.queue

    def start(self, argv: list[str] | None = None) -> NoReturn:
        """Run Celery's command line and exit with its status, which Celery's own drops.

        Raises:
            SystemExit: When it ends, or because its options name a pool that is not installed.
        """
        from celery.bin.celery import celery as celery_command  # slow, and for workers only

        command: Any = celery_command
        command.params[0].default = self
        for option in command.params:
            option.envvar = None  # APP, BROKER_URL and so on are somebody else's
        try:
            status = command.main(args=argv, standalone_mode=False)
        except click.exceptions.Exit as done:
            status = done.exit_code
        except click.ClickException as error:
            sys.exit(f"error: {error.format_message()}")
        except ImportError as error:
            sys.exit(f"{_OTHER_POOL} ({error})")
        sys.exit(status)

    @cached_property
    def Worker(self) -> Any:  # noqa: N802  # Celery's name
        """The class of the worker's main process."""
        return self.subclass_with_self(ChunkWorker)

    def serves(self) -> bool:
        """Whether the worker takes chunks; not after Celery's ``cancel_consumer``."""
        queues: Any = self.amqp.queues
        return self.queue in queues.consume_from


_Base: Any = Worker  # its stubs lack most of it


class ChunkWorker(_Base):  # type: ignore[misc]  # it is a class
    """Celery's worker, ended at once by options with which it could run no chunks."""

    def setup_instance(
        self, queues: Any = None, exclude_queues: Any = None, **options: Any
    ) -> None:
        """Check the options and set the worker up.

        Raises:
            SystemExit: With a sentence that says which option is wrong.
        """
        pool, queue = self.pool_cls, self.app.queue
        if pool != "prefork" and not (isinstance(pool, type) and issubclass(pool, TaskPool)):
            sys.exit(_OTHER_POOL)
        if set(str_to_list(queues) or [queue]) != {queue} or queue in (
            str_to_list(exclude_queues) or ()
        ):
            sys.exit(
                f"error: this worker is for queue '{queue}' and no other; name another with "
                "--queue or PYRMUTE_TASKS_QUEUE instead of -Q and -X"
            )
        super().setup_instance(queues=queues, exclude_queues=exclude_queues, **options)


class Housekeeping(StartStopStep):
    """Looks after children and timers.

    A child that is frozen would keep its job waiting. Celery notices dead children every
    five seconds, and a job waits for it. And it sets two timers a task, for the time limits,
    which stay until their time comes though they are cancelled: 0.5 KB a chunk for a quarter
    of an hour.

    A step of the consumer, since the event loop forgets its timers when the connection to
    the broker is lost; steps are started anew with the next one.
    """

    requires: tuple[str, ...] = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Set the timers."""
        hub = parent.hub
        if hub is not None:
            hub.call_repeatedly(_LOOK_AFTER_CHILDREN_S, parent.pool.maintain_pool)
            frozen = FrozenChildren()
            hub.call_repeatedly(
                _LOOK_AFTER_CHILDREN_S, lambda: frozen.look(process_ids(parent.pool))
            )
            hub.call_repeatedly(_FORGET_TIMERS_S, forget_cancelled, hub.timer)


def process_ids(pool: Any) -> list[int]:
    """Return the process ids of the children of Celery's `pool`."""
    return [child.pid for child in pool._pool._pool]  # noqa: SLF001  # it has no public way


def forget_cancelled(timer: Any) -> None:
    """Drop the entries of kombu's `timer` that are cancelled."""
    queue: list[Any] = timer._queue  # noqa: SLF001  # it has no public way
    kept = [item for item in queue if not item.entry.canceled]
    if len(kept) < len(queue):
        heapq.heapify(kept)
        queue[:] = kept  # in place: the event loop holds this list


class Heartbeat:
    """Tells the store that this worker lives and what it runs, from its main process.

    Args:
        settings: Where to tell it, and how often.
        serves: Says whether the worker takes chunks.
    """

    def __init__(self, settings: Settings, serves: Callable[[], bool] = lambda: True) -> None:
        self._settings = settings
        self._serves = serves
        self._stop = threading.Event()
        self._now = threading.Event()
        self._slots = 0
        self._thread: threading.Thread | None = None

    def begin(self, worker: str, slots: int) -> None:
        """Start beating for `worker`, which runs `slots` chunks at a time."""
        self._slots = slots
        self._thread = threading.Thread(
            target=self._beat, args=(worker,), name="heartbeat", daemon=True
        )
        self._thread.start()

    def leave(self) -> None:
        """The worker takes no more chunks, but may still run some; told at once."""
        self._slots = 0
        self._now.set()

    def end(self) -> None:
        """The worker ends: say goodbye."""
        self._stop.set()
        self._now.set()
        if self._thread is not None:
            self._thread.join(timeout=_GOODBYE_S)

    def _beat(self, worker: str) -> None:
        store = Store(self._settings)
        try:
            while not self._stop.is_set():
                try:
                    store.beat(worker, self._slots if self._serves() else 0, _running())
                except redis.RedisError as error:
                    if self._ends_worker(error):
                        return
                    log(logging.WARNING, "heartbeat_failed", "the store cannot be reached")
                if self._now.wait(self._settings.heartbeat_s):
                    self._now.clear()
            store.leave(worker)
        except redis.RedisError:
            log(logging.DEBUG, "heartbeat_failed", "could not say goodbye")
        finally:
            store.close()

    def _ends_worker(self, error: redis.RedisError) -> bool:
        """Let the main process end if the store refuses it."""
        what = find_refusal(error)
        if what is None:
            return False
        url = hide_password(self._settings.redis_store_url)
        told = f"the store at {url} refused {what} ({reason_of(error)}); this worker ends"
        log(logging.CRITICAL, "store_refused", told)
        shared: Any = state
        shared.should_stop = 1  # the exit status
        return True


def _running() -> list[str]:
    while True:
        try:
            # What was running when the connection was lost is no longer among the reserved.
            requests = {*state.reserved_requests, *state.active_requests}
            return [request.id for request in requests]
        except RuntimeError:
            continue  # the main thread changed the set meanwhile
