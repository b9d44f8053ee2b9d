"""This package's engine beside pyrmute's: the same models, steps and records, in one table.

    python benchmarks/engine.py [--runs 5] [--quick]

Every row compares two ways of doing the same work, in turns: A B A B ... Its measure is the
median of the ratios of these pairs. Rates move with the machine; ratios hardly do. First of
all both libraries must give equal outputs; if they do not, that is the end, with exit status 1.
"""

import argparse
import gc
import multiprocessing
import operator
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import pyrmute
from pydantic import BaseModel

import pyrmute_tasks

Record: TypeAlias = dict[str, Any]
Manager = TypeVar("Manager", pyrmute.ModelManager, pyrmute_tasks.ModelManager)


# --- a small record and two written steps, as in pyrmute's README -------------------------


class UserV1(BaseModel):
    """A name in one piece."""

    name: str
    age: int


class UserV2(BaseModel):
    """A name in two pieces."""

    first_name: str
    last_name: str
    age: int


class UserV3(BaseModel):
    """With an address."""

    first_name: str
    last_name: str
    email: str
    age: int | None = None


def split_name(data: Record) -> Record:
    parts = data["name"].split(" ", 1)
    return {
        "first_name": parts[0],
        "last_name": parts[1] if len(parts) > 1 else "",
        "age": data["age"],
    }


def add_email(data: Record) -> Record:
    return {**data, "email": f"{data['first_name'].lower()}@example.com"}


def with_users(manager: Manager) -> Manager:
    """Register the users.

    Args:
        manager: Of either library.

    Returns:
        The same one.
    """
    manager.model("User", "1.0.0")(UserV1)
    manager.model("User", "2.0.0")(UserV2)
    manager.model("User", "3.0.0")(UserV3)
    manager.migration("User", "1.0.0", "2.0.0")(split_name)
    manager.migration("User", "2.0.0", "3.0.0")(add_email)
    return manager


def users(count: int) -> Iterator[Record]:
    return ({"name": f"Ada{i % 1000} Lovelace", "age": i % 90} for i in range(count))


# --- an automatic step, with written ones inside of it ------------------------------------


class CustomerV1(BaseModel):
    """A name in one piece."""

    name: str


class CustomerV2(BaseModel):
    """A name in two pieces."""

    first_name: str
    last_name: str


class LineV1(BaseModel):
    """A price in units."""

    item: str
    price: float


class LineV2(BaseModel):
    """A price in hundredths."""

    item: str
    cents: int


class OrderV1(BaseModel):
    """A model with versioned models inside."""

    number: int
    customer: CustomerV1
    lines: list[LineV1]


class OrderV2(BaseModel):
    """The same with later versions of these; entered without a written step."""

    number: int
    customer: CustomerV2
    lines: list[LineV2]
    currency: str = "EUR"


def split_customer(data: Record) -> Record:
    first, _, last = data["name"].partition(" ")
    return {"first_name": first, "last_name": last}


def count_cents(data: Record) -> Record:
    return {"item": data["item"], "cents": round(data["price"] * 100)}


def with_orders(manager: Manager) -> Manager:
    """Register the orders.

    Args:
        manager: Of either library.

    Returns:
        The same one.
    """
    manager.model("Customer", "1.0.0")(CustomerV1)
    manager.model("Customer", "2.0.0")(CustomerV2)
    manager.migration("Customer", "1.0.0", "2.0.0")(split_customer)
    manager.model("Line", "1.0.0")(LineV1)
    manager.model("Line", "2.0.0")(LineV2)
    manager.migration("Line", "1.0.0", "2.0.0")(count_cents)
    manager.model("Order", "1.0.0")(OrderV1)
    manager.model("Order", "2.0.0", backward_compatible=True)(OrderV2)
    return manager


def orders(count: int) -> Iterator[Record]:
    for i in range(count):
        lines = [{"item": f"item {i + j}", "price": 0.25 * j} for j in range(5)]
        yield {"number": i, "customer": {"name": "Ada Lovelace"}, "lines": lines}


# --- a step that computes -----------------------------------------------------------------


class ReadingV1(BaseModel):
    """A number, and how often to square it."""

    value: int
    rounds: int


class ReadingV2(BaseModel):
    """The sum of the squares."""

    value: int


def burn(rounds: int) -> int:
    total = 0
    for i in range(rounds):
        total += i * i
    return total


def square(data: Record) -> Record:
    return {"value": data["value"] + burn(data["rounds"])}


def with_readings(manager: Manager) -> Manager:
    """Register the readings.

    Args:
        manager: Of either library.

    Returns:
        The same one.
    """
    manager.model("Reading", "1.0.0")(ReadingV1)
    manager.model("Reading", "2.0.0")(ReadingV2)
    manager.migration("Reading", "1.0.0", "2.0.0")(square)
    return manager


def readings(count: int, rounds: int) -> Iterator[Record]:
    return ({"value": i, "rounds": rounds} for i in range(count))


def rounds_for(seconds: float) -> int:
    """Return how many rounds of `burn` take so long here.

    Args:
        seconds: How long; as arithmetic and not by the clock, since a busy loop on the clock
            would pass its time also while another process has the core.

    Returns:
        The rounds, by the fastest of a few tries.
    """
    rounds = 20_000
    fastest = min(seconds_of(lambda: burn(rounds)) for _ in range(20))
    return max(1, round(rounds * seconds / fastest))


# pyrmute's processes get these by pickle, and ours may import them: each has a name, and only
# the models it needs, for pyrmute sends all of them along with every record.
USERS: Final = with_users(pyrmute_tasks.ModelManager())
ORDERS: Final = with_orders(pyrmute_tasks.ModelManager())
READINGS: Final = with_readings(pyrmute_tasks.ModelManager())
PYRMUTE_USERS: Final = with_users(pyrmute.ModelManager())
PYRMUTE_ORDERS: Final = with_orders(pyrmute.ModelManager())
PYRMUTE_READINGS: Final = with_readings(pyrmute.ModelManager())

USER: Final = ("User", "1.0.0", "3.0.0")
ORDER: Final = ("Order", "1.0.0", "2.0.0")
READING: Final = ("Reading", "1.0.0", "2.0.0")
WORKERS: Final = 2


# --- measuring ----------------------------------------------------------------------------

Side: TypeAlias = tuple[int, Callable[[], object]]
"""A number of records, and what migrates so many."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        work: What was done.
        rates: Records/s of what is measured and of what it is measured by, if that is it.
        values: What each run gave.
        target: What their median is to be; None if the row is there for comparison only.
        unit: What both are in.
        reaches: Called with median and target; says whether it is met.
    """

    work: str
    rates: tuple[float, ...]
    values: list[float]
    target: float | None
    unit: str
    reaches: Callable[[float, float], bool] = operator.ge

    def __str__(self) -> str:
        """Return the row as a line."""
        rates = "".join(f"{rate:>11,.0f}" for rate in self.rates) or " " * 22
        median = statistics.median(self.values)
        measured = (
            f"{self.work:<50}{rates}{median:>8.2f}{min(self.values):>8.2f}{max(self.values):>8.2f}"
        )
        if self.target is None:
            return measured
        sign = "≥" if self.reaches is operator.ge else "≤"
        verdict = "ok" if self.reaches(median, self.target) else "MISSED"
        return f"{measured}  {f'{sign} {self.target:g} {self.unit}':<9}{verdict}"


HEADER: Final = (
    f"{'work':<50}{'records/s':>11}{'other':>11}{'median':>8}{'min':>8}{'max':>8}  target\n"
    + "-" * 112
)


def seconds_of(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - began
    del result  # dropping it is not part of the work
    return seconds


def compare(work: str, other: Side, own: Side, runs: int, target: float) -> Row:
    """Measure two sides in turns.

    Args:
        work: What both do.
        other: What `own` is measured by.
        own: What is measured.
        runs: How many pairs.
        target: How many times the other's rate ours should be.

    Returns:
        Median rates, and the ratio of each pair.
    """
    return row_of(work, [measure_pair(own, other) for _ in range(runs)], target)


def measure_pair(own: Side, other: Side) -> tuple[float, float]:
    """Measure `other` and then `own`.

    Args:
        own: What is measured.
        other: What it is measured by.

    Returns:
        Records/s of `own` and of `other`.
    """
    by_other = other[0] / seconds_of(other[1])
    return own[0] / seconds_of(own[1]), by_other


def row_of(work: str, pairs: list[tuple[float, float]], target: float | None) -> Row:
    """Return the row of some pairs.

    Args:
        work: What was done.
        pairs: Records/s of what is measured and of what it is measured by.
        target: How many times the other's rate the first is to be, if that matters.

    Returns:
        Median rates, and the ratio of each pair.
    """
    rates = tuple(statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(work, rates, [own / other for own, other in pairs], target, "x")


def require_equal(own: object, other: object) -> None:
    """End this process, with exit status 1, if the outputs of both libraries differ.

    Args:
        own: This package's.
        other: pyrmute's.
    """
    if own != other:
        sys.exit("the outputs differ")


def check_outputs() -> None:
    """See that all ways of all rows give equal outputs; see `require_equal`."""
    small, nested, slow = list(users(1000)), list(orders(200)), list(readings(20, 1000))
    expected = PYRMUTE_USERS.migrate_batch(small, *USER)
    require_equal(USERS.migrate_batch(small, *USER), expected)
    require_equal([USERS.migrate(record, *USER) for record in small], expected)
    require_equal(list(USERS.migrate_batch_streaming(small, *USER)), expected)
    data = PYRMUTE_USERS.migrate_batch_data(small, *USER)
    require_equal(USERS.migrate_batch_data(small, *USER), data)
    require_equal(
        ORDERS.migrate_batch(nested, *ORDER), PYRMUTE_ORDERS.migrate_batch(nested, *ORDER)
    )
    computed = PYRMUTE_READINGS.migrate_batch(slow, *READING)
    require_equal(READINGS.migrate_batch(slow, *READING), computed)
    for processes in (False, True):
        spread = (True, WORKERS, processes)
        require_equal(USERS.migrate_batch(small, *USER, *spread), expected)
        require_equal(PYRMUTE_USERS.migrate_batch(small, *USER, *spread), expected)
        require_equal(READINGS.migrate_batch(slow, *READING, *spread), computed)


# --- the rows -----------------------------------------------------------------------------


def small_rows(runs: int, scale: int) -> Iterator[Row]:
    """Measure the rows with two written steps.

    Args:
        runs: How many pairs.
        scale: What to divide the numbers of records by.

    Yields:
        The rows.
    """
    records = list(users(30_000 // scale))
    count = len(records)
    yield compare(
        "migrate_batch, two written steps",
        (count, lambda: PYRMUTE_USERS.migrate_batch(records, *USER)),
        (count, lambda: USERS.migrate_batch(records, *USER)),
        runs,
        14,
    )
    yield compare(
        "migrate_batch_data, the same",
        (count, lambda: PYRMUTE_USERS.migrate_batch_data(records, *USER)),
        (count, lambda: USERS.migrate_batch_data(records, *USER)),
        runs,
        17,
    )

    def loop(migrate: Callable[..., object]) -> None:
        for record in records:
            migrate(record, *USER)

    yield compare(
        "migrate in a loop, the same",
        (count, lambda: loop(PYRMUTE_USERS.migrate)),
        (count, lambda: loop(USERS.migrate)),
        runs,
        6.5,
    )


def nested_row(runs: int, scale: int) -> Row:
    records = list(orders(4_000 // scale))
    return compare(
        "migrate_batch, automatic step, six nested",
        (len(records), lambda: PYRMUTE_ORDERS.migrate_batch(records, *ORDER)),
        (len(records), lambda: ORDERS.migrate_batch(records, *ORDER)),
        runs,
        7,
    )


def parallel_rows(runs: int, scale: int) -> Iterator[Row]:
    """Measure the rows with two written steps in threads and in processes.

    Args:
        runs: How many pairs.
        scale: What to divide the numbers of records by.

    Yields:
        The rows.
    """
    many = list(users(100_000 // scale))
    few = many[: 3_000 // scale]
    yield compare(
        "two threads; other: our own sequential",
        (len(many), lambda: USERS.migrate_batch(many, *USER)),
        (len(many), lambda: USERS.migrate_batch(many, *USER, True, WORKERS)),
        runs,
        0.8,
    )
    yield compare(
        "two processes",
        (len(few), lambda: PYRMUTE_USERS.migrate_batch(few, *USER, True, WORKERS, True)),
        (len(many), lambda: USERS.migrate_batch(many, *USER, True, WORKERS, True)),
        runs,
        40,
    )


def computing_rows(runs: int, scale: int) -> Iterator[Row]:
    """Measure a step that computes, and what the two cores could give to anybody meanwhile.

    Args:
        runs: How many pairs; each is followed by one of bare processes, which share nothing.
        scale: What to divide the number of records by.

    Yields:
        Both rows.
    """
    rounds = rounds_for(100e-6)
    records = list(readings(10_000 // scale, rounds))
    count = len(records)

    def in_one() -> object:
        return READINGS.migrate_batch(records, *READING)

    def in_two() -> object:
        return READINGS.migrate_batch(records, *READING, True, WORKERS, True)

    def bare() -> None:
        halves = [
            multiprocessing.Process(target=burn, args=(rounds * count // WORKERS,))
            for _ in range(WORKERS)
        ]
        for half in halves:
            half.start()
        for half in halves:
            half.join()

    pairs, ceilings = [], []
    for _ in range(runs):
        pairs.append(measure_pair((count, in_two), (count, in_one)))
        ceilings.append(measure_pair((count, bare), (count, lambda: burn(rounds * count))))
    yield row_of("two processes, 100 µs a step; other: our own loop", pairs, 1.8)
    yield row_of("two bare processes, for comparison; other: a loop", ceilings, None)


# --- memory -------------------------------------------------------------------------------


def memory_row(runs: int, scale: int) -> Row:
    """Measure how much more memory ten times as many records take.

    Args:
        runs: How many pairs.
        scale: What to divide the numbers of records by.

    Returns:
        The differences of the peaks in MB.
    """
    counts = 1_000_000 // scale, 100_000 // scale
    pairs = [[peak_of_process(count) for count in counts] for _ in range(runs)]
    more = [(large - small) / 1e6 for large, small in pairs]
    what = f"streaming {counts[0]:,} records; other: {counts[1]:,}"
    return Row(what, (), more, 5, "MB", operator.le)


def peak_of_process(count: int) -> int:
    command = [sys.executable, __file__, "--memory", str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(count: int) -> None:
    """Stream so many records and print this process's peak memory in bytes.

    Args:
        count: How many.
    """
    for _ in USERS.migrate_batch_streaming(users(count), *USER):
        pass
    print(peak_bytes())


def peak_bytes() -> int:
    """Return the peak memory of this process.

    Returns:
        Bytes. Where there is a /proc, not from ru_maxrss: Linux starts that at the peak of
        the process that started this one, which may be larger than all that happens here.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- the table ----------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs for each row")
    parser.add_argument("--quick", action="store_true", help="few records, to see that it runs")
    parser.add_argument("--memory", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory is not None:
        print_peak(options.memory)
        return
    runs, scale = options.runs, 20 if options.quick else 1
    check_outputs()
    print(f"this package and pyrmute {pyrmute.__version__}: outputs equal; {runs} pairs of runs")
    print(HEADER, flush=True)
    for row in rows(runs, scale):
        print(row, flush=True)


def rows(runs: int, scale: int) -> Iterator[Row]:
    """Measure all rows.

    Args:
        runs: How many pairs for each.
        scale: What to divide the numbers of records by.

    Yields:
        Each as soon as it is measured.
    """
    yield from small_rows(runs, scale)
    yield nested_row(runs, scale)
    yield from parallel_rows(runs, scale)
    yield from computing_rows(runs, scale)
    yield memory_row(runs, scale)


if __name__ == "__main__":
    main()
