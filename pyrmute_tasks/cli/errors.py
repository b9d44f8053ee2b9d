"""Errors of commands: one sentence on stderr and an exit status."""

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NoReturn

import click

from pyrmute_tasks.cli.start import begun
from pyrmute_tasks.errors import (
    ConfigurationError,
    InvalidVersionError,
    ManagerImportError,
    PyrmuteTasksError,
)
from pyrmute_tasks.failures import describe_safely

if TYPE_CHECKING:
    from pyrmute_tasks.cli.interrupts import Interrupts  # most commands need none

__all__ = [
    "FINISHED_WITH_REJECTS",
    "errors_printed",
    "fail",
    "show_warnings",
    "tell",
    "usage_checked",
    "warnings_through",
]

FINISHED_WITH_REJECTS: Final = 3
"""Exit status of a run that has left out records."""


_BY_SIGNAL: Final = 128  # a shell's status of what a signal ended, less the signal
_WRONG_USAGE: Final = 2
_TOLD_BY_EVENTS: Final = ("part_sent_again", "code_declined", "range_declined")


@contextlib.contextmanager
def errors_printed(include_records: bool, interrupts: "Interrupts | None" = None) -> Iterator[None]:
    """Print an error as one sentence on stderr and exit with its status, without a traceback."""
    try:
        begun()
        yield
    except KeyboardInterrupt:
        tell(f"interrupted{interrupts.left if interrupts else ''}")
        sys.exit(_BY_SIGNAL + ((interrupts.noted if interrupts else 0) or signal.SIGINT))
    except Exception as error:
        known = isinstance(error, PyrmuteTasksError) or hasattr(error, "record_index")
        if not known and isinstance(error, OSError) and error.filename is not None:
            fail(ConfigurationError(f"{error.filename}: {error.strerror}"), include_records)
        if not known:
            raise  # a bug: a report of it needs the traceback
        fail(error, include_records)


@contextlib.contextmanager
def usage_checked() -> Iterator[None]:
    """Exit with the status of wrong usage if arguments make no sense."""
    try:
        yield
    except (ConfigurationError, InvalidVersionError, ManagerImportError) as error:
        tell(f"error: {describe_safely(error)}")
        sys.exit(_WRONG_USAGE)


def show_warnings() -> None:
    """Write the library's warnings to stderr, as a program without logging of its own."""
    if logging.lastResort is not None:
        logging.getLogger("pyrmute_tasks").addHandler(logging.lastResort)


@contextlib.contextmanager
def warnings_through(say: Callable[[str], None]) -> Iterator[None]:
    """Write the library's warnings through `say`, but those that observers of jobs hear of."""
    logger, handler = logging.getLogger("pyrmute_tasks"), _Saying(say)
    shown = [logging.lastResort] if logging.lastResort in logger.handlers else []
    for each in shown:
        logger.removeHandler(each)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for each in shown:
            logger.addHandler(each)


class _Saying(logging.Handler):
    """Writes warnings through a function."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "action", "") not in _TOLD_BY_EVENTS:
            self._say(record.getMessage())


def fail(error: BaseException, include_records: bool) -> NoReturn:
    """Print an error and exit with status 1."""
    text = describe_safely(error)
    if include_records:
        text += f"\n{_text_of(error)}"
    tell(f"error: {text}")
    sys.exit(1)


def tell(text: str) -> None:
    """Write to stderr; ignores a stderr that is full or closed."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's code
        return f"{type(error).__name__}, whose text cannot be read"
