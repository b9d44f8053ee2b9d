"""Run the benchmarks: all of them, or the rows that are named.

    python -m benchmarks [--quick] [--rounds 9] [--scale 0.1] [--only by-reference ranges]

Run it from the repository, in the environment of ``benchmarks/requirements.txt``; ``make bench``
makes one and runs this: ``make bench BENCH="--only by-reference"``.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from benchmarks import inputs
from benchmarks.lineup import EVENTS


@dataclass(frozen=True, slots=True)
class Program:
    """A program, and the rows that it can measure.

    Attributes:
        command: Arguments of Python.
        rows: Their names; it has `--only` if there are several.
        takes: Options that it takes, by our names for them.
    """

    command: tuple[str, ...]
    rows: tuple[str, ...]
    takes: dict[str, str]


_ROUNDS: Final = {"rounds": "--rounds"}
_ROUNDS_AND_SCALE: Final = _ROUNDS | {"scale": "--scale"}
_COMPARE: Final = Program(
    ("-m", "benchmarks.compare"), tuple(event.key for event in EVENTS), _ROUNDS_AND_SCALE
)
_PROGRAMS: Final = (
    Program(("benchmarks/start.py",), ("start", "short-file"), _ROUNDS),
    Program(("benchmarks/engine.py",), ("engine",), {"rounds": "--runs"}),
    _COMPARE,
    Program(("-m", "benchmarks.submitted"), ("submitted",), _ROUNDS_AND_SCALE),
    Program(("-m", "benchmarks.growth"), ("growth", "ranges", "slow", "worker"), _ROUNDS_AND_SCALE),
)
_ROWS: Final = tuple(row for program in _PROGRAMS for row in program.rows)


def main() -> None:
    options = _parse()
    for program in _PROGRAMS:
        rows = [row for row in program.rows if row in options.only]
        if not rows:
            continue
        arguments = ["--quick"] if options.quick else []
        if len(program.rows) > 1:
            arguments += ["--only", *rows]
        for name, option in program.takes.items():
            value = getattr(options, name)
            arguments += [] if value is None else [option, str(value)]
        _run(*program.command, *arguments)
    if set(options.only) & set(_COMPARE.rows):
        _run("-m", "benchmarks.chart")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("--quick", action="store_true", help="small inputs; ignore the figures")
    parser.add_argument("--rounds", type=int, help="how often each takes its turn")
    parser.add_argument("--scale", type=float, help="so many times the usual inputs")
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=_ROWS, metavar="ROW")
    return parser.parse_args()


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=inputs.ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
