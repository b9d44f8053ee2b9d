"""Drawing jobs in a terminal: its width, colours, and lines drawn over earlier ones."""

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from pyrmute_tasks.engine.progress_text import BAR, REST

__all__ = ["Redrawn", "columns_of", "is_terminal", "json_of", "styled"]

_ENDLESS: Final = 10_000  # of a pipe: nothing is shortened
_STYLES: Final = (
    (re.compile(f"{BAR}+"), "\x1b[36m"),
    (re.compile(f"{REST}+"), "\x1b[2m"),
    (re.compile(r"[\d,]+ rejected"), "\x1b[31m"),
    (re.compile(r"^failed\b", re.MULTILINE), "\x1b[31m"),
    (re.compile(r"^succeeded\b( with rejects\b)?", re.MULTILINE), "\x1b[32m"),
    (re.compile(r"^(running|publishing)\b", re.MULTILINE), "\x1b[36m"),
    (
        re.compile(
            r"^(waiting|paus(ed|ing)|suspended|held|cancel(led|ling)|queued)\b", re.MULTILINE
        ),
        "\x1b[33m",
    ),
)


def is_terminal() -> bool:
    """Return whether stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def columns_of() -> int:
    """Return the columns that a line may take."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        return _ENDLESS
    return max(shutil.get_terminal_size().columns - 1, 1)


def styled(text: str) -> str:
    """Return a text with colours, if stdout is a terminal; in ASCII, if it must be."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        text = text.replace(BAR, "#").replace(REST, "-").encode("ascii", "replace").decode()
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    for pattern, style in _STYLES:
        text = pattern.sub(f"{style}\\g<0>\x1b[0m", text)
    return text


class Redrawn:
    """Lines at the bottom of a terminal, each time drawn over those before."""

    def __init__(self) -> None:
        self._drawn = 0

    def show(self, lines: Sequence[str]) -> None:
        """Draw lines; of more than the screen has, the last."""
        lines = lines[-max(shutil.get_terminal_size().lines - 1, 1) :]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = styled("\n".join(lines))
        click.echo(f"\r{up}\x1b[J{text}", color=True)
        self._drawn = len(lines)


def json_of(fields: Mapping[str, object]) -> str:
    """Return a JSON object as one line of text, which can be written whatever it holds.

    The name of a file may have bytes that are no UTF-8; then all that is not ASCII is escaped.
    """
    told = json.dumps(fields, ensure_ascii=False)
    return told if _is_encodable(told) else json.dumps(fields)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
