"""Everybody side by side on the same input: one table with ratios, and what is to be reached.

    python -m benchmarks.compare [--rounds 5] [--quick] [--scale 0.1] [--only lines-small objects]

Run it from the repository, in the environment of ``benchmarks/requirements.txt``; ``make bench``
makes one. Every contender runs alone, in a process of its own, and each round gives everybody
a turn. Rates move with the machine; a ratio is taken within a round and hardly does. Outputs
must equal pyrmute's sequential ones: if one does not, that is the end, with exit status 1.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import inputs
from benchmarks.lineup import EVENTS, SHARES, TARGETS, Entry, Event, Per, Share, Target
from benchmarks.processes import MB

RESULTS: Final = inputs.CACHE / "compare.json"

_SMALL: Final = 1_000_000
_QUICK_SMALL: Final = 20_000
_QUICK_FLIGHTS: Final = 5_000
_TIMEOUT_S: Final = 1800
_ERROR_CHARACTERS: Final = 2000


@dataclass(slots=True)
class Results:
    """What an entry's runs printed, by the round.

    Attributes:
        event: The event.
        entry: The entry.
        runs: Round → what it printed.
        error: The end of what a run wrote to stderr that failed.
    """

    event: Event
    entry: Entry
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: str = ""

    @property
    def rates(self) -> dict[int, float]:
        """Round → records/s."""
        return self.rates_per(Per.SECOND)

    def rates_per(self, per: Per) -> dict[int, float]:
        """Return round → records for each of something."""
        return {
            number: run["records"]
            / (run["seconds"] if per is Per.SECOND else sum(run["cpu_s"].values()))
            for number, run in self.runs.items()
        }

    def median(self, name: str) -> float:
        """Return the median of a figure over the rounds."""
        values: list[float] = [run[name] for run in self.runs.values()]
        return statistics.median(values)


def main() -> None:
    options = _parse()
    events = [event for event in EVENTS if not options.only or event.key in options.only]
    results = [Results(event, entry) for event in events for entry in event.entries]
    rounds = 1 if options.quick else options.rounds
    small, flights = _sizes(options)
    began = time.perf_counter()
    for number in range(rounds):
        # Forwards and backwards in turns: who runs after whom must not decide.
        for one in results[:: -1 if number % 2 else 1]:
            if number % one.entry.every == 0 and not one.error:
                records = small if one.event.workload == "small" else flights
                _take_turn(one, number, records)
    print(_heading(rounds, time.perf_counter() - began, quick=options.quick))
    for event in events:
        print("\n".join(_event_table([one for one in results if one.event is event])))
    print("\n".join(_spent_table([one for one in results if one.entry.is_ours and one.runs])))
    judged = [judge(target, results) for target in TARGETS]
    judged += [judge_share(share, results) for share in SHARES]
    verdicts = [verdict for verdict in judged if verdict]
    print("\n".join(_target_table(verdicts)))
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(_as_json(results, verdicts, options.quick), indent=1))
    if any(one.error for one in results):
        sys.exit(1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure everybody side by side.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small inputs; ignore the figures")
    parser.add_argument("--small-records", type=int, metavar="N", help=f"instead of {_SMALL:,}")
    parser.add_argument("--flights", type=int, metavar="N", help="instead of a year of them")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual inputs")
    parser.add_argument("--only", nargs="+", choices=[event.key for event in EVENTS])
    parser.add_argument("--output", type=Path, default=RESULTS, help="results for chart.py")
    return parser.parse_args()


def _sizes(options: argparse.Namespace) -> tuple[int, int]:
    """Return how many small records and how many flights there are to be."""
    usual = (_QUICK_SMALL, _QUICK_FLIGHTS) if options.quick else (_SMALL, inputs.YEAR_OF_FLIGHTS)
    small, flights = (max(1, round(count * options.scale)) for count in usual)
    return options.small_records or small, options.flights or flights


# --- running ------------------------------------------------------------------------------


def _take_turn(one: Results, number: int, records: int) -> None:
    """Run an entry once; in the first round also look at what it made."""
    event, entry = one.event, one.entry
    inputs.source_of(event.workload, records)
    print(f"round {number + 1}  {event.key:<14} {entry.label}", file=sys.stderr, flush=True)
    done = run_module(
        f"benchmarks.contenders.{entry.module}", *_arguments(one, records, with_digest=number == 0)
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"records"')]
    if done.returncode or not lines:
        one.error = done.stderr[-_ERROR_CHARACTERS:] or f"exit status {done.returncode}"
        print(one.error, file=sys.stderr)
        return
    one.runs[number] = json.loads(lines[-1])
    if number == 0:
        _require_equal(one, records)


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this repository in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=inputs.ROOT,
        # Also for the processes that Ray and Dask start somewhere else.
        env=os.environ | {"PYTHONPATH": str(inputs.ROOT)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def _arguments(one: Results, records: int, *, with_digest: bool) -> Iterator[str]:
    yield from (one.event.workload, "--records", str(records))
    if one.entry.chunk_size is not None:
        yield from ("--chunk-size", str(one.entry.chunk_size))
    for option in one.entry.options:
        yield from ("--option", option)
    if one.event.raw:
        yield "--raw"
    if not with_digest:
        yield "--no-digest"


def _require_equal(one: Results, records: int) -> None:
    found = one.runs[0]
    wanted = inputs.expected(one.event.workload, records)["data" if one.event.raw else "lines"]
    if found["records"] != records or found["output"] not in wanted:
        sys.exit(f"{one.event.key}: the output of '{one.entry.label}' is not pyrmute's")


# --- judging ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a target.

    Attributes:
        target: The target.
        title: Title of the event.
        other: Whose rate it was divided by; empty for a share.
        ratios: One a round.
    """

    target: Target | Share
    title: str
    other: str
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether it is what it is to be."""
        is_share = isinstance(self.target, Share)
        return self.ratio <= self.bound if is_share else self.ratio >= self.bound

    @property
    def bound(self) -> float:
        """What a share is to be at most, and another ratio at least."""
        return self.target.most if isinstance(self.target, Share) else self.target.least


def judge(target: Target, results: list[Results]) -> Verdict | None:
    """Return what came of a target; None if somebody did not run."""
    found = {one.entry.label: one for one in results if one.event.key == target.event and one.runs}
    if not {target.own, *target.others} <= found.keys():
        return None
    own = found[target.own]
    other = max(
        (found[label] for label in target.others),
        key=lambda one: statistics.median(one.rates_per(target.per).values()),
    )
    ratios = ratios_of(own, other, target.per)
    return Verdict(target, own.event.title, other.entry.label, ratios)


def judge_share(share: Share, results: list[Results]) -> Verdict | None:
    """Return what came of a share; None if nobody ran."""
    for one in results:
        if (one.event.key, one.entry.label) == (share.event, share.own) and one.runs:
            return Verdict(
                share, one.event.title, "", [run[share.name] for run in one.runs.values()]
            )
    return None


def ratios_of(own: Results, other: Results, per: Per = Per.SECOND) -> list[float]:
    """Return how many times the other's rate ours was, for each round in which both ran."""
    mine, theirs = own.rates_per(per), other.rates_per(per)
    return [mine[number] / theirs[number] for number in sorted(mine.keys() & theirs.keys())]


# --- telling ------------------------------------------------------------------------------


def _heading(rounds: int, seconds: float, *, quick: bool) -> str:
    note = "  --quick: ignore the figures" if quick else ""
    return (
        f"{rounds} rounds in {seconds / 60:.0f} min, medians; Python {platform.python_version()}, "
        f"{os.cpu_count()} CPUs; outputs equal to pyrmute's{note}"
    )


def _event_table(found: list[Results]) -> Iterator[str]:
    event, own = found[0].event, found[0]
    records = max((run["records"] for one in found for run in one.runs.values()), default=0)
    yield f"\n{event.title} ({event.key}, {records:,} records)"
    yield (
        f"  {'who':<37}{'records/s':>11}{'min':>11}{'max':>11}{'ours is':>10}{'start s':>9}"
        f"{'peak MB':>9}"
    )
    for one in found:
        if not one.runs:
            yield f"  {one.entry.label:<37}{'failed':>11}"
            continue
        rates = list(one.rates.values())
        ratio = "" if one is own or not own.runs else f"{_median(ratios_of(own, one)):.2f} x"
        yield (
            f"  {one.entry.label:<37}{_median(rates):>11,.0f}{min(rates):>11,.0f}"
            f"{max(rates):>11,.0f}{ratio:>10}{one.median('start_s'):>9.1f}"
            f"{one.median('peak_rss_bytes') / MB:>9.0f}"
        )


def _spent_table(ours: list[Results]) -> Iterator[str]:
    """Print the CPU time of each of our processes, in seconds per million records."""
    names = list(ours[0].runs[0]["cpu_s"]) if ours else []
    yield "\nours, by process: processor seconds a million records"
    yield f"  {'':<65}" + "".join(f"{name:>19}" for name in names)
    for one in ours:
        runs = one.runs.values()
        spent = [
            _median([1e6 * run["cpu_s"][name] / run["records"] for run in runs]) for name in names
        ]
        whose = f"{one.event.title:<37}{one.entry.label:<28}"
        yield f"  {whose}" + "".join(f"{seconds:>19.3f}" for seconds in spent)


def _target_table(verdicts: list[Verdict]) -> Iterator[str]:
    yield (f"\n{'':<2} {'ours':<34}{'':<30}{'median':>8}{'min':>8}{'max':>8}{'target':>9}")
    for one in sorted(verdicts, key=lambda one: one.target.number):
        target = one.target
        figures = (one.ratio, min(one.ratios), max(one.ratios))
        if isinstance(target, Share):
            shown, bound = [f"{figure:.2%}" for figure in figures], f"≤ {one.bound:.1%}"
        else:
            shown, bound = [f"{figure:.2f}" for figure in figures], f"≥ {one.bound:g}"
        yield (
            f"{target.number:<2} {one.title:<34}{target.text:<30}"
            + "".join(f"{figure:>8}" for figure in shown)
            + f"{bound:>9}  {'met' if one.is_met else 'MISSED'}"
        )


def _own(event: Event, results: list[Results]) -> Results:
    return next(one for one in results if one.event is event)


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


def _as_json(results: list[Results], verdicts: list[Verdict], quick: bool) -> dict[str, Any]:
    return {
        "quick": quick,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "runs": [
            {
                "event": one.event.key,
                "title": one.event.title,
                "label": one.entry.label,
                "ours": one.entry.is_ours,
                "limit": one.entry.module == "limit",
                "rates": list(one.rates.values()),
                "ours_is": _median(ratios_of(_own(one.event, results), one)),
                "printed": list(one.runs.values()),
            }
            for one in results
        ],
        "targets": [
            {
                "number": one.target.number,
                "event": one.target.event,
                "text": one.target.text,
                "by": one.other,
                "ratios": one.ratios,
                "median": one.ratio,
                "bound": one.bound,
                "met": one.is_met,
            }
            for one in verdicts
        ],
    }


if __name__ == "__main__":
    main()
