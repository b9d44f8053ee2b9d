"""A sample of what a job has written, compared with what today's code makes of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from pyrmute_tasks.errors import JobChangedError
from pyrmute_tasks.io.jsonl import source_errors
from pyrmute_tasks.io.retried_job import RetriedJob
from pyrmute_tasks.jobs.entries import Settled
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.ranges.lines import LineBlock, drop_blank_lines, line_of, read_lines
from pyrmute_tasks.wire.frames import MAX_FRAME_BYTES

__all__ = ["compare_sample"]

_MOST_RECORDS: Final = 1000
_MOST_RANGES: Final = 100


class _Range(NamedTuple):
    """A range without rejects.

    Attributes:
        entry: Its entry.
        path: The file with its outputs.
        offset: Where they begin.
        first_record: Records of the source before it.
        first_line: Lines of its file before it.
    """

    entry: Settled
    path: Path
    offset: int
    first_record: int
    first_line: int


def compare_sample(retried: RetriedJob, plan: MigrationPlan) -> None:
    """Migrate some records that had passed again, here, and compare with what was written.

    Up to 1,000 records are taken, from the beginnings of up to 100 ranges across the source.

    Args:
        retried: The job that has written them.
        plan: Today's plan.

    Raises:
        JobChangedError: If an output differs, or a record fails; it names the first one.
        ConfigurationError: If the source cannot be read.
    """
    passed = sum(1 for _ in _passed(retried))
    chosen = min(passed, _MOST_RANGES)
    wanted = {number * passed // chosen for number in range(chosen)} if chosen else set()
    quiet = replace(plan, observe=False)  # hooks count what is written, and this is not
    for number, range_ in enumerate(_passed(retried)):
        if number in wanted:
            name = retried.folder.spec.sources[range_.entry.file].path
            _compare(name, range_, quiet, _MOST_RECORDS // chosen)


def _passed(retried: RetriedJob) -> Iterator[_Range]:
    """Yield the ranges without rejects that have outputs."""
    records = lines = file = 0
    for entry, path, offset in retried.places():
        if entry.file != file:
            file, lines = entry.file, 0
        if entry.outputs and not entry.rejected:
            yield _Range(entry, path, offset, records, lines)
        records += entry.records
        lines += entry.lines if entry.lines >= 0 else entry.records


def _compare(name: str, range_: _Range, plan: MigrationPlan, most: int) -> None:
    """Compare the outputs of the first records of a range."""
    entry = range_.entry
    with source_errors(name), open(name, "rb") as file:
        size_bytes = Path(name).stat().st_size
        block = next(read_lines(file, entry.start, entry.end, size_bytes, MAX_FRAME_BYTES), None)
    if not isinstance(block, LineBlock):
        return
    text, blank = drop_blank_lines(block.text)
    made, count, failure = plan.migrate_lines(b"".join(_first(text, most)))
    places = [at for at, _ in blank]
    with range_.path.open("rb") as file:
        file.seek(range_.offset)
        for number, line in enumerate(_first(made, count)):
            if file.readline() != line:
                raise _differs(name, range_, number, places, "gives another output")
    if failure is not None:
        told = f"fails: {failure.describe()}"
        raise _differs(name, range_, failure.index, places, told)


def _first(text: bytes, most: int) -> list[bytes]:
    """Return the first of some whole lines, without empty ones."""
    return [line + b"\n" for line in text.split(b"\n", most)[:most] if line]


def _differs(
    name: str, range_: _Range, number: int, blank: list[int], told: str
) -> JobChangedError:
    line = range_.first_line + line_of(number, blank) + 1
    return JobChangedError(
        f"record {range_.first_record + number} ({name}, line {line}) had passed, and with today's "
        f"code it {told}: a retry would mix two results. Run it all again, or keep what had passed "
        "with --accept-code (accept_code=True in Python)"
    )
