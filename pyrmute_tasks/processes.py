"""Processes of any host, named by more than their ids, which are reused."""

import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["is_alive", "place_here", "start_of"]

_START_FIELD: Final = 18  # of /proc/<pid>/stat, behind the state


def place_here() -> str:
    """Return a name for the kernel and namespace within which process ids are unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def is_alive(pid: int, started: str) -> bool:
    """Return whether the process with this id and start time is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return start_of(pid) in {started, ""}


def start_of(pid: int) -> str:
    """Return a process's start time in ticks since the boot; empty if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    state, *rest = text.rpartition(")")[2].split()
    return "ended" if state in "ZX" else rest[_START_FIELD]
