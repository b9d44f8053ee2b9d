"""The sample of an audit: the first record, the last, and some evenly spread between.

The source is read once, to its end, in memory for the sample alone.
"""

import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pydantic_core

from pyrmute_tasks.errors import ConfigurationError, UnsupportedValueError
from pyrmute_tasks.records import RecordLike, as_record
from pyrmute_tasks.registry import ModelData

__all__ = ["Sample", "choose", "read_lines", "take_sample"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """The records to run.

    Attributes:
        records: The records, pickled, so that every run gets its own equal copy.
        positions: Their indexes in the source.
        total: Number of records in the source.
        unreadable: Indexes of sampled lines that hold no JSON object.
    """

    records: tuple[bytes, ...]
    positions: tuple[int, ...]
    total: int
    unreadable: tuple[int, ...] = ()


def take_sample(source: Iterable[RecordLike] | str | os.PathLike[str], count: int | None) -> Sample:
    """Read a sample.

    Args:
        source: The records, or the path of a file of JSON lines.
        count: Number of records; None takes all.

    Raises:
        ConfigurationError: If the file cannot be read, or `count` is not positive.
        UnsupportedValueError: If a record cannot be sent to another process.
    """
    if count is not None and count < 1:
        raise ConfigurationError(f"a sample needs 1 record or more, not {count}")
    if not isinstance(source, (str, os.PathLike)):
        chosen, total = choose(source, count)
        records = tuple(_pickled(index, as_record(record)) for index, record in chosen)
        return Sample(records, tuple(index for index, _ in chosen), total)
    lines, total = choose(read_lines(source), count)
    decoded = [(index, _decoded(line)) for index, line in lines]
    good = [(index, record) for index, record in decoded if record is not None]
    return Sample(
        tuple(_pickled(index, record) for index, record in good),
        tuple(index for index, _ in good),
        total,
        tuple(index for index, record in decoded if record is None),
    )


def choose(items: Iterable[T], count: int | None) -> tuple[list[tuple[int, T]], int]:
    """Return the chosen items with their indexes, and the total count."""
    if count is None:
        all_items = list(enumerate(items))
        return all_items, len(all_items)
    most_last = most_between = count // 3
    first: list[tuple[int, T]] = []
    between: list[tuple[int, T]] = []
    last: deque[tuple[int, T]] = deque()
    stride, total = 1, 0
    for pair in enumerate(items):
        total += 1
        if len(first) < count - most_last - most_between:
            first.append(pair)
            continue
        last.append(pair)
        if len(last) <= most_last:
            continue
        passed = last.popleft()
        if most_between and (passed[0] - len(first)) % stride == 0:
            between.append(passed)
            if len(between) > 2 * most_between:
                between = between[::2]
                stride *= 2
    kept = min(len(between), most_between)
    spread = [between[n * len(between) // kept] for n in range(kept)]
    return [*first, *spread, *last], total


def read_lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the lines of a file that are not blank.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
                if text.strip():
                    yield text
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from None


def _decoded(line: bytes) -> ModelData | None:
    try:
        record = pydantic_core.from_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _pickled(index: int, record: object) -> bytes:
    try:
        return pickle.dumps(record)
    except Exception:
        raise UnsupportedValueError(type(record).__name__, f"record {index}") from None
