"""This package, from dicts to validated models, or with --raw to migrated dicts.

python -m benchmarks.contenders.ours_objects small [--raw] [--chunk-size 100]
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import digests
from benchmarks.contenders.contest import WORKERS, Contest, Lap, compete
from benchmarks.contenders.fleet import our_fleet


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    hop = contest.workload.hop
    with our_fleet(contest.workload, WORKERS) as fleet:
        migrator = fleet.migrator

        def run() -> int:
            stream = (
                migrator.migrate_batch_data_streaming
                if contest.raw
                else migrator.migrate_batch_streaming
            )
            return sum(1 for _ in stream(contest.rows, *hop, contest.chunk_size))

        def texts() -> Iterator[str]:
            if contest.raw:
                data = migrator.migrate_batch_data_streaming(contest.rows, *hop)
                return map(json.dumps, data)
            models = migrator.migrate_batch_streaming(contest.rows, *hop)
            return (model.model_dump_json() for model in models)

        yield Lap(
            lambda: fleet.timed(run),
            lambda: digests.of_texts(texts()),
            lambda: {"server_peak_bytes": fleet.server.peak_bytes(), "cpu_s": fleet.spent},
        )


if __name__ == "__main__":
    compete(get_ready, objects=True)
