"""Runs of batches in the caller's thread, which have no chunks: events for their observers."""

import time
from collections.abc import Generator, Iterable
from typing import Any, Final

from pyrmute_tasks.engine.events import ChunkDelivered, Observer, Observers
from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.failures import RecordFailure

__all__ = ["LocalRun"]

_TELL_S: Final = 0.1


class LocalRun(Run):
    """The run of a batch on this machine.

    In the caller's thread the records are watched, and what was delivered since the last event
    counts as a chunk. Threads and processes have real ones, and `tell` gets their events.

    Args:
        observers: Called with the run's events.
    """

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        super().__init__(new_job_id(), observers)
        self._watchers = Observers(observers) if observers else None
        self._told = self._chunks = 0

    def watched(self, records: Iterable[Any]) -> Iterable[Any]:
        """Return the records, watched if there are observers."""
        return records if self._watchers is None else self._watch(records, self._watchers)

    def note(self, records: int, failure: RecordFailure | None) -> None:
        """Record the number of delivered records, and the failure that ended the run."""
        self.tally.records, self.tally.failure = records, failure
        if self._watchers is not None and records > self._told:
            self._tell(self._watchers, records)

    def _watch(self, records: Iterable[Any], watchers: Observers) -> Generator[Any, None, None]:
        source = iter(records)
        due = time.monotonic() + _TELL_S
        done = 0
        try:
            for record in source:
                yield record
                done += 1  # the next one is asked for
                if time.monotonic() >= due:
                    self._tell(watchers, done)
                    due = time.monotonic() + _TELL_S
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()

    def _tell(self, watchers: Observers, records: int) -> None:
        watchers(ChunkDelivered(self._chunks, records - self._told, 0))
        self._told = records
        self._chunks += 1
