"""pyrmute, file to file, in one process: its ``migrate_batch_streaming``.

python -m benchmarks.contenders.pyrmute_streaming small
"""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import digests
from benchmarks.contenders.contest import Contest, Lap, compete, to_disk
from benchmarks.workloads import pyrmute_lines, pyrmute_manager


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    pyrmute_manager(contest.workload.name)

    def run() -> int:
        records = 0
        with contest.source.open("rb") as lines, contest.target.open("w") as output:
            for text in pyrmute_lines(contest.workload.name, lines):
                output.write(text + "\n")
                records += 1
            to_disk(output)
        return records

    yield Lap(run, lambda: digests.of_file(contest.target))


if __name__ == "__main__":
    compete(get_ready)
