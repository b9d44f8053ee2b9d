"""Where the command line begins: before anything is imported, an interrupt is one sentence."""

import os
import signal
import sys
from typing import Final, NoReturn

__all__ = ["begun", "main"]

_INTERRUPTED: Final = 128 + signal.SIGINT


def main() -> None:
    """Run the command line interface."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from pyrmute_tasks.cli.main import main as run_command  # an interrupt may come meanwhile

    run_command()


def begun() -> None:
    """Let an interrupt be a `KeyboardInterrupt` from now on: what runs answers for it itself."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> NoReturn:
    # No exception: it might be raised in the middle of an import, or get lost in a finalizer.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"interrupted before it began\n")
    os._exit(_INTERRUPTED)
