"""A task's result, as Flower and the worker's log show it: what became of its chunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyrmute_tasks.distributed.protocol import ClaimState
from pyrmute_tasks.distributed.worker.bad_records import BadRecord
from pyrmute_tasks.engine.chunks import Outcome
from pyrmute_tasks.engine.counted import counted
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.wire.frames import FrameKind

__all__ = ["TROUBLE", "TaskResult"]

TROUBLE: Final = "✗ "
"""Begins the text of a result with which something is wrong, also if Celery counts a success."""

_NOT_RUN: Final = {
    ClaimState.SETTLED: "not run: it was settled or cancelled before",
    ClaimState.STOPPED: "not run: its job has failed at an earlier record",
    ClaimState.GONE: "not run: its job has ended",
}


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of a task's chunk; Celery shows its `repr`.

    Attributes:
        text: That in one line, trouble first; nothing in it comes from a record.
        bad_records: The records that failed, if the chunk was settled.
    """

    text: str
    bad_records: Sequence[BadRecord] = ()

    @classmethod
    def of(
        cls, outcome: Outcome[Any], seconds: float, spec: JobSpec | None, worker: str
    ) -> "TaskResult":
        """Return the result of a chunk that was run.

        Args:
            outcome: Its outcome.
            seconds: How long it took.
            spec: Its job; None if that cannot be read.
            worker: Name of this worker.
        """
        skips = spec is not None and spec.skips and not outcome.is_final
        failed = len(outcome.failures)
        text = (
            f"{counted(outcome.count + failed, 'record')}, "
            f"{failed:,} {'rejected' if skips else 'failed'}, {_duration(seconds)}"
        )
        if spec is None or not outcome.failures:
            return cls(text)
        bad = [BadRecord.of(spec, failure, worker) for failure in outcome.failures]
        where = f"{bad[0].index:,}"
        if spec.kind is FrameKind.RANGES:
            where += " of its range"  # nobody has counted the records before it
        begin = f"bad record {where}" if failed == 1 else f"{failed:,} bad records, first {where}"
        what = outcome.failures[0].type_name
        return cls(f"{TROUBLE}{begin}: {what} · {text} · {bad[0].description}", bad)

    @classmethod
    def of_unclaimed(cls, state: ClaimState) -> "TaskResult":
        """Return the result of a chunk that is no longer wanted."""
        return cls(_NOT_RUN[state])

    @classmethod
    def trouble(cls, what: str) -> "TaskResult":
        """Return the result of a chunk that was not settled."""
        return cls(f"{TROUBLE}{what}")

    def __repr__(self) -> str:
        return self.text


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
