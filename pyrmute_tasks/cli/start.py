"""Where the command line begins and ends.

Before anything is imported, an interrupt is one sentence. Two things would take a quarter of the
time of a small run: the garbage collector, which finds nothing while modules are imported, and
taking apart at the end what the system frees anyway.
"""

import atexit
import gc
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
    is_run = sys.argv[1:2] == ["run"]
    if is_run:
        gc.disable()  # until `run_job` has imported the manager
    ended: list[int] = []
    atexit.register(_leave, ended)  # the first one is called last
    from pyrmute_tasks.cli.main import main as run_command  # an interrupt may come meanwhile

    try:
        run_command()
    except SystemExit as end:
        if isinstance(end.code, int | None) and is_run:
            ended.append(end.code or 0)
        raise


def _leave(ended: list[int]) -> None:
    """End the process with its status, after all other exit handlers, without Python's own end."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return  # Python reports streams that are full or closed
    if ended:
        os._exit(ended[0])


def begun() -> None:
    """Turn interrupts into a `KeyboardInterrupt` from now on: the command handles them itself."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> NoReturn:
    # No exception: it might be raised in the middle of an import, or get lost in a finalizer.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"interrupted before it began\n")
    os._exit(_INTERRUPTED)
