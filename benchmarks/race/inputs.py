"""The files that everybody migrates; made once and kept in a directory that git ignores."""

import itertools
import json
from pathlib import Path
from typing import Final

from pyrmute_tasks.registry import load_attribute

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / "benchmarks" / "cache"

_SAMPLE: Final = ROOT / "examples" / "data" / "flights-sample.jsonl"
_PUBLISHED: Final = ROOT.parent / "shared" / "data" / "flights.csv.zip"
_YEAR: Final = 336_776


def small_records(count: int) -> Path:
    """Return a file of ``{"name": …, "age": …}`` lines."""
    path = CACHE / f"small-{count}.jsonl"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        with path.open("w") as file:
            for index in range(count):
                record = {"name": f"First{index} Last{index}", "age": index % 90}
                file.write(json.dumps(record) + "\n")
    return path


def flights(count: int = _YEAR) -> Path:
    """Return a file of flights: the published year, or else the sample again and again."""
    path = CACHE / f"flights-{count}.jsonl"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        if _PUBLISHED.exists():
            convert = load_attribute(f"{ROOT / 'examples' / 'convert_flights.py'}:convert")
            convert(_PUBLISHED, path, count)  # type: ignore[operator]  # a function by name
        else:
            lines = _SAMPLE.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(itertools.islice(itertools.cycle(lines), count)))
    return path
