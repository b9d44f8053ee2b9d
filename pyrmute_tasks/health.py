"""The health checks of containers: ``python -m pyrmute_tasks.health``, and ``… coordinator``.

Each ends with status 0, or with status 1 and one sentence. A worker's container is healthy if the
broker and the store answer and a worker of this host has a fresh heartbeat; a coordinator's if one
of this host has looked at the jobs root lately. Without broker and store a coordinator is healthy:
it waits for them. The migrations are not imported, so the checks are quick and cannot fail because
of them.
"""

import os
import socket
import sys
from typing import TYPE_CHECKING

from pyrmute_tasks.errors import JobError, NoWorkersError, PyrmuteTasksError
from pyrmute_tasks.service.beats import SILENT_S, silent_s
from pyrmute_tasks.service.roots import root_of
from pyrmute_tasks.settings import Settings

if TYPE_CHECKING:  # Celery and redis: a coordinator is checked without
    from pyrmute_tasks.distributed.protocol import WorkerInfo

__all__ = ["check_coordinator", "check_health", "main"]


def check_health(settings: Settings, host: str) -> "list[WorkerInfo]":
    """Return the live workers of `host`.

    Args:
        settings: As its workers have them.
        host: The host's name, as it is behind the ``@`` of their node names.

    Raises:
        BrokerUnavailableError: If the broker does not answer.
        StoreUnavailableError: If the store does not answer.
        NoWorkersError: If none of the host's workers lives.
    """
    from pyrmute_tasks.distributed.app import create_app
    from pyrmute_tasks.distributed.producer.broker import Broker
    from pyrmute_tasks.distributed.store import Store

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


def check_coordinator(settings: Settings, host: str) -> None:
    """Check that a coordinator of `host` looks at the jobs root.

    Args:
        settings: As it has them.
        host: The host's name.

    Raises:
        ConfigurationError: If there is no jobs root.
        JobError: If no coordinator of the host has looked at it lately.
        OSError: If it cannot be read.
    """
    root = root_of(None, settings.jobs_root)
    since_s = silent_s(root.path, host)
    if since_s is None or since_s > SILENT_S:
        told = "has ever looked" if since_s is None else f"has looked for {since_s:,.0f} s"
        raise JobError(f"no coordinator of host {host} {told} at the jobs root {root.path}")


def main() -> None:
    """Check this host and exit."""
    checks = {(): check_health, ("coordinator",): check_coordinator}
    check = checks.get(tuple(sys.argv[1:]))
    if check is None:
        sys.exit("usage: python -m pyrmute_tasks.health [coordinator]")
    try:
        check(Settings.from_env(os.environ), socket.gethostname())
    except (PyrmuteTasksError, OSError) as error:
        sys.exit(f"unhealthy: {error}")


def _host(worker: "WorkerInfo") -> str:
    # A worker's name is its node name and which start of it this is: celery@host:4711-c0de.
    return worker.name.rpartition(":")[0].rpartition("@")[2]


if __name__ == "__main__":
    main()
