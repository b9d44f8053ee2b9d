"""The client that both sides of the store use: connecting, checking, giving up."""

import logging
from collections.abc import Callable
from typing import Any, Final

import redis

from pyrmute_tasks.distributed.connections import (
    TCP_OPTIONS,
    answer_s,
    is_socket_file,
)
from pyrmute_tasks.distributed.internals.redis_client import store_client
from pyrmute_tasks.distributed.redis_retry import TimedRetry
from pyrmute_tasks.distributed.refusals import (
    find_refusal,
    refuses_connections,
    trouble_of,
)
from pyrmute_tasks.errors import StoreUnavailableError
from pyrmute_tasks.logs import hide_password, log
from pyrmute_tasks.settings import Settings, signer_of

__all__ = ["StoreConnection", "warn_rejected"]

_CONNECT_TIMEOUT_S: Final = 3.0
_READ_BYTES: Final = 256 * 1024  # the library's 64 KiB costs four times the system calls


class StoreConnection:
    """A connection to the store.

    Args:
        settings: Its URL, and the expiry of keys.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signer = signer_of(settings)
        self._garbled: dict[str, int] = {}  # how many there were at the last look, by kind
        self._patience = TimedRetry(settings.outage_s)
        # Every call may be repeated: see the package's rule for settling.
        self._redis = _connect(settings, self._patience)

    def check(self) -> None:
        """Check that the store answers; waits for one that is silent or not ready yet.

        Raises:
            StoreUnavailableError: If it does not answer in time, or nothing listens there.
        """
        url = hide_password(self._settings.redis_store_url)
        client = _connect(self._settings, self._patience.but_final(_ends_check))
        try:
            client.ping()
        except redis.AuthenticationError:
            raise StoreUnavailableError(
                f"the store at {url} refused the user or the password; correct them in the URL"
            ) from None
        except redis.RedisError as error:
            raise StoreUnavailableError(
                f"no store answers at {url} ({_reason(error)}); start a Redis or Valkey server "
                "there or correct the URL"
            ) from None
        finally:
            client.close()

    def give_up(self) -> None:
        """Stop all retries: the server has been left, or ended, on purpose."""
        self._patience.give_up()

    def watch(self, look: Callable[[], None]) -> None:
        """Call `look` before each retry; an exception it raises ends the call."""
        self._patience.look = look

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _tell_garbled(self, what: str, count: int, **where: str) -> None:
        """Log the number of unreadable values, once, as there may be many."""
        if count and count != self._garbled.get(what):
            # Not what they say: they are not from a worker of ours.
            text = f"a {what} cannot be read and is ignored"
            log(logging.WARNING, "store_garbled", text, count=count, **where)
        self._garbled[what] = count


def warn_rejected(what: str, why: str, **where: str) -> None:
    """Log that a value has no valid signature."""
    log(logging.WARNING, "signature_rejected", f"a {what} is rejected: {why}", **where)


def _connect(settings: Settings, patience: TimedRetry) -> redis.Redis:
    url = settings.redis_store_url
    tcp: dict[str, Any] = {"socket_keepalive": True, "socket_keepalive_options": TCP_OPTIONS}
    return store_client(
        url,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        socket_timeout=answer_s(settings.outage_s),
        socket_read_size=_READ_BYTES,
        retry=patience,
        # The newer protocol and the library's name cost three more round trips a connection.
        protocol=2,
        driver_info=None,
        **({} if is_socket_file(url) else tcp),
    )


def _ends_check(error: Exception) -> bool:
    return refuses_connections(error) or find_refusal(error) is not None


def _reason(error: Exception) -> str:
    trouble = trouble_of(error)
    if trouble != type(error).__name__ or not str(error):
        return trouble
    return str(error).splitlines()[0].rstrip(".")
