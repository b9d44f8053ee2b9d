"""Log lines."""

import logging
from typing import Final

from pyrmute_tasks.urls import hide_password

__all__ = ["hide_password", "log"]

_logger: Final = logging.getLogger("pyrmute_tasks")
_logger.addHandler(logging.NullHandler())  # the program that uses the library decides


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
