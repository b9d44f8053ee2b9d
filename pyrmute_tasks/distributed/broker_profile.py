"""Differences between brokers: Redis or Valkey, and RabbitMQ.

A broker is chosen once, by its URL's scheme. Another one is another class here; how its URL is
converted for the libraries is in `urls`.
"""

import contextlib
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from pyrmute_tasks.distributed.connections import TCP_OPTIONS, answer_s, is_socket_file
from pyrmute_tasks.distributed.internals.amqp_errors import reply_code
from pyrmute_tasks.distributed.internals.kombu_transport import (
    amqp_options,
    redis_length,
    redis_lists,
    redis_options,
    redis_trim,
)
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.urls import REDIS_SCHEMES

__all__ = [
    "CONNECT_TIMEOUT_S",
    "BrokerProfile",
    "RabbitMQProfile",
    "RedisProfile",
    "broker_profile",
]

CONNECT_TIMEOUT_S: Final = 3.0
"""How long connecting to a broker may take."""

_HEARTBEAT_S: Final = 5  # two that are missed end a worker's connection
_HEALTH_CHECK_S: Final = 4  # of a blocking pop, which takes a second
_VISIBILITY_TIMEOUT_S: Final = 6 * 3600.0
_VISIBILITY_FACTOR: Final = 3
_RESTORE_EVERY_S: Final = 60
_NOT_FOUND: Final = 404


class BrokerProfile(Protocol):
    """The properties in which brokers differ."""

    @property
    def refuses_for_good(self) -> bool:
        """Whether a refusal is permanent even for a worker that was accepted before."""

    @property
    def advice_on_repeats(self) -> str:
        """Advice on chunks that restart repeatedly."""

    def configuration(self) -> dict[str, Any]:
        """Return the Celery settings for this broker alone."""

    def transport_options(self, settings: Settings) -> dict[str, Any]:
        """Return kombu's ``broker_transport_options``."""

    def declare_queue(self, app: Any, channel: Any) -> None:
        """Create the application's queue, for brokers that need it before a task is published."""

    def count_tasks(self, connection: Any, queue: str) -> int:
        """Count the tasks waiting in a queue, over one of kombu's connections."""

    def queue_lists(self, queue: str) -> tuple[str, ...]:
        """Return the Redis lists that hold a queue; none if the broker is not Redis."""

    def declare_bounded_queue(self, channel: Any, queue: str, most: int) -> None:
        """Create a queue that keeps its newest `most` messages, before one is published."""

    def trim_queue(self, channel: Any, queue: str, most: int) -> None:
        """Drop all but the newest `most` messages, after one is published."""


class RedisProfile:
    """Redis and Valkey."""

    refuses_for_good: Final = True
    advice_on_repeats: Final = "do workers lose their connection to the broker?"

    def configuration(self) -> dict[str, Any]:
        """Return the Celery settings for this broker alone."""
        return {}

    def transport_options(self, settings: Settings) -> dict[str, Any]:
        """Return kombu's ``broker_transport_options``."""
        is_file = is_socket_file(settings.celery_broker_url)
        return redis_options(
            # Must outlast the longest chunk: what is unacknowledged for longer runs again.
            visibility_s=max(_VISIBILITY_TIMEOUT_S, _VISIBILITY_FACTOR * settings.time_limit_s),
            restore_every_s=_RESTORE_EVERY_S,
            health_check_s=_HEALTH_CHECK_S,
            connect_s=CONNECT_TIMEOUT_S,
            answer_s=answer_s(settings.outage_s),
            socket_options=None if is_file else dict(TCP_OPTIONS),
        )

    def declare_queue(self, app: Any, channel: Any) -> None:
        """Do nothing: Redis creates a list with its first element."""

    def count_tasks(self, connection: Any, queue: str) -> int:
        """Count the tasks waiting in a queue, in one round trip."""
        return redis_length(connection, queue)

    def queue_lists(self, queue: str) -> tuple[str, ...]:
        """Return the lists in which kombu keeps a queue: one for each priority."""
        return redis_lists(queue)

    def declare_bounded_queue(self, channel: Any, queue: str, most: int) -> None:
        """Do nothing: a list is trimmed afterwards."""

    def trim_queue(self, channel: Any, queue: str, most: int) -> None:
        """Drop all but the newest `most` messages, which are at the left."""
        redis_trim(channel, queue, most)


class RabbitMQProfile:
    """RabbitMQ, with quorum queues and publisher confirms."""

    refuses_for_good: Final = False  # rights may be about to be set
    advice_on_repeats: Final = (
        "is RabbitMQ's consumer_timeout shorter than a chunk takes? Raise it, or "
        "choose a smaller chunk_size"
    )

    def configuration(self) -> dict[str, Any]:
        """Return the Celery settings for this broker alone."""
        return {
            # RabbitMQ keeps these on a majority of its nodes, and drops no confirmed message
            # when it restarts. The first producer or worker to connect declares it.
            "task_default_queue_type": "quorum",
            # A worker notices within little more than twice this time that the server is gone,
            # and the server that a worker is.
            "broker_heartbeat": _HEARTBEAT_S,
            # A quorum queue's consumer cannot be given more again.
            "worker_enable_prefetch_count_reduction": False,
        }

    def transport_options(self, settings: Settings) -> dict[str, Any]:
        """Return kombu's ``broker_transport_options``."""
        # What the queue has not confirmed is published again, not missed seconds later.
        # The library's own settings end a connection on which one packet is late.
        return amqp_options(dict(TCP_OPTIONS))

    def declare_queue(self, app: Any, channel: Any) -> None:
        """Create the application's queue: RabbitMQ drops a task without one."""
        app.amqp.default_queue(channel).declare()

    def count_tasks(self, connection: Any, queue: str) -> int:
        """Count the tasks waiting in a queue, by declaring it passively."""
        with contextlib.closing(connection.channel()) as channel:  # an error closes it
            try:
                found = channel.queue_declare(queue=queue, passive=True)
            except connection.channel_errors as error:
                if reply_code(error) != _NOT_FOUND:
                    raise
                return 0  # nobody has made the queue yet
            return int(found.message_count)

    def queue_lists(self, queue: str) -> tuple[str, ...]:
        """Return an empty tuple: RabbitMQ keeps no lists."""
        return ()

    def declare_bounded_queue(self, channel: Any, queue: str, most: int) -> None:
        """Create a queue that drops its oldest messages beyond `most`."""
        channel.queue_declare(
            queue=queue,
            durable=True,
            auto_delete=False,
            arguments={"x-queue-type": "quorum", "x-max-length": most},
        )

    def trim_queue(self, channel: Any, queue: str, most: int) -> None:
        """Do nothing: the queue trims itself."""


def broker_profile(settings: Settings) -> BrokerProfile:
    """Return the profile of the settings' broker."""
    is_redis = urlsplit(settings.broker_url).scheme in REDIS_SCHEMES
    return RedisProfile() if is_redis else RabbitMQProfile()
