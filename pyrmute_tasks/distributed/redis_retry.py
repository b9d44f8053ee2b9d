"""Redis retries bounded by elapsed time."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError

from pyrmute_tasks.distributed.internals.redis_client import CommandRetry
from pyrmute_tasks.distributed.refusals import forget_context, passing_refusal

__all__ = ["TimedRetry"]

_BACKOFF_BASE_S: Final = 0.05
_BACKOFF_CAP_S: Final = 1.0
_BACKOFF_TRIES: Final = 10  # by then it is at its cap; the library reckons without bound
_BACKOFF: Final = ExponentialBackoff(_BACKOFF_CAP_S, _BACKOFF_BASE_S)
_LOST: Final = (redis.ConnectionError, redis.TimeoutError, TimeoutError)
# A refusal is a response error, as most errors are that are not tried again.
_SUPPORTED: Final = (*_LOST, redis.ResponseError)


class TimedRetry(CommandRetry):
    """Retries until a time has passed since the outermost call began.

    What a server refuses for a while (it is a replica, or loads its data) is tried again as
    a lost connection is, and over a new one: after a failover its name leads elsewhere.

    The library counts tries, and nests them: each try of a command tries to connect several
    times. With a server that takes connections and does not answer that becomes hours.

    Args:
        seconds: Tries begin within this time.
        is_final: Whether an error is raised at once, whatever time is left.

    Attributes:
        look: Called before anything is tried again; what it raises ends the call.
    """

    def __init__(
        self, seconds: float, is_final: Callable[[Exception], bool] = lambda _: False
    ) -> None:
        super().__init__(_SUPPORTED)
        self._seconds = seconds
        self._is_final = is_final
        self._call = threading.local()
        self._is_over = threading.Event()
        self.look: Callable[[], None] = lambda: None

    def but_final(self, is_final: Callable[[Exception], bool]) -> "TimedRetry":
        """Return a retry with the same time and end, but with its own rule of final errors."""
        other = TimedRetry(self._seconds, is_final)
        other._is_over = self._is_over
        return other

    def give_up(self) -> None:
        """Stop all retries from now on, also in calls that wait for their next try."""
        self._is_over.set()

    def attempt(self, do: Callable[[], Any], failed: Callable[[Exception, int], None]) -> Any:
        """Call `do` until it succeeds or the time is up; see `CommandRetry`."""
        is_outermost = not hasattr(self._call, "deadline")
        if is_outermost:
            self._call.deadline = time.monotonic() + self._seconds
            self._call.handled = sys.exc_info()[1]
        try:
            return self._repeat(do, failed, is_outermost)
        finally:
            if is_outermost:
                del self._call.deadline, self._call.handled

    def _repeat(
        self, do: Callable[[], Any], failed: Callable[[Exception, int], None], is_outermost: bool
    ) -> Any:
        failures = 0
        while True:
            try:
                return do()
            except _SUPPORTED as error:
                forget_context(error, self._call.handled)
                if not self._passes(error):
                    raise
                failures += 1
                failed(error, failures)
                self.look()
                pause_s = _BACKOFF.compute(min(failures, _BACKOFF_TRIES))
                # Not after the first: the time may have passed while this process stood still.
                is_bound = failures > 1 or not is_outermost
                if is_bound and time.monotonic() + pause_s >= self._call.deadline:
                    raise
                if self._is_over.wait(pause_s):
                    raise

    def _passes(self, error: Exception) -> bool:
        if isinstance(error, AuthenticationError) or self._is_final(error):
            return False  # a password does not become right by being sent again
        return isinstance(error, _LOST) or passing_refusal(error) is not None
