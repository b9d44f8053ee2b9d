"""A `Migrator`'s connections, and its fleet if that is embedded, from opening to closing.

A session belongs to the process that opened it: a fork can neither use nor end it. It may be
closed at any moment, from any thread, also by a source while its job runs; the jobs that are
open then end with an error, and nothing is retried against what was ended on purpose.
"""

import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.stopping import check_stop
from pyrmute_tasks.errors import FleetError, MigratorClosedError
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
from pyrmute_tasks.ranges.roots import allow
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import Frame

if TYPE_CHECKING:
    from pyrmute_tasks.distributed.producer.client import Client
    from pyrmute_tasks.distributed.producer.executor import CeleryExecutor

__all__ = ["Session", "SessionExecutor"]

_FAREWELL_S: Final = 0.8


class Session:
    """The connections and the fleet of an open `Migrator`; thread-safe.

    Args:
        settings: Settings for connecting to the fleet.
        store: Its store.
        client: Sends tasks to the fleet.
        fleet: The embedded fleet, which ends with this.

    Attributes:
        settings: Settings for connecting to the fleet.
        store: Its store.
        fleet: The embedded fleet, if there is one.
    """

    def __init__(
        self, settings: Settings, store: Store, client: "Client", fleet: EmbeddedFleet | None
    ) -> None:
        self.settings = settings
        self.store = store
        self.fleet = fleet
        self._client = client
        self._pid = os.getpid()
        self._over = threading.Event()
        self._closing = threading.Lock()
        self._jobs: weakref.WeakSet[CeleryExecutor] = weakref.WeakSet()  # those that are open

    @classmethod
    def open(cls, settings: Settings, fleet: EmbeddedFleet | None = None) -> "Session":
        """Open a session with a running fleet, or with `fleet`, which is started already.

        Raises:
            FleetError: If the embedded fleet does not start.
        """
        with ExitStack() as stack:
            if fleet is not None:
                stack.callback(fleet.close)
                fleet.begin()
                settings = fleet.settings
            store = Store(settings)
            stack.callback(store.close)
            store.watch(partial(_look, fleet))
            # Celery, and what its first connection needs: imported while the workers come up.
            from pyrmute_tasks.distributed.producer.client import Client

            client = Client(settings, store)
            stack.callback(client.close)
            if fleet is not None:
                client.check()
                fleet.wait_until_ready()
            stack.pop_all()
            return cls(settings, store, client, fleet)

    @property
    def is_mine(self) -> bool:
        """Whether this process has opened the session."""
        return self._pid == os.getpid()

    @property
    def is_over(self) -> bool:
        """Whether the session is closed."""
        return self._over.is_set()

    def check(self) -> None:
        """Raise an error if the session cannot be used.

        Raises:
            MigratorClosedError: If it has been closed.
            FleetError: If another process has opened it.
        """
        if not self.is_mine:
            raise FleetError(
                f"this job belongs to process {self._pid}, which began it, and not to its fork "
                f"{os.getpid()}: read its outputs there, or begin a job of the fork's own"
            )
        if self.is_over:
            raise MigratorClosedError(
                "the Migrator was closed before this job had ended; what was delivered is right, "
                "and not all: take the outputs before close(), or before the with block ends"
            )

    def job(
        self,
        spec: JobSpec,
        code: FingerprintTree,
        check: Callable[[], None] = lambda: None,
        tell: Observer = lambda _: None,
    ) -> "SessionExecutor":
        """Return the executor of a job's chunks; entering it registers the job.

        Args:
            spec: The job.
            code: The fingerprint tree of its plan here.
            check: Called about every second while it runs; may raise.
            tell: Called with what happens to workers and chunks.

        Raises:
            FleetError: If the session cannot be used.
        """
        self.check()
        executor = self._client.executor(spec, code, self._over, self.fleet, check, tell)
        with self._closing:  # which lists them
            self._jobs.add(executor)
        return SessionExecutor(self, executor)

    def allow(self, folders: Iterable[Path]) -> None:
        """Let the workers of an embedded fleet read and write in folders."""
        if self.settings.roots_file:
            allow(self.settings.roots_file, folders)

    def takes_ranges(self) -> bool:
        """Return whether workers take ranges by reference, by settings or heartbeats."""
        if self.settings.roots_file:
            return True
        return any(worker.has_roots and worker.is_serving for worker in self.store.workers())

    def close_dropped(self) -> None:
        """Close the session of a `Migrator` that was garbage-collected open."""
        if self.is_mine and not self.is_over:
            self.close()
            warnings.warn(
                "a Migrator was dropped without close(): use it in a with block",
                ResourceWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """End the embedded fleet, or the open jobs on another one; idempotent."""
        if not self.is_mine:
            return
        with self._closing:
            if self.is_over:
                return
            self._over.set()
        self.store.give_up()
        with ExitStack() as stack:
            stack.callback(self._client.close)
            stack.callback(self.store.close)
            if self.fleet is not None:
                stack.callback(self.fleet.close)
            self._end_jobs()

    def _end_jobs(self) -> None:
        """End the jobs with open streams, whose keys would be kept alive."""
        with self._closing:
            jobs = list(self._jobs)
        for job in jobs:
            job.let_go()
        if not jobs or self.fleet is not None:
            return  # or the keys end with their server
        farewell = threading.Thread(target=_remove, args=(jobs,), name="farewell", daemon=True)
        # Not at the end of the interpreter, where no thread can begin: the keys expire.
        with contextlib.suppress(RuntimeError):
            farewell.start()
            farewell.join(timeout=_FAREWELL_S)


class SessionExecutor:
    """Runs a job's chunks for as long as its session is open; a context manager.

    Args:
        session: The session it is part of.
        executor: Runs the chunks.
    """

    def __init__(self, session: Session, executor: "CeleryExecutor") -> None:
        self._session = session
        self._executor = executor

    @property
    def slots(self) -> int:
        """Number of chunks the fleet runs at a time, as last seen."""
        return self._executor.slots

    @property
    def jobs(self) -> int:
        """Number of jobs that share the fleet, this one included, as last seen."""
        return self._executor.jobs

    def __enter__(self) -> Self:
        """Register the job; see `CeleryExecutor`."""
        with self._in_session():
            self._executor.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove every trace of the job."""
        session = self._session
        if not session.is_mine:
            return
        if not session.is_over:
            self._executor.__exit__(kind, error, traceback)
            return
        self._executor.let_go()
        if session.fleet is None:
            self._executor.remove_job()  # again: chunks may have been sent while it was closed

    def submit(self, chunk: Chunk[bytes], /) -> None:
        """Send a chunk; see `ChunkExecutor`."""
        with self._in_session():
            self._executor.submit(chunk)

    def collect(self, *, wait: bool) -> Iterable[Outcome[Frame]]:
        """Return the outcomes that have arrived; see `ChunkExecutor`."""
        with self._in_session():
            return self._executor.collect(wait=wait)

    def cancel(self, first: int) -> None:
        """Withdraw the chunks from `first` on, unless closing has done so."""
        if self._session.is_mine and not self._session.is_over:
            with self._in_session():
                self._executor.cancel(first)

    @contextmanager
    def _in_session(self) -> Iterator[None]:
        self._session.check()
        try:
            yield
        except Exception:
            self._session.check()  # whatever closing has done to a call that ran
            raise


def _look(fleet: EmbeddedFleet | None) -> None:
    """Raise if there is nothing to wait for: the job was stopped, or the server has ended."""
    check_stop()
    if fleet is not None:
        fleet.check_server()


def _remove(jobs: "Iterable[CeleryExecutor]") -> None:
    for job in jobs:
        job.remove_job()
