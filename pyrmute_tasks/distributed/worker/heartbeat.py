"""A worker's heartbeat: shows the store that it is alive, and what it runs."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from pyrmute_tasks.distributed.internals.celery_worker import running_tasks, stop_worker
from pyrmute_tasks.distributed.refusals import find_refusal, reason_of
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.logs import hide_password, log
from pyrmute_tasks.settings import Settings

__all__ = ["Heartbeat"]

_GOODBYE_S: Final = 2.0


class Heartbeat:
    """Shows the store that this worker is alive and what it runs, from its main process.

    Args:
        settings: The store's URL, and the interval.
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
        """Start the heartbeat of `worker`, which runs `slots` chunks at a time."""
        self._slots = slots
        self._thread = threading.Thread(
            target=self._beat, args=(worker,), name="heartbeat", daemon=True
        )
        self._thread.start()

    def leave(self) -> None:
        """Announce at once that the worker takes no more chunks; it may still run some."""
        self._slots = 0
        self._now.set()

    def end(self) -> None:
        """Deregister the worker."""
        self._stop.set()
        self._now.set()
        if self._thread is not None:
            self._thread.join(timeout=_GOODBYE_S)

    def _beat(self, worker: str) -> None:
        store = Store(self._settings)
        try:
            while not self._stop.is_set():
                try:
                    store.beat(worker, self._slots if self._serves() else 0, running_tasks())
                except Exception as error:  # without this thread the worker would count as gone
                    if self._ends_worker(error):
                        return
                    log(
                        logging.WARNING,
                        "heartbeat_failed",
                        "the heartbeat could not be sent",
                        error=type(error).__name__,
                    )
                if self._now.wait(self._settings.heartbeat_s):
                    self._now.clear()
            store.leave(worker)
        except Exception as error:
            log(
                logging.DEBUG,
                "heartbeat_failed",
                "could not deregister the worker",
                error=type(error).__name__,
            )
        finally:
            store.close()

    def _ends_worker(self, error: Exception) -> bool:
        """End the main process if the store refuses it for good; return whether it does."""
        what = find_refusal(error)
        if what is None:
            return False
        url = hide_password(self._settings.redis_store_url)
        told = f"the store at {url} refused {what} ({reason_of(error)}); this worker ends"
        log(logging.CRITICAL, "store_refused", told)
        stop_worker(1)
        return True
