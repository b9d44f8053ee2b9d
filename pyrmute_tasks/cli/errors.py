"""Errors of commands: one sentence on stderr and an exit status."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import click

from pyrmute_tasks.errors import PyrmuteTasksError
from pyrmute_tasks.failures import describe_safely

__all__ = ["errors_told", "fail"]

_INTERRUPTED: Final = 130


@contextlib.contextmanager
def errors_told(include_records: bool, leaves_something: bool = False) -> Iterator[None]:
    """End with one sentence on stderr and status 1 instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        told = "interrupted" if leaves_something else "interrupted; nothing was left behind"
        click.echo(told, err=True)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        known = isinstance(error, PyrmuteTasksError) or hasattr(error, "record_index")
        if not known:
            raise  # a fault of ours: its traceback is what a report needs
        fail(error, include_records)


def fail(error: BaseException, include_records: bool) -> NoReturn:
    """Tell an error and end with status 1."""
    text = describe_safely(error)
    if include_records:
        text += f"\n{_text_of(error)}"
    click.echo(f"error: {text}", err=True)
    sys.exit(1)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # it is somebody's code
        return f"{type(error).__name__}, which does not tell more"
