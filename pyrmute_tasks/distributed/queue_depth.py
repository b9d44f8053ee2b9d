"""Queue depth, in one round trip over a persistent connection."""

from typing import Any, Final, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyrmute_tasks.distributed.broker_profile import broker_profile
from pyrmute_tasks.distributed.connections import is_socket_file
from pyrmute_tasks.distributed.refusals import find_refusal, reason_of
from pyrmute_tasks.errors import BrokerUnavailableError
from pyrmute_tasks.logs import hide_password
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.urls import store_url

__all__ = ["AmqpDepth", "CountsTasks", "QueueDepth", "RedisDepth", "depth_of", "queue_lists"]

_CONNECT_TIMEOUT_S: Final = 3.0
_ANSWER_S: Final = 10.0  # a broker that takes longer is frozen, or its host is


class QueueDepth(Protocol):
    """Counts the tasks waiting in the queue."""

    def ask(self) -> int | None:
        """Return the number of tasks waiting; None if the broker is away."""

    def close(self) -> None:
        """Close the connections that it opened."""


class CountsTasks(Protocol):
    """The part of a broker that `AmqpDepth` needs; see `Broker`."""

    def queue_depth(self) -> int | None:
        """Return the number of tasks waiting in the queue; None if the broker is away."""


def queue_lists(settings: Settings) -> tuple[str, ...]:
    """Return the lists that hold the queue, if they are in the store's own database.

    Then the store counts them with whatever else it is asked.
    """
    is_store = _broker_url(settings) == settings.redis_store_url
    return broker_profile(settings).queue_lists(settings.queue) if is_store else ()


def depth_of(settings: Settings, broker: CountsTasks) -> QueueDepth | None:
    """Return the counter of the queue's tasks; None if the store's own surveys count them."""
    if queue_lists(settings):
        return None
    lists = broker_profile(settings).queue_lists(settings.queue)
    return RedisDepth(settings) if lists else AmqpDepth(broker)


class RedisDepth:
    """Counts tasks on a Redis that is not the store, over one connection of its own.

    A broker that is away is asked again by the next survey, for as long as an outage may take.

    Args:
        settings: The broker's URL.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lists = broker_profile(settings).queue_lists(settings.queue)
        url = _broker_url(settings)
        tcp = {} if is_socket_file(url) else {"socket_keepalive": True}
        self._redis: redis.Redis = redis.Redis.from_url(
            url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_ANSWER_S,
            retry=Retry(NoBackoff(), 1),  # the server may have closed one that was idle
            **tcp,
        )

    def ask(self) -> int | None:
        """Return the number of tasks waiting; None if the broker is away.

        Raises:
            BrokerUnavailableError: If it refuses the user, the password or the database.
        """
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for name in self._lists:
                    pipe.llen(name)
                lengths: list[Any] = pipe.execute()
        except redis.RedisError as error:
            refused = find_refusal(error)
            if refused is None:
                return None
            raise BrokerUnavailableError(
                f"the broker at {hide_password(self._settings.broker_url)} refused {refused} "
                f"({reason_of(error)}); correct the URL or the user's permissions"
            ) from None
        return sum(map(int, lengths))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


class AmqpDepth:
    """Counts tasks on RabbitMQ, by a passive declaration over a connection of the pool.

    Args:
        broker: Does so.
    """

    def __init__(self, broker: CountsTasks) -> None:
        self._broker = broker

    def ask(self) -> int | None:
        """Return the number of tasks waiting; None if the broker is away."""
        return self._broker.queue_depth()

    def close(self) -> None:
        """Leave the connection to the pool."""


def _broker_url(settings: Settings) -> str:
    return store_url(settings.broker_url)
