"""The broker as a producer uses it: publishing, counting and withdrawing tasks."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyrmute_tasks.distributed.app import TASK_NAME, FleetApp
from pyrmute_tasks.distributed.broker_profile import broker_profile
from pyrmute_tasks.distributed.internals.amqp_errors import reply_code
from pyrmute_tasks.distributed.internals.kombu_producers import (
    errors_of,
    producer_on,
    publishing_at_once,
)
from pyrmute_tasks.distributed.internals.kombu_transport import (
    drop_connection,
    limit_answers,
)
from pyrmute_tasks.distributed.refusals import (
    find_refusal,
    forget_context,
    passing_refusal,
    reason_of,
    refuses_connections,
    trouble_of,
)
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.errors import BrokerUnavailableError
from pyrmute_tasks.logs import hide_password, log
from pyrmute_tasks.settings import Settings, signer_of

__all__ = ["Broker", "Message"]

_FIRST_PAUSE_S: Final = 0.1
_RETRY_EVERY_S: Final = 1.0
_ANSWER_S: Final = 5.0  # a broker that takes longer is frozen, or its host is
_REFUSED_QUEUE: Final = 406
_REFUSALS: Final = (403, _REFUSED_QUEUE, 530)


@dataclass(frozen=True, slots=True)
class Message:
    """One task to be published.

    Attributes:
        task: Its id.
        arguments: Its arguments; not signed yet.
        label: Shown by Flower in place of the arguments.
    """

    task: str
    arguments: TaskArguments
    label: str


class Broker:
    """Publishes tasks to Redis, Valkey or RabbitMQ, through Celery's application.

    Args:
        app: The producer's application.
        settings: The broker's URL, and timeouts.
        is_over: Set when nothing is to be tried again.
        look: Called before anything is tried again; what it raises ends the call.
    """

    def __init__(
        self,
        app: FleetApp,
        settings: Settings,
        is_over: threading.Event | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._is_over = is_over or threading.Event()
        self._look = look
        self._app = app
        self._settings = settings
        self._signer = signer_of(settings)
        self._profile = broker_profile(settings)
        connection: Any = app.connection_for_write()
        self._errors = errors_of(connection)

    def check(self) -> None:
        """Check that the broker answers; waits for one that is silent or not ready yet.

        Raises:
            BrokerUnavailableError: If it does not answer in time, if nothing listens there, or
                if it refuses the user or the queue.
        """
        errors: tuple[type[Exception], ...] = (*self._errors, ValueError, KeyError)
        deadline = time.monotonic() + self._settings.outage_s
        handled = sys.exc_info()[1]
        while True:
            try:
                return self._check_once()
            except errors as error:
                forget_context(error, handled)
                if _refuses(error):
                    raise self._refused(error) from None
                self._look()
                is_final = refuses_connections(error) or isinstance(error, (ValueError, KeyError))
                if is_final or time.monotonic() > deadline or self._is_over.wait(_RETRY_EVERY_S):
                    raise BrokerUnavailableError(
                        f"no broker answers at {self._url} ({_why(error)}); "
                        "start it there or correct the URL"
                    ) from None

    def _check_once(self) -> None:
        with self._connection() as connection:  # what is published goes over it, too
            channel = connection.default_channel  # opening it is what fails on Redis
            self._profile.declare_queue(self._app, channel)

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish tasks; retries a broker that is away, until `outage_s` have passed.

        After a failure they are published again, although some may have been delivered: the
        second outcome of a chunk is dropped.

        Raises:
            BrokerUnavailableError: If it stays away for longer than the settings allow, or
                refuses the tasks.
        """
        deadline = time.monotonic() + self._settings.outage_s
        pause_s = _FIRST_PAUSE_S
        while (trouble := self._publish_once(messages)) is not None:
            self._look()
            if self._is_over.wait(pause_s) or time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"the broker at {self._url} has been out of reach for "
                    f"{self._settings.outage_s:.0f} s ({trouble})"
                )
            pause_s = min(2 * pause_s, _RETRY_EVERY_S)

    def _publish_once(self, messages: Sequence[Message]) -> str | None:
        """Publish tasks; return the error that prevented it, or None."""
        handled = sys.exc_info()[1]
        try:
            with self._connection() as connection:
                producer = producer_on(connection)
                with publishing_at_once(producer, len(messages)):
                    for message in messages:
                        self._send(message, producer)
        except self._errors as error:
            forget_context(error, handled)
            if _refuses(error):
                raise self._refused(error) from None
            trouble = trouble_of(error)
            log(logging.WARNING, "publish_failed", "the broker cannot be used", error=trouble)
            return trouble
        return None

    def _send(self, message: Message, producer: Any) -> None:
        self._app.send_once(
            TASK_NAME,
            message.arguments.sign(message.task, self._signer).to_args(),
            task_id=message.task,
            label=message.label,
            producer=producer,
            answer_s=_ANSWER_S,
        )

    def queue_depth(self) -> int | None:
        """Return the number of tasks waiting in the queue; None if the broker is away."""
        try:
            with self._connection() as connection:
                return self._profile.count_tasks(connection, self._settings.queue)
        except self._errors:
            return None

    def revoke(self, tasks: Iterable[str]) -> None:
        """Ask the workers to skip tasks.

        An optimization: the store tells a worker the same when it claims the chunk. With a secret
        workers ignore it, since Celery's remote control cannot be signed.
        """
        if self._signer.is_on:
            return
        with contextlib.suppress(*self._errors), self._connection() as connection:
            self._app.revoke_once(tasks, connection, _ANSWER_S)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """Borrow a working connection from the pool, which answers or fails in time."""
        connection: Any = self._app.pool.acquire(block=True)
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            limit_answers(connection, _ANSWER_S)
            yield connection
        except BaseException:
            drop_connection(connection)
            raise
        finally:
            connection.release()

    def _refused(self, error: Exception) -> BrokerUnavailableError:
        if reply_code(error) == _REFUSED_QUEUE:
            return BrokerUnavailableError(
                f"the broker at {self._url} has a queue '{self._settings.queue}' of another kind "
                f"({reason_of(error)}); delete it when it is empty, or set another name"
            )
        what = find_refusal(error) or "the user, the password or what the user wants to do"
        return BrokerUnavailableError(
            f"the broker at {self._url} refused {what} ({reason_of(error)}); correct the URL or "
            "the user's permissions"
        )

    @property
    def _url(self) -> str:
        return hide_password(self._settings.broker_url)


def _refuses(error: Exception) -> bool:
    return reply_code(error) in _REFUSALS or find_refusal(error) is not None


def _why(error: Exception) -> str:
    return reason_of(error) if passing_refusal(error) is None else trouble_of(error)
