"""A worker's connections to its broker: pauses between attempts, and refusals that end it."""

import logging
import time
from typing import Final

from pyrmute_tasks.distributed.app import FleetApp
from pyrmute_tasks.distributed.internals.celery_worker import end_worker, stop_if_asked
from pyrmute_tasks.distributed.refusals import find_refusal, reason_of
from pyrmute_tasks.logs import log

__all__ = ["BrokerConnections"]

_RECONNECT_S: Final = 0.5  # Celery's pauses grow to 30 s, which then pass after an outage
_RECONNECT_MOST_S: Final = 3.0
_PAUSE_S: Final = 1.0  # after a first refusal; the next pauses are longer
_LONGEST_PAUSE_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.2
_FORGET_REFUSAL_S: Final = 120.0


class BrokerConnections:
    """Retries a broker that cannot be reached, and ends the worker if it is refused.

    What a broker refuses at the start, or Redis at any time, ends the worker with one
    sentence and status 1. RabbitMQ, where rights may be about to be set, is asked again
    after growing pauses for as long as an outage may take.

    Args:
        app: The worker's application.

    Attributes:
        pause_s: The first pause between attempts to connect, and by how much the next ones grow.
        longest_pause_s: The longest pause.
    """

    pause_s = _RECONNECT_S
    longest_pause_s = _RECONNECT_MOST_S

    def __init__(self, app: FleetApp) -> None:
        self._app = app
        self._was_ready = False
        self._refused_at = self._refused_since = 0.0
        self._pause_s = _PAUSE_S

    def accepted(self) -> None:
        """Handle the broker's accepting this worker."""
        self._was_ready = True

    def attempt_failed(self, error: Exception, broker: str, pause_s: float) -> None:
        """Log that the broker cannot be reached; see `connection_failed`."""
        self.connection_failed(error)
        log(
            logging.ERROR,
            "broker_away",
            "the broker cannot be reached",
            broker=broker,
            error=reason_of(error),
            again_in_s=pause_s,
        )

    def connection_failed(self, error: Exception) -> None:
        """Pause if `error` is a refusal, or end the worker.

        Raises:
            SystemExit: With status 1, if retrying cannot succeed.
        """
        what = find_refusal(error)
        if what is None:
            return
        now = time.monotonic()
        if now - self._refused_at > _FORGET_REFUSAL_S:
            self._refused_since, self._pause_s = now, _PAUSE_S
        self._refused_at = now
        is_final = not self._was_ready or self._app.profile.refuses_for_good
        if is_final or now - self._refused_since >= self._app.outage_s:
            log(
                logging.CRITICAL,
                "broker_refused",
                f"the broker at {self._app.connection_for_read().as_uri()} refused {what} "
                f"({reason_of(error)}); this worker ends",
            )
            end_worker(1)
        self._pause(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stop_if_asked()
            time.sleep(_LOOK_EVERY_S)
