"""What grows with the work, and what must not: time, and memory on every side.

    python -m benchmarks.growth [--rounds 3] [--quick] [--scale 0.1] [--only growth ranges]

- growth: ten times the records take ten times as long, and no more memory, neither in the
  producer nor in the server; file to file through the producer, and over objects.
- ranges: the same by reference, joined and into parts; and of ten times the records, the
  coordinator's processor time as a share of its workers'.
- slow: the same limits hold with a consumer ten times slower than the workers; also where
  it is the window's bytes that hold the producer back, and not its chunks.
- worker: a worker's memory does not grow over 100,000 chunks.

Every run is a process of its own with a fleet of its own, so that each has its own peaks.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import inputs, processes
from benchmarks.compare import run_module
from benchmarks.contenders.contest import WORKERS
from benchmarks.contenders.fleet import OurFleet, our_fleet
from benchmarks.processes import MB
from benchmarks.workloads import Workload
from pyrmute_tasks import Window
from pyrmute_tasks.engine.events import ChunkDelivered, Event

RESULTS: Final = inputs.CACHE / "growth.json"

_WORKLOAD: Final = Workload("small")
_PARTS: Final = ("growth", "ranges", "slow", "worker")
_TIMES: Final = 10
_MOST_TIME: Final = 1.1  # of ten times the time
_MOST_TIME_RANGES: Final = 1.05
_MOST_PERCENT: Final = {"joined": 2.5, "parts": 0.5}  # of the workers' processor time
_MOST_MORE_BYTES: Final = 10 * MB
_MOST_SERVER_BYTES: Final = Window().size_bytes + 10 * MB
_MOST_WORKER_BYTES: Final = 1 * MB  # pages that malloc keeps move by less
_SLOWER: Final = 10
_PAUSE_EVERY: Final = 1000  # records; a shorter pause is not kept by the clock
_TENTHS: Final = 10
_TIGHT: Final = Window(chunks=1024, size_bytes=4 * 1024 * 1024)
_TIGHT_CHUNK: Final = 1000  # records: some 30 of them and their outcomes fill it


@dataclass(frozen=True, slots=True)
class Run:
    """What a run took.

    Attributes:
        records: How many came out.
        seconds: From the first to the last.
        peak_bytes: Of the producer's process.
        server_bytes: The server's peak, beyond what it took empty.
        coordinator_percent: The producer's processor time, of its workers'.
    """

    records: int
    seconds: float
    peak_bytes: int
    server_bytes: int
    coordinator_percent: float


@dataclass(frozen=True, slots=True)
class Check:
    """A figure and what it must not exceed.

    Attributes:
        number: Its number in docs/performance.md.
        text: What the figure is.
        value: The figure.
        most: What it must not exceed.
        unit: What both are in.
    """

    number: int
    text: str
    value: float
    most: float
    unit: str

    def __str__(self) -> str:
        verdict = "met" if self.value <= self.most else "MISSED"
        return (
            f"{self.number:<2} {self.text:<64}{self.value:>9.2f} {self.unit:<3}"
            f"  ≤ {self.most:<6.4g}{verdict}"
        )


def main() -> None:
    options = _parse()
    if options.run:
        window = _TIGHT if options.tight else None
        print(json.dumps(_RUNS[options.run](options.records, options.pause_s, window)))
        return
    once = round(options.scale * (20_000 if options.quick else 1_000_000))
    chunks = round(options.scale * (2_000 if options.quick else 100_000))
    rounds = 1 if options.quick else options.rounds
    parts: dict[str, Callable[[], Iterable[Check]]] = {
        "growth": lambda: growth(once, rounds),
        "ranges": lambda: ranges(once, rounds),
        "slow": lambda: slow_consumer(once),
        "worker": lambda: worker(chunks),
    }
    if options.quick:
        print("--quick: ignore the figures")
    checks = []
    for part in options.only:
        for check in parts[part]():
            print(check, flush=True)
            checks.append(asdict(check) | {"met": check.value <= check.most})
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps({"quick": options.quick, "checks": checks}, indent=1))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what must not grow.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small inputs; ignore the figures")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual inputs")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--run", choices=_RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--records", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--pause-s", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--tight", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the parts ----------------------------------------------------------------------------


def growth(once: int, rounds: int) -> Iterator[Check]:
    """Compare `once` records with ten times as many, in turns.

    Args:
        once: How many records.
        rounds: How many times; figures are medians, peaks of the server the largest.

    Yields:
        What is to be seen to.
    """
    for kind, what in (("lines", "lines, sent"), ("objects", "objects")):
        pairs = _pairs(kind, what, once, rounds)
        yield from _grown(5, what, pairs, _MOST_TIME)


def ranges(once: int, rounds: int) -> Iterator[Check]:
    """Compare `once` records by reference with ten times as many, in turns.

    Args:
        once: How many records.
        rounds: How many times.

    Yields:
        What is to be seen to.
    """
    for kind, what in (("joined", "lines, joined"), ("parts", "lines, into parts")):
        pairs = _pairs(kind, what, once, rounds)
        yield from _grown(11, what, pairs, _MOST_TIME_RANGES)
        share = statistics.median(ten.coordinator_percent for _, ten in pairs)
        text = f"{what}: coordinator's processor time / workers'"
        yield Check(9, text, share, _MOST_PERCENT[kind], "%")


def _pairs(kind: str, what: str, once: int, rounds: int) -> list[tuple[Run, Run]]:
    pairs = []
    for _ in range(rounds):
        pairs.append((_alone(kind, once), _alone(kind, _TIMES * once)))
        _tell(what, *pairs[-1])
    return pairs


def _grown(
    number: int, what: str, pairs: list[tuple[Run, Run]], most_time: float
) -> Iterator[Check]:
    time_ratio = statistics.median(ten.seconds / one.seconds / _TIMES for one, ten in pairs)
    # What a job costs once is in both of them; this is without it.
    slope = statistics.median(
        (ten.seconds - one.seconds) / (_TIMES - 1) / one.seconds for one, ten in pairs
    )
    once = pairs[0][0].records
    print(f"   {what}: each further {once:,} records take {slope:.2f} x as long as the first")
    more = statistics.median(abs(ten.peak_bytes - one.peak_bytes) for one, ten in pairs)
    text = f"{what}: {_TIMES} times the records, time / {_TIMES}"
    yield Check(number, text, time_ratio, most_time, "x")
    yield _megabytes(number, f"{what}: producer's peak, difference", more, _MOST_MORE_BYTES)
    for index, records in enumerate((once, _TIMES * once)):
        peak = max(pair[index].server_bytes for pair in pairs)
        text = f"{what}: server's peak, {records:,} records"
        yield _megabytes(number, text, peak, _MOST_SERVER_BYTES)


def slow_consumer(records: int) -> Iterator[Check]:
    """Compare a consumer that takes all it can get with one ten times slower.

    Args:
        records: How many.

    Yields:
        What is to be seen to.
    """
    for kind, what in (("lines", "lines, sent"), ("objects", "objects")):
        fast = _alone(kind, records)
        pause_s = _SLOWER * fast.seconds / records
        slow = _alone(kind, records, pause_s)
        _tell(f"{what}, slow consumer", fast, slow)
        more = abs(slow.peak_bytes - fast.peak_bytes)
        text = f"{what}, slow consumer"
        yield _megabytes(6, f"{text}: producer's peak, difference", more, _MOST_MORE_BYTES)
        yield _megabytes(6, f"{text}: server's peak", slow.server_bytes, _MOST_SERVER_BYTES)
        tight = _alone(kind, records // _TENTHS, pause_s, is_tight=True)
        _tell(f"{what}, slow, tight window", tight)
        most = _TIGHT.size_bytes + 10 * MB
        text = f"{text}, window of {_TIGHT.size_bytes / MB:.1f} MB: server's peak"
        yield _megabytes(6, text, tight.server_bytes, most)


def worker(chunks: int) -> Iterator[Check]:
    """Look at the memory of one worker while it runs many chunks of one record.

    Args:
        chunks: How many.

    Yields:
        What is to be seen to.
    """
    for name, tenths in _run_alone("worker", chunks, 0.0).items():
        curve = " ".join(f"{held / MB:.1f}" for held in tenths)
        print(f"   worker's {name} after each tenth, MB: {curve}")
        text = f"worker's {name} over {chunks:,} chunks, after the first tenth"
        yield _megabytes(7, text, tenths[-1] - tenths[0], _MOST_WORKER_BYTES)


def _megabytes(number: int, text: str, value: float, most: float) -> Check:
    return Check(number, text, value / MB, most / MB, "MB")


def _tell(what: str, *runs: Run) -> None:
    for run in runs:
        print(
            f"   {what:<30}{run.records:>12,} records{run.seconds:>9.2f} s   producer"
            f"{run.peak_bytes / MB:>7.1f} MB, {run.coordinator_percent:.2f} % of the workers' time"
            f"   server{run.server_bytes / MB:>7.1f} MB",
            flush=True,
        )


# --- each in a process of its own -----------------------------------------------------------


def _alone(kind: str, records: int, pause_s: float = 0.0, *, is_tight: bool = False) -> Run:
    return Run(**_run_alone(kind, records, pause_s, is_tight=is_tight))


def _run_alone(
    kind: str, records: int, pause_s: float, *, is_tight: bool = False
) -> dict[str, Any]:
    if kind != "objects":
        inputs.source_of(_WORKLOAD.name, records)
    done = run_module(
        "benchmarks.growth",
        *("--run", kind, "--records", str(records), "--pause-s", str(pause_s)),
        *(["--tight"] if is_tight else []),
    )
    if done.returncode:
        sys.exit(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def run_lines(records: int, pause_s: float, window: Window | None) -> dict[str, Any]:
    """Migrate a file through the producer; who writes the output pauses after every chunk."""
    source = inputs.source_of(_WORKLOAD.name, records)

    def pause(event: Event) -> None:
        if isinstance(event, ChunkDelivered):
            time.sleep(event.count * pause_s)

    # Beside the input: what is written may be larger than a temporary directory has room for.
    with (
        tempfile.TemporaryDirectory(dir=inputs.CACHE) as name,
        our_fleet(_WORKLOAD, WORKERS, window) as fleet,
    ):
        target, chunk_size = Path(name) / "output.jsonl", _TIGHT_CHUNK if window else None
        return _ran(
            fleet,
            lambda: (
                fleet.migrator.migrate_file(
                    source,
                    target,
                    *_WORKLOAD.hop,
                    chunk_size=chunk_size,
                    by_reference="never",
                    observers=(pause,),
                ).records
            ),
        )


def run_ranges(target_name: str, records: int) -> dict[str, Any]:
    """Migrate a file by reference, into one named so or into parts."""
    source = inputs.source_of(_WORKLOAD.name, records)
    with (
        tempfile.TemporaryDirectory(dir=inputs.CACHE) as name,
        our_fleet(_WORKLOAD, WORKERS) as fleet,
    ):
        target = f"{name}/{target_name}"
        return _ran(
            fleet,
            lambda: (
                fleet.migrator.migrate_file(
                    source, target, *_WORKLOAD.hop, by_reference="always"
                ).records
            ),
        )


def run_objects(records: int, pause_s: float, window: Window | None) -> dict[str, Any]:
    """Migrate and validate dicts; the one who takes the models pauses now and then."""
    chunk_size = _TIGHT_CHUNK if window else None

    def take() -> int:
        taken = 0
        rows = _rows(records)
        for _ in fleet.migrator.migrate_batch_streaming(rows, *_WORKLOAD.hop, chunk_size):
            taken += 1
            if pause_s and taken % _PAUSE_EVERY == 0:
                time.sleep(_PAUSE_EVERY * pause_s)
        return taken

    with our_fleet(_WORKLOAD, WORKERS, window) as fleet:
        return _ran(fleet, take)


def _rows(count: int) -> Iterator[dict[str, Any]]:
    return ({"name": f"First{index} Last{index}", "age": index % 90} for index in range(count))


def _ran(fleet: OurFleet, run: Callable[[], int]) -> dict[str, Any]:
    began = time.perf_counter()
    records = fleet.timed(run)
    seconds = time.perf_counter() - began
    peak, server_peak = processes.peak_bytes(), fleet.server.peak_bytes()
    return asdict(Run(records, seconds, peak, server_peak, 100 * fleet.coordinator_share))


def run_worker(chunks: int, _: float, __: Window | None) -> dict[str, list[int]]:
    """Run chunks of one record; return what each process held after each tenth of them."""
    source = inputs.source_of(_WORKLOAD.name, chunks)
    with tempfile.TemporaryDirectory() as name, our_fleet(_WORKLOAD, 1) as fleet:
        (main_pid,) = fleet.workers
        (child_pid,) = processes.children_of(main_pid)
        held: dict[str, list[int]] = {"main process": [], "child": []}

        def look(event: Event) -> None:
            if isinstance(event, ChunkDelivered) and (event.chunk + 1) % (chunks // _TENTHS) == 0:
                held["main process"].append(processes.resident_bytes(main_pid))
                held["child"].append(processes.resident_bytes(child_pid))

        target = Path(name) / "output.jsonl"
        fleet.migrator.migrate_file(source, target, *_WORKLOAD.hop, chunk_size=1, observers=(look,))
        if processes.children_of(main_pid) != [child_pid]:
            raise RuntimeError("the worker's child was replaced, and with it what it held")
    return held


_RUNS: Final[dict[str, Callable[[int, float, Window | None], dict[str, Any]]]] = {
    "lines": run_lines,
    "joined": lambda records, *_: run_ranges("output.jsonl", records),
    "parts": lambda records, *_: run_ranges("output/", records),
    "objects": run_objects,
    "worker": run_worker,
}


if __name__ == "__main__":
    main()
