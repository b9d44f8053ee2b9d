"""Records that fail on a worker, made visible to what watches workers: signals and events."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyrmute_tasks.distributed.internals.celery_worker import new_signal, send_task_event
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.failures import RecordFailure, Stage, describe_safely
from pyrmute_tasks.logs import log

__all__ = ["EVENT", "BadRecord", "announce", "record_failed"]

EVENT: Final = "task-record-failed"
"""Type of the event, for monitors."""

_MOST_EVENTS: Final = 100

record_failed: Final[Any] = new_signal("record_failed", ("record",))
"""Sent in a worker's child when a record has failed; with a `BadRecord` as ``record``.

A signal of Celery's: ``@record_failed.connect``. Receivers take ``**_``, too.
"""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not be migrated, as its worker sees it.

    Attributes:
        job: The job's id.
        model: The model's name.
        from_version: Version of the record.
        to_version: Version it was to be migrated to.
        index: The record's position in the job's input, counted from 0; of a range by reference,
            in that range, as nobody has counted the records before it.
        stage: What was being done with it.
        step: The step that failed, ``"1.0.0 → 2.0.0"``; empty outside of steps.
        description: What went wrong, in one line, without anything from the record.
        error: The exception. Its text and its frames may quote the record.
        worker: Name of the worker.
    """

    job: str
    model: str
    from_version: str
    to_version: str
    index: int
    stage: Stage
    step: str
    description: str
    error: BaseException
    worker: str

    @classmethod
    def of(cls, spec: JobSpec, failure: RecordFailure, worker: str) -> "BadRecord":
        """Return the announcement of a failure."""
        at_step = failure.stage is Stage.STEP and failure.raised_at
        place = f" at {failure.raised_at}" if at_step else ""
        return cls(
            spec.id,
            spec.name,
            spec.from_version,
            spec.to_version,
            failure.index,
            failure.stage,
            failure.step,
            describe_safely(failure.error) + place,
            failure.error,
            worker,
        )


def announce(task: Any, records: Sequence[BadRecord]) -> None:
    """Send the signal for each record, and events if the worker sends them; raises nothing.

    Args:
        task: Celery's task, in the child that ran the chunk.
        records: The chunk's records that failed. At most a hundred get an event, each of which is
            a message.
    """
    for record in records:
        record_failed.send(sender=task, record=record)  # logs what a receiver raises
    try:
        for record in records[:_MOST_EVENTS]:
            _send_event(task, record)
    except Exception as error:  # whatever the broker's library raises: the chunk is settled
        log(logging.WARNING, "event_unsent", "an event was not sent", error=type(error).__name__)


def _send_event(task: Any, record: BadRecord) -> None:
    send_task_event(
        task,
        EVENT,
        job=record.job,
        model=record.model,
        versions=f"{record.from_version}→{record.to_version}",
        record=record.index,
        stage=record.stage.value,
        description=record.description,
    )
