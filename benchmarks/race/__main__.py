"""Everybody side by side on the same input, in turns; one table with ratios and targets.

    python -m benchmarks.race [--rounds 3] [--quick] [--json results.json]

Run with the environment of ``benchmarks/requirements.txt`` (``make bench`` does). Rates move
with the machine; ratios, which are taken within a round, hardly do. Outputs are compared:
files of ordered contenders byte for byte with pyrmute's, the others' as a set of lines.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.race import inputs

_TIMEOUT_S: Final = 900


@dataclass(frozen=True)
class Entry:
    """One row of the table: a contender at a workload.

    Attributes:
        contender: Its name in `contend`.
        workload: Models, steps and input.
        label: What the table calls it.
        chunk_size: Records a task; None leaves it to the contender.
        writes: Whether it writes a file to be compared; ``"set"`` if in no order.
    """

    contender: str
    workload: str
    label: str
    chunk_size: int | None = None
    writes: str = ""

    @property
    def key(self) -> str:
        size = f"/{self.chunk_size}" if self.chunk_size else ""
        return f"{self.workload}/{self.contender}{size}"


ENTRIES: Final = (
    Entry("pyrmute-lines", "small", "pyrmute, streaming", writes="bytes"),
    Entry("pyrmute-pool", "small", "pyrmute in a pool of 2", writes="bytes"),
    Entry("limit", "small", "our plan in a pool of 2 (the limit)", writes="bytes"),
    Entry("ours-lines", "small", "ours", writes="bytes"),
    Entry("celery-lines", "small", "plain Celery, chunks of 1,000", 1000, "bytes"),
    Entry("celery-lines", "small", "plain Celery, chunks of 5,000", 5000, "bytes"),
    Entry("dask-lines", "small", "Dask bag", writes="set"),
    Entry("ray-lines", "small", "Ray Data", writes="set"),
    Entry("limit", "flights", "our plan in a pool of 2 (the limit)", writes="bytes"),
    Entry("ours-lines", "flights", "ours", writes="bytes"),
    Entry("limit", "slow_flights", "our plan in a pool of 2 (the limit)", writes="bytes"),
    Entry("ours-lines", "slow_flights", "ours", writes="bytes"),
    Entry("pyrmute-objects", "small", "pyrmute, objects"),
    Entry("ours-objects", "small", "ours, objects"),
    Entry("ours-raw", "small", "ours, raw"),
    Entry("celery-raw", "small", "plain Celery, raw, chunks of 1,000", 1000),
    Entry("celery-raw", "small", "plain Celery, raw, chunks of 5,000", 5000),
    Entry("ours-lines", "small", "ours, chunks of 100", 100, "bytes"),
    Entry("celery-lines", "small", "plain Celery, chunks of 100", 100, "bytes"),
)
_OURS_SMALL: Final = "small/ours-lines"

Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Target:
    """A ratio that is to be reached.

    Attributes:
        text: What is compared.
        least: The ratio.
        ours: Whose rate is divided,
        others: by the better of these.
    """

    text: str
    least: float
    ours: str
    others: tuple[str, ...]

    def ratios(self, rates: Rates) -> list[float]:
        rounds = zip(rates[self.ours], *(rates[other] for other in self.others), strict=True)
        return [ours / max(others) for ours, *others in rounds]


_CELERY: Final = ("small/celery-lines/1000", "small/celery-lines/5000")
_CELERY_RAW: Final = ("small/celery-raw/1000", "small/celery-raw/5000")
TARGETS: Final = (
    Target("lines, small records, of the limit", 0.80, _OURS_SMALL, ("small/limit",)),
    Target("lines, small records, × pyrmute streaming", 7, _OURS_SMALL, ("small/pyrmute-lines",)),
    Target("lines, small records, × Dask bag", 4, _OURS_SMALL, ("small/dask-lines",)),
    Target("lines, small records, × plain Celery's better size", 4, _OURS_SMALL, _CELERY),
    Target("lines, flights, of the limit", 0.85, "flights/ours-lines", ("flights/limit",)),
    Target(
        "lines, flights, a step of 100 µs, of the limit",
        0.95,
        "slow_flights/ours-lines",
        ("slow_flights/limit",),
    ),
    Target(
        "objects, validated, × pyrmute sequential",
        3,
        "small/ours-objects",
        ("small/pyrmute-objects",),
    ),
    Target("objects, raw, × plain Celery's better size", 3, "small/ours-raw", _CELERY_RAW),
    Target(
        "chunks of 100, × plain Celery's",
        1.5,
        "small/ours-lines/100",
        ("small/celery-lines/100",),
    ),
)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small inputs; ignore the figures")
    parser.add_argument("--only", help="entries whose key holds this; no targets then")
    parser.add_argument("--json", type=Path, help="write the results here, for chart.py")
    options = parser.parse_args()
    sources = {
        "small": inputs.small_records(20_000 if options.quick else 1_000_000),
        "flights": inputs.flights(*([5_000] if options.quick else [])),
        "slow_flights": inputs.flights(5_000 if options.quick else 100_000),
    }
    entries = [entry for entry in ENTRIES if not options.only or options.only in entry.key]
    told: dict[str, list[dict[str, Any]]] = {entry.key: [] for entry in entries}
    digests = _Digests()
    for number in range(options.rounds):
        for entry in entries:
            print(f"round {number + 1}: {entry.key}", file=sys.stderr, flush=True)
            result = _run(entry, sources[entry.workload], digests)
            told[entry.key].append(result)
    rates = {key: [one["records"] / one["seconds"] for one in found] for key, found in told.items()}
    _print_rates(entries, told, rates)
    if not options.only:
        _print_targets(rates)
    if options.json:
        labels = {entry.key: [entry.workload, entry.label] for entry in entries}
        options.json.write_text(json.dumps({"labels": labels, "runs": told}, indent=1))


def _run(entry: Entry, source: Path, digests: "_Digests") -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=inputs.CACHE) as directory:
        target = Path(directory) / "output"
        command = [sys.executable, "-m", "benchmarks.race.contend", entry.contender]
        arguments = [entry.workload, str(source), str(target)]
        size = ["--chunk-size", str(entry.chunk_size)] if entry.chunk_size else []
        done = subprocess.run(
            [*command, *arguments, *size],
            cwd=inputs.ROOT,
            env=os.environ | {"PYTHONPATH": str(inputs.ROOT)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"records"')]
        if not lines:
            sys.exit(f"{entry.key} failed:\n{done.stderr[-2000:]}")
        if entry.writes:
            digests.check(entry, target)
        shutil.rmtree(target, ignore_errors=True)
    result: dict[str, Any] = json.loads(lines[-1])
    return result


class _Digests:
    """Sees that everybody's output is the same."""

    def __init__(self) -> None:
        self._bytes: dict[str, str] = {}
        self._sets: dict[str, str] = {}

    def check(self, entry: Entry, target: Path) -> None:
        if entry.writes == "bytes":
            data = target.read_bytes()
            self._same(self._bytes, entry, hashlib.sha256(data).hexdigest())
            if entry.workload not in self._sets:
                self._same(self._sets, entry, _digest_of_set(data.splitlines()))
        else:
            lines = (line for path in target.iterdir() for line in path.read_bytes().splitlines())
            self._same(self._sets, entry, _digest_of_set(map(_unwrapped, lines)))

    @staticmethod
    def _same(known: dict[str, str], entry: Entry, digest: str) -> None:
        if known.setdefault(entry.workload, digest) != digest:
            sys.exit(f"{entry.key}: its output differs from the others'")


def _digest_of_set(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line + b"\n")
    return digest.hexdigest()


def _unwrapped(line: bytes) -> bytes:
    # Ray writes each text as a field of a JSON object.
    return str(json.loads(line)["text"]).encode() if line.startswith(b'{"text"') else line


def _print_rates(entries: list[Entry], told: dict[str, list[dict[str, Any]]], rates: Rates) -> None:
    print(f"\n{'workload':<14}{'who':<38}{'records/s':>12}{'min':>12}{'max':>12}{'start':>9}")
    for entry in entries:
        found = rates[entry.key]
        start_s = statistics.median(one["start_s"] for one in told[entry.key])
        print(
            f"{entry.workload:<14}{entry.label:<38}{statistics.median(found):>12,.0f}"
            f"{min(found):>12,.0f}{max(found):>12,.0f}{start_s:>7.1f} s"
        )


def _print_targets(rates: Rates) -> None:
    print(f"\n{'target':<54}{'least':>7}{'median':>9}{'min':>8}{'max':>8}")
    for target in TARGETS:
        found = target.ratios(rates)
        median = statistics.median(found)
        met = "met" if median >= target.least else "missed"
        print(
            f"{target.text:<54}{target.least:>7g}{median:>9.2f}{min(found):>8.2f}"
            f"{max(found):>8.2f}  {met}"
        )


if __name__ == "__main__":
    main()
