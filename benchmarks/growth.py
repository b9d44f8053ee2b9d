"""What grows with the work, and what must not: time, memory of producer, server and workers.

    python -m benchmarks.growth [--quick]

- ten times the records take ten times as long; the producer's peak and the server's peak
  stay the same,
- also with a consumer that is ten times slower than the workers,
- a worker's memory does not grow over 100,000 chunks.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from redis import Redis

from benchmarks.race import inputs, small
from pyrmute_tasks import Migrator, Settings, Window
from pyrmute_tasks.distributed import EmbeddedFleet
from pyrmute_tasks.events import ChunkDelivered, Event

_MANAGER: Final = "benchmarks.race.small:manager"
_WINDOW_BYTES: Final = Window().size_bytes
_MIB: Final = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small inputs; ignore the figures")
    parser.add_argument("--part", choices=["file", "slow", "worker"], help=argparse.SUPPRESS)
    parser.add_argument("--records", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        parts = {"file": run_file, "slow": run_slow_consumer, "worker": run_many_chunks}
        print(json.dumps(parts[options.part](options.records)))
        return
    once = 20_000 if options.quick else 1_000_000
    compare("file to file", "file", once)
    compare("objects, consumer ten times slower", "slow", once // 10)
    told = _alone("worker", once // 10 * 2)
    print(f"\n{told['chunks']:,} chunks: memory after a tenth of them and at the end, MB")
    for name, (early, late) in told["workers"].items():
        print(f"  {name:<24}{early / _MIB:>8.1f}{late / _MIB:>8.1f}   {(late - early) / _MIB:+.1f}")


def compare(label: str, part: str, once: int) -> None:
    """Print what `once` records take, and ten times as many."""
    small_run, large_run = _alone(part, once), _alone(part, 10 * once)
    ratio = large_run["seconds"] / (10 * small_run["seconds"])
    grown = (large_run["peak_bytes"] - small_run["peak_bytes"]) / _MIB
    print(f"\n{label}: {once:,} and {10 * once:,} records")
    print(f"  time, of ten times         {ratio:8.2f}      at most 1.1")
    print(f"  producer's peak grows by   {grown:8.1f} MB   at most 10")
    limit = _WINDOW_BYTES / _MIB + 10
    for run in (small_run, large_run):
        print(
            f"  server's peak              {run['server_bytes'] / _MIB:8.1f} MB   at most {limit:.0f}"
        )


def _alone(part: str, records: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.growth", "--part", part]
    done = subprocess.run(
        [*command, "--records", str(records)],
        cwd=inputs.ROOT,
        env=os.environ | {"PYTHONPATH": str(inputs.ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def run_file(records: int) -> dict[str, Any]:
    source = inputs.small_records(records)
    target = source.with_suffix(".out")
    with EmbeddedFleet(_MANAGER, 2, Settings()) as fleet:
        before = _server_memory(fleet, "used_memory")
        began = time.perf_counter()
        with Migrator(small.manager, settings=fleet.settings) as migrator:
            migrator.migrate_file(source, target, *small.HOP)
        seconds = time.perf_counter() - began
        server = _server_memory(fleet, "used_memory_peak") - before
    target.unlink()
    return {"seconds": seconds, "peak_bytes": _peak_bytes(), "server_bytes": server}


def run_slow_consumer(records: int) -> dict[str, Any]:
    """Consume objects so slowly that workers are idle nine tenths of the time."""
    pause_s = 10 / 200_000  # two workers make some 200,000 a second
    with EmbeddedFleet(_MANAGER, 2, Settings()) as fleet:
        before = _server_memory(fleet, "used_memory")
        began = time.perf_counter()
        with Migrator(small.manager, settings=fleet.settings) as migrator:
            stream = migrator.migrate_batch_data_streaming(_rows(records), *small.HOP)
            for position, _ in enumerate(stream):
                if position % 100 == 0:
                    time.sleep(100 * pause_s)
        seconds = time.perf_counter() - began
        server = _server_memory(fleet, "used_memory_peak") - before
    return {"seconds": seconds, "peak_bytes": _peak_bytes(), "server_bytes": server}


def _rows(count: int) -> Iterator[dict[str, Any]]:
    for index in range(count):
        yield {"name": f"First{index} Last{index}", "age": index % 90}


def run_many_chunks(records: int) -> dict[str, Any]:
    """Run chunks of two records and look at the memory of the workers meanwhile."""
    chunks = records // 2
    source = inputs.small_records(records)
    early = threading.Event()

    def observe(event: Event) -> None:
        if isinstance(event, ChunkDelivered) and event.chunk >= chunks // 10:
            early.set()

    with EmbeddedFleet(_MANAGER, 2, Settings()) as fleet:
        migrator = Migrator(small.manager, settings=fleet.settings)
        first: dict[str, int] = {}

        def look() -> None:
            early.wait()
            first.update(_memory_of_workers(fleet))

        looker = threading.Thread(target=look)
        looker.start()
        target = source.with_suffix(".out")
        with migrator:
            migrator.migrate_file(source, target, *small.HOP, chunk_size=2, observers=(observe,))
        looker.join()
        last = _memory_of_workers(fleet)
    target.unlink()
    return {"chunks": chunks, "workers": {name: (first[name], last[name]) for name in last}}


def _memory_of_workers(fleet: EmbeddedFleet) -> dict[str, int]:
    found = {}
    for number, pid in enumerate(fleet.process_ids[1:], 1):
        found[f"worker {number}, main"] = _resident_bytes(pid)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            found[f"worker {number}, child"] = _resident_bytes(int(child))
    return found


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _server_memory(fleet: EmbeddedFleet, what: str) -> int:
    with Redis.from_url(fleet.settings.redis_store_url) as client:
        info: Any = client.info("memory")
        return int(info[what])


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
