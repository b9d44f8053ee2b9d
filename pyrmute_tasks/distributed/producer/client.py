"""A producer's Celery application, and the executors that send tasks through it."""

import threading
from collections.abc import Callable

from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.distributed.producer.executor import CeleryExecutor
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.stopping import check_stop
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
from pyrmute_tasks.settings import Settings

__all__ = ["Client"]


class Client:
    """Sends tasks to a fleet.

    Args:
        settings: Settings for connecting to the fleet.
        store: Its store.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._app = create_app(settings)

    def check(self) -> None:
        """Connect to the broker once; the imports for that take a while.

        Raises:
            BrokerUnavailableError: If no broker answers.
        """
        Broker(self._app, self._settings).check()

    def executor(
        self,
        spec: JobSpec,
        code: FingerprintTree,
        over: threading.Event,
        fleet: EmbeddedFleet | None,
        check_job: Callable[[], None] = lambda: None,
        tell: Observer = lambda _: None,
    ) -> CeleryExecutor:
        """Return the executor of a job's chunks.

        Args:
            spec: The job.
            code: The fingerprint tree of its plan here.
            over: Set when nothing is to be retried any more.
            fleet: The embedded fleet, which is looked after while the job runs.
            check_job: Called about every second; may raise.
            tell: Called with what happens to workers and chunks.
        """

        def look() -> None:
            check_stop()
            if fleet is not None:
                fleet.check_server()

        def supervise() -> None:
            check_job()
            if fleet is not None:
                fleet.supervise()

        broker = Broker(self._app, self._settings, over, look)
        return CeleryExecutor(
            broker, self._store, spec, self._settings, supervise, code=code, tell=tell
        )

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
