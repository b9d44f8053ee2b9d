"""Refusals of a server: permanent ones, which need correcting, and temporary ones."""

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import redis

from pyrmute_tasks.distributed.internals.amqp_errors import (
    is_queue_of_another_kind,
    reply_code,
    reply_text,
)
from pyrmute_tasks.distributed.internals.redis_client import error_words, is_denied, refuses_user
from pyrmute_tasks.errors import PyrmuteTasksError

__all__ = [
    "find_refusal",
    "forget_context",
    "passing_refusal",
    "reason_of",
    "refuses_connections",
    "trouble_of",
]

_DEPTH: Final = 8  # of causes
_AMQP: Final = {
    403: "the user, the password or what the user wants to do",
    530: "the user, or has no such virtual host",
}
_PRECONDITION: Final = 406  # also said of a chunk that took too long
_DATABASE: Final = "DB index"
_KIND: Final = "WRONGTYPE"
_PASSING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "READONLY": "it is a replica, which takes no writes",
        "NOREPLICAS": "too few of its replicas are there for it to take writes",
        "LOADING": "it is still loading its data",
        "BUSY": "it is busy with somebody's script",
        "CLUSTERDOWN": "its cluster is down",
        "MASTERDOWN": "it is a replica that has lost its master",
        "TRYAGAIN": "its cluster is moving keys",
        "UNBLOCKED": "it has just become a replica",
    }
)
_NOBODY_THERE: Final = (
    ConnectionRefusedError,
    FileNotFoundError,
    PermissionError,
    socket.gaierror,
)
_NO_WAY: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH)


def find_refusal(error: BaseException) -> str | None:
    """Return a server's permanent refusal in a few words; None if a retry may succeed.

    Args:
        error: An exception of redis-py, amqp or kombu.
    """
    for cause in _causes(error):
        what = _refused(cause)
        if what is not None:
            return what
    return None


def passing_refusal(error: BaseException) -> str | None:
    """Return Redis's word for a temporary refusal; None for other errors.

    Args:
        error: An exception of redis-py or kombu.
    """
    for cause in _causes(error):
        if isinstance(cause, redis.RedisError):
            code = _passing(cause)
            if code is not None:
                return code
    return None


def refuses_connections(error: BaseException) -> bool:
    """Return whether a connection failed because nothing listens at its address."""
    return any(
        isinstance(cause, _NOBODY_THERE) or (isinstance(cause, OSError) and cause.errno in _NO_WAY)
        for cause in _causes(error)
    )


def trouble_of(error: BaseException) -> str:
    """Return why a server could not be used, for messages; quotes nothing of a command."""
    code = passing_refusal(error)
    return type(error).__name__ if code is None else f"{code}: {_PASSING[code]}"


def forget_context(error: BaseException, handled: BaseException | None) -> None:
    """Remove the handled error `handled` from the context of `error`, which it does not concern.

    Args:
        error: The exception of a call.
        handled: The exception handled when the call began, `sys.exc_info()[1]`: a job that
            is begun in an ``except`` block must not fail as that did.
    """
    cause: BaseException | None = error
    while cause is not None and handled is not None:
        if cause.__context__ is handled:
            cause.__context__ = None
        cause = cause.__context__


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_DEPTH):
        # What stands behind an error of ours is about an earlier call: this one retries that.
        if cause is None or isinstance(cause, PyrmuteTasksError):
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _passing(error: redis.RedisError) -> str | None:
    return next((word for word in error_words(error) if word in _PASSING), None)


def _refused(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "nothing, but its certificate is not trusted"
    if refuses_user(error):
        return "the user or the password"
    text = str(error)
    if isinstance(error, redis.ResponseError):
        if is_denied(error):
            return "what the user wants to do"
        if _DATABASE in text:
            return "the number of the database"
    if _KIND in text or is_queue_of_another_kind(error):
        return "the queue, which is of another kind; delete it when it is empty, or name another"
    code = reply_code(error)
    return _AMQP.get(code) if code != _PRECONDITION else None


def reason_of(error: BaseException) -> str:
    """Return the first line of a server's reply; never a command's arguments."""
    text = reply_text(error) or str(error)
    lines = text.splitlines() or [type(error).__name__]
    return str(lines[0]).rstrip(".")
