"""Where the command line begins and ends.

Before anything is imported, an interrupt is one sentence. Two things would take a quarter of the
time of a short command: the garbage collector, which finds nothing while modules are imported, and
taking apart at the end what the system frees anyway.
"""

import atexit
import errno
import gc
import os
import signal
import sys
from typing import Final, NoReturn

__all__ = ["begun", "imported", "main"]

_INTERRUPTED: Final = 128 + signal.SIGINT


def main() -> None:
    """Run the command line interface."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    gc.disable()  # until the command is imported, and for `run_job` the manager, too
    ended: list[int] = []
    atexit.register(_leave, ended)  # the first one is called last
    from pyrmute_tasks.cli.main import main as run_command  # an interrupt may come meanwhile

    try:
        run_command()
    except SystemExit as end:
        is_worker = sys.argv[1:2] == ["worker"]  # Celery may have more to take apart
        if isinstance(end.code, int | None) and not is_worker:
            ended.append(end.code or 0)
        raise
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _drop_output()
        sys.exit(f"error: cannot write to the standard output: {error.strerror}")


def _drop_output() -> None:
    """Let Python's end write nowhere what could not be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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


def imported() -> None:
    """Collect garbage from now on, but none of what has been imported, which stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def begun() -> None:
    """Turn interrupts into a `KeyboardInterrupt` from now on: the command handles them itself."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> NoReturn:
    # No exception: it might be raised in the middle of an import, or get lost in a finalizer.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"interrupted before it began\n")
    os._exit(_INTERRUPTED)
