"""kombu: a broker's connections, queues and messages, and the timers of a worker.

It imports nothing of kombu: the store needs some of it before a producer's Celery is loaded.
"""

import heapq
import logging
from collections.abc import Sequence
from typing import Any, Final

__all__ = [
    "acknowledge",
    "amqp_options",
    "drop_connection",
    "forget_cancelled",
    "limit_answers",
    "redis_length",
    "redis_lists",
    "redis_options",
    "redis_trim",
    "reject",
]

_SEPARATOR: Final = "\x06\x16"
_PRIORITIES: Final = (3, 6, 9)  # beside 0, whose list has the queue's name


# --- options ----------------------------------------------------------------------------------


def redis_options(
    *,
    visibility_s: float,
    restore_every_s: int,
    health_check_s: int,
    connect_s: float,
    answer_s: float,
    socket_options: dict[int, int] | None,
) -> dict[str, Any]:
    """Return the transport options of a broker on Redis; kombu ignores names it does not know.

    Args:
        visibility_s: Messages unacknowledged for longer are delivered again.
        restore_every_s: Interval at which a worker looks for messages of dead workers.
        health_check_s: How long a connection may be silent before it is checked.
        connect_s: How long connecting may take.
        answer_s: How long an answer may take.
        socket_options: Options of TCP sockets; None for a unix socket.
    """
    options: dict[str, Any] = {
        "visibility_timeout": visibility_s,
        "unacked_restore_interval": restore_every_s,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": connect_s,
        "socket_timeout": answer_s,
        "health_check_interval": health_check_s,
    }
    if socket_options is not None:
        options |= {"socket_keepalive": True, "socket_keepalive_options": socket_options}
    return options


def amqp_options(socket_options: dict[int, int]) -> dict[str, Any]:
    """Return the transport options of RabbitMQ, with publisher confirms.

    Args:
        socket_options: Options of TCP sockets, in place of the library's own.
    """
    return {"confirm_publish": True, "socket_settings": socket_options}


# --- connections ------------------------------------------------------------------------------


def limit_answers(connection: Any, seconds: float) -> None:
    """Limit RabbitMQ's time to answer; on Redis a transport option does."""
    socket = getattr(connection.connection, "sock", None)
    if socket is not None:
        socket.settimeout(seconds)


def drop_connection(connection: Any) -> None:
    """Drop a pooled connection without talking to it; its next user connects again.

    An answer may still be on its way, and would be taken for that to the next question.
    """
    connection.collect()


# --- queues on Redis ----------------------------------------------------------------------------


def redis_lists(queue: str) -> tuple[str, ...]:
    """Return the Redis lists in which kombu keeps a queue: one for each priority."""
    return (queue, *(f"{queue}{_SEPARATOR}{priority}" for priority in _PRIORITIES))


def redis_length(connection: Any, queue: str) -> int:
    """Count the tasks of default priority in a queue on Redis: one round trip."""
    return int(connection.default_channel.client.llen(queue))


def redis_trim(channel: Any, queue: str, most: int) -> None:
    """Drop all but the newest `most` messages of a queue on Redis, which are at the left."""
    channel.client.ltrim(queue, 0, most - 1)


# --- messages -----------------------------------------------------------------------------------


def acknowledge(message: Any, logger: logging.Logger, errors: Sequence[type[Exception]]) -> None:
    """Acknowledge a message; a lost connection (one of `errors`) is logged."""
    message.ack_log_error(logger, errors)


def reject(
    message: Any,
    logger: logging.Logger,
    errors: Sequence[type[Exception]],
    requeue: bool = False,
) -> None:
    """Reject a message; a lost connection (one of `errors`) is logged."""
    message.reject_log_error(logger, errors, requeue)


# --- timers of a worker's event loop --------------------------------------------------------------


def forget_cancelled(timer: Any) -> None:
    """Remove cancelled entries of an event loop's `timer`, which kombu keeps."""
    queue: list[Any] = timer._queue  # noqa: SLF001  # it has no public way
    kept = [item for item in queue if not item.entry.canceled]
    if len(kept) < len(queue):
        heapq.heapify(kept)
        queue[:] = kept  # in place: the event loop holds this list
