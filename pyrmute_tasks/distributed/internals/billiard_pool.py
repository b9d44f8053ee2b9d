"""billiard, the pool of Celery's workers: its children, their signals and their crashes."""

import multiprocessing
import multiprocessing.process
import re
import signal
from typing import Any, Final

import billiard
import billiard.pool
from billiard.exceptions import WorkerLostError

__all__ = [
    "END_SIGNALS",
    "SOFT_LIMIT_SIGNAL",
    "allow_processes",
    "crash_description",
    "limit_wait_for_last_result",
]

SOFT_LIMIT_SIGNAL: Final = signal.SIGUSR1
"""What a child gets at its soft time limit; billiard's handler raises what a step may catch."""

END_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end a child; where billiard handles one, its handler raises `SystemExit`."""

_MAIN: Final = multiprocessing.current_process()  # of the program, before the pool is made
_SIGNAL: Final = re.compile(r"signal (\d+) \((\w+)\)")
_EXIT: Final = re.compile(r"exitcode (-?\d+)")


def limit_wait_for_last_result(tries: int) -> None:
    """Limit how long an ending child waits for its last result to be read, in this process.

    Args:
        tries: How often it looks, every tenth of a second; billiard's default is 300.
    """
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = tries


def crash_description(error: BaseException) -> str | None:
    """Return how a child died, as ``signal 9 (SIGKILL)``; None if `error` reports no death.

    Args:
        error: The pool's error of a task; it may be wrapped.
    """
    lost = getattr(error, "exc", error)
    if not isinstance(lost, WorkerLostError):
        return None
    text = str(lost)
    if found := _SIGNAL.search(text):
        return f"signal {found[1]} ({found[2]})"
    found = _EXIT.search(text)
    return f"exit status {found[1]}" if found else "unknown"


def allow_processes() -> None:
    """Let steps start processes, as they can in a plain loop; call it in a child.

    The pool's children are daemons of both libraries, which may have no children. To
    `multiprocessing` this one becomes a process of its own.
    """
    pool_process: Any = billiard.current_process()
    pool_process._config["daemon"] = False  # noqa: SLF001  # `daemon` is read-only once it runs
    _MAIN.name = pool_process.name  # log lines show it
    library: Any = multiprocessing.process
    library._current_process = _MAIN  # noqa: SLF001  # billiard has set itself there
