"""Kills a worker's frozen child processes."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pyrmute_tasks.logs import log

__all__ = ["FrozenChildren", "process_state"]

_LOOKS: Final = 12  # in a row: three seconds, of this process's own time
_STOPPED: Final = "T"  # by a signal; a debugger's is "t"


def process_state(pid: int) -> str:
    """Return a process's state as Linux abbreviates it; empty if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


class FrozenChildren:
    """Kills children that stay stopped, for which a job would wait.

    A child that waits, for a service or a disk, is not stopped. Looks are counted instead of
    seconds: they are not taken while this process is frozen as well.
    """

    def __init__(self) -> None:
        self._looks: dict[int, int] = {}

    def look(self, pids: Iterable[int]) -> None:
        """Check all children; call this about four times a second."""
        stopped = {pid for pid in pids if process_state(pid) == _STOPPED}
        self._looks = {pid: self._looks.get(pid, 0) + 1 for pid in stopped}
        for pid, looks in self._looks.items():
            if looks >= _LOOKS:
                log(logging.WARNING, "child_frozen", "a frozen child is killed", pid=pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
