"""A job's progress as text: a bar for terminals, a line for logs, JSON for programs.

Pure functions of the progress, the time and the width.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from pyrmute_tasks.engine.job_progress import JobProgress, seconds
from pyrmute_tasks.errors import printable

__all__ = ["BAR", "REST", "bar_lines", "json_line", "json_note", "plain_line", "wrapped"]

BAR: Final = "━"
REST: Final = "─"

_LEAST_BAR: Final = 10
_MOST_BAR: Final = 60
_GAP: Final = "  "
_MOST_REASON_LINES: Final = 2


def bar_lines(progress: JobProgress, now: float, width: int) -> list[str]:
    """Return the bar: a line, or more if the terminal is narrow or the job waits.

    Args:
        progress: What is known of the job.
        now: The time.
        width: Columns there are; no line is longer.
    """
    fraction = progress.fraction()
    counts = list(_counts(progress, now))
    left = "" if fraction is None else f"{int(fraction * 100):3}% "
    time = _time(progress, now)
    room = width - _cells(left) - _cells(_GAP.join([*counts, time])) - len(_GAP)
    if fraction is None:
        lines = _packed([*counts, time], width)
    elif room >= _LEAST_BAR:
        bar = _bar(fraction, min(room, _MOST_BAR))
        lines = [f"{left}{_GAP.join([bar, *counts, time])}"]
    else:
        room = width - _cells(left) - _cells(time) - len(_GAP)
        bar = _bar(fraction, max(min(room, _MOST_BAR), 1))
        lines = [f"{left}{bar}{_GAP}{time}", *(f" {line}" for line in _packed(counts, width - 1))]
    waiting = progress.waiting(now)
    if waiting:
        lines += wrapped(f"waiting: {printable(waiting)}", width, _MOST_REASON_LINES)
    return lines


def plain_line(progress: JobProgress, now: float) -> str:
    """Return the progress as a line of a log."""
    fraction = progress.fraction()
    share = [] if fraction is None else [f"{int(fraction * 100)}%"]
    line = ", ".join([*share, *_counts(progress, now), _time(progress, now)])
    waiting = progress.waiting(now)
    return f"{line}; waiting: {printable(waiting)}" if waiting else line


def json_line(progress: JobProgress, now: float) -> str:
    """Return the progress as a JSON object on one line."""
    eta_s, fraction = progress.eta_s(now), progress.fraction()
    return _json(
        {
            "state": str(progress.report.state) if progress.report else "running",
            "elapsed_s": round(progress.elapsed_s(now), 3),
            "records": progress.records,
            "rejected": progress.rejected,
            "records_per_s": round(progress.rate(now), 3),
            "fraction": None if fraction is None else round(fraction, 4),
            "eta_s": None if eta_s is None else round(eta_s, 1),
            "workers": progress.workers,
            "waiting": progress.waiting(now) or None,
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
    lines = _packed(text.split(" "), width, gap=" ")
    if len(lines) > most:
        last = lines[most - 1]
        while _cells(last) > width - 2 and " " in last:
            last = last.rpartition(" ")[0]
        lines = [*lines[: most - 1], _cut(f"{last} …", width)]
    return lines


def _counts(progress: JobProgress, now: float) -> Iterator[str]:
    yield _counted(progress.records, "record")
    rate = f"{progress.rate(now):,.0f}/s"
    yield f"{rate} (max {progress.max_rate:,.0f})" if progress.max_rate else rate
    if progress.rejected:
        yield f"{progress.rejected:,} rejected"
    if progress.workers is not None and progress.report is None:
        yield _counted(progress.workers, "worker")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _time(progress: JobProgress, now: float) -> str:
    if progress.report is not None:
        return f"took {seconds(progress.elapsed_s(now))}"
    if progress.total is None:
        return f"for {seconds(progress.elapsed_s(now))}"
    eta_s = progress.eta_s(now)
    return f"ETA {'?' if eta_s is None else seconds(eta_s)}"


def _bar(fraction: float, width: int) -> str:
    done = int(fraction * width)
    return BAR * done + REST * (width - done)


def _packed(words: Iterable[str], width: int, gap: str = _GAP) -> list[str]:
    """Return words as few lines, each of at most `width` columns."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}{gap}{word}" if lines else word
        if lines and _cells(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, width))
    return lines


def _cut(text: str, width: int) -> str:
    while _cells(text) > width:
        text = text[:-2].rstrip() + "…"
    return text


def _cells(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) > 0 for each in text)
