"""Turn the published flights, a CSV file, into JSON lines of `Flight 1.0.0`.

    python examples/convert_flights.py flights.csv.zip flights.jsonl --limit 1000

Numbers become numbers; a missing value stays the text "NA". One row is held at a time.
"""

import argparse
import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, TextIO
from zipfile import ZipFile

TEXT_COLUMNS: Final = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})


def main() -> None:
    """Parse the command line, convert, and say how many rows were written."""
    parser = argparse.ArgumentParser(description="Turn the flights CSV into JSON lines.")
    parser.add_argument("source", type=Path, metavar="IN", help="a .csv, or a .zip that holds one")
    parser.add_argument("target", type=Path, metavar="OUT", help="the .jsonl file to write")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N rows")
    arguments = parser.parse_args()
    count = convert(arguments.source, arguments.target, arguments.limit)
    print(f"{count:,} rows written to {arguments.target}")


def convert(source: Path, target: Path, limit: int | None = None) -> int:
    """Write the rows of `source` as JSON lines.

    Args:
        source: A CSV file with a header row, or a zip archive that holds exactly one.
        target: The file to write; what it held is lost.
        limit: Stop after so many rows.

    Returns:
        How many rows were written.

    Raises:
        ValueError: If a number is not one, or the archive does not hold exactly one CSV file.
    """
    encode = json.JSONEncoder(separators=(",", ":")).encode
    count = 0
    with _open_csv(source) as text, target.open("w", encoding="utf-8", newline="\n") as lines:
        for row in islice(csv.DictReader(text), limit):
            values = {column: _value(column, cell) for column, cell in row.items()}
            lines.write(encode(values) + "\n")
            count += 1
    return count


def _value(column: str, cell: str) -> int | str:
    return cell if column in TEXT_COLUMNS or cell == "NA" else int(cell)


@contextmanager
def _open_csv(path: Path) -> Iterator[TextIO]:
    if path.suffix != ".zip":
        with path.open(encoding="utf-8", newline="") as text:
            yield text
        return
    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".csv")]
        if len(names) != 1:
            raise ValueError(f"{path} holds {len(names)} CSV files instead of one")
        with archive.open(names[0]) as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
