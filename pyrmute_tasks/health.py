"""The health check of a worker's container: ``python -m pyrmute_tasks.health``.

It ends with status 0 if the broker and the store answer and a worker of this host has a fresh
heartbeat, and otherwise with status 1 and one sentence. The migrations are not
imported, so it is quick and cannot fail because of them.
"""

import os
import socket
import sys

from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.distributed.protocol import WorkerInfo
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.errors import NoWorkersError, PyrmuteTasksError
from pyrmute_tasks.settings import Settings

__all__ = ["check_health", "main"]


def check_health(settings: Settings, host: str) -> list[WorkerInfo]:
    """Return the live workers of `host`.

    Args:
        settings: As its workers have them.
        host: The host's name, as it is behind the ``@`` of their node names.

    Raises:
        BrokerUnavailableError: If the broker does not answer.
        StoreUnavailableError: If the store does not answer.
        NoWorkersError: If none of the host's workers lives.
    """
    with create_app(settings) as app:
        Broker(app, settings).check()
    store = Store(settings)
    try:
        store.check()
        found = [worker for worker in store.workers() if _host(worker) == host]
    finally:
        store.close()
    if not found:
        raise NoWorkersError(
            f"no worker of host {host} on queue '{settings.queue}' has a fresh heartbeat in "
            "the store"
        )
    return found


def main() -> None:
    """Check this host and exit."""
    try:
        check_health(Settings.from_env(os.environ), socket.gethostname())
    except PyrmuteTasksError as error:
        sys.exit(f"unhealthy: {error}")


def _host(worker: WorkerInfo) -> str:
    # A worker's name is its node name and which start of it this is: celery@host:4711-c0de.
    return worker.name.rpartition(":")[0].rpartition("@")[2]


if __name__ == "__main__":
    main()
