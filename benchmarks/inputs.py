"""The files that everybody migrates, and what is to come out of them.

    python -m benchmarks.inputs small 1000000

Each is made once and kept in ``benchmarks/cache``, which git ignores.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Final

from benchmarks import digests
from benchmarks.workloads import NAMES, Workload, pyrmute_lines, pyrmute_manager
from pyrmute_tasks.registry import load_attribute

ROOT: Final = Path(__file__).parents[1]
CACHE: Final = ROOT / "benchmarks" / "cache"
YEAR_OF_FLIGHTS: Final = 336_776

_SAMPLE: Final = ROOT / "examples" / "data" / "flights-sample.jsonl"
_PUBLISHED: Final = ROOT.parent / "shared" / "data" / "flights.csv.zip"
_CONVERT: Final = f"{ROOT / 'examples' / 'convert_flights.py'}:convert"
_BLOCK_RECORDS: Final = 10_000


def source_of(workload: str, records: int) -> Path:
    """Return the input of a workload, as JSON lines.

    Args:
        workload: Its name.
        records: How many lines.
    """
    kind = "small" if workload == "small" else "flights"
    path = CACHE / f"input-{kind}-{records}.jsonl"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        write = _write_small if kind == "small" else _write_flights
        write(partial, records)
        partial.replace(path)
    return path


def _write_small(path: Path, records: int) -> None:
    with path.open("w") as file:
        for start in range(0, records, _BLOCK_RECORDS):
            block = range(start, min(start + _BLOCK_RECORDS, records))
            file.writelines(
                f'{{"name": "First{index} Last{index}", "age": {index % 90}}}\n' for index in block
            )


def _write_flights(path: Path, records: int) -> None:
    """Write the published year if it is there and suffices, or the sample again and again."""
    if _PUBLISHED.exists() and records <= YEAR_OF_FLIGHTS:
        convert = load_attribute(_CONVERT)
        convert(_PUBLISHED, path, records)  # type: ignore[operator]  # a function, by its name
        return
    lines = _SAMPLE.read_bytes().splitlines(keepends=True)
    with path.open("wb") as file:
        file.writelines(itertools.islice(itertools.cycle(lines), records))


def expected(workload: str, records: int) -> dict[str, list[str]]:
    """Return the digests of what pyrmute, sequentially, makes of the input of a workload.

    Args:
        workload: Its name.
        records: How many lines its input has.

    Returns:
        ``lines``: those of the validated models as JSON lines, in order and in any order.
        ``data``: that of the migrated data, before it is validated; for small records only,
        since the data of others is no JSON.
    """
    # The slow step only takes its time, which nobody needs to wait for here.
    quick = "small" if workload == "small" else "flights"
    path = CACHE / f"expected-{quick}-{records}.json"
    if not path.exists():
        source = source_of(quick, records)
        found = {"lines": _expected_lines(quick, source)}
        if quick == "small":
            found["data"] = [_expected_data(quick, source)]
        path.write_text(json.dumps(found))
    digests_of: dict[str, list[str]] = json.loads(path.read_text())
    return digests_of


def _expected_lines(workload: str, source: Path) -> list[str]:
    output = source.with_suffix(".expected")
    with source.open("rb") as lines, output.open("w") as file:
        file.writelines(f"{text}\n" for text in pyrmute_lines(workload, lines))
    found = [digests.of_file(output), digests.in_any_order([output])]
    output.unlink()
    return found


def _expected_data(workload: str, source: Path) -> str:
    manager = pyrmute_manager(workload)
    with source.open("rb") as lines:
        rows = map(json.loads, lines)
        data = manager.migrate_batch_data_streaming(rows, *Workload(workload).hop)
        return digests.of_texts(map(json.dumps, data))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make an input and print where it is.")
    parser.add_argument("workload", choices=NAMES)
    parser.add_argument("records", type=int)
    options = parser.parse_args()
    print(source_of(options.workload, options.records))


if __name__ == "__main__":
    main()
