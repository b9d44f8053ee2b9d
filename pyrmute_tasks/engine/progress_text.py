"""A job's progress as text: a bar for terminals, a line for logs, JSON for programs.

Pure functions of the progress, the time and the width.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from pyrmute_tasks.engine.counted import counted
from pyrmute_tasks.engine.job_progress import JobProgress, seconds
from pyrmute_tasks.errors import printable

__all__ = [
    "BAR",
    "REST",
    "bar_lines",
    "bar_with",
    "cells",
    "counted",
    "cut",
    "json_line",
    "json_note",
    "packed",
    "plain_line",
    "wrapped",
]

BAR: Final = "━"
REST: Final = "─"

_LEAST_BAR: Final = 10
_MOST_BAR: Final = 60
_GAP: Final = "  "
_MOST_REASON_LINES: Final = 2
_WORDS: Final = re.compile(r" (?!s\b)")  # seconds stay with their number


def bar_lines(progress: JobProgress, now: float, width: int) -> list[str]:
    """Return the bar: a line, or more if the terminal is narrow or the job waits.

    Args:
        progress: What is known of the job.
        now: The time.
        width: Columns there are; no line is longer.
    """
    fraction, waiting = progress.fraction(), progress.waiting(now)
    reason = wrapped(f"waiting: {printable(waiting)}", width, _MOST_REASON_LINES)
    if waiting and not progress.has_begun:
        return reason
    counts, time = list(_counts(progress, now)), _time(progress, now)
    if fraction is None:
        lines = packed([*counts, time], width)
    else:
        lines = bar_with(fraction, counts, time, width)
    return [*lines, *reason] if waiting else lines


def plain_line(progress: JobProgress, now: float) -> str:
    """Return the progress as a line of a log."""
    fraction, waiting = progress.fraction(), progress.waiting(now)
    if waiting and not progress.has_begun:
        return f"waiting: {printable(waiting)}"
    share = [] if fraction is None else [f"{int(fraction * 100)}%"]
    line = ", ".join([*share, *_counts(progress, now), _time(progress, now)])
    return f"{line}; waiting: {printable(waiting)}" if waiting else line


def json_line(progress: JobProgress, now: float) -> str:
    """Return the progress as a JSON object on one line."""
    eta_s, fraction = progress.eta_s(now), progress.fraction()
    waiting = progress.waiting(now) or None
    return _json(
        {
            "state": str(progress.report.state) if progress.report else "running",
            "elapsed_s": round(progress.elapsed_s(now), 3),
            "records": progress.records,
            "rejected": progress.rejected,
            "records_per_s": round(progress.rate(now), 3),
            "fraction": None if fraction is None else round(fraction, 4),
            "eta_s": None if eta_s is None or waiting else round(eta_s, 1),
            "workers": progress.workers,
            "waiting": waiting,
        }
    )


def json_note(sentence: str) -> str:
    """Return a sentence about the fleet as a JSON object on one line."""
    return _json({"note": sentence})


def _json(fields: dict[str, object]) -> str:
    import json  # bars do without

    return json.dumps(fields, ensure_ascii=False)


def wrapped(text: str, width: int, most: int) -> list[str]:
    """Return a text as lines of at most `width` columns; what is left after `most` is cut off."""
    lines = packed(_WORDS.split(text), width, gap=" ")
    if len(lines) > most:
        last = lines[most - 1]
        while cells(last) > width - 2 and " " in last:
            last = last.rpartition(" ")[0]
        lines = [*lines[: most - 1], cut(f"{last} …", width)]
    return lines


def bar_with(fraction: float, counts: list[str], time: str, width: int) -> list[str]:
    """Return a bar and counts in one line if there is room, else in two or more.

    Args:
        fraction: How much is done, from 0 to 1.
        counts: What stands behind the bar.
        time: What stands at the end of the first line.
        width: Columns there are; no line is longer.
    """
    share = f"{int(fraction * 100):3}% "
    for below in (0, *range(len(counts), 0, -1)):
        rest = _GAP.join([*counts[below:], time])
        room = width - cells(share) - cells(rest) - len(_GAP)
        second = packed(counts[:below], width - 1)
        if room >= _LEAST_BAR and len(second) <= 1:
            break
    else:
        room, rest, second = width - cells(share), "", packed([*counts, time], width - 1)
    bar = _bar(fraction, max(min(room, _MOST_BAR), 1))
    return [f"{share}{bar}{_GAP}{rest}".rstrip(), *(f" {line}" for line in second)]


def _counts(progress: JobProgress, now: float) -> Iterator[str]:
    yield counted(progress.records, "record")
    rate = f"{progress.rate(now):,.0f}/s"
    yield f"{rate} (max {progress.max_rate:,.0f})" if progress.max_rate else rate
    if progress.rejected:
        yield f"{progress.rejected:,} rejected"
    if progress.workers is not None and progress.report is None:
        yield counted(progress.workers, "worker")


def _time(progress: JobProgress, now: float) -> str:
    if progress.report is not None:
        return f"took {seconds(progress.elapsed_s(now))}"
    if progress.total is None:
        return f"for {seconds(progress.elapsed_s(now))}"
    eta_s = None if progress.waiting(now) else progress.eta_s(now)
    return f"ETA {'?' if eta_s is None else seconds(eta_s)}"


def _bar(fraction: float, width: int) -> str:
    done = int(fraction * width)
    return BAR * done + REST * (width - done)


def packed(words: Iterable[str], width: int, gap: str = _GAP) -> list[str]:
    """Return words as few lines, each of at most `width` columns."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}{gap}{word}" if lines else word
        if lines and cells(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(cut(word, width))
    return lines


def cut(text: str, width: int) -> str:
    """Return a text of at most so many columns; what is cut off is marked."""
    while cells(text) > width:
        text = text[:-2].rstrip() + "…"
    return text


def cells(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) > 0 for each in text)
