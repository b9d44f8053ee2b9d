"""Shows the progress of any call, as an observer of its events: a bar, or lines."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Any, Final, Protocol, TextIO

from pyrmute_tasks.engine.events import Event, JobEnded, SourceOpened
from pyrmute_tasks.engine.job_progress import JobProgress, sentence_of
from pyrmute_tasks.engine.progress_text import (
    BAR,
    REST,
    bar_lines,
    json_line,
    json_note,
    plain_line,
    wrapped,
)
from pyrmute_tasks.errors import printable

__all__ = ["ProgressBar", "ProgressOptions", "bar_over"]

_REDRAW_S: Final = 0.5
_LINE_EVERY_S: Final = 30.0
_MOST_SENTENCES: Final = 50  # of one job; a fleet in trouble would hide what matters
_COLUMNS: Final = 80
_STYLES: Final = (  # what is emphasized in a terminal, and how
    (re.compile(f"{BAR}+"), "\x1b[36m"),
    (re.compile(f"{REST}+"), "\x1b[2m"),
    (re.compile(r"[\d,]+ rejected"), "\x1b[31m"),
    (re.compile(r"^waiting:.*", re.MULTILINE | re.DOTALL), "\x1b[33m"),
)


@dataclass(frozen=True, slots=True)
class ProgressOptions:
    """How progress is shown.

    Attributes:
        every_s: Write a line every so many seconds; None for a bar in a terminal, and else a line
            every 30 seconds.
        as_json: Write lines as JSON.
        max_rate: The greatest rate asked for, which is shown, too.
    """

    every_s: float | None = None
    as_json: bool = False
    max_rate: float | None = None


def bar_over(records: Iterable[Any]) -> "ProgressBar":
    """Return a bar over records; its end is known if their number is."""
    return ProgressBar(len(records) if isinstance(records, Sized) else None)


class ProgressBar:
    """Shows a job's progress on stderr, from its first event to its last.

    In a terminal that is a bar, elsewhere a line from time to time. What happens to workers and
    chunks is told as a sentence each.

    Args:
        total: The number of records; None if unknown. The source of a file tells its size itself.
        options: How it is shown.
        stream: Where; by default stderr.
    """

    def __init__(
        self,
        total: int | None = None,
        options: ProgressOptions | None = None,
        stream: TextIO | None = None,
    ) -> None:
        options = options or ProgressOptions()
        self._progress = JobProgress(total, max_rate=options.max_rate)
        stream = stream or sys.stderr
        self._screen: _Screen = (
            _Terminal(stream)
            if options.every_s is None and not options.as_json and _is_terminal(stream)
            else _Lines(stream, as_json=options.as_json)
        )
        is_bar = isinstance(self._screen, _Terminal)
        self._every_s = _REDRAW_S if is_bar else options.every_s or _LINE_EVERY_S
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = 0

    def __call__(self, event: Event, /) -> None:
        """Take `event` into account."""
        if isinstance(event, SourceOpened) and self._over.is_set():
            self._over.clear()  # the run takes another way, from the beginning
            self._thread = None
        with self._lock:
            self._progress.note(event, time.monotonic())
            sentence = sentence_of(event)
            if sentence:
                self._tell(sentence)
        if isinstance(event, JobEnded):
            self.close()
        elif self._thread is None and not self._over.is_set():
            self._begin()

    def say(self, sentence: str) -> None:
        """Write a sentence above the bar."""
        with self._lock:
            self._screen.say(printable(sentence))

    def close(self) -> None:
        """Show the last state, once, if there was any."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread is None:
            return
        with self._lock:
            self._screen.show(self._progress, time.monotonic())
            self._screen.close()

    def _tell(self, sentence: str) -> None:
        self._told += 1
        if self._told <= _MOST_SENTENCES:
            self._screen.say(printable(sentence))
        elif self._told == _MOST_SENTENCES + 1:
            self._screen.say("more of this kind is not shown")

    def _begin(self) -> None:
        # Waits show while no event comes, too: a blocked source sends none.
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
        with contextlib.suppress(RuntimeError):  # an interpreter that shuts down
            self._thread.start()

    def _draw(self) -> None:
        while not self._over.wait(self._every_s):
            with self._lock:
                if not self._over.is_set():
                    self._screen.show(self._progress, time.monotonic())


class _Screen(Protocol):
    """Where progress is shown."""

    def show(self, progress: JobProgress, now: float) -> None:
        """Show the progress."""

    def say(self, sentence: str) -> None:
        """Write a sentence."""

    def close(self) -> None:
        """Leave what was shown last."""


class _Lines:
    """Writes progress as lines."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream, self._as_json = stream, as_json

    def show(self, progress: JobProgress, now: float) -> None:
        shown = json_line if self._as_json else plain_line
        _write(self._stream, shown(progress, now) + "\n")

    def say(self, sentence: str) -> None:
        _write(self._stream, (json_note(sentence) if self._as_json else sentence) + "\n")

    def close(self) -> None:
        pass


class _Terminal:
    """Draws the bar over the one before, at the bottom of what was written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn: list[str] = []

    def show(self, progress: JobProgress, now: float) -> None:
        lines = bar_lines(progress, now, _columns(self._stream))
        _write(self._stream, self._erased() + self._styled(lines))
        self._drawn = lines

    def say(self, sentence: str) -> None:
        told = "\n".join(wrapped(sentence, _columns(self._stream), 3))
        _write(self._stream, f"{self._erased()}{told}\n{self._styled(self._drawn)}")

    def close(self) -> None:
        if self._drawn:
            _write(self._stream, "\n")
        self._drawn = []

    def _erased(self) -> str:
        """Return what erases the bar; the cursor stands at the end of its last line."""
        up = f"\x1b[{len(self._drawn) - 1}A" if len(self._drawn) > 1 else ""
        return f"\r{up}\x1b[J"

    def _styled(self, lines: list[str]) -> str:
        encoding = getattr(self._stream, "encoding", None) or "ascii"
        try:
            "".join(lines).encode(encoding)
        except (UnicodeError, LookupError):
            lines = [line.replace(BAR, "#").replace(REST, "-") for line in lines]
            lines = [line.encode("ascii", "replace").decode() for line in lines]
        text = "\n".join(lines)
        if os.environ.get("NO_COLOR"):
            return text
        for pattern, style in _STYLES:
            text = pattern.sub(f"{style}\\g<0>\x1b[0m", text)
        return text


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def _columns(stream: TextIO) -> int:
    """Return the columns that a line may take: one less than there are, so that none wraps."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        columns = _COLUMNS
    return max(columns - 1, 1)


def _write(stream: TextIO | None, text: str) -> None:
    """Write to a stream; ignores one that is full, closed or missing."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()
