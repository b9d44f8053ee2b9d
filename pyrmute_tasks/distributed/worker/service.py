"""What makes a Celery worker one of ours: its manager, its task, its options and its heartbeat."""

import atexit
import gc
import importlib
import os
import secrets
import sys
import warnings
from functools import cache
from typing import Final, NoReturn

import click

from pyrmute_tasks.distributed.app import FleetApp
from pyrmute_tasks.distributed.broker_profile import RedisProfile
from pyrmute_tasks.distributed.internals.billiard_pool import limit_wait_for_last_result
from pyrmute_tasks.distributed.internals.celery_consumer import consumer_class
from pyrmute_tasks.distributed.internals.celery_worker import (
    EventLoop,
    LoopStep,
    WorkerOptions,
    hide_connection_loss_warnings,
    run_command_line,
    use_hooks,
)
from pyrmute_tasks.distributed.internals.kombu_redis import PromptTransport
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.worker.broker_connections import BrokerConnections
from pyrmute_tasks.distributed.worker.children import FrozenChildren
from pyrmute_tasks.distributed.worker.heartbeat import Heartbeat
from pyrmute_tasks.distributed.worker.message_filter import MessageFilter
from pyrmute_tasks.distributed.worker.runner_source import RunnerSource
from pyrmute_tasks.distributed.worker.task import register_task
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.pydantic_internals import SERIALIZER_WARNINGS
from pyrmute_tasks.settings import Settings, signer_of

__all__ = ["create_worker_app"]

_LAST_RESULT_TRIES: Final = 10  # of a tenth of a second
_LOOK_AFTER_CHILDREN_S: Final = 0.25
_FORGET_TIMERS_S: Final = 2.0
_OTHER_POOL: Final = (
    "error: workers need --pool=prefork: threads and greenlets can be neither interrupted at a "
    "time limit nor lost alone"
)
_POOL_LIBRARIES: Final = ("eventlet", "gevent", "greenlet")


def create_worker_app(settings: Settings) -> FleetApp:
    """Return the application of a worker: ``celery -A`` may point at it.

    Nothing of the process is changed before a worker starts in it. The manager is imported then,
    after Celery's loader and fixups have run, so that Django is set up.
    Commands that only watch, as Flower does, need no manager.
    """
    app = WorkerApp(settings)
    signer = signer_of(settings)
    # Whoever can publish could shut workers down with remote control, and nothing of it can be
    # signed; nor can what workers tell each other.
    app.conf.worker_enable_remote_control &= not signer.is_on
    app.conf.worker_consumer = consumer_class(
        BrokerConnections(app), MessageFilter(app, signer), hears_workers=not signer.is_on
    )

    @cache
    def open_store() -> Store:
        return Store(settings)

    register_task(app, app.life.runner, app.life.name_of, open_store)
    app.steps["consumer"].add(Housekeeping)
    return app


_ON_FIRST_USE: Final = (
    "pyrmute_tasks.plans.fingerprint.tree",
    "pyrmute_tasks.plans.generated_steps",
)


def import_ahead() -> None:
    """Import what a chunk would import, before children are forked.

    Each child would else load it again: in its own memory, within its limit of that, and while
    its first chunk waits.
    """
    for module in _ON_FIRST_USE:
        importlib.import_module(module)


class WorkerApp(FleetApp):
    """The application of a worker, which refuses what would not work.

    Args:
        settings: As of a `FleetApp`.

    Attributes:
        queue: The only one that its worker serves.
        life: What happens when its worker starts and ends.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, is_worker=True)
        self.queue: str = settings.queue
        self.life: WorkerLife = WorkerLife(
            settings, Heartbeat(settings, lambda: self.serves(settings.queue))
        )
        use_hooks(self, self.life)
        if isinstance(self.profile, RedisProfile):
            self.read_transport = PromptTransport

    def start(self, argv: list[str] | None = None) -> NoReturn:
        """Run Celery's command line and exit with its status.

        Raises:
            SystemExit: When it ends, or because its options name a pool that is not installed, or
                a module that it has to import is not there.
        """
        try:
            status = run_command_line(self, argv)
        except click.exceptions.Exit as done:
            status = done.exit_code
        except click.ClickException as error:
            sys.exit(f"error: {error.format_message()}")
        except ImportError as error:
            if (error.name or "").partition(".")[0] in _POOL_LIBRARIES:
                sys.exit(f"{_OTHER_POOL} ({error})")
            sys.exit(
                f"error: the worker cannot import a configured module: {error}; correct "
                "DJANGO_SETTINGS_MODULE, or imports and include in celery_config"
            )
        sys.exit(status)


class WorkerLife:
    """Starts and ends a worker: checks its options, prepares its process, tells the store.

    Args:
        settings: The worker's queue and manager.
        heartbeat: Tells the store.

    Attributes:
        runner: Runs chunks, in a child.
    """

    def __init__(self, settings: Settings, heartbeat: Heartbeat) -> None:
        self.runner: RunnerSource = RunnerSource(settings)
        self._queue = settings.queue
        self._heartbeat = heartbeat
        # A container that is started again has the same host name and process id as before, and
        # what the one before had claimed must not seem to be in its hands.
        self._start = f"{os.getpid()}-{secrets.token_hex(2)}"  # children inherit it

    def name_of(self, node: str) -> str:
        """Return the heartbeat's name of this start of Celery's worker `node`."""
        return f"{node}:{self._start}"

    def check_options(self, options: WorkerOptions) -> None:
        """End the worker at once if it could run no chunks.

        Raises:
            SystemExit: With a sentence that says which option is wrong.
        """
        if not options.is_prefork:
            sys.exit(_OTHER_POOL)
        if (options.queues or {self._queue}) != {self._queue} or self._queue in options.excluded:
            sys.exit(
                f"error: this worker is for queue '{self._queue}' and no other; name another with "
                "--queue or PYRMUTE_TASKS_QUEUE instead of -Q and -X"
            )

    def load(self) -> None:
        """Import the manager, and what a chunk would import, before children are forked.

        Raises:
            SystemExit: If no manager is named, or it cannot be imported.
        """
        import_ahead()
        try:
            self.runner.load()
        except ConfigurationError as error:
            sys.exit(f"error: {error}")

    def change_process(self) -> None:
        """Make process-wide changes; the process is this worker's own."""
        # A child that is to end waits up to 30 s for its last result to be read, which is
        # often read by nobody any more. Ours are in the store.
        limit_wait_for_last_result(_LAST_RESULT_TRIES)
        # It quotes the value that a model's field should not have, and workers log warnings.
        warnings.filterwarnings("ignore", message=SERIALIZER_WARNINGS)
        hide_connection_loss_warnings()

    def about_to_fork(self) -> None:
        """Exempt imported objects from garbage collection, since they stay.

        Otherwise each child's first collection walks over all of it, and copies the memory that
        it shares with this process.
        """
        gc.collect()
        gc.freeze()

    def became_ready(self, node: str, slots: int) -> None:
        """Begin the heartbeat."""
        self._heartbeat.begin(self.name_of(node), slots)
        atexit.register(self._heartbeat.end)  # a cold shutdown sends no signal

    def began_leaving(self) -> None:
        """Announce in the store that this worker takes no more chunks."""
        self._heartbeat.leave()

    def ended(self) -> None:
        """Deregister the worker."""
        self._heartbeat.end()


class Housekeeping(LoopStep):
    """Looks after children and timers.

    A child that is frozen would keep its job waiting, and so would a dead one that is not
    replaced. Timers that are cancelled take 0.5 KB a chunk.
    """

    def begin(self, loop: EventLoop) -> None:
        """Set the timers."""
        frozen = FrozenChildren()
        loop.call_every(_LOOK_AFTER_CHILDREN_S, loop.replace_dead_children)
        loop.call_every(_LOOK_AFTER_CHILDREN_S, lambda: frozen.look(loop.child_pids()))
        loop.call_every(_FORGET_TIMERS_S, loop.forget_cancelled_timers)
