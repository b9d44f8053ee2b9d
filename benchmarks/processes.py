"""How much memory and time processes take, and memory a Redis server."""

import os
import resource
import sys
from pathlib import Path
from typing import Any, Final

import redis

MB: Final = 1_000_000
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
"""The unit in which Linux tells the processor time of another process."""


def peak_bytes() -> int:
    """Return the peak memory of this process.

    Where there is a ``/proc``, not from ``ru_maxrss``: Linux starts that at the peak of the
    process that started this one, which may be larger than all that happens here.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return _status_bytes(status, "VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes(pid: int) -> int:
    """Return what a process holds now; needs a ``/proc``."""
    return _status_bytes(Path(f"/proc/{pid}/status"), "VmRSS")


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has taken so far; needs a ``/proc``."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def children_of(pid: int) -> list[int]:
    """Return the process ids of a process's children; needs a ``/proc``."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _status_bytes(status: Path, field: str) -> int:
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"{status} has no {field}")


class ServerMemory:
    """What a Redis server takes beyond what it took when this was made.

    Args:
        url: Where it is; fresh, since a server remembers its peak for as long as it lives.
    """

    def __init__(self, url: str) -> None:
        self._client: Any = redis.Redis.from_url(url)
        self._start = int(self._client.info("memory")["used_memory"])

    def peak_bytes(self) -> int:
        """Return the peak so far."""
        return int(self._client.info("memory")["used_memory_peak"]) - self._start
