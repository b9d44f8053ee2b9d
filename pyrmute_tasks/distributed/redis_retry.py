"""Trying a server again that does not answer, for a time and not for a number of tries."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

__all__ = ["TimedRetry"]

_BACKOFF_BASE_S: Final = 0.05
_BACKOFF_CAP_S: Final = 1.0
_BACKOFF_TRIES: Final = 10  # by then it is at its cap; the library reckons without bound


class TimedRetry(Retry):
    """Tries again until a time has passed since the outermost call began.

    The library counts tries, and nests them: each try of a command tries to connect several
    times. With a server that takes connections and does not answer that becomes hours.

    Args:
        seconds: Tries begin within this time.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(ExponentialBackoff(_BACKOFF_CAP_S, _BACKOFF_BASE_S), retries=1)
        self._seconds = seconds
        self._call = threading.local()
        self._is_over = threading.Event()

    def give_up(self) -> None:
        """Try nothing again from now on, also in calls that wait for their next try."""
        self._is_over.set()

    def __deepcopy__(self, memo: object) -> Self:
        return self  # connections copy it: they are to know the call that they are used for

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        """Call `do` until it succeeds or the time is up; as the library's."""
        is_outermost = not hasattr(self._call, "deadline")
        if is_outermost:
            self._call.deadline = time.monotonic() + self._seconds
        try:
            return self._try(do, fail, is_retryable or (lambda _: True), with_failure_count)
        finally:
            if is_outermost:
                del self._call.deadline

    def _try(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool],
        with_failure_count: bool,
    ) -> Any:
        failures = 0
        while True:
            try:
                return do()
            except self._supported_errors as error:
                if isinstance(error, AuthenticationError) or not is_retryable(error):
                    raise  # a password does not become right by being sent again
                failures += 1
                fail(error, failures) if with_failure_count else fail(error)
                pause_s = self._backoff.compute(min(failures, _BACKOFF_TRIES))
                # Not after the first: the time may have passed while this process stood still.
                if failures > 1 and time.monotonic() + pause_s >= self._call.deadline:
                    raise
                if self._is_over.wait(pause_s):
                    raise
