"""Recognises refusals: errors that stay until somebody corrects a setting or a right."""

import ssl
from typing import Final

import redis

__all__ = ["find_refusal", "reason_of"]

_DEPTH: Final = 8  # of causes
_AMQP: Final = {
    403: "the user, the password or what the user wants to do",
    530: "the user, or has no such virtual host",
}
_PRECONDITION: Final = 406  # also said of a chunk that took too long
_RIGHTS: Final = ("NOPERM", "ACL failure")  # of a script's command
_DATABASE: Final = "DB index"
_KIND: Final = ("WRONGTYPE", "inequivalent arg")


def find_refusal(error: BaseException) -> str | None:
    """Return what a server refused, in a few words; None if it may go better another time.

    Args:
        error: What redis-py, amqp or kombu raised.
    """
    cause: BaseException | None = error
    for _ in range(_DEPTH):
        if cause is None:
            return None
        what = _refused(cause)
        if what is not None:
            return what
        cause = cause.__cause__ or cause.__context__
    return None


def _refused(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return "nothing, but its certificate is not trusted"
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return "the user or the password"
    if isinstance(error, redis.ResponseError):
        is_denied = isinstance(error, redis.exceptions.NoPermissionError)
        if is_denied or any(word in text for word in _RIGHTS):
            return "what the user wants to do"
        if _DATABASE in text:
            return "the number of the database"
    if any(word in text for word in _KIND):
        return "the queue, which is of another kind; delete it when it is empty, or name another"
    code = getattr(error, "reply_code", 0) or 0
    return _AMQP.get(code) if code != _PRECONDITION else None


def reason_of(error: BaseException) -> str:
    """Return the first line of what a server said; never a command's arguments."""
    text = getattr(error, "reply_text", None) or str(error)
    lines = text.splitlines() or [type(error).__name__]
    return str(lines[0]).rstrip(".")
