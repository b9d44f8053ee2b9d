"""The worker's consumer: lets no message through that a producer has not written.

Celery trusts the shape of a message. Many that are wrong (a body that is a number, a header
of another type) end the worker's main process with an exception, and go back to the queue,
where they end the next one. So each is checked before Celery looks at it.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, ClassVar, Final

from celery.worker.consumer import Consumer
from kombu.exceptions import KombuError

from pyrmute_tasks.distributed.app import TASK_NAME, signed_part
from pyrmute_tasks.errors import SignatureError
from pyrmute_tasks.observability import log
from pyrmute_tasks.signing import Sealed, Signer

__all__ = ["ChunkConsumer", "consumer_of"]

_blueprint: Any = Consumer.Blueprint

_TASK: Final = re.compile(r"[0-9a-f]{8,32}-[0-9:+]{1,50}-[0-9]{1,9}")
_JOB: Final = re.compile(r"[0-9a-f]{8,32}")
_PART: Final = re.compile(r"[0-9]{1,12}(:[0-9]{1,18}\+[0-9]{1,12})?")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{1,128}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{0,64}")
_MAX_START: Final = 2**63
_NONE: Final = ("eta", "expires", "group", "parent_id")
_EMPTY: Final[tuple[object, ...]] = (None, {}, [])


class ChunkConsumer(Consumer):
    """Rejects what is no task of ours, with a log line.

    With a quorum queue Celery also makes 28 more queues, for tasks with a countdown. No
    chunk has one, so that step is left out.

    Attributes:
        signer: Checks who has written a message.
    """

    signer: ClassVar[Signer] = Signer()

    class Blueprint(_blueprint):  # type: ignore[misc]  # it is an attribute, for the types
        """The steps of Celery's consumer but one."""

        default_steps: ClassVar = [
            step for step in _blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Return what is called with every message."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> Any:
            problem = _problem(message) or _forgery(message, self.signer)
            if problem is None:
                return handle(message)
            log(logging.ERROR, "message_rejected", f"a message is rejected: {problem}")
            lost: Any = self.connection_errors  # type: ignore[attr-defined]  # not in its stubs
            message.reject_log_error(logging.getLogger("pyrmute_tasks"), lost)
            return None

        return on_message


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
    return None if _is_call(body) else "its arguments are not what a producer writes"


def consumer_of(signer: Signer) -> type[ChunkConsumer]:
    """Return the consumer of workers that believe `signer`.

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
    args = message.payload[0]
    job, part, start, code, *rest = args
    told = signed_part(message.headers["id"], (job, part, start, code))
    try:
        signer.check(Sealed.TASK, job, part, told, rest[0] if rest else "")
    except SignatureError as error:
        return str(error)
    return None


def _is_call(body: object) -> bool:
    match body:
        case [
            [str() as job, str() as part, int() as start, str() as code, *rest],
            {} as named,
            embed,
        ]:
            return (
                len(rest) <= 1
                and all(_matches(_SIGNATURE, signature) for signature in rest)
                and _matches(_JOB, job)
                and _matches(_PART, part)
                and type(start) is int
                and 0 <= start < _MAX_START
                and _matches(_FINGERPRINT, code)
                and not named
                and isinstance(embed, dict)
                and not any(embed.values())
            )
    return False


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
