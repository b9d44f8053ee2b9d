"""The whole year of flights: two workers beside a plain loop, in one run.

    python benchmarks/flights.py [--runs 3] [--flights FLIGHTS.csv.zip]

Without the published file (see ``examples/data/README.md``) the shipped sample is repeated
to the same size. Rates move with the machine; the ratio is what to look at.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pyrmute_tasks import Migrator, ModelManager
from pyrmute_tasks.registry import load_attribute

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

MANAGER = f"{ROOT / 'examples' / 'flights.py'}:manager"
SAMPLE = ROOT / "examples" / "data" / "flights-sample.jsonl"
PUBLISHED = ROOT.parent / "shared" / "data" / "flights.csv.zip"
RECORDS = 336_776
HOP = ("Flight", "1.0.0", "3.0.0")


def write_input(published: Path, target: Path) -> None:
    """Write the year as JSON lines."""
    if published.exists():
        from convert_flights import convert

        convert(published, target)
        return
    lines = SAMPLE.read_bytes().splitlines(keepends=True)
    repeats = -(-RECORDS // len(lines))
    target.write_bytes(b"".join((lines * repeats)[:RECORDS]))


def run_loop(source: Path, target: Path) -> float:
    """Migrate with a plain loop; return its seconds."""
    manager = load_attribute(MANAGER)
    assert isinstance(manager, ModelManager)
    began = time.perf_counter()
    with source.open() as lines, target.open("w") as output:
        for line in lines:
            output.write(manager.migrate(json.loads(line), *HOP).model_dump_json() + "\n")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--flights", type=Path, default=PUBLISHED)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Migrator(MANAGER, workers=2) as migrator:
        directory = Path(name)
        source = directory / "in.jsonl"
        by_loop, by_workers = directory / "loop.jsonl", directory / "workers.jsonl"
        write_input(options.flights, source)
        pairs = [
            (run_loop(source, by_loop), migrator.migrate_file(source, by_workers, *HOP).seconds)
            for _ in range(options.runs)
        ]
        if by_loop.read_bytes() != by_workers.read_bytes():
            sys.exit("the outputs differ")
        records = by_loop.read_bytes().count(b"\n")
    loop, workers = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(slow / fast for slow, fast in pairs)
    print(f"{records:,} flights, medians of {options.runs} runs, equal bytes")
    print(f"{'plain loop':<14}{records / loop:>10,.0f} records/s")
    print(f"{'two workers':<14}{records / workers:>10,.0f} records/s   {ratio:.2f} x the loop")


if __name__ == "__main__":
    main()
