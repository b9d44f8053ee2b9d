"""What a sample says of the whole: bounds of failures, chunks, time with more workers."""

import math
from collections.abc import Sequence
from typing import Final

from pyrmute_tasks.dry_run.report import CONFIDENCE, Timing
from pyrmute_tasks.engine.chunk_sizes import ChunkSizer
from pyrmute_tasks.engine.events import ChunkSettled, SlotsChanged

__all__ = ["WORKERS", "coordinator_s", "count_chunks", "timing", "upper_bound"]

WORKERS: Final = (1, 4, 16, 64)
"""Numbers of workers for which the time is estimated."""

# Processor time of the coordinator, measured: see docs/decisions/0031-plan-and-preflight.md.
_PRODUCER_S_PER_BYTE: Final = 4.0e-3 / 2**20  # through the producer, of inputs and outputs
_JOIN_S_PER_BYTE: Final = 0.5e-3 / 1e6  # by reference into one file, of outputs
_RANGE_S: Final = 1.5e-3
_HALVINGS: Final = 60


def upper_bound(failed: int, sampled: int, confidence: float = CONFIDENCE) -> float:
    """Return the upper bound of the share of records that fail.

    The exact one-sided bound of C. J. Clopper and E. S. Pearson, "The use of confidence or
    fiducial limits illustrated in the case of the binomial", Biometrika 26 (1934), 404–413: the
    share p with which so few failures, or fewer, have a probability of 1 - confidence. Without any
    failure that is 1 - (1 - confidence)^(1/n), by the "rule of three" about 3/n at 95 %.

    Args:
        failed: Number of records in the sample that failed.
        sampled: Number of records in it.
        confidence: How probably the share is no higher.
    """
    if failed >= sampled:
        return 1.0
    if failed == 0:
        return -math.expm1(math.log1p(-confidence) / sampled)
    low, high = failed / sampled, 1.0
    for _ in range(_HALVINGS):  # the probability falls as the share grows
        middle = (low + high) / 2
        if _at_most(failed, sampled, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(failed: int, sampled: int, share: float) -> float:
    """Return the probability of so many failures or fewer, by the binomial distribution."""
    if share >= 1:
        return 0.0
    log_share, log_rest = math.log(share), math.log1p(-share)
    whole = math.lgamma(sampled + 1)
    return math.fsum(
        math.exp(
            whole
            - math.lgamma(count + 1)
            - math.lgamma(sampled - count + 1)
            + count * log_share
            + (sampled - count) * log_rest
        )
        for count in range(failed + 1)
    )


def count_chunks(
    sizer: ChunkSizer, sizes: Sequence[int], workers: int, seconds_per_byte: float
) -> int:
    """Return the number of chunks that files are cut into, by the rule that a job follows.

    Args:
        sizer: The rule, of a new job.
        sizes: Sizes of the files.
        workers: Number of workers.
        seconds_per_byte: Time of a byte in one worker.
    """
    left = sum(sizes)
    chunk = 0
    sizer(SlotsChanged(workers))
    for size in sizes:
        end = left - size  # what is left behind this file
        while left > end:
            length = min(max(sizer.next_bytes(left), 1), left - end)
            sizer.cut(chunk, length)
            sizer(ChunkSettled(chunk, 0, length * seconds_per_byte, "", failed=False))
            left, chunk = left - length, chunk + 1
    return chunk


def coordinator_s(
    size_bytes: float, output_bytes: float, *, ranges: int, by_reference: bool, joins: bool
) -> float:
    """Return the processor time that a run takes of its coordinator, as measured for others.

    Args:
        size_bytes: Size of the source.
        output_bytes: Size of the output.
        ranges: Number of ranges.
        by_reference: Whether workers read and write the files.
        joins: Whether what they write is joined into one file.
    """
    if not by_reference:
        return (size_bytes + output_bytes) * _PRODUCER_S_PER_BYTE
    return ranges * _RANGE_S + (output_bytes * _JOIN_S_PER_BYTE if joins else 0.0)


def timing(workers: int, work_s: float, limit_s: float, chunks: int) -> Timing:
    """Return the time with so many workers: the work divided among them, or the coordinator's.

    Args:
        workers: Number of workers.
        work_s: Time of all records in one process.
        limit_s: Time of the coordinator, which works beside them.
        chunks: Number of chunks.
    """
    shared_s = work_s / min(workers, max(chunks, 1))
    return Timing(workers, max(shared_s, limit_s), chunks, is_limit=limit_s > shared_s)
