"""A pool of bare processes over blocks of lines: for contenders without a queue."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import digests
from benchmarks.contenders.contest import WORKERS, Contest, Lap, to_disk

__all__ = ["Block", "over_blocks"]

_BLOCK_BYTES: Final = 1024 * 1024

Block = tuple[bytes, int]
"""Lines that were written, and how many."""


@contextmanager
def over_blocks(
    contest: Contest, work: Callable[[bytes], Block], initializer: Callable[[], object]
) -> Iterator[Lap]:
    """Start a pool that runs `work` over the blocks of the input and writes what it returns.

    Args:
        contest: What is to be done.
        work: A function of a module.
        initializer: Called in each process when it starts.

    Yields:
        The contender.
    """
    context = multiprocessing.get_context("fork")
    with context.Pool(WORKERS, initializer) as pool:
        # Start-up is over when every process has answered.
        pool.map(work, [b""] * WORKERS, chunksize=1)

        def run() -> int:
            records = 0
            with contest.target.open("wb") as output:
                for lines, count in pool.imap(work, _blocks(contest.source)):
                    output.write(lines)
                    records += count
                to_disk(output)
            return records

        yield Lap(run, lambda: digests.of_file(contest.target))


def _blocks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block + file.readline()
