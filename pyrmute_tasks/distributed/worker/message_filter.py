"""Rejects messages that no producer has written.

Celery trusts the shape of a message. Many that are wrong (a body that is a number, a header
of another type) end the worker's main process with an exception, and go back to the queue,
where they end the next one. So each is checked before Celery looks at it.
"""

import logging
import re
from typing import Any, Final

from pyrmute_tasks.distributed.app import TASK_NAME, FleetApp
from pyrmute_tasks.distributed.internals.celery_consumer import (
    Accept,
    Acknowledge,
    Reject,
    Verdict,
    is_plain_call,
)
from pyrmute_tasks.distributed.internals.kombu_producers import PAYLOAD_ERRORS
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.distributed.worker.foreign_tasks import ForeignTasks
from pyrmute_tasks.errors import SignatureError
from pyrmute_tasks.logs import log
from pyrmute_tasks.wire.signing import Signer

__all__ = ["MessageFilter"]

_TASK: Final = re.compile(r"[0-9a-f]{8,32}(?:\.[0-9]{1,9})?-[0-9:+]{1,50}-[0-9]{1,9}")
_HOLD_S: Final = 1.0  # a message that is signed with another secret, or not at all


class MessageFilter:
    """Passes only our tasks on to Celery.

    Another application's task is moved to a queue of its own, and what is not a message of Celery's
    is rejected, each with a log line.

    Args:
        app: The worker's application.
        signer: Checks who has written a message.
    """

    def __init__(self, app: FleetApp, signer: Signer) -> None:
        self._signer = signer
        self._foreign = ForeignTasks(app)

    def judge(self, message: Any) -> Verdict:
        """Return the action for one of kombu's messages."""
        problem = _problem(message)
        is_forged = problem is None
        problem = problem or _forgery(message, self._signer)
        if problem is None:
            return Accept()
        if _is_foreign(message) and self._foreign.move(message):
            return Acknowledge()
        log(logging.ERROR, "message_rejected", f"a message is rejected: {problem}")
        if not is_forged:
            return Reject()
        # Maybe it is this worker that has the wrong secret. It must not be the quickest to
        # empty the queue, and another worker may have the message once.
        again = not message.delivery_info.get("redelivered")
        return Reject(requeue=again, after_s=_HOLD_S)

    def refused_queue(self, queue: str) -> None:
        """Log a remote command for a queue that is not served."""
        log(logging.ERROR, "queue_refused", "no other queue is served", queue=queue)


def _is_foreign(message: Any) -> bool:
    headers = message.headers
    if not isinstance(headers, dict):
        return False
    task = headers.get("task", "")  # Celery's first protocol has none in the headers
    return isinstance(task, str) and task != TASK_NAME


def _problem(message: Any) -> str | None:
    """Return the first fault of a message, without quoting it; None if there is none."""
    headers = message.headers
    if not isinstance(headers, dict) or headers.get("task") != TASK_NAME:
        return "it names another task than ours"
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        return "it is not JSON"
    if not _matches(_TASK, headers.get("id")):
        return "its id is not what a producer writes"
    if not is_plain_call(headers):
        return "its headers are not what a producer writes"
    try:
        body = message.payload
    except PAYLOAD_ERRORS as error:
        return f"its body cannot be read ({type(error).__name__})"
    try:
        _read_call(body)
    except ValueError:
        return "its arguments are not what a producer writes"
    return None


def _forgery(message: Any, signer: Signer) -> str | None:
    """Return the fault of a message's signature; None if there is none."""
    try:
        _read_call(message.payload).check(message.headers["id"], signer)
    except SignatureError as error:
        return str(error)
    return None


def _read_call(body: object) -> TaskArguments:
    """Read the arguments from a message's body, which may ask for nothing else.

    Raises:
        ValueError: If no producer wrote it.
    """
    match body:
        case [args, {} as named, {} as embed] if not named and not any(embed.values()):
            return TaskArguments.parse(args)
    raise ValueError("not a call of the task")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
