"""Moves tasks of other applications from our queue to a queue of their own, unread."""

import logging
from typing import Any, Final

from pyrmute_tasks.distributed.app import FleetApp
from pyrmute_tasks.distributed.internals.kombu_producers import producer_on
from pyrmute_tasks.logs import log

__all__ = ["ForeignTasks", "foreign_queue"]

_MOST: Final = 1000
_MOST_BYTES: Final = 1024 * 1024  # of one; all together take a GiB at most
_ANSWER_S: Final = 10.0
# Without "expiration": what is kept does not vanish, and kombu reads it in another unit than AMQP.
_KEPT_PROPERTIES: Final = ("correlation_id", "reply_to", "priority", "message_id")


def foreign_queue(queue: str) -> str:
    """Return the name of the queue for other applications' tasks that were sent to `queue`."""
    return f"{queue}.foreign"


class ForeignTasks:
    """Moves messages to ``<queue>.foreign``, which holds the newest thousand.

    Nobody reads that queue, so nothing can go round; they can be moved back from there.

    Args:
        app: The worker's application.
    """

    def __init__(self, app: FleetApp) -> None:
        self._app = app
        self._queue = foreign_queue(self._app.conf.task_default_queue)

    def move(self, message: Any) -> bool:
        """Move a message; on failure return False and leave it as it was."""
        try:
            body = message.body
            size = len(body)
            if size > _MOST_BYTES:
                return False
            with self._app.pool.acquire(block=True, timeout=_ANSWER_S) as connection:
                self._publish(connection, message, body)
        except Exception as error:  # whatever it holds must not end the worker
            log(
                logging.ERROR,
                "foreign_task_kept",
                "a foreign task cannot be moved",
                error=type(error).__name__,
                queue=self._queue,
            )
            return False
        log(
            logging.ERROR,
            "foreign_task_moved",
            "a task of another application was moved off this queue",
            queue=self._queue,
            bytes=size,
        )
        return True

    def _publish(self, connection: Any, message: Any, body: bytes | str) -> None:
        channel = connection.channel()
        try:
            self._app.profile.declare_bounded_queue(channel, self._queue, _MOST)
            properties = {
                name: message.properties[name]
                for name in _KEPT_PROPERTIES
                if message.properties.get(name) is not None
            }
            producer_on(channel).publish(
                body,
                exchange="",
                routing_key=self._queue,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=message.headers,
                delivery_mode=2,
                **properties,
            )
            self._app.profile.trim_queue(channel, self._queue, _MOST)
        finally:
            channel.close()
