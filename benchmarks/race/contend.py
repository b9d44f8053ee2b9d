"""One contender, alone in this process: prints what it took as one line of JSON.

    python -m benchmarks.race.contend CONTENDER WORKLOAD INPUT OUTPUT [--chunk-size N]

Workers are started first; that time is given apart. The clock runs from opening the input to
closing the output, or over the whole list for the contenders that take and give objects.
"""

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyrmute_tasks import Migrator, Settings

WORKERS: Final = 2
_BLOCK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Race:
    """What is to be done.

    Attributes:
        workload: Module with models, steps and ``HOP``.
        source: JSON lines.
        target: Where outputs go, for those that write files.
        chunk_size: Records a task; None leaves it to the contender.
    """

    workload: str
    source: Path
    target: Path
    chunk_size: int | None

    @property
    def module(self) -> Any:
        return importlib.import_module(f"benchmarks.race.{self.workload}")

    def pyrmute(self) -> Any:
        import pyrmute

        return self.module.register(pyrmute.ModelManager())

    def rows(self) -> list[dict[str, Any]]:
        with self.source.open("rb") as lines:
            return [json.loads(line) for line in lines]


Timed = Callable[[], int]
"""What the clock runs for; returns how many records came out."""


def ours_lines(race: Race, stack: ExitStack) -> Timed:
    migrator = stack.enter_context(_our_fleet(race))

    def run() -> int:
        report = migrator.migrate_file(
            race.source, race.target, *race.module.HOP, chunk_size=race.chunk_size
        )
        return report.records

    return run


def ours_objects(race: Race, stack: ExitStack) -> Timed:
    migrator, rows = stack.enter_context(_our_fleet(race)), race.rows()
    stream = migrator.migrate_batch_streaming
    return lambda: sum(1 for _ in stream(rows, *race.module.HOP, race.chunk_size))


def ours_raw(race: Race, stack: ExitStack) -> Timed:
    migrator, rows = stack.enter_context(_our_fleet(race)), race.rows()
    stream = migrator.migrate_batch_data_streaming
    return lambda: sum(1 for _ in stream(rows, *race.module.HOP, race.chunk_size))


def _our_fleet(race: Race) -> Migrator:
    return Migrator(f"benchmarks.race.{race.workload}:manager", workers=WORKERS)


def limit_lines(race: Race, stack: ExitStack) -> Timed:
    """The same plan in a pool: what two processes can do without any queue between."""
    plan = race.module.manager.plan(*race.module.HOP)
    globals()["_run_block"] = lambda block: plan.migrate_lines(block)[:2]
    pool = stack.enter_context(_pool())
    return lambda: _write_blocks(race, pool.imap(_call_block, _blocks(race.source)))


def pyrmute_lines(race: Race, stack: ExitStack) -> Timed:
    manager = race.pyrmute()

    def run() -> int:
        count = 0
        with race.source.open("rb") as lines, race.target.open("w") as output:
            rows = map(json.loads, lines)
            for model in manager.migrate_batch_streaming(rows, *race.module.HOP):
                output.write(model.model_dump_json() + "\n")
                count += 1
        return count

    return run


def pyrmute_pool(race: Race, stack: ExitStack) -> Timed:
    manager = race.pyrmute()

    def run_block(block: bytes) -> tuple[bytes, int]:
        models = manager.migrate_batch(
            [json.loads(line) for line in block.splitlines()], *race.module.HOP
        )
        return "".join(f"{model.model_dump_json()}\n" for model in models).encode(), len(models)

    globals()["_run_block"] = run_block
    pool = stack.enter_context(_pool())
    return lambda: _write_blocks(race, pool.imap(_call_block, _blocks(race.source)))


def pyrmute_objects(race: Race, stack: ExitStack) -> Timed:
    manager, rows = race.pyrmute(), race.rows()
    return lambda: len(manager.migrate_batch(rows, *race.module.HOP))


def celery_lines(race: Race, stack: ExitStack) -> Timed:
    tasks = stack.enter_context(_plain_celery())

    def run() -> int:
        count = 0
        with race.source.open("rb") as lines, race.target.open("w") as output:
            rows = map(json.loads, lines)
            for chunk in _group(tasks.migrate, rows, race.chunk_size or 1000):
                output.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in chunk)
                count += len(chunk)
        return count

    return run


def celery_raw(race: Race, stack: ExitStack) -> Timed:
    tasks, rows = stack.enter_context(_plain_celery()), race.rows()
    size = race.chunk_size or 1000
    return lambda: sum(len(chunk) for chunk in _group(tasks.migrate_raw, iter(rows), size))


def _group(task: Any, rows: Iterator[Any], size: int) -> list[list[dict[str, Any]]]:
    from celery import group

    chunks = iter(lambda: list(itertools.islice(rows, size)), [])
    found: list[list[dict[str, Any]]] = group(task.s(chunk) for chunk in chunks)().join()
    return found


@contextmanager
def _plain_celery() -> Iterator[Any]:
    """Two workers of one process each, and a server of their own."""
    from pyrmute_tasks.distributed import EmbeddedFleet

    # Only its server is used: the workers are plain Celery's.
    with EmbeddedFleet("benchmarks.race.small:manager", 0, Settings()) as server:
        socket = server.settings.broker_url.removeprefix("unix://")
        env = {"BROKER": f"redis+socket://{socket}", "BACKEND": f"redis+socket://{socket}"}
        os.environ |= env
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.race.plain_celery", "worker"]
        options = ["--concurrency=1", "--loglevel=ERROR", "--without-gossip", "--without-mingle"]
        workers = [
            subprocess.Popen([*command, *options, f"--hostname=w{number}@plain"])
            for number in range(WORKERS)
        ]
        try:
            tasks = importlib.import_module("benchmarks.race.plain_celery")
            while len(tasks.app.control.ping(timeout=0.5)) < WORKERS:
                pass
            yield tasks
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def dask_lines(race: Race, stack: ExitStack) -> Timed:
    import dask
    from dask import bag

    manager, hop = race.workload, race.module.HOP
    stack.enter_context(dask.config.set(scheduler="processes", num_workers=WORKERS))
    size = race.source.stat().st_size

    def run() -> int:
        lines = bag.read_text(str(race.source), blocksize=max(size // 16, 1))
        migrated = lines.map_partitions(_migrate_texts, manager, hop)
        race.target.mkdir()
        migrated.to_textfiles(str(race.target / "*.jsonl"))
        return _count_lines(race.target)

    return run


def ray_lines(race: Race, stack: ExitStack) -> Timed:
    import ray

    manager, hop = race.workload, race.module.HOP
    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    stack.callback(ray.shutdown)

    def migrate(batch: dict[str, Any]) -> dict[str, Any]:
        return {"text": [text.strip() for text in _migrate_texts(batch["text"], manager, hop)]}

    def run() -> int:
        lines = ray.data.read_text(str(race.source), override_num_blocks=16)
        lines.map_batches(migrate, batch_size=None).write_json(str(race.target))
        return _count_lines(race.target)

    return run


_MANAGERS: dict[str, Any] = {}


def _migrate_texts(texts: Any, workload: str, hop: tuple[str, str, str]) -> list[str]:
    if workload not in _MANAGERS:
        _MANAGERS[workload] = Race(workload, Path(), Path(), None).pyrmute()
    models = _MANAGERS[workload].migrate_batch([json.loads(text) for text in texts], *hop)
    return [model.model_dump_json() for model in models]


def _count_lines(directory: Path) -> int:
    count = 0
    for path in directory.iterdir():
        data = path.read_bytes()
        count += data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))
    return count


# --- a pool over blocks of lines -------------------------------------------------------------


def _call_block(block: bytes) -> tuple[bytes, int]:
    result: tuple[bytes, int] = globals()["_run_block"](block)
    return result


def _pool() -> Any:
    return multiprocessing.get_context("fork").Pool(WORKERS)


def _blocks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block + file.readline()


def _write_blocks(race: Race, blocks: Iterator[tuple[bytes, int]]) -> int:
    count = 0
    with race.target.open("wb") as output:
        for block, records in blocks:
            output.write(block)
            count += records
    return count


CONTENDERS: Final[dict[str, Callable[[Race, ExitStack], Timed]]] = {
    "ours-lines": ours_lines,
    "ours-objects": ours_objects,
    "ours-raw": ours_raw,
    "limit": limit_lines,
    "pyrmute-lines": pyrmute_lines,
    "pyrmute-pool": pyrmute_pool,
    "pyrmute-objects": pyrmute_objects,
    "celery-lines": celery_lines,
    "celery-raw": celery_raw,
    "dask-lines": dask_lines,
    "ray-lines": ray_lines,
}


def main() -> None:
    """Run one contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("workload", choices=["small", "flights", "slow_flights"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--chunk-size", type=int)
    options = parser.parse_args()
    race = Race(options.workload, options.source, options.target, options.chunk_size)
    began = time.perf_counter()
    with ExitStack() as stack:
        run = CONTENDERS[options.contender](race, stack)
        ready = time.perf_counter()
        records = run()
        ended = time.perf_counter()
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = {"records": records, "seconds": ended - ready, "start_s": ready - began}
    print(json.dumps(told | {"peak_rss_bytes": peak_bytes}))


if __name__ == "__main__":
    main()
