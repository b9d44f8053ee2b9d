"""Submitted jobs as text: a table of them, and a page of one.

Pure functions of the status, the time and the width; no line is longer than that.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from pyrmute_tasks.engine.job_progress import seconds
from pyrmute_tasks.engine.progress_text import bar_with, cells, counted, cut, packed, wrapped
from pyrmute_tasks.errors import printable
from pyrmute_tasks.jobs.states import ShownState, Wish
from pyrmute_tasks.jobs.want import Want
from pyrmute_tasks.service.status import JobStatus

__all__ = [
    "at_time",
    "bytes_of",
    "job_facts",
    "job_head",
    "job_page",
    "job_table",
    "labelled",
    "progress_line",
    "progress_lines",
    "short_number",
    "title_of",
]

_GAP: Final = "  "
_SHORT_ID: Final = 8
_LEAST_NAME: Final = 8
_DROPPED: Final = ("MODEL", "AGE", "RATE", "ETA")  # columns that a narrow terminal goes without
_MOST_CAUSES: Final = 5
_MOST_NOTES: Final = 3
_MOST_LINES: Final = 2  # of a fact
_MOST_REASON_LINES: Final = 3
_NARROW: Final = 70  # columns; lines of fewer hold little, so more of them are shown
_MORE_LINES: Final = 2
_LABEL: Final = 10
_THOUSAND: Final = 1000
_TEN: Final = 10
_KIB: Final = 1024
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_SHORT: Final = ("", "k", "M", "G", "T")
_ROUNDED: Final = 1.0005  # 999.6 is shown as a thousand
_DAY_S: Final = 86400
_AGES: Final = ((_DAY_S, "d"), (3600, "h"), (60, "min"))
_STATES: Final[Mapping[ShownState, str]] = MappingProxyType(
    {ShownState.SUCCEEDED_WITH_REJECTS: "succeeded"}  # the number of rejects stands beside it
)


class _Column(NamedTuple):
    title: str
    cells: list[str]
    is_number: bool = False


def job_table(jobs: Sequence[JobStatus], now: float, width: int) -> list[str]:
    """Return jobs as a table; below a job why it waits, or ended.

    Args:
        jobs: The jobs.
        now: The time, in seconds since 1970.
        width: Columns there are.
    """
    columns = [
        _Column("STATE", [_STATES.get(job.state, job.state.value) for job in jobs]),
        _Column("JOB", [job.job[:_SHORT_ID] for job in jobs]),
        _Column("NAME", [printable(job.name) for job in jobs]),
        _Column("MODEL", [printable(job.model) for job in jobs]),
        _Column("DONE", [_percent(job.fraction) for job in jobs], True),
        _Column("RATE", [_rate(job) for job in jobs], True),
        _Column("ETA", [_eta(job) for job in jobs], True),
        _Column("REJECTS", [_rejects(job) for job in jobs], True),
        _Column("AGE", [_age(now - job.submitted_at) for job in jobs], True),
    ]
    columns = [column for column in columns if any(column.cells)]
    widths = _fitted(columns, width)
    for title in _DROPPED:
        if _breadth(widths) <= width:
            break
        columns = [column for column in columns if column.title != title]
        widths = _fitted(columns, width)
    lines = [_row([column.title for column in columns], columns, widths)]
    indent = " " * (widths[0] + len(_GAP))
    before = ""
    for number, job in enumerate(jobs):
        lines.append(_row([column.cells[number] for column in columns], columns, widths))
        if job.reason:
            reason = "as above" if job.reason == before else printable(job.reason)
            most = _most_lines(_MOST_REASON_LINES, width)
            lines += [f"{indent}{line}" for line in wrapped(reason, width - len(indent), most)]
        before = job.reason
    return lines


def _most_lines(most: int, width: int) -> int:
    return most + _MORE_LINES if width < _NARROW else most


def _fitted(columns: Sequence[_Column], width: int) -> list[int]:
    """Return the columns' widths; names and models are shortened until all fit."""
    widths = [max(map(cells, (column.title, *column.cells))) for column in columns]
    flexible = [
        number for number, column in enumerate(columns) if column.title in ("NAME", "MODEL")
    ]
    while flexible and _breadth(widths) > width:
        widest = max(flexible, key=widths.__getitem__)
        if widths[widest] <= _LEAST_NAME:
            break
        widths[widest] -= 1
    return widths


def _breadth(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _row(texts: Iterable[str], columns: Sequence[_Column], widths: Sequence[int]) -> str:
    found = []
    for text, column, width in zip(texts, columns, widths, strict=True):
        shown = cut(text, width)
        padding = " " * (width - cells(shown))
        found.append(padding + shown if column.is_number else shown + padding)
    return _GAP.join(found).rstrip()


def title_of(job: JobStatus) -> str:
    """Return what a job is called: its name, if it has one, and its id."""
    return f"{printable(job.name)} ({job.job})" if job.name else job.job


def progress_lines(job: JobStatus, width: int) -> list[str]:
    """Return how far a job is, as a bar where that is known, and why it waits.

    Args:
        job: The job.
        width: Columns there are.
    """
    counts, fraction = list(_counts(job)), job.fraction
    if fraction is None:
        lines = packed(filter(None, [*counts, _time(job)]), width)
    else:
        lines = bar_with(fraction, counts, _time(job), width)
    if not job.reason:
        return lines
    return [*lines, *wrapped(_reason(job), width, _most_lines(_MOST_REASON_LINES, width))]


def progress_line(job: JobStatus) -> str:
    """Return how far a job is, and why it waits, as a line of a log."""
    fraction = job.fraction
    share = [] if fraction is None else [f"{int(fraction * 100)}%"]
    told = f"{title_of(job)}: {', '.join([*share, *_counts(job), *filter(None, [_time(job)])])}"
    return f"{told}; {_reason(job) if job.reason else job.state}"


def _counts(job: JobStatus) -> Iterator[str]:
    yield counted(job.records, "record")
    if job.driver is not None:
        limit = f" (max {job.want.max_rate:,.0f})" if job.want.max_rate else ""
        yield f"{job.rate:,.0f}/s{limit}"
    if job.rejected:
        yield f"{job.rejected:,} rejected"
    if job.workers is not None:
        yield counted(job.workers, "worker")


def _reason(job: JobStatus) -> str:
    if job.state in (ShownState.RUNNING, ShownState.WAITING, ShownState.QUEUED):
        return f"waiting: {printable(job.reason)}"
    if job.reason.startswith(job.state.value):
        return printable(job.reason)
    return f"{job.state}: {printable(job.reason)}"


def _time(job: JobStatus) -> str:
    if job.has_ended:
        return f"took {seconds(job.elapsed_s)}"
    if job.driver is None:
        return ""
    return f"ETA {'?' if job.eta_s is None else seconds(job.eta_s)}"


def job_page(job: JobStatus, width: int) -> list[str]:
    """Return a page about a job.

    Args:
        job: The job.
        width: Columns there are.
    """
    lines = job_head(job, width)
    for label, text in (*_facts(job), *_events(job)):
        lines += labelled(label, printable(text), width)
    return lines


def job_head(job: JobStatus, width: int) -> list[str]:
    """Return the first lines of a page: what the job is, how far it is, and why it waits."""
    return [cut(f"{job.state}  {title_of(job)}", width), *progress_lines(job, width), ""]


def job_facts(job: JobStatus, width: int) -> list[str]:
    """Return what a job is, and who drives it where."""
    return [line for label, text in _facts(job) for line in labelled(label, printable(text), width)]


def labelled(label: str, text: str, width: int, most: int = _MOST_LINES) -> list[str]:
    """Return a text behind a label, on at most `most` lines, or some more if these are short."""
    first, *rest = wrapped(text, width - _LABEL, _most_lines(most, width))
    return [f"{label:{_LABEL}}{first}", *(f"{'':{_LABEL}}{line}" for line in rest)]


def _facts(job: JobStatus) -> Iterator[tuple[str, str]]:
    yield "model", f"{job.model} {job.from_version} → {job.to_version}"
    more = len(job.sources) - 1
    size = "" if job.total_bytes is None else f", {bytes_of(job.total_bytes)}"
    files = f" and {counted(more, 'more file')}" if more > 0 else ""
    yield "source", f"{next(iter(job.sources), '?')}{files}{size}"
    yield "target", job.target
    yield "submitted", _submitted(job)
    if job.driver is not None:
        way = f", {job.way}" if job.way else ""
        yield "driver", f"{job.driver}{way}"
    if job.workers is not None:
        yield "fleet", _fleet(job)
    if _wishes(job.want):
        yield "wishes", _wishes(job.want)
    if job.want_problem:
        yield "wishes", f"{job.want_problem}; earlier ones hold"
    if job.begun_at:
        yield "time", _times(job)
    if job.on_end:
        yield "at end", _on_end(job)


def _events(job: JobStatus) -> Iterator[tuple[str, str]]:
    causes = list(job.causes.items())
    for number, (cause, count) in enumerate(causes[:_MOST_CAUSES]):
        yield "" if number else "rejected", f"{count:,} × {cause}"
    if len(causes) > _MOST_CAUSES:
        yield "", f"and {counted(len(causes) - _MOST_CAUSES, 'more cause')}"
    for number, note in enumerate(job.notes[-_MOST_NOTES:]):
        yield "" if number else "lately", note


def _submitted(job: JobStatus) -> str:
    told = at_time(job.submitted_at)
    if job.submitted_by:
        told += f" by {job.submitted_by}"
    if job.priority not in ("", "normal"):
        told += f", priority {job.priority}"
    if job.after:
        told += f", after job {job.after}"
    return f"{told}: {job.submitted_why}" if job.submitted_why else told


def _on_end(job: JobStatus) -> str:
    if job.on_end == "run":
        return "its command was run"
    if job.has_ended:
        return "its command was not run yet: coordinators with --allow-on-end do that, for a day"
    return "coordinators with --allow-on-end run its command"


def _fleet(job: JobStatus) -> str:
    told = counted(job.workers or 0, "worker")
    if job.queue:
        told += f" on queue {job.queue}"
    if job.jobs > 1:
        told += f", shared by {job.jobs:,} jobs"
    if job.in_flight > job.window:  # others have come to share the fleet
        return f"{told}; {counted(job.in_flight, 'chunk')} in flight, soon at most {job.window:,}"
    return f"{told}; {job.in_flight:,} of at most {job.window:,} chunks in flight"


def _wishes(want: Want) -> str:
    told = []
    if want.wish is Wish.PUBLISH:
        told.append("publish")
    if want.max_rate:
        told.append(f"at most {want.max_rate:,.0f} records/s")
    if want.window:
        told.append(f"window of {counted(want.window, 'chunk')}")
    if want.max_errors:
        told.append(f"at most {want.max_errors} rejects")
    if want.fingerprint:
        told.append(f"code {want.fingerprint} accepted")
    if not told:
        return ""
    if want.wish in (Wish.PAUSE, Wish.CANCEL):  # then who and why belong to that
        return ", ".join(told)
    who = f", by {want.who}" if want.who else ""
    why = f": {want.why}" if want.why else ""
    return f"{', '.join(told)}{who} at {at_time(want.at)}{why}"


def _times(job: JobStatus) -> str:
    told = f"began {at_time(job.begun_at)}, "
    told += f"ended {at_time(job.ended_at)}" if job.has_ended else f"{seconds(job.elapsed_s)} ago"
    if not job.has_ended and job.driver is None:
        told += f"; {job.state} since {at_time(job.changed_at)}"
    if job.epochs > 1:
        told += f"; {job.epochs:,} epochs"
    if job.suspensions:
        times = "once" if job.suspensions == 1 else f"{job.suspensions:,} times"
        told += f"; suspended {times} since anything moved"
    if job.crashes:
        told += f"; {counted(job.crashes, 'crash')} survived"
    return told


# --- numbers --------------------------------------------------------------------------------


def at_time(at: float) -> str:
    """Return a time as people read it, in their zone; ``?`` if it is not known."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "?"


def bytes_of(size: int) -> str:
    """Return a size, ``12 bytes`` or ``1.2 GiB``."""
    power = min(int(math.log(max(size, 1), _KIB)), len(_UNITS) - 1)
    if not power:
        return counted(size, "byte")
    value = size / _KIB**power
    return f"{value:.1f} {_UNITS[power]}" if value < _TEN else f"{value:,.0f} {_UNITS[power]}"


def short_number(value: float) -> str:
    """Return a number in at most five characters, ``940``, ``4.1k`` or ``12M``."""
    power = min(int(math.log10(max(value, 1) * _ROUNDED) / 3), len(_SHORT) - 1)
    value /= _THOUSAND**power
    told = f"{value:.1f}" if power and value < _TEN else f"{value:.0f}"
    return told + _SHORT[power]


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{int(fraction * 100)}%"


def _rate(job: JobStatus) -> str:
    return f"{short_number(job.rate)}/s" if job.driver is not None else ""


def _eta(job: JobStatus) -> str:
    if job.has_ended or job.driver is None:
        return ""
    return "?" if job.eta_s is None else _age(job.eta_s)


def _rejects(job: JobStatus) -> str:
    return short_number(job.rejected) if job.rejected else ""


def _age(age_s: float) -> str:
    for unit_s, unit in _AGES:
        if age_s >= unit_s:
            return f"{int(age_s // unit_s)} {unit}"
    return f"{int(max(age_s, 0))} s"
