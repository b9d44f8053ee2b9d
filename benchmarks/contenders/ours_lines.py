"""This package, file to file: what ``pyrmute-tasks run`` does.

python -m benchmarks.contenders.ours_lines small [--chunk-size 100]
"""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import digests
from benchmarks.contenders.contest import WORKERS, Contest, Lap, compete
from benchmarks.contenders.fleet import our_fleet


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    with our_fleet(contest.workload, WORKERS) as fleet:

        def run() -> int:
            return fleet.migrator.migrate_file(
                contest.source,
                contest.target,
                *contest.workload.hop,
                chunk_size=contest.chunk_size,
            ).records

        yield Lap(
            lambda: fleet.timed(run),
            lambda: digests.of_file(contest.target),
            lambda: {"server_peak_bytes": fleet.server.peak_bytes(), "cpu_s": fleet.spent},
        )


if __name__ == "__main__":
    compete(get_ready)
