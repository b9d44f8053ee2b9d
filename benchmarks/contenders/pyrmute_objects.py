"""pyrmute, from dicts to validated models, or with --raw to migrated dicts, in one process.

python -m benchmarks.contenders.pyrmute_objects small [--raw]
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import digests
from benchmarks.contenders.contest import Contest, Lap, compete
from benchmarks.workloads import pyrmute_manager


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    manager, hop = pyrmute_manager(contest.workload.name), contest.workload.hop

    def run() -> int:
        stream = (
            manager.migrate_batch_data_streaming if contest.raw else manager.migrate_batch_streaming
        )
        return sum(1 for _ in stream(contest.rows, *hop))

    def texts() -> Iterator[str]:
        if contest.raw:
            return map(json.dumps, manager.migrate_batch_data_streaming(contest.rows, *hop))
        models = manager.migrate_batch_streaming(contest.rows, *hop)
        return (model.model_dump_json() for model in models)

    yield Lap(run, lambda: digests.of_texts(texts()))


if __name__ == "__main__":
    compete(get_ready, objects=True)
