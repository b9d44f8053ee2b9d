"""Consumes a worker's messages, and rejects those that no producer has written.

Celery trusts the shape of a message. Many that are wrong (a body that is a number, a header
of another type) end the worker's main process with an exception, and go back to the queue,
where they end the next one. So each is checked before Celery looks at it.
"""

import logging
import re
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.exceptions import KombuError

from pyrmute_tasks.distributed.app import TASK_NAME
from pyrmute_tasks.distributed.refusals import find_refusal, reason_of
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.distributed.worker.foreign_tasks import ForeignTasks
from pyrmute_tasks.errors import SignatureError
from pyrmute_tasks.logs import log
from pyrmute_tasks.wire.signing import Signer

__all__ = ["ChunkConsumer", "consumer_of"]

_Base: Any = Consumer  # its stubs lack most of it

_TASK: Final = re.compile(r"[0-9a-f]{8,32}-[0-9:+]{1,50}-[0-9]{1,9}")
_NONE: Final = ("eta", "expires", "group", "parent_id")
_EMPTY: Final[tuple[object, ...]] = (None, {}, [])
_PAUSE_S: Final = 1.0  # after a first refusal; the next pauses are longer
_LONGEST_PAUSE_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.2
_RECONNECT_S: Final = 0.5  # Celery's pauses grow to 30 s, which then pass after an outage
_RECONNECT_MOST_S: Final = 3.0
_FORGET_REFUSAL_S: Final = 120.0
_HOLD_S: Final = 1.0  # a message that is signed with another secret, or not at all


class ChunkConsumer(_Base):  # type: ignore[misc]  # it is a class
    """Passes only our tasks on to Celery, and ends if the broker refuses it.

    Somebody else's task is moved to a queue of its own, what is no message of Celery's is
    rejected, each with a log line.

    What a broker refuses at the start, or Redis at any time, ends the worker with one
    sentence and status 1. RabbitMQ, where rights may be about to be set, is asked again
    after growing pauses for as long as an outage may take.

    With a quorum queue Celery also makes 28 more queues, for tasks with a countdown. No
    chunk has one, so that step is left out.

    Attributes:
        signer: Checks who has written a message.
    """

    signer: ClassVar[Signer] = Signer()

    class Blueprint(_Base.Blueprint):  # type: ignore[misc]  # it is a class
        """The steps of Celery's consumer but one."""

        default_steps: ClassVar[list[str]] = [
            step for step in _Base.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._was_ready = False
        self._refused_at = self._refused_since = 0.0
        self._pause_s = _PAUSE_S
        super().__init__(*args, **kwargs)
        self._foreign = ForeignTasks(self.app)

    def on_ready(self) -> None:
        """Take note that the broker has accepted this worker once."""
        self._was_ready = True
        super().on_ready()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect; what cannot be reached is tried again, as Celery does it."""

        def tell(error: Exception, pause_s: float) -> None:
            self._heed_refusal(error)
            log(
                logging.ERROR,
                "broker_away",
                "the broker cannot be reached",
                broker=conn.as_uri(),
                error=reason_of(error),
                again_in_s=pause_s,
            )

        conf: Any = self.app.conf
        connected = conn.ensure_connection(
            tell,
            conf.broker_connection_max_retries,
            interval_start=_RECONNECT_S,
            interval_step=_RECONNECT_S,
            interval_max=_RECONNECT_MOST_S,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return connected

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Handle an error that no retry has caught."""
        self._heed_refusal(exc)
        super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Handle an error of a connection that worked."""
        self._heed_refusal(exc)
        super().on_connection_error_after_connected(exc)

    def _heed_refusal(self, error: Exception) -> None:
        """Pause if `error` is a refusal, or end the worker.

        Raises:
            WorkerShutdown: With status 1, if asking again is in vain.
        """
        what = find_refusal(error)
        if what is None:
            return
        now = time.monotonic()
        if now - self._refused_at > _FORGET_REFUSAL_S:
            self._refused_since, self._pause_s = now, _PAUSE_S
        self._refused_at = now
        app: Any = self.app
        is_final = not self._was_ready or app.profile.refuses_for_good
        if is_final or now - self._refused_since >= app.outage_s:
            log(
                logging.CRITICAL,
                "broker_refused",
                f"the broker at {app.connection_for_read().as_uri()} refused {what} "
                f"({reason_of(error)}); this worker ends",
            )
            raise WorkerShutdown(1)
        self._pause(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            maybe_shutdown()
            time.sleep(_LOOK_EVERY_S)

    def add_task_queue(self, queue: str, *args: Any, **kwargs: Any) -> None:
        """Serve the queue again after `cancel_task_queue`; no other is served."""
        queues: Any = self.app.amqp.queues
        if queue not in queues:
            log(logging.ERROR, "queue_refused", "no other queue is served", queue=queue)
            return
        super().add_task_queue(queue, *args, **kwargs)
        queues.select_add(queues[queue])  # else it is not served after the next connection

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Return what is called with every message."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> Any:
            problem = _problem(message)
            is_forged = problem is None
            problem = problem or _forgery(message, self.signer)
            if problem is None:
                return handle(message)
            if _is_foreign(message) and self._foreign.move(message):
                message.ack_log_error(logging.getLogger("pyrmute_tasks"), self.connection_errors)
                return None
            self._reject(message, problem, is_forged)
            return None

        return on_message

    def _reject(self, message: Any, problem: str, is_forged: bool) -> None:
        log(logging.ERROR, "message_rejected", f"a message is rejected: {problem}")
        lost: Any = self.connection_errors
        logger = logging.getLogger("pyrmute_tasks")
        if is_forged:
            # Maybe it is this worker that has the wrong secret. It must not be the quickest to
            # empty the queue, and another worker may have the message once.
            again = not message.delivery_info.get("redelivered")
            self.timer.call_after(_HOLD_S, message.reject_log_error, (logger, lost, again))
        else:
            message.reject_log_error(logger, lost)


def _is_foreign(message: Any) -> bool:
    headers = message.headers
    if not isinstance(headers, dict):
        return False
    task = headers.get("task", "")  # Celery's first protocol has none in the headers
    return isinstance(task, str) and task != TASK_NAME


def _problem(message: Any) -> str | None:
    """Say what a producer would not have written; nothing of it is quoted."""
    headers = message.headers
    if not isinstance(headers, dict) or headers.get("task") != TASK_NAME:
        return "it names another task than ours"
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        return "it is not JSON"
    if not _matches(_TASK, headers.get("id")):
        return "its id is not what a producer writes"
    if (
        any(headers.get(name) is not None for name in _NONE)
        or headers.get("stamped_headers") not in _EMPTY
        or headers.get("stamps") not in _EMPTY
        or headers.get("timelimit") not in (None, [None, None])
        or type(headers.get("retries", 0)) is not int
        or headers.get("compression")
        or not isinstance(headers.get("argsrepr"), str)
    ):
        return "its headers are not what a producer writes"
    try:
        body = message.payload
    except (KombuError, ValueError, TypeError, LookupError, RecursionError) as error:
        return f"its body cannot be read ({type(error).__name__})"
    try:
        _read_call(body)
    except ValueError:
        return "its arguments are not what a producer writes"
    return None


def consumer_of(signer: Signer) -> type[ChunkConsumer]:
    """Return the consumer of workers that verify with `signer`.

    With a secret, a worker does not listen to other workers either: what they tell each other
    through Celery cannot be signed.
    """
    if not signer.is_on:
        return ChunkConsumer
    chatter = (":Mingle", ":Gossip", ":Control")
    steps = [step for step in ChunkConsumer.Blueprint.default_steps if not step.endswith(chatter)]
    blueprint = type("Blueprint", (ChunkConsumer.Blueprint,), {"default_steps": steps})
    return type("SignedConsumer", (ChunkConsumer,), {"signer": signer, "Blueprint": blueprint})


def _forgery(message: Any, signer: Signer) -> str | None:
    """Say what is wrong with a message's signature, if anything is."""
    try:
        _read_call(message.payload).check(message.headers["id"], signer)
    except SignatureError as error:
        return str(error)
    return None


def _read_call(body: object) -> TaskArguments:
    """Read the arguments in a message's body, which names nothing else to do.

    Raises:
        ValueError: If no producer wrote it.
    """
    match body:
        case [args, {} as named, {} as embed] if not named and not any(embed.values()):
            return TaskArguments.parse(args)
    raise ValueError("no call of the task")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
