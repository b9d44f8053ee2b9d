"""Plain Celery workers and a Valkey server of their own, on its unix socket."""

import gc
import importlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.contenders.contest import WORKERS, Contest
from pyrmute_tasks import Settings
from pyrmute_tasks.distributed.embedded import EmbeddedFleet

__all__ = ["DEFAULT_CHUNK_SIZE", "celery_fleet", "migrate_in_group"]

DEFAULT_CHUNK_SIZE: Final = 1000

_APP: Final = "benchmarks.contenders.celery_app"
_START_TIMEOUT_S: Final = 120.0
_PING_S: Final = 0.5


@contextmanager
def celery_fleet(contest: Contest) -> Iterator[Any]:
    """Start as many workers as ours are, each with one child.

    Args:
        contest: What is to be done.

    Yields:
        The module with the tasks.
    """
    # Of our fleet only the server is used: without workers it is nothing else.
    with EmbeddedFleet(contest.workload.manager_name, 0, Settings()) as server:
        os.environ["BENCHMARK_SERVER"] = server.settings.celery_broker_url
        os.environ["BENCHMARK_WORKLOAD"] = contest.workload.name
        workers: list[subprocess.Popen[bytes]] = []
        try:
            workers += map(_start_worker, range(WORKERS))
            tasks = importlib.import_module(_APP)
            _wait_for_workers(tasks.app, workers)
            yield tasks
        finally:
            gc.collect()  # results want the server when they go
            for worker in workers:
                os.killpg(worker.pid, signal.SIGKILL)  # its child is in its group
                worker.wait()


def _start_worker(number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "celery", "-A", _APP, "worker", "--loglevel=ERROR"]
    options = ["--concurrency=1", f"--hostname=worker-{number}@plain"]
    return subprocess.Popen(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the banner; errors go to stderr
        start_new_session=True,
    )


def _wait_for_workers(app: Any, workers: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while len(app.control.ping(timeout=_PING_S)) < len(workers):
        if time.monotonic() > deadline or any(worker.poll() is not None for worker in workers):
            raise RuntimeError("the Celery workers did not start")


def migrate_in_group(
    task: Any, rows: Iterable[dict[str, Any]], chunk_size: int
) -> list[list[dict[str, Any]]]:
    """Run a task over chunks of `rows` as a group, and wait for all results.

    Args:
        task: Takes a list of rows.
        rows: The input.
        chunk_size: Rows a task.

    Returns:
        The results, in the order of the chunks.
    """
    # With the module at its top it would be imported before its variables are set.
    from celery import group

    left = iter(rows)
    chunks = iter(lambda: list(itertools.islice(left, chunk_size)), [])
    found: list[list[dict[str, Any]]] = group(task.s(chunk) for chunk in chunks)().join()
    return found
