"""What submitting a job costs, beside the same run in the foreground.

    python -m benchmarks.submitted [--rounds 15] [--quick] [--scale 0.1]

Both take the same file by reference, on the same two workers. A coordinator in a process of its
own drives what is submitted; the clock runs from `Migrator.submit` until `wait` has returned.
Fleets differ by some percent from each other, which is more than what is measured here: one
fleet runs all of it, and who begins alternates. Outputs must be the same byte for byte.
"""

import argparse
import filecmp
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import inputs
from benchmarks.contenders.contest import WORKERS
from benchmarks.contenders.fleet import OurFleet, our_fleet
from benchmarks.workloads import Workload

RESULTS: Final = inputs.CACHE / "submitted.json"

_WORKLOAD: Final = Workload("small")
_RECORDS: Final = 3_000_000  # what a job costs once must not decide
_QUICK_RECORDS: Final = 20_000
_ROUNDS: Final = 15
_LEAST: Final = 0.98
_QUARTERS: Final = 4


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run took.

    Attributes:
        seconds: By the clock.
        cpu_s: Processor time of producer or coordinator, server and workers.
    """

    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A run and a submitted job, one after the other."""

    run: Taken
    submitted: Taken


@dataclass(frozen=True, slots=True)
class Course:
    """Where a file is migrated, and by whom.

    Attributes:
        fleet: The fleet, with a coordinator.
        source: The file.
        folder: Where outputs and jobs go.
    """

    fleet: OurFleet
    source: Path
    folder: Path

    @property
    def jobs(self) -> Path:
        """The jobs root."""
        return self.folder / "jobs"

    def run(self, target: Path) -> int:
        """Migrate the file in the foreground."""
        migrator, hop = self.fleet.migrator, self.fleet.workload.hop
        return migrator.migrate_file(self.source, target, *hop, by_reference="always").records

    def submit(self, target: Path) -> int:
        """Submit the file, and wait for it."""
        migrator, hop = self.fleet.migrator, self.fleet.workload.hop
        job = migrator.submit(self.source, target, *hop, jobs=self.jobs, by_reference="always")
        return job.wait().outputs

    def pair(self, number: int) -> Pair:
        """Run both, in an order that alternates."""
        ways: list[Callable[[Path], int]] = [self.run, self.submit]
        taken: dict[str, Taken] = {}
        for way in ways[:: -1 if number % 2 else 1]:
            taken[way.__name__] = self._taken(way)
        if not filecmp.cmp(*(self.folder / way.__name__ for way in ways), shallow=False):
            sys.exit("the outputs differ")
        return Pair(taken[self.run.__name__], taken[self.submit.__name__])

    def _taken(self, way: Callable[[Path], int]) -> Taken:
        target = self.folder / way.__name__
        target.unlink(missing_ok=True)
        began = time.perf_counter()
        self.fleet.timed(lambda: way(target))
        return Taken(time.perf_counter() - began, sum(self.fleet.spent.values()))


def main() -> None:
    options = _parse()
    records = round(options.scale * (_QUICK_RECORDS if options.quick else _RECORDS))
    rounds = 1 if options.quick else options.rounds
    pairs = measure(inputs.source_of("small", records), rounds)
    if options.quick:
        print("--quick: ignore the figures")
    print(f"submitted, of a run: {records:,} small records by reference, {rounds} pairs")
    for what in ("seconds", "cpu_s"):
        ratios = sorted(getattr(pair.run, what) / getattr(pair.submitted, what) for pair in pairs)
        median, end = statistics.median(ratios), len(ratios) // _QUARTERS
        verdict = "met" if median >= _LEAST else "MISSED"
        print(
            f"13 {'time' if what == 'seconds' else 'processor time':<16}{median:>7.3f}"
            f"   half of them {ratios[end]:.3f} to {ratios[-1 - end]:.3f}"
            f"   all {ratios[0]:.3f} to {ratios[-1]:.3f}   ≥ {_LEAST}  {verdict}"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"quick": options.quick, "pairs": [asdict(pair) for pair in pairs]}, indent=1)
    )


def measure(source: Path, rounds: int) -> list[Pair]:
    """Run pairs on one fleet with one coordinator, after one that does not count.

    Args:
        source: The file.
        rounds: How many pairs count.

    Returns:
        What they took.
    """
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as name,
        our_fleet(_WORKLOAD, WORKERS) as fleet,
    ):
        course = Course(fleet, source, Path(name))
        with fleet.coordinated(course.jobs, source):
            pairs = []
            for number in range(rounds + 1):
                pairs.append(course.pair(number))
                print(
                    f"   pair {number:>2}   run {pairs[-1].run.seconds:.2f} s   "
                    f"submitted {pairs[-1].submitted.seconds:.2f} s",
                    file=sys.stderr,
                    flush=True,
                )
            return pairs[1:]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what submitting a job costs.")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--quick", action="store_true", help="small inputs; ignore the figures")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual inputs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
