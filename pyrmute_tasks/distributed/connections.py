"""Detection of dead connections: socket options and timeouts."""

import socket
from collections.abc import Mapping
from typing import Final

__all__ = ["TCP_OPTIONS", "answer_s", "is_socket_file"]

_ANSWER_S: Final = 5.0
_LEAST_ANSWER_S: Final = 2.0  # a blocking pop takes one
_SILENT_MS: Final = 10_000
_OPTIONS: Final = (
    ("TCP_KEEPIDLE", 3),
    ("TCP_KEEPINTVL", 2),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", _SILENT_MS),  # what was sent is acknowledged by then, or is lost
)

TCP_OPTIONS: Final[Mapping[int, int]] = {
    getattr(socket, name): value for name, value in _OPTIONS if hasattr(socket, name)
}
"""Socket options of every TCP connection; those that this platform supports."""


def answer_s(outage_s: float) -> float:
    """Return the time after which a silent connection counts as dead while an answer is due.

    Args:
        outage_s: How long a server is tried.
    """
    return min(_ANSWER_S, max(outage_s, _LEAST_ANSWER_S))


def is_socket_file(url: str) -> bool:
    """Return whether a URL of redis-py or kombu is a Unix socket's, which has no options of TCP."""
    return url.startswith(("unix://", "redis+socket://"))
