"""Processes of any host, named so that one that is gone can be told from one that has its id."""

import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["is_alive", "place_here", "start_of"]

_START_FIELD: Final = 18  # of /proc/<pid>/stat, behind the state


def place_here() -> str:
    """Return what tells this kernel's process ids, as seen here, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def is_alive(pid: int, started: str) -> bool:
    """Whether the process is there that had this id when it started then."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return start_of(pid) in {started, ""}


def start_of(pid: int) -> str:
    """Return when a process started, in ticks since the boot; empty if nobody tells."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    state, *rest = text.rpartition(")")[2].split()
    return "ended" if state in "ZX" else rest[_START_FIELD]
