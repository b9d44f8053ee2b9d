"""Conversion of data migrated by workers into the results of a batch call."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import ChunkFailures
from pyrmute_tasks.failures import RecordFailure, detach_failure
from pyrmute_tasks.plans.plan import MigrationPlan, Wanted

__all__ = ["ResultConverter"]


@dataclass(frozen=True, slots=True)
class ResultConverter:
    """Converts the data of chunks into results, and finds invalid records.

    Attributes:
        plan: The job's plan.
        wanted: The results: models, validated here, or data.
        skips: Whether to go on behind a record that is not valid.
    """

    plan: MigrationPlan
    wanted: Wanted
    skips: bool

    def convert(
        self, chunk: Chunk[Any], outcome: Outcome[Any], data: list[Any]
    ) -> Outcome[list[Any]]:
        """Return the outcome of a chunk with its data converted into results."""
        invalid = ChunkFailures(self.skips, detach_failure)
        outputs, _ = self.wanted.convert(self.plan, data, 0, invalid)
        found = list(_placed(invalid.found, outcome.failures, chunk.start))
        failures = outcome.failures
        if found:
            failures = tuple(sorted((*failures, *found), key=lambda failure: failure.index))
        if invalid.ended:  # nothing behind it counts
            end = found[-1].index
            failures = tuple(failure for failure in failures if failure.index <= end)
        is_final = outcome.is_final or invalid.ended
        return Outcome(outcome.index, len(outputs), outputs, failures, is_final=is_final)


def _placed(
    invalid: Iterable[RecordFailure], failed: Sequence[RecordFailure], start: int
) -> Iterator[RecordFailure]:
    """Yield failures at output positions with the indices of their records."""
    before = 0
    for failure in invalid:
        while before < len(failed) and failed[before].index <= start + failure.index + before:
            before += 1
        yield replace(failure, index=start + failure.index + before)
