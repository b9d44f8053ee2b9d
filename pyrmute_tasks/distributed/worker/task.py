"""The Celery task, and the main process's reaction when its child dies."""

import logging
from collections.abc import Callable
from typing import Any

import redis

from pyrmute_tasks.distributed.app import TASK_NAME, FleetApp
from pyrmute_tasks.distributed.internals.celery_worker import WatchedRequest
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.distributed.worker.bad_records import announce
from pyrmute_tasks.distributed.worker.outcomes import Assignment
from pyrmute_tasks.distributed.worker.runner_source import RunnerSource
from pyrmute_tasks.distributed.worker.task_results import TaskResult
from pyrmute_tasks.logs import log

__all__ = ["ChunkRequest", "register_task"]


class ChunkRequest(WatchedRequest):
    """A task as the worker's main process sees it: notifies the collector if its child dies."""

    def note_crash(self, how: str) -> bool:
        """Notify the collector; False if the store cannot be reached."""
        try:
            asked = TaskArguments.parse(self.arguments)
            task: Any = self.task
            task.open_store().note_crash(asked.job, asked.part, how, self.id)
        except (redis.RedisError, TypeError, ValueError) as error:
            log(
                logging.ERROR,
                "crash_not_reported",
                "a child's crash could not be reported",
                error=type(error).__name__,
            )
            return False
        return True


def register_task(
    app: FleetApp,
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
    def migrate_chunk(task: Any, *args: str | int) -> TaskResult:
        request = task.request
        worker = worker_name(request.hostname)
        asked = Assignment(TaskArguments.parse(args), request.id, worker)
        result = runner().run(asked)
        announce(task, result.bad_records)
        return result

    task: Any = app.task(name=TASK_NAME, bind=True)(migrate_chunk)
    task.Request = ChunkRequest
    task.open_store = staticmethod(open_store)
