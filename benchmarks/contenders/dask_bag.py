"""Dask bag, file to files: ``read_text → map → write`` in two processes.

python -m benchmarks.contenders.dask_bag small
"""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import dask
from dask import bag

from benchmarks import digests
from benchmarks.contenders.contest import PARTITIONS, WORKERS, Contest, Lap, compete, to_disk
from benchmarks.workloads import pyrmute_lines, pyrmute_manager


def migrate(lines: Iterable[str], workload: str) -> list[str]:
    return list(pyrmute_lines(workload, lines))


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    workload = contest.workload.name
    block_bytes = max(contest.source.stat().st_size // PARTITIONS, 1)
    context = multiprocessing.get_context("spawn")  # Dask's own choice
    pool = ProcessPoolExecutor(WORKERS, context, initializer=pyrmute_manager, initargs=(workload,))
    # By default six partitions go to a process at once, and the last ones to one of the two.
    with pool, dask.config.set(scheduler="processes", pool=pool, chunksize=1):
        warm = bag.from_sequence(range(WORKERS), npartitions=WORKERS)
        warm.map(str).compute()

        def run() -> int:
            lines = bag.read_text(str(contest.source), blocksize=block_bytes)
            # By partitions: record by record it is slower.
            migrated = lines.map_partitions(migrate, workload)
            written = migrated.to_textfiles(str(contest.target / "*.jsonl"))
            return sum(map(_count, written))

        yield Lap(run, lambda: digests.in_any_order(sorted(contest.target.iterdir())))


def _count(path: str) -> int:
    with open(path, "rb") as file:  # a text is what Dask returns
        to_disk(file)
        return sum(1 for _ in file)


if __name__ == "__main__":
    compete(get_ready)
