"""Celery's consumer: connections to the broker, and messages before Celery looks at them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from celery.worker.consumer import Consumer

from pyrmute_tasks.distributed.internals import kombu_transport
from pyrmute_tasks.distributed.internals.celery_worker import stop_if_asked
from pyrmute_tasks.distributed.internals.kombu_redis import PromptChannel

__all__ = [
    "Accept",
    "Acknowledge",
    "ConnectionPolicy",
    "MessagePolicy",
    "Reject",
    "Verdict",
    "consumer_class",
    "is_plain_call",
]

_Base: Any = Consumer  # its stubs lack most of it
_LOGGER: Final = logging.getLogger("pyrmute_tasks")
_WITH_DELAYED_DELIVERY: Final = ":DelayedDelivery"
_WITH_OTHER_WORKERS: Final = (":Mingle", ":Gossip", ":Control")


_NONE: Final = ("eta", "expires", "group", "parent_id")
_EMPTY: Final[tuple[object, ...]] = (None, {}, [])


def is_plain_call(headers: Mapping[str, Any]) -> bool:
    """Whether a message's headers ask for a task to be run once, now, without conditions.

    Args:
        headers: As Celery's second protocol has them; the values may be of any type.
    """
    return (
        all(headers.get(name) is None for name in _NONE)
        and headers.get("stamped_headers") in _EMPTY
        and headers.get("stamps") in _EMPTY
        and headers.get("timelimit") in (None, [None, None])
        and type(headers.get("retries", 0)) is int
        and not headers.get("compression")
        and isinstance(headers.get("argsrepr"), str)
    )


# --- policies -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """Celery handles the message."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The message has been dealt with; Celery does not see it."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Celery does not see the message.

    Attributes:
        requeue: Whether the broker delivers it again.
        after_s: How long it is held before.
    """

    requeue: bool = False
    after_s: float = 0.0


Verdict: TypeAlias = Accept | Acknowledge | Reject
"""What becomes of a message."""


class MessagePolicy(Protocol):
    """Judges every message before Celery looks at it."""

    def judge(self, message: Any) -> Verdict:
        """Return what becomes of a message of kombu's."""

    def refused_queue(self, queue: str) -> None:
        """Handle a remote command for a queue that the worker does not consume."""


class ConnectionPolicy(Protocol):
    """Decides about connections to the broker.

    Attributes:
        pause_s: The first pause between attempts to connect, and by how much the next ones grow.
        longest_pause_s: The longest pause.
    """

    pause_s: float
    longest_pause_s: float

    def accepted(self) -> None:
        """Handle a connection that the broker accepted."""

    def attempt_failed(self, error: Exception, pause_s: float) -> None:
        """Handle an attempt to connect that failed; it may raise to end the worker."""

    def connection_failed(self, error: Exception) -> None:
        """Handle an error of a connection; it may raise to end the worker."""


class _PolicyConsumer(_Base):  # type: ignore[misc]  # it is a class
    connections: ClassVar[ConnectionPolicy]
    messages: ClassVar[MessagePolicy]

    def on_ready(self) -> None:
        self.connections.accepted()
        super().on_ready()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect as Celery does, but after pauses that stay short."""
        policy = self.connections
        connected = conn.ensure_connection(
            policy.attempt_failed,
            self.app.conf.broker_connection_max_retries,
            interval_start=policy.pause_s,
            interval_step=policy.pause_s,
            interval_max=policy.longest_pause_s,
            callback=stop_if_asked,
        )
        self.first_connection_attempt = False
        return connected

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self.connections.connection_failed(exc)
        super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self.connections.connection_failed(exc)
        super().on_connection_error_after_connected(exc)

    def stop(self) -> None:
        """Stop for good: take nothing more from the queue, before the pool ends its chunks."""
        super().stop()
        channel = self.task_consumer and self.task_consumer.channel
        if isinstance(channel, PromptChannel):
            channel.hand_back()

    def add_task_queue(self, queue: str, *args: Any, **kwargs: Any) -> None:
        """Serve the queue again after `cancel_task_queue`; no other is served."""
        queues: Any = self.app.amqp.queues
        if queue not in queues:
            self.messages.refused_queue(queue)
            return
        super().add_task_queue(queue, *args, **kwargs)
        queues.select_add(queues[queue])  # else it is not served after the next connection

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Return the handler of all messages."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> Any:
            match self.messages.judge(message):
                case Accept():
                    return handle(message)
                case Acknowledge():
                    kombu_transport.acknowledge(message, _LOGGER, self.connection_errors)
                case Reject(requeue, after_s):
                    self._reject(message, requeue, after_s)
            return None

        return on_message

    def _reject(self, message: Any, requeue: bool, after_s: float) -> None:
        given = (message, _LOGGER, self.connection_errors, requeue)
        if after_s:
            self.timer.call_after(after_s, kombu_transport.reject, given)
        else:
            kombu_transport.reject(*given)


def consumer_class(
    connections: ConnectionPolicy, messages: MessagePolicy, *, hears_workers: bool
) -> type[Any]:
    """Return a class for Celery's setting ``worker_consumer``.

    With a quorum queue Celery also makes 28 more queues, for tasks with a countdown; that step
    is left out.

    Args:
        connections: Decides about connections.
        messages: Judges messages.
        hears_workers: Whether it listens to other workers and to remote commands.
    """
    left_out: tuple[str, ...] = (_WITH_DELAYED_DELIVERY,)
    if not hears_workers:
        left_out += _WITH_OTHER_WORKERS
    steps = [step for step in _Base.Blueprint.default_steps if not step.endswith(left_out)]
    blueprint = type("Blueprint", (_Base.Blueprint,), {"default_steps": steps})
    members = {"connections": connections, "messages": messages, "Blueprint": blueprint}
    return type("ChunkConsumer", (_PolicyConsumer,), members)
