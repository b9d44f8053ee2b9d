"""A trial: lines run once through a plan, with the time they take and the records that fail."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.plans.codegen import Output, OutputKind
from pyrmute_tasks.plans.plan import MigrationPlan

__all__ = ["FailedLine", "Trial", "run_trial"]

_WARM_UP: Final = 10  # one in ten lines
_SHORT_S: Final = 0.05
_MOST_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class FailedLine:
    """A line whose record failed.

    Attributes:
        index: Its index in the sample.
        cause: What failed, without anything from the record.
        described: The same at length, with the place in the code.
        is_read: Whether it holds a JSON object.
    """

    index: int
    cause: str
    described: str
    is_read: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a trial.

    Attributes:
        failed: The lines that failed, in order.
        bytes_in: Size of those that did not.
        bytes_out: Size of their outputs.
        timed_records: Number of lines that were timed.
        timed_bytes: Their size.
        seconds: What these took.
    """

    failed: tuple[FailedLine, ...]
    bytes_in: int
    bytes_out: int
    timed_records: int
    timed_bytes: int
    seconds: float


def run_trial(
    plan: MigrationPlan, lines: Sequence[bytes], mark: Callable[[int], None] = lambda _: None
) -> Trial:
    """Run lines through a plan as a chunk runs: read, migrate, validate, write.

    The first tenth warms up and is not timed. If the rest takes less than 50 ms, it runs up to
    five times and the shortest counts, so that a pause of the machine does not.

    Args:
        plan: The plan.
        lines: JSON lines.
        mark: Called with the index of the line that runs next.
    """
    output = Output(OutputKind.LINES, plan.target)
    failures: list[RecordFailure] = []

    def run(begin: int, end: int) -> int:
        def skip(failure: RecordFailure) -> bool:
            failures.append(failure)
            return True

        def marked() -> Iterator[bytes]:
            for index in range(begin, end):
                mark(index)
                yield lines[index]

        outputs, _ = plan.run(marked(), output, begin, skip)
        return sum(map(len, outputs))

    warm = min(len(lines), max(1, len(lines) // _WARM_UP))
    bytes_out = run(0, warm)
    begin = warm if warm < len(lines) else 0
    once = list(failures)
    best = 0.0
    for number in range(_MOST_ROUNDS):
        began = time.perf_counter()
        made = run(begin, len(lines))
        seconds = time.perf_counter() - began
        if number == 0:
            best = seconds
            if begin:
                bytes_out, once = bytes_out + made, list(failures)
        best = min(best, seconds)
        if seconds >= _SHORT_S:
            break
    failed = {failure.index for failure in once}
    return Trial(
        tuple(
            FailedLine(each.index, each.cause, each.describe(), each.stage is not Stage.DECODE)
            for each in once
        ),
        sum(len(line) for index, line in enumerate(lines) if index not in failed),
        bytes_out,
        len(lines) - begin,
        sum(map(len, lines[begin:])),
        best,
    )
