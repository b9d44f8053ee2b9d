"""Runs of batches in the caller's thread, which have no chunks: events for their observers."""

import time
from collections.abc import Generator, Iterable
from typing import Any, Final

from pyrmute_tasks.engine.events import ChunkDelivered, Observer
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
        self._told = self._chunks = 0

    def watched(self, records: Iterable[Any]) -> Iterable[Any]:
        """Return the records, watched if there are observers."""
        return self._watch(records) if self._is_watched else records

    def note(self, records: int, failure: RecordFailure | None) -> None:
        """Record the number of delivered records, and the failure that ended the run."""
        self.tally.records, self.tally.failure = records, failure
        if self._is_watched and records > self._told:
            self._tell(records)

    def _watch(self, records: Iterable[Any]) -> Generator[Any, None, None]:
        source = iter(records)
        due = time.monotonic() + _TELL_S
        done = 0
        try:
            for record in source:
                yield record
                done += 1  # the next one is asked for
                if time.monotonic() >= due:
                    self._tell(done)
                    due = time.monotonic() + _TELL_S
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()

    def _tell(self, records: int) -> None:
        self._watchers(ChunkDelivered(self._chunks, records - self._told, 0))
        self._told = records
        self._chunks += 1
