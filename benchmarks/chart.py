"""Draw the results of `benchmarks.compare` so that a person can read them at a glance.

    python -m benchmarks.chart [results.json] [--output docs/speed.svg]

The kind of picture follows from the name: ``.svg``, ``.png``. One panel an event, one bar a
contender: its median rate, a thin line from its slowest to its fastest round, and how many
times that rate ours is.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks import inputs

_OURS: Final = "#0b7a57"
_LIMIT: Final = "#9aa5b1"
_OTHER: Final = "#cfd6dd"
_TEXT: Final = "#1f2933"
_FAINT: Final = "#616e7c"

_INCHES_A_BAR: Final = 0.25
_INCHES_A_TITLE: Final = 0.36
_PAD: Final = 0.3  # bars, at the ends of a panel
_WIDTH_INCHES: Final = 9.5
_DPI: Final = 150
_THOUSAND: Final = 1000
_TWO_DIGITS: Final = 10
_ROOM: Final = 1.42  # to the right of the longest bar, for what is written there


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the results of benchmarks.compare.")
    parser.add_argument(
        "results", type=Path, nargs="?", default=inputs.CACHE / "compare.json", metavar="RESULTS"
    )
    parser.add_argument("--output", type=Path, default=inputs.CACHE / "compare.svg")
    options = parser.parse_args()
    draw(json.loads(options.results.read_text()), options.output)
    print(options.output)


def draw(results: dict[str, Any], output: Path) -> None:
    """Draw all events below each other.

    Args:
        results: As `benchmarks.compare` writes them.
        output: The picture.
    """
    events: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        if run["rates"]:
            events.setdefault(run["title"], []).append(run)
    # A panel's height is that of its bars, so that all bars are equally thick.
    heights = [len(runs) + _PAD for runs in events.values()]
    inches = _INCHES_A_BAR * sum(heights) + _INCHES_A_TITLE * (len(events) + 2)
    plt.rcParams.update({"font.family": "sans-serif", "font.size": 9.5, "text.color": _TEXT})
    # The same picture from the same results, byte for byte.
    plt.rcParams["svg.hashsalt"] = "compare"
    figure, panels = plt.subplots(
        len(events),
        1,
        figsize=(_WIDTH_INCHES, inches),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    figure.suptitle(_heading(results), x=0.01, ha="left", fontsize=13, fontweight="bold")
    for axes, (title, runs) in zip(panels[:, 0], events.items(), strict=True):
        _draw_event(axes, title, runs)
    figure.supxlabel(
        "thousand records a second: median of the rounds, thin line from slowest to fastest",
        fontsize=9,
        color=_FAINT,
    )
    metadata = {"Date": None} if output.suffix == ".svg" else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=_DPI, metadata=metadata)
    plt.close(figure)


def _heading(results: dict[str, Any]) -> str:
    quick = "  (--quick: these rates mean nothing)" if results["quick"] else ""
    return f"Two workers on {results['cpus']} CPUs, side by side in one run{quick}"


def _draw_event(axes: Axes, title: str, runs: list[dict[str, Any]]) -> None:
    runs = sorted(runs, key=_median)
    rates = [_median(run) / _THOUSAND for run in runs]
    axes.barh(range(len(runs)), rates, height=0.72, color=[_colour(run) for run in runs])
    for position, run in enumerate(runs):
        ends = [min(run["rates"]) / _THOUSAND, max(run["rates"]) / _THOUSAND]
        axes.plot(ends, [position, position], color=_TEXT, linewidth=1.2, solid_capstyle="butt")
    longest = max(max(run["rates"]) for run in runs) / _THOUSAND
    for position, run in enumerate(runs):
        _write_beside(axes, position, run, longest)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=_TEXT)
    axes.set_yticks(range(len(runs)), [run["label"] for run in runs])
    for label, run in zip(axes.get_yticklabels(), runs, strict=True):
        label.set_color(_OURS if run["ours"] else _TEXT)
        label.set_fontweight("bold" if run["ours"] else "normal")
    axes.set_xlim(0, longest * _ROOM)
    axes.set_ylim(-(1 + _PAD) / 2, len(runs) - (1 - _PAD) / 2)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(_FAINT)


def _write_beside(axes: Axes, position: int, run: dict[str, Any], longest: float) -> None:
    rate, fastest = _median(run) / _THOUSAND, max(run["rates"]) / _THOUSAND
    axes.text(
        fastest + longest * 0.012,
        position,
        f"{rate:,.{0 if rate >= _TWO_DIGITS else 1}f}k",
        va="center",
        fontweight="bold" if run["ours"] else "normal",
        color=_OURS if run["ours"] else _TEXT,
    )
    if not run["ours"]:
        text = f"ours is {run['ours_is']:.2f} ×"
        right = longest * (_ROOM - 0.02)
        axes.text(right, position, text, va="center", ha="right", color=_FAINT)


def _colour(run: dict[str, Any]) -> str:
    if run["ours"]:
        return _OURS
    return _LIMIT if run["limit"] else _OTHER


def _median(run: dict[str, Any]) -> float:
    rates: list[float] = run["rates"]
    return statistics.median(rates)


if __name__ == "__main__":
    main()
