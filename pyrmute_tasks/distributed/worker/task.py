"""The Celery task, and what the worker's main process does when its child dies."""

import logging
import re
from collections.abc import Callable
from typing import Any, Final

import redis
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.worker.request import Request
from celery.worker.state import task_ready

from pyrmute_tasks.distributed.app import TASK_NAME
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.distributed.worker.outcomes import Assignment
from pyrmute_tasks.distributed.worker.runner_source import RunnerSource
from pyrmute_tasks.logs import log

__all__ = ["ChunkRequest", "register_task"]


class ChunkRequest(Request):
    """A task as the worker's main process sees it: tells the collector if its child dies."""

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Handle a task that ended with an exception, or with its process."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # the pool may wrap it
        if isinstance(error, WorkerLostError) and not self._note_crash(_how(error)):
            # Nobody was told: then at least the broker shall deliver it again.
            task_ready(self)
            return self.reject(requeue=True)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Handle a task that took longer than it may; its process has been killed."""
        super().on_timeout(soft, timeout)
        if not soft:
            self._note_crash(f"time limit of {timeout:g} s")

    def _note_crash(self, how: str) -> bool:
        try:
            asked = TaskArguments.parse(self.args)
            task: Any = self.task
            task.open_store().note_crash(asked.job, asked.part, how, self.id)
        except (redis.RedisError, TypeError, ValueError) as error:
            log(
                logging.ERROR,
                "death_untold",
                "could not tell of a death",
                error=type(error).__name__,
            )
            return False
        return True


_SIGNAL: Final = re.compile(r"signal (\d+) \((\w+)\)")
_EXIT: Final = re.compile(r"exitcode (-?\d+)")


def _how(error: Exception) -> str:
    """Return how a child died, from what Celery's pool says of it."""
    text = str(error)
    if found := _SIGNAL.search(text):
        return f"signal {found[1]} ({found[2]})"
    found = _EXIT.search(text)
    return f"exit status {found[1]}" if found else "unknown"


def register_task(
    app: Celery,
    runner: RunnerSource,
    worker_name: Callable[[str], str],
    open_store: Callable[[], Store],
) -> None:
    """Register the task with a worker's application.

    Args:
        app: The worker's application.
        runner: Called in the child that runs chunks; returns the child's own runner.
        worker_name: Makes the heartbeat's name of a worker from its node name.
        open_store: Returns the store as the worker's main process uses it.
    """

    # The signature has been checked before Celery looked at the message.
    def migrate_chunk(task: Any, *args: str | int) -> None:
        request = task.request
        worker = worker_name(request.hostname)
        runner().run(Assignment(TaskArguments.parse(args), request.id, worker))

    task: Any = app.task(name=TASK_NAME, bind=True)(migrate_chunk)
    task.Request = ChunkRequest
    task.open_store = staticmethod(open_store)
