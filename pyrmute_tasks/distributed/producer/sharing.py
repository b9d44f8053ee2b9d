"""Finding out whether a job waits for workers that run other jobs' chunks.

Pure: time is an argument, and counts seconds in which somebody has looked.
"""

from typing import Final

__all__ = ["Sharing"]

_PATIENCE: Final = 2.0  # times the longest recent pause between two movements
_MOST_PATIENCE_S: Final = 30.0  # by then the shown rate, a moving average, is 0
_HALF_LIFE_S: Final = 30.0  # of that pause


class Sharing:
    """Tells whether a job waits for others' chunks, longer than the pauses between its own were.

    Shorter waits are no reason to tell: a job that shares a fleet pauses between its chunks.

    Attributes:
        since: Since when it waits; None if it does not.
        detail: Who shares what.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.detail: str = ""
        self._moved_at = self._pause_s = self._kept_until = 0.0

    def sent_first(self, now: float) -> None:
        """Record that a chunk was sent while none was under way."""
        self._moved_at, self.since = now, None

    def moved(self, now: float) -> None:
        """Record that one of the job's chunks has moved, or runs."""
        pause_s, self._moved_at = now - self._moved_at, now
        self._pause_s = max(pause_s, self._pause_s * 0.5 ** (pause_s / _HALF_LIFE_S))
        self.since = None

    def not_waiting(self) -> None:
        """Record that it does not wait for others, unless `waiting` tells that it does."""
        self.since = None

    def kept(self, now: float) -> None:
        """Record that something else keeps it from moving."""
        self._kept_until, self.since = now, None

    def waiting(self, now: float, jobs: int, workers: int) -> None:
        """Record that workers run other chunks, and none of this job's.

        Args:
            now: The time.
            jobs: Jobs that share them, this one included.
            workers: How many there are.
        """
        patience_s = min(_PATIENCE * self._pause_s, _MOST_PATIENCE_S)
        if now - self._moved_at < patience_s:
            return
        self.since = max(self._moved_at, self._kept_until)
        shared = "1 worker" if workers == 1 else f"{workers:,} workers"
        self.detail = (
            f"{jobs:,} jobs share {shared}; add workers, or pause a job"
            if jobs > 1
            else f"other work keeps {shared} busy"
        )
