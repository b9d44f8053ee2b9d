"""The report of a submitted job as text."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pyrmute_tasks.cli.job_text import (
    at_time,
    bytes_of,
    job_facts,
    job_head,
    labelled,
    short_number,
)
from pyrmute_tasks.engine.counted import counted
from pyrmute_tasks.engine.job_progress import seconds
from pyrmute_tasks.errors import printable
from pyrmute_tasks.jobs.want import CHANGES
from pyrmute_tasks.service.history import EpochReport, LoggedReport, Period
from pyrmute_tasks.service.rates import RateOverTime

__all__ = ["report_lines"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_NONE: Final = "·"
_MOST_COLUMNS: Final = 60
_MOST_ROWS: Final = 12
_FIRST_ROWS: Final = 3
_MOST_LINES: Final = 3


class _Held(NamedTuple):
    """Periods of one kind and reason."""

    kind: str
    why: str
    times: int
    total_s: float
    longest_s: float
    is_under_way: bool
    since: float


def report_lines(report: LoggedReport, now: float, width: int) -> list[str]:
    """Return a report as text.

    Args:
        report: The report.
        now: The time, in seconds since 1970.
        width: Columns there are; longer sentences go on in the next line.
    """
    lines = [*job_head(report.status, width), *job_facts(report.status, width)]
    for label, text in _facts(report):
        lines += labelled(label, printable(text), width)
    for title, rows in (
        ("epochs", _epochs(report)),
        ("failures", _failures(report)),
        ("held up", _held_up(report, now)),
        ("wishes", _wishes(report)),
        ("survived", _survived(report)),
        ("rate", _rates(report.rate)),
    ):
        told = list(rows)
        if told:
            lines.append("")
        for number, row in enumerate(told):
            lines += labelled("" if number else title, printable(row), width, _MOST_LINES)
    return lines


def _facts(report: LoggedReport) -> Iterator[tuple[str, str]]:
    told = [report.fingerprint]
    told += [
        f"{code} from epoch {epoch} on"
        for code, epoch in report.codes.items()
        if code != report.fingerprint
    ]
    yield "code", ", then ".join(told)
    options = {name: value for name, value in report.options.items() if value is not None}
    if options:
        yield "options", ", ".join(f"{name} {value}" for name, value in options.items())
    if report.parents:
        yield "retries", ", ".join(report.parents)
    workers = len(report.workers.keys() - {""})
    by = f" by {counted(workers, 'worker')}" if workers else ""
    yield "ranges", f"{report.ranges:,}{by}; driven for {seconds(report.driven_s)}"
    if report.output_bytes is not None:
        yield "output", f"{bytes_of(report.output_bytes)}, digest {report.output_digest}"


def _epochs(report: LoggedReport) -> Iterator[str]:
    for each in _some(report.epochs):
        yield f"… {counted(each, 'epoch')} …" if isinstance(each, int) else _epoch(each)


def _some(epochs: Sequence[EpochReport]) -> Iterator[EpochReport | int]:
    """Yield the first and the last epochs, and between them how many are left out."""
    left_out = len(epochs) - _MOST_ROWS
    if left_out <= 1:
        yield from epochs
        return
    yield from epochs[:_FIRST_ROWS]
    yield left_out
    yield from epochs[_FIRST_ROWS - _MOST_ROWS :]


def _epoch(epoch: EpochReport) -> str:
    took = seconds(max(0.0, epoch.ended_at - epoch.begun_at))
    told = f"{epoch.epoch}: {at_time(epoch.begun_at)} for {took}, process {epoch.pid} on"
    done = f"{epoch.host}, {counted(epoch.records, 'record')}"
    return f"{told} {done}: {epoch.ended or 'under way'}"


def _failures(report: LoggedReport) -> Iterator[str]:
    for group in report.failures[:_MOST_ROWS]:
        step = f"step {group.step}" if "→" in group.step else group.step
        place = f", field {group.field}" if group.field else ""
        first = "" if group.first_index is None else f"; first record {group.first_index:,}"
        line = "" if group.first_line is None else f" (line {group.first_line:,})"
        yield f"{group.count:,} × {step}: {group.cause}{place}{first}{line}"
    if len(report.failures) > _MOST_ROWS:
        yield f"and {counted(len(report.failures) - _MOST_ROWS, 'more kind')}"


def _held_up(report: LoggedReport, now: float) -> Iterator[str]:
    held = list(_grouped(report.periods, now))
    for each in held[:_MOST_ROWS]:
        times = f"{each.times:,} times, " if each.times > 1 else ""
        longest = f", at most {seconds(each.longest_s)}" if each.times > 1 else ""
        still = ", and still is" if each.is_under_way else ""
        joint = ", " if each.why.startswith("by ") else ": "  # paused by somebody
        why = f"{joint}{each.why}" if each.why else ""
        when = f" from {at_time(each.since)}"
        yield f"{each.kind} {times}{seconds(each.total_s)}{longest}{when}{still}{why}"
    if len(held) > _MOST_ROWS:
        yield f"and for {counted(len(held) - _MOST_ROWS, 'more reason')}"


def _grouped(periods: Iterable[Period], now: float) -> Iterator[_Held]:
    found: dict[tuple[str, str], _Held] = {}
    for period in periods:
        took_s = max(0.0, (period.until or now) - period.since)
        key = period.kind, period.why
        before = found.get(key, _Held(*key, 0, 0.0, 0.0, False, period.since))
        found[key] = before._replace(
            times=before.times + 1,
            total_s=before.total_s + took_s,
            longest_s=max(before.longest_s, took_s),
            is_under_way=not period.until,
        )
    yield from (each for each in found.values() if each.total_s >= 1 or each.is_under_way)


def _wishes(report: LoggedReport) -> Iterator[str]:
    for each in report.wishes[-_MOST_ROWS:]:
        want = each.want
        limits = [f"{name} {want[name]}" for name in CHANGES if want.get(name)]
        why = f": {want['why']}" if want.get("why") else ""
        what = ", ".join([str(want.get("wish", "?")), *limits])
        yield f"{at_time(each.at)} {what}, by {want.get('who') or '?'}{why}"


def _survived(report: LoggedReport) -> Iterator[str]:
    if report.takeovers:
        yield f"{counted(report.takeovers, 'death')} of its driver"
    if report.suspension_count:
        yield counted(report.suspension_count, "suspension")
    if report.crash_count:
        yield counted(report.crash_count, "crash")
    for crash in report.crashes[-_FIRST_ROWS:]:
        yield f"{at_time(crash.at)} {crash.why}"


def _rates(rate: RateOverTime) -> Iterator[str]:
    columns = _narrowed(rate.per_minute)
    if len(columns) < 2:  # noqa: PLR2004  # no course
        return
    most = max(columns)
    marks = len(_BLOCKS) - 1
    yield "".join(_BLOCKS[round(each / most * marks)] if each else _NONE for each in columns)
    until = rate.since + len(rate.records) * rate.column_s
    told = f"{at_time(rate.since)} to {at_time(until)}"
    yield f"{told}, at most {short_number(most)} records/min"


def _narrowed(columns: Sequence[float]) -> Sequence[float]:
    """Return at most as many columns as a line has, each the mean of some."""
    step = max(1, math.ceil(len(columns) / _MOST_COLUMNS))
    groups = [columns[at : at + step] for at in range(0, len(columns), step)]
    return [sum(group) / len(group) for group in groups]
