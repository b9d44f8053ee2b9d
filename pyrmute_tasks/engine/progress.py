"""A progress bar for any call, as an observer of its events."""

import contextlib
import sys
from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Any

from pyrmute_tasks.engine.events import ChunkDelivered, Event, JobEnded
from pyrmute_tasks.engine.job_report import JobState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["ProgressBar", "bar_over"]


def bar_over(records: Iterable[Any]) -> "ProgressBar":
    """Return a bar over records; its end is known if their number is."""
    return ProgressBar(len(records) if isinstance(records, Sized) else None)


class ProgressBar:
    """Shows delivered records and their rate on stderr, from the first event to the last.

    Args:
        total: Where it ends: the number of records, or the source's size; None if unknown.
        by_bytes: Whether `total` is a size in bytes.
    """

    def __init__(self, total: int | None, *, by_bytes: bool = False) -> None:
        self._total = total
        self._by_bytes = by_bytes
        self._records = 0
        self._bar: Progress | None = None

    def __call__(self, event: Event, /) -> None:
        """Update the bar for `event`."""
        if isinstance(event, JobEnded):
            self._end(event)
            return
        if self._bar is None:
            self._bar = self._started()
        if isinstance(event, ChunkDelivered):
            self._records += event.count
            self._show(self._bar, event.size_bytes if self._by_bytes else event.count)

    def _started(self) -> "Progress":
        # A call without a bar needs none of it.
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn("migrating"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[records]:,} records"),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=_console(),
        )
        bar.add_task("", total=self._total, records=0, rate=0.0)
        bar.start()
        return bar

    def _show(self, bar: "Progress", advance: int) -> None:
        task = bar.tasks[0]
        rate = self._records / task.elapsed if task.elapsed else 0.0
        bar.update(task.id, advance=advance, records=self._records, rate=rate)

    def _end(self, event: JobEnded) -> None:
        if self._bar is None:
            return
        if event.report.state is JobState.SUCCEEDED:  # blank lines count in a file's size
            total = self._total if self._total is not None else self._records
            self._bar.update(self._bar.tasks[0].id, total=total, completed=total)
        self._bar.stop()
        self._bar = None


def _console() -> "Console":
    """Write the bar to stderr; ignores a stderr that is full or closed."""
    from rich.console import Console  # as above

    stderr: Any = _Forgiving(sys.stderr)
    return Console(file=stderr) if sys.stderr is not None else Console(quiet=True)


class _Forgiving:
    """A text stream whose write errors are ignored."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, ignoring errors."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, ignoring errors."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
