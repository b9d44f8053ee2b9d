"""The coordinators of a `Migrator` with a fleet of its own: a thread a jobs root."""

import contextlib
import os
import socket
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.service.beats import beat

if TYPE_CHECKING:
    from pyrmute_tasks.distributed.producer.session import Session

__all__ = ["EMBEDDED", "EmbeddedCoordinators", "embedded_queue"]

EMBEDDED: Final = "embedded:"
"""How the queues of jobs begin that only embedded fleets of a manager run."""

_MOST_RUNNING: Final = 4  # the fleet is that of one host
_ENDS_S: Final = 10.0


def embedded_queue(manager_name: str) -> str:
    """Return the queue in the terms of jobs that only embedded fleets of a manager run.

    Other workers may have another manager. It is no queue of a broker.
    """
    return f"{EMBEDDED}{manager_name}"


class EmbeddedCoordinators:
    """Drives the jobs that were submitted by a `Migrator` with an embedded fleet; thread-safe.

    A fork drives nothing of its parent's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._threads: dict[Path, threading.Thread] = {}
        weakref.finalize(self, self._stop.set)

    def attend(self, root: JobsRoot, session: "Session", queue: str) -> None:
        """Drive the jobs of a jobs root, from now on.

        Args:
            root: The jobs root.
            session: The connections to the fleet.
            queue: The queue of these jobs, by `embedded_queue`.
        """
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
            self._stop, self._threads = threading.Event(), {}
        with self._lock:
            if root.path in self._threads and self._threads[root.path].is_alive():
                return
            from pyrmute_tasks.service.coordinator import Coordinator, CoordinatorOptions

            options = CoordinatorOptions(most_running=_MOST_RUNNING, queue=queue)
            coordinator = Coordinator(root, session.settings, options, session)
            self._threads[root.path] = threading.Thread(
                target=coordinator.run, args=(self._stop,), name="coordinator", daemon=True
            )
            with contextlib.suppress(OSError):  # else a job says first that nobody drives it
                beat(root.path, socket.gethostname(), queue)
            self._threads[root.path].start()

    def close(self) -> None:
        """Let go of all jobs; may be called twice."""
        if self._pid != os.getpid():
            return
        with self._lock:
            threads, self._threads = self._threads, {}
            stop, self._stop = self._stop, threading.Event()
            weakref.finalize(self, self._stop.set)
        stop.set()
        for thread in threads.values():
            if thread is not threading.current_thread():
                thread.join(_ENDS_S)
