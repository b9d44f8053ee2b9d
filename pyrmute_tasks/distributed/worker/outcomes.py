"""A chunk's outcome: the outputs of its plan, or a failure if it cannot be run."""

import logging
from dataclasses import dataclass, replace
from typing import Final

from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.engine.chunks import Outcome, encode_outcome
from pyrmute_tasks.errors import FrameTooLargeError
from pyrmute_tasks.failures import RecordFailure, Stage, causes_of, describe_safely
from pyrmute_tasks.logs import log
from pyrmute_tasks.wire.frames import (
    Frame,
    FrameKind,
    encode_frame,
    pack,
)
from pyrmute_tasks.wire.remote_failures import without_error

__all__ = [
    "Assignment",
    "encode_safely",
    "failed_outcome",
    "ran_out_of_memory",
    "too_large_outcome",
    "with_worker",
]

_EMPTY_OUTPUTS: Final = encode_frame(FrameKind.OBJECTS, 0, pack([]))


@dataclass(frozen=True, slots=True)
class Assignment:
    """A task's part of a job, to be run.

    Attributes:
        arguments: The task's arguments.
        task: The task's id.
        worker: Name of this worker, as its heartbeat has it.
    """

    arguments: TaskArguments
    task: str
    worker: str

    @property
    def job(self) -> str:
        """The job's id."""
        return self.arguments.job

    @property
    def part(self) -> str:
        """The part's key."""
        return self.arguments.part

    @property
    def chunk(self) -> int:
        """Index of the chunk that the part belongs to."""
        return int(self.part.partition(":")[0])


def failed_outcome(
    asked: Assignment, stage: Stage, error: Exception, kind: FrameKind = FrameKind.OBJECTS
) -> Outcome[bytes]:
    """Return the outcome of a part that cannot be run: its first record fails with `error`.

    That ends the job, also one that skips records that fail.

    Args:
        asked: What was to be run.
        stage: What was being done.
        error: What went wrong.
        kind: What its frame holds; records of ranges are counted from the range's first one.
    """
    log(
        logging.ERROR,
        "chunk_rejected",
        "a chunk cannot be run",
        job=asked.job,
        part=asked.part,
        error=describe_safely(error),
    )
    start = 0 if kind is FrameKind.RANGES else asked.arguments.start
    failure = RecordFailure.of(start, stage, "", error)
    return Outcome(asked.chunk, 0, _EMPTY_OUTPUTS, (failure,), is_final=True)


def too_large_outcome(
    asked: Assignment, inputs: Frame, error: FrameTooLargeError
) -> Outcome[bytes]:
    """Return the outcome of a part whose outputs are too large to travel.

    Raises:
        FrameTooLargeError: If it can be halved: then each half may travel.
    """
    if inputs.count > 1:
        raise error
    return replace(failed_outcome(asked, Stage.ENCODE, error, inputs.kind), is_final=False)


def with_worker(outcome: Outcome[bytes], worker: str, seconds: float) -> Outcome[bytes]:
    """Return an outcome with its worker and duration, and its failures with the worker."""
    failures = tuple(replace(failure, worker=worker) for failure in outcome.failures)
    return replace(outcome, failures=failures, seconds=seconds, worker=worker)


def encode_safely(outcome: Outcome[bytes]) -> bytes:
    """Encode an outcome, with stand-ins for exceptions that cannot be encoded.

    Raises:
        FrameTooLargeError: If it is too large to travel.
    """
    try:
        return encode_outcome(outcome)
    except Exception:
        if not outcome.failures:
            raise
        failures = tuple(map(without_error, outcome.failures))
        return encode_outcome(replace(outcome, failures=failures))


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a `MemoryError`, or was caused by one."""
    return any(isinstance(cause, MemoryError) for cause in causes_of(error))
