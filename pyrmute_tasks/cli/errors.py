"""Errors of commands: one sentence on stderr and an exit status."""

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import click

from pyrmute_tasks.cli.interrupts import Interrupts
from pyrmute_tasks.errors import PyrmuteTasksError
from pyrmute_tasks.failures import describe_safely

__all__ = ["errors_printed", "fail", "show_warnings", "tell"]

_BY_SIGNAL: Final = 128  # a shell's status of what a signal ended, less the signal


@contextlib.contextmanager
def errors_printed(include_records: bool, interrupts: "Interrupts | None" = None) -> Iterator[None]:
    """Print an error as one sentence on stderr and exit with its status, without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"interrupted{interrupts.left if interrupts else ''}")
        sys.exit(_BY_SIGNAL + ((interrupts.noted if interrupts else 0) or signal.SIGINT))
    except Exception as error:
        known = isinstance(error, PyrmuteTasksError) or hasattr(error, "record_index")
        if not known:
            raise  # a bug: a report of it needs the traceback
        fail(error, include_records)


def show_warnings() -> None:
    """Write the library's warnings to stderr, as a program without logging of its own."""
    if logging.lastResort is not None:
        logging.getLogger("pyrmute_tasks").addHandler(logging.lastResort)


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
