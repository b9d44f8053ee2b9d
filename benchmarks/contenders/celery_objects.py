"""Plain Celery, from dicts to migrated dicts: a group of chunks with pyrmute, not validated.

python -m benchmarks.contenders.celery_objects small --raw --chunk-size 5000
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import digests
from benchmarks.contenders.celery_fleet import DEFAULT_CHUNK_SIZE, celery_fleet, migrate_in_group
from benchmarks.contenders.contest import Contest, Lap, compete


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    if not contest.raw:
        raise SystemExit("no model comes out of a JSON message: only with --raw")
    size = contest.chunk_size or DEFAULT_CHUNK_SIZE
    found: list[list[dict[str, Any]]] = []
    with celery_fleet(contest) as tasks:

        def run() -> int:
            found.extend(migrate_in_group(tasks.migrate_raw, contest.rows, size))
            return sum(map(len, found))

        yield Lap(
            run, lambda: digests.of_texts(json.dumps(row) for chunk in found for row in chunk)
        )


if __name__ == "__main__":
    compete(get_ready, objects=True)
