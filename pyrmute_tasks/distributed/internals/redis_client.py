"""redis-py: its connections, retries and errors."""

import contextlib
import fcntl
import re
import struct
import sys
import termios
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

__all__ = [
    "CommandRetry",
    "ScriptNotLoadedError",
    "StorePool",
    "connection_class",
    "error_words",
    "is_denied",
    "is_out_of_memory",
    "refuses_user",
    "store_client",
]

_PIECE_BYTES: Final = 64 * 1024


# --- connections ------------------------------------------------------------------------------


class _ProgressConnection:
    """A connection that waits for an answer as long as data moves.

    The library's timeout covers all of a command on its way out, and starts with its last
    byte on the way in, though that may still be in this system's buffers: a slow connection would
    be left, and be asked for the same again.
    """

    _sock: Any

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send a command in pieces, each with the whole timeout."""
        base: Any = super()
        base.send_packed_command(_pieces(command), check_health)

    def read_response(self, *args: Any, disconnect_on_error: bool = True, **options: Any) -> Any:
        """Read an answer; see redis-py."""
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
        """Return the number of bytes that the other side has not acknowledged."""
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


class _Tcp(_ProgressConnection, redis.Connection):
    pass


class _Tls(_ProgressConnection, redis.SSLConnection):
    pass


class _SocketFile(_ProgressConnection, redis.UnixDomainSocketConnection):
    pass


class StorePool(redis.ConnectionPool):
    """A pool of connections to a store, with a retry that covers connecting.

    The library looks at each one, and at a new one in its place if it is lost; it raises at once
    if that is lost as well.
    """

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a working connection."""
        retry: Any = self.connection_kwargs["retry"]
        return retry.call_with_retry(super().get_connection, lambda _: None)


def connection_class(url: str) -> type[redis.Connection]:
    """Return the class of connections to a store, by its URL."""
    if url.startswith("unix://"):
        found: Any = _SocketFile
    else:
        found = _Tls if url.startswith("rediss://") else _Tcp
    return found  # type: ignore[no-any-return]  # the library has no common class


def store_client(url: str, **options: Any) -> redis.Redis:
    """Return a client whose connections are `StorePool`'s; closing it closes them.

    Args:
        url: Where the store is.
        options: As of `redis.ConnectionPool.from_url`.
    """
    pool = StorePool.from_url(url, connection_class=connection_class(url), **options)
    return redis.Redis.from_pool(pool)


# --- retries ----------------------------------------------------------------------------------


class CommandRetry(Retry):
    """Base class of retries with their own limit, for every command and connection.

    Connections copy the retry they are given; this one stays one object, which knows the
    command that they are opened for.

    Args:
        errors: The errors that may be retried.
    """

    def __init__(self, errors: tuple[type[Exception], ...]) -> None:
        super().__init__(NoBackoff(), retries=1, supported_errors=errors)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        """Call `do` until it succeeds or the retry gives up; called by redis-py."""

        def failed(error: Exception, failures: int) -> None:
            if is_retryable is not None and not is_retryable(error):
                raise error
            if with_failure_count:
                fail(error, failures)
            else:
                fail(error)

        return self.attempt(do, failed)

    @abstractmethod
    def attempt(self, do: Callable[[], Any], failed: Callable[[Exception, int], None]) -> Any:
        """Call `do` until it succeeds, and return its result.

        Args:
            do: Sends a command, or connects.
            failed: Call it before another attempt, with the error and how often `do` has failed
                by now: it closes the connection. It raises an error that must not be retried.
        """


# --- errors -----------------------------------------------------------------------------------

ScriptNotLoadedError: Final = NoScriptError
"""Raised when a script is called by its hash and the server does not know it."""

_OF_PIPELINE: Final = " of pipeline caused error: "  # behind the command, which holds records
_OF_SCRIPT: Final = re.compile(r"Error running script .*: -([A-Z]+)\b")
_RIGHTS: Final = ("NOPERM", "ACL failure")  # of a script's command


def error_words(error: redis.RedisError) -> Iterator[str]:
    """Yield the words of an error that may be the server's name for it, such as ``READONLY``.

    The command, which a pipeline's error quotes, holds records; it is left out.
    """
    code: str | None = error.status_code
    if code:
        yield code
    if isinstance(error, redis.ResponseError):
        said = str(error).rpartition(_OF_PIPELINE)[2]
        yield said.partition(" ")[0]
        if found := _OF_SCRIPT.match(said):  # as servers before Redis 7 say it
            yield found[1]


def refuses_user(error: BaseException) -> bool:
    """Return whether the server refused the user or the password."""
    return isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError))


def is_denied(error: redis.ResponseError) -> bool:
    """Return whether the user lacks the permission for a command."""
    text = str(error)
    return isinstance(error, redis.exceptions.NoPermissionError) or any(
        word in text for word in _RIGHTS
    )


def is_out_of_memory(error: Exception) -> bool:
    """Return whether the server refused a command for lack of memory."""
    return isinstance(error, redis.OutOfMemoryError) or "OOM command not allowed" in str(error)
