"""Task labels for Flower, and log lines."""

import logging
from typing import Final

from pyrmute_tasks.urls import hide_password

__all__ = ["hide_password", "log", "task_label"]

_logger: Final = logging.getLogger("pyrmute_tasks")
_logger.addHandler(logging.NullHandler())  # the program that uses the library decides


def task_label(job: str, chunk: int, start: int, count: int, unit: str = "records") -> str:
    """Return a task's arguments as Flower shows them; nothing in them comes from a record.

    Args:
        job: The job as text, ``User 1.0.0→3.0.0 · job 7f3a21c4``.
        chunk: The chunk's index.
        start: Index of its first record, or of its first byte.
        count: Number of records in it.
        unit: What both count: records, or bytes of a range.
    """
    return f"{job} · chunk {chunk} · {unit} {start}–{start + count - 1}"


def log(level: int, action: str, message: str, **details: object) -> None:
    """Write a log line that machines can filter by its ``action``.

    Args:
        level: A level of `logging`.
        action: The event as a word, such as ``chunk_declined``.
        message: The event as a sentence.
        **details: Further fields; never anything from a record.
    """
    if _logger.isEnabledFor(level):
        shown = " ".join(f"{name}={value}" for name, value in details.items())
        text = f"{message} ({shown})" if shown else message
        _logger.log(level, text, extra={"action": action, **details})
