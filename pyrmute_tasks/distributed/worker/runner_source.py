"""A child's chunk runner, made on first use, and the signals that interrupt its chunk."""

import os
import resource
import signal
import threading
from collections.abc import Callable
from functools import partial

from pyrmute_tasks.distributed.internals.billiard_pool import (
    END_SIGNALS,
    SOFT_LIMIT_SIGNAL,
    allow_processes,
)
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.worker.chunk_runner import ChunkRunner, Terminated, TimeIsUp
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.pyrmute_adapter import FleetManager, load_manager
from pyrmute_tasks.ranges.roots import Roots
from pyrmute_tasks.settings import Settings

__all__ = ["RunnerSource"]


class RunnerSource:
    """Makes a child's runner on first use.

    Connections must not be shared with the worker's main process, so nothing is opened
    before the child has been forked.

    Args:
        settings: The manager, where the store is, and what a chunk may use.
    """

    def __init__(self, settings: Settings) -> None:
        self._manager: FleetManager | None = None
        self._settings = settings
        self._runner: ChunkRunner | None = None
        self._handlers: dict[signal.Signals, Callable[..., object]] = {}
        self._pid = 0
        self._fork = threading.local()  # the mask of a thread that forks

    def load(self) -> None:
        """Import the manager, once, in the main process; children share it by forking.

        Raises:
            ConfigurationError: If the settings name none.
            ManagerImportError: If it cannot be imported.
        """
        if not self._settings.manager:
            raise ConfigurationError(
                "a worker needs to know its manager: set PYRMUTE_TASKS_MANAGER or --manager to "
                "package.module:attribute or path/to/file.py:attribute"
            )
        self._manager = load_manager(self._settings.manager)

    def __call__(self) -> ChunkRunner:
        """Return this process's runner, to run a chunk at once."""
        if self._runner is None or self._pid != os.getpid():
            self._runner = self._begin()
            self._pid = os.getpid()
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork,
                after_in_child=self._after_fork_in_child,
            )
        for number, handler in self._handlers.items():
            # A step, or what it has imported, may have put its own in place.
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        return self._runner

    def _begin(self) -> ChunkRunner:
        settings = self._settings
        assert self._manager is not None
        allow_processes()
        roots = Roots(settings.root_paths, settings.roots_file)
        runner = ChunkRunner(self._manager, Store(settings), settings.soft_time_limit_s, roots)
        # The pool sends this signal at the soft limit. Its own handler raises what a step
        # may catch, and what would be taken for the step's error.
        self._handlers = {SOFT_LIMIT_SIGNAL: lambda *_: runner.interrupt(TimeIsUp())}
        for number in END_SIGNALS:
            end = signal.getsignal(number)
            if callable(end):
                self._handlers[number] = _interrupting(number, end, runner)
        if settings.memory_limit_bytes:
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (settings.memory_limit_bytes, most))
        return runner

    # A process that a step forks, as a pool does, ends by these signals as it would in a loop.
    # With a handler it may go on, and the pool waits for its end: Python forgets what arrives
    # before a fork has run its first instruction, and a hook's exception is dropped.

    def _before_fork(self) -> None:
        if os.getpid() == self._pid:
            self._fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers)

    def _after_fork(self) -> None:
        mask = vars(self._fork).pop("mask", None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _after_fork_in_child(self) -> None:
        if "mask" in vars(self._fork):
            for number, handler in self._handlers.items():
                if signal.getsignal(number) is handler:  # else the step has chosen its own
                    signal.signal(number, signal.SIG_DFL)
        self._after_fork()


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
