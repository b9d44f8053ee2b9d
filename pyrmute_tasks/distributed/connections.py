"""Connections that notice a dead line, and are patient with a slow one."""

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import redis

__all__ = ["TCP_OPTIONS", "LinePool", "answer_s", "connection_class", "is_socket_file"]

_ANSWER_S: Final = 5.0
_LEAST_ANSWER_S: Final = 2.0  # a blocking pop takes one
_PIECE_BYTES: Final = 64 * 1024
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
    """Return how long a line may be silent while an answer is due.

    Args:
        outage_s: How long a server is tried.
    """
    return min(_ANSWER_S, max(outage_s, _LEAST_ANSWER_S))


def is_socket_file(url: str) -> bool:
    """Say whether a URL of redis-py or kombu leads to a unix socket: no TCP there."""
    return url.startswith(("unix://", "redis+socket://"))


class _Line:
    """Waits for an answer as long as anything moves; a part of redis-py's connections.

    The library's timeout covers all of a command on its way out, and starts with its last
    byte on the way in, though that may still be in this system's buffers: a slow line would
    be left, and be asked for the same again.
    """

    _sock: Any

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send a command in pieces, each of which has the timeout for itself."""
        base: Any = super()
        base.send_packed_command(_pieces(command), check_health)

    def read_response(self, *args: Any, disconnect_on_error: bool = True, **options: Any) -> Any:
        """Read an answer; see the library's."""
        base: Any = super()
        unsent = self._unsent()
        try:
            while True:
                try:
                    return base.read_response(*args, disconnect_on_error=False, **options)
                except redis.TimeoutError:
                    before, unsent = unsent, self._unsent()
                    if (
                        unsent >= before or "timeout" in options
                    ):  # one that is given a timeout keeps it
                        raise
        except redis.ResponseError:
            raise
        except BaseException:
            if disconnect_on_error:
                connection: Any = self
                connection.disconnect()
            raise

    def _unsent(self) -> int:
        """Return how many bytes the other side has not acknowledged."""
        if self._sock is None or not sys.platform.startswith("linux"):
            return 0
        with contextlib.suppress(OSError):
            told = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4))
            return int(struct.unpack("i", told)[0])
        return 0


def _pieces(command: Any) -> Iterator[memoryview]:
    items: Iterable[Any] = (command,) if isinstance(command, (str, bytes)) else command
    for item in items:
        whole = memoryview(item.encode() if isinstance(item, str) else item)
        for start in range(0, len(whole), _PIECE_BYTES):
            yield whole[start : start + _PIECE_BYTES]


class _Tcp(_Line, redis.Connection):
    pass


class _Tls(_Line, redis.SSLConnection):
    pass


class _SocketFile(_Line, redis.UnixDomainSocketConnection):
    pass


class LinePool(redis.ConnectionPool):
    """Connections to a store, with a retry that covers taking one out, too.

    The library looks at each one, and at a new one in its place if it is lost; it raises at once
    if that is lost as well.
    """

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Take a connection out that works."""
        retry: Any = self.connection_kwargs["retry"]
        return retry.call_with_retry(super().get_connection, lambda _: None)


def connection_class(url: str) -> type[redis.Connection]:
    """Return the class of connections to a store, by its URL."""
    if is_socket_file(url):
        found: Any = _SocketFile
    else:
        found = _Tls if url.startswith("rediss://") else _Tcp
    return found  # type: ignore[no-any-return]  # the library has no common class
