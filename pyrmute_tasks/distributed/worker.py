"""What makes a Celery worker one of ours: its manager, its task and its heartbeat."""

import logging
import os
import threading
from typing import Any, Final

import redis
from celery import Celery
from celery.signals import worker_ready, worker_shutting_down

from pyrmute_tasks.adoption import load_manager
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.tasks import RunnerSource, register_task
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.observability import log
from pyrmute_tasks.settings import Settings

__all__ = ["Heartbeat", "create_worker_app", "worker_arguments"]

_ARGUMENTS: Final = ("--without-gossip", "--without-mingle")


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
    app = create_app(settings)
    register_task(app, RunnerSource(load_manager(settings.manager), lambda: Store(settings)))
    heartbeat = Heartbeat(settings)

    # Celery keeps only weak references to receivers, and signals are global: the
    # application holds them, and they heed their own application only.
    def begin(sender: Any, **_: Any) -> None:
        if sender.app is app:
            heartbeat.begin(f"{sender.hostname}:{os.getpid()}", sender.controller.concurrency)

    def end(**_: Any) -> None:
        heartbeat.end()

    worker_ready.connect(begin, weak=False)
    worker_shutting_down.connect(end, weak=False)
    return app


def worker_arguments(name: str, concurrency: int, loglevel: str = "WARNING") -> list[str]:
    """Return the command line of Celery's worker with the options that suit our tasks.

    Gossip and mingle are chatter between workers that nothing here uses. Celery's own
    heartbeat stays on: Flower takes a worker without one for dead.

    Args:
        name: Node name, unique among the workers of the queue.
        concurrency: Children that run chunks.
        loglevel: As Celery names them.
    """
    options = [f"--hostname={name}", f"--concurrency={concurrency}", f"--loglevel={loglevel}"]
    return ["worker", *_ARGUMENTS, "--pool=prefork", *options]


class Heartbeat:
    """Tells the store that this worker lives, from a thread of its main process.

    Args:
        settings: Where to tell it, and how often.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, worker: str, slots: int) -> None:
        """Start beating for `worker`, which runs `slots` chunks at a time."""
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._beat, args=(worker, slots), name="heartbeat", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Stop beating and say goodbye."""
        self._stop.set()

    def _beat(self, worker: str, slots: int) -> None:
        store = Store(self._settings)
        try:
            while not self._stop.is_set():
                try:
                    store.beat(worker, slots)
                except redis.RedisError:
                    log(logging.WARNING, "heartbeat_failed", "the store cannot be reached")
                self._stop.wait(self._settings.heartbeat_s)
            store.leave(worker)
        except redis.RedisError:
            log(logging.DEBUG, "heartbeat_failed", "could not say goodbye")
        finally:
            store.close()
