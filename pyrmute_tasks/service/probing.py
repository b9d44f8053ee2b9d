"""Probing a fleet between epochs: which workers serve, or why none does."""

import contextlib
import threading
import time
from dataclasses import dataclass, replace
from typing import Final

from pyrmute_tasks.errors import PyrmuteTasksError
from pyrmute_tasks.failures import describe_safely
from pyrmute_tasks.settings import Settings

__all__ = ["FleetProbe", "Probed"]

_EVERY_S: Final = 2.0
_PATIENCE_S: Final = 2.0
_EARLIER_EPOCHS: Final = 4


@dataclass(frozen=True, slots=True)
class Probed:
    """The result of a probe.

    Attributes:
        workers: The names of the workers that serve.
        trouble: Why none does; empty if one does.
        turned_at: When the fleet came back, or got other workers, by `time.monotonic`.
    """

    workers: frozenset[str]
    trouble: str
    turned_at: float

    def then(self, workers: frozenset[str], trouble: str, now: float) -> "Probed":
        """Return what is known after the next look."""
        has_turned = not trouble and (bool(self.trouble) or not workers <= self.workers)
        return Probed(workers, trouble, now if has_turned else self.turned_at)


class FleetProbe:
    """Looks at a fleet from a thread of its own, while somebody asks for it; thread-safe.

    Args:
        settings: How to reach its store.
        looked: Set after each look.
    """

    def __init__(self, settings: Settings, looked: threading.Event) -> None:
        from pyrmute_tasks.distributed.store import Store  # redis

        self._settings = settings
        self._looked = looked
        self._store = Store(replace(settings, outage_s=_PATIENCE_S))
        self._wanted = threading.Event()
        self._is_over = threading.Event()
        self._seen: Probed | None = None
        self._is_fresh = False
        self._looked_at = 0.0
        self._thread = threading.Thread(target=self._look_on, name="probe", daemon=True)
        self._thread.start()

    @property
    def seen(self) -> Probed | None:
        """What was seen last; None if nobody has looked lately."""
        return self._seen if self._is_fresh else None

    @property
    def looked_at(self) -> float:
        """When that look began, by `time.monotonic`."""
        return self._looked_at

    def want(self) -> None:
        """Ask for a look, which comes within seconds."""
        self._wanted.set()

    def forget(self, job: str, epoch: int) -> None:
        """Remove what earlier epochs of a job have left in the store, if it can be reached.

        Workers decline chunks of jobs that the store does not know.

        Args:
            job: The job's id.
            epoch: The epoch that goes on.
        """
        with contextlib.suppress(Exception):  # redis's, too; then they expire
            for earlier in range(max(1, epoch - _EARLIER_EPOCHS), epoch):
                self._store.end_job(f"{job}.{earlier}")

    def close(self) -> None:
        """End the thread, and close the connections."""
        self._is_over.set()
        self._store.give_up()
        self._wanted.set()
        self._thread.join(_PATIENCE_S)
        self._store.close()

    def _look_on(self) -> None:
        while not self._is_over.is_set():
            if not self._wanted.wait(10 * _EVERY_S):
                self._is_fresh = False
                continue
            self._wanted.clear()
            if not self._is_over.is_set():
                self._look()
                self._is_over.wait(_EVERY_S)

    def _look(self) -> None:
        began = time.monotonic()
        try:
            serving = frozenset(each.name for each in self._store.workers() if each.is_serving)
            trouble = "" if serving else self._no_workers()
        except PyrmuteTasksError as error:
            serving, trouble = frozenset(), describe_safely(error)
        except Exception as error:  # redis's: their texts may quote commands
            serving, trouble = frozenset(), f"the store does not answer ({type(error).__name__})"
        now = time.monotonic()
        before = self._seen
        self._seen = before.then(serving, trouble, now) if before else Probed(serving, trouble, now)
        self._looked_at = began
        self._is_fresh = True
        self._looked.set()

    def _no_workers(self) -> str:
        rejected = self._store.rejected_workers()
        return f"no worker answers on queue '{self._settings.queue}'" + (
            f"; {rejected}" if rejected else ""
        )
