"""How fast a job may go: a greatest rate, and a throttle that says when to wait."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pyrmute_tasks.engine.chunks import Chunk
from pyrmute_tasks.engine.events import Wait, WaitBegan
from pyrmute_tasks.errors import ConfigurationError, JobError
from pyrmute_tasks.failures import describe_safely

__all__ = ["FULL_SPEED", "Pace", "Pacer", "Throttle"]

_ASK_EVERY_S: Final = 1.0
_BURST_S: Final = 0.25  # at the greatest rate: records of a chunk come at once

Throttle: TypeAlias = Callable[[], str | None]
"""Returns the reason to wait, or None (or an empty text) to go on."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a job may go.

    Attributes:
        max_rate: Records a second, at most; None for no bound.
        throttle: Called about once a second, by the process that drives the job, before chunks
            are sent; returns the reason to wait. It must not block.

    Raises:
        ConfigurationError: If the rate is not positive, or the throttle no function.
    """

    max_rate: float | None = None
    throttle: Throttle | None = None

    def __post_init__(self) -> None:
        rate = self.max_rate
        is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if rate is not None and not (is_number and 0 < rate < math.inf):
            raise ConfigurationError(f"max_rate must be a positive number, not {rate!r}")
        if self.throttle is not None and not callable(self.throttle):
            raise ConfigurationError("throttle must be a function without arguments")

    @property
    def chunk_size(self) -> int | None:
        """Records a chunk, so that they come evenly; None for the default."""
        return None if self.max_rate is None else max(1, int(self.max_rate * _BURST_S))


FULL_SPEED: Final = Pace()
"""No bound."""


class Pacer:
    """Says when the next chunk may be submitted.

    Ranges by reference have no count of records: the first one is waited for, later ones are
    estimated from what was delivered.

    Args:
        pace: The bounds.
        clock: Seconds that only grow.
    """

    def __init__(self, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = pace
        self._clock = clock
        self._due = 0.0
        self._asked_at = -math.inf
        self._reason = ""
        self._charged: dict[int, float] = {}  # records that ranges under way count as
        self._restored: set[int] = set()  # ranges that took no time
        self._records = self._bytes = 0  # of ranges delivered

    def hold(self) -> tuple[WaitBegan, float] | None:
        """Return why the next chunk must wait, and for how long until asking again; or None.

        Raises:
            JobError: If the throttle raises, or returns no text.
        """
        now = self._clock()
        if self._pace.throttle is not None:
            if now - self._asked_at >= _ASK_EVERY_S:
                self._reason = _reason_of(self._pace.throttle)
                now = self._asked_at = self._clock()
            if self._reason:
                return WaitBegan(Wait.THROTTLE, self._reason), self._asked_at + _ASK_EVERY_S - now
        if self._pace.max_rate is None:
            return None
        if not self._bytes and self._charged:
            return WaitBegan(Wait.PACE), _BURST_S
        return (WaitBegan(Wait.PACE), self._due - now) if self._due > now else None

    def submitted(self, chunk: Chunk[Any]) -> None:
        """Count a chunk that was submitted."""
        if self._pace.max_rate is None:
            return
        records = float(chunk.count)
        if chunk.is_range:
            records *= self._records / self._bytes if self._bytes else 0.0
            self._charged[chunk.index] = records
        self._charge(records)

    def restored(self, chunk: Chunk[Any]) -> None:
        """Take back what a range was charged that an earlier run of the job has settled."""
        if self._pace.max_rate is not None:
            self._charge(-self._charged.pop(chunk.index, 0.0))
            self._restored.add(chunk.index)

    def delivered(self, chunk: Chunk[Any], records: int) -> None:
        """Correct the estimate for a range that was delivered."""
        if self._pace.max_rate is None or not chunk.is_range:
            return
        if chunk.index in self._restored:
            self._restored.remove(chunk.index)
        else:
            self._charge(records - self._charged.pop(chunk.index, 0.0))
        self._records += records
        self._bytes += chunk.count

    def _charge(self, records: float) -> None:
        assert self._pace.max_rate is not None
        self._due = max(self._due, self._clock()) + records / self._pace.max_rate


def _reason_of(throttle: Throttle) -> str:
    try:
        reason = throttle()
    except Exception as error:  # the user's code
        raise JobError(f"the throttle raised {describe_safely(error)}") from error
    if reason is not None and not isinstance(reason, str):
        raise JobError(
            f"the throttle returned {type(reason).__name__}; it returns the reason to wait as a "
            "text, or None"
        )
    return reason or ""
