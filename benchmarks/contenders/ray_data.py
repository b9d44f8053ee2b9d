"""Ray Data, file to files: ``read_text → map_batches → write`` on two cores.

python -m benchmarks.contenders.ray_data small
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported

import ray
import ray.data
from ray.data.datasource import BlockBasedFileDatasink

from benchmarks import digests
from benchmarks.contenders.contest import PARTITIONS, WORKERS, Contest, Lap, compete, to_disk
from benchmarks.workloads import pyrmute_lines, pyrmute_manager


class LinesSink(BlockBasedFileDatasink):  # type: ignore[misc]  # it has no types
    """Writes texts as lines: Ray's own JSON writer would take the models apart again."""

    def write_block_to_file(self, block: Any, file: Any) -> None:
        """Write one block."""
        texts = block.to_arrow()["text"].to_pylist()
        file.write("".join(f"{text}\n" for text in texts).encode())


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    workload = contest.workload.name

    def migrate(batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"text": list(pyrmute_lines(workload, batch["text"].tolist()))}

    root = str(Path(__file__).parents[2])
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )
    try:
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False
        warm = ray.remote(pyrmute_manager.__wrapped__).options(num_cpus=1)
        ray.wait([warm.remote(workload) for _ in range(WORKERS)], num_returns=WORKERS)

        def run() -> int:
            lines = ray.data.read_text(str(contest.source), override_num_blocks=PARTITIONS)
            migrated = lines.map_batches(migrate, batch_size=None)
            migrated.write_datasink(LinesSink(str(contest.target), file_format="jsonl"))
            return sum(map(_count, contest.target.iterdir()))

        yield Lap(run, lambda: digests.in_any_order(sorted(contest.target.iterdir())))
    finally:
        ray.shutdown()


def _count(path: Path) -> int:
    with path.open("rb") as file:
        to_disk(file)
        return sum(1 for _ in file)


if __name__ == "__main__":
    compete(get_ready)
