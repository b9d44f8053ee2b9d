"""kombu: publishing messages, sending commands to all workers, and the errors of both."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from kombu import Producer
from kombu.exceptions import KombuError
from kombu.pidbox import Mailbox

__all__ = [
    "PAYLOAD_ERRORS",
    "OneAttemptMailbox",
    "errors_of",
    "producer_on",
    "publishing_at_once",
]

PAYLOAD_ERRORS: Final = (KombuError, ValueError, TypeError, LookupError, RecursionError)
"""The exceptions that reading a message's payload may raise."""


def errors_of(connection: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions that using a connection raises, translated by kombu or not."""
    return (
        KombuError,
        *connection.recoverable_connection_errors,
        *connection.connection_errors,
        *connection.channel_errors,
    )


def producer_on(channel: Any) -> Any:
    """Return a producer on a channel or connection; it declares nothing."""
    return Producer(channel, auto_declare=False)


def publishing_at_once(producer: Any, count: int) -> contextlib.AbstractContextManager[Any]:
    """Publish all messages of the block in one round trip, where the transport supports it.

    After an error some of it may have been published.

    Args:
        producer: A `kombu.Producer`.
        count: Messages in the block.
    """
    batch: contextlib.AbstractContextManager[Any] = producer.batch(max_size=count)
    return batch


class OneAttemptMailbox(Mailbox):
    """A mailbox that sends a command once; kombu's own retries until it succeeds.

    Args:
        name: As Celery's ``control_exchange``.
        connection: The connection to send over.
        answer_s: How long the broker may take to confirm.
    """

    def __init__(self, name: str, connection: Any, answer_s: float) -> None:
        super().__init__(name, type="fanout", connection=connection, serializer="json")
        self._answer_s = answer_s

    def send_command(self, command: str, arguments: dict[str, Any]) -> None:
        """Send a command to all workers, which do not reply."""
        self.abcast(command, arguments)

    @contextlib.contextmanager
    def producer_or_acquire(self, producer: Any = None, channel: Any = None) -> Iterator[Any]:
        """Return a producer that does not retry; called by kombu."""
        yield _OneAttempt(channel, self._answer_s)


class _OneAttempt(Producer):
    def __init__(self, channel: Any, answer_s: float) -> None:
        self._options = {"retry": False, "confirm_timeout": answer_s}
        super().__init__(channel, auto_declare=False)

    def publish(self, *args: Any, **options: Any) -> Any:
        return super().publish(*args, **options | self._options)
