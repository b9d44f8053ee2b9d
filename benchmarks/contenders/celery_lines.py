"""Plain Celery, file to file: a group of chunks with pyrmute, JSON, Redis backend.

python -m benchmarks.contenders.celery_lines small --chunk-size 5000
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import digests
from benchmarks.contenders.celery_fleet import DEFAULT_CHUNK_SIZE, celery_fleet, migrate_in_group
from benchmarks.contenders.contest import Contest, Lap, compete, to_disk


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    # As pydantic writes it.
    encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    size = contest.chunk_size or DEFAULT_CHUNK_SIZE
    with celery_fleet(contest) as tasks:

        def run() -> int:
            records = 0
            with contest.source.open("rb") as lines, contest.target.open("w") as output:
                for chunk in migrate_in_group(tasks.migrate, map(json.loads, lines), size):
                    output.writelines(f"{encode(row)}\n" for row in chunk)
                    records += len(chunk)
                to_disk(output)
            return records

        yield Lap(run, lambda: digests.of_file(contest.target))


if __name__ == "__main__":
    compete(get_ready)
