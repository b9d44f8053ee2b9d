"""Running a plan over the records of a chunk, in whatever process."""

import logging
from typing import Final

from pyrmute_tasks.engine.chunks import decode_readable
from pyrmute_tasks.engine.error_policy import ChunkFailures
from pyrmute_tasks.errors import FrameError
from pyrmute_tasks.failures import RecordFailure, Stage, describe_safely
from pyrmute_tasks.logs import log
from pyrmute_tasks.plans.codegen import Output, OutputKind
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.wire.frames import Frame, FrameKind, join_packed, pack_record
from pyrmute_tasks.wire.remote_failures import capture_failure

__all__ = ["run_plan"]

_LEAST_LINE_BYTES: Final = 2  # blank lines are not sent
_PACKED: Final = Output(OutputKind.PACKED, pack=pack_record)


def run_plan(
    plan: MigrationPlan, kind: FrameKind, inputs: Frame, start: int, *, skips: bool = False
) -> tuple[bytes, int, ChunkFailures]:
    """Run a plan over a frame of records.

    Args:
        plan: The plan.
        kind: How the job's records are sent.
        inputs: The records.
        start: Index of the first one.
        skips: Whether to go on behind a record that fails.

    Returns:
        The outputs, their number, and the failures.

    Raises:
        FrameError: If the frame does not hold what it announces.
    """
    if inputs.kind is not kind:
        raise FrameError("a frame is of another kind than its job")
    failures = ChunkFailures(skips, capture_failure)
    if kind is FrameKind.LINES:
        lines = bytes(inputs.payload)
        # No line is blank. A bomb of empty ones would become a list many times its size.
        if lines.count(b"\n") != inputs.count or len(lines) < _LEAST_LINE_BYTES * inputs.count:
            raise FrameError("a frame does not hold the records it announces")
        outputs, count, _ = plan.migrate_lines(lines, start, failures)
        return outputs, count, failures
    records, unreadable = decode_readable(inputs)
    packed, _ = plan.run(records, _PACKED, start, failures)
    if unreadable is not None and not failures.ended:  # perhaps another worker could read it
        failure = RecordFailure.of(start + len(records), Stage.DECODE, "", unreadable)
        failures.end(failure)
        log(
            logging.ERROR,
            "chunk_cut",
            "a chunk cannot be run to its end",
            record=failure.index,
            error=describe_safely(unreadable),
        )
    return join_packed(packed), len(packed), failures
