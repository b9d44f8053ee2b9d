"""The broker as a producer uses it: publishing tasks, counting those that wait, withdrawing."""

import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError

from pyrmute_tasks.distributed.app import TASK_NAME
from pyrmute_tasks.errors import BrokerUnavailableError
from pyrmute_tasks.observability import hide_password, log
from pyrmute_tasks.settings import Settings

__all__ = ["Broker", "Message"]

_RETRY_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Message:
    """One task to be published.

    Attributes:
        task: Its id.
        args: Its arguments, plain JSON values; nothing from a record.
        label: What Flower shows in place of the arguments.
    """

    task: str
    args: tuple[str | int, ...]
    label: str


class Broker:
    """Where tasks are published: Redis, Valkey or RabbitMQ through Celery's application.

    Args:
        app: The producer's application.
        settings: Where the broker is, and how patient to be.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    def check(self) -> None:
        """Try the broker once.

        Raises:
            BrokerUnavailableError: If it does not answer.
        """
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
                connection.default_channel  # noqa: B018  # opening the channel is what fails on Redis
        except (OperationalError, OSError, ValueError, KeyError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise BrokerUnavailableError(
                f"no broker answers at {self._url} ({lines[0].rstrip('.')}); "
                "start it there or correct the URL"
            ) from None

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish tasks; a broker that is away is tried again and again for a while.

        After a failure they are published anew, although some may have been delivered:
        whoever settles a chunk second is turned away.

        Raises:
            BrokerUnavailableError: If it stays away for longer than the settings allow.
        """
        deadline = time.monotonic() + self._settings.outage_s
        while not self._publish_once(messages):
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"the broker at {self._url} has been out of reach for "
                    f"{self._settings.outage_s:.0f} s"
                )
            time.sleep(_RETRY_EVERY_S)

    def _publish_once(self, messages: Sequence[Message]) -> bool:
        try:
            pooled: Any = self._app.producer_pool.acquire(block=True)
            with pooled as producer, producer.batch(max_size=len(messages)):
                for message in messages:
                    self._send(message, producer)
        except (OperationalError, OSError) as error:
            log(
                logging.WARNING,
                "publish_failed",
                "the broker cannot be reached",
                error=type(error).__name__,
            )
            return False
        return True

    def _send(self, message: Message, producer: Any) -> None:
        self._app.send_task(
            TASK_NAME,
            args=message.args,
            task_id=message.task,
            producer=producer,
            retry=False,
            argsrepr=message.label,
            kwargsrepr="{}",
        )

    def waiting(self) -> int | None:
        """Return how many tasks wait in the queue; None if the broker is away."""
        try:
            with self._app.pool.acquire(block=True) as pooled:
                connection: Any = pooled
                try:
                    with connection.channel() as channel:
                        queue = self._settings.queue
                        return int(channel.queue_declare(queue=queue, passive=True).message_count)
                except connection.channel_errors:
                    return 0  # nobody has made the queue yet
        except (OperationalError, OSError):
            return None

    def revoke(self, tasks: Iterable[str]) -> None:
        """Ask the workers to skip tasks.

        A courtesy: a worker that misses it asks the store and is told the same.
        """
        with contextlib.suppress(OperationalError, OSError):
            self._app.control.revoke(list(tasks))

    @property
    def _url(self) -> str:
        return hide_password(self._settings.broker_url)
