"""Signs of life of coordinators: empty files in the jobs root, touched every few seconds.

One for each host, and one for each host and queue. Each host sets their times by its own clock, so
a check on that host depends on no other clock; and touching them needs no room on the storage.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

__all__ = ["BEAT_EVERY_S", "SILENT_S", "BeatWatch", "Beats", "beat", "remove_old_beats", "silent_s"]

BEAT_EVERY_S: Final = 5.0
"""How often a coordinator tells that it looks at its jobs root."""

SILENT_S: Final = 20.0
"""After how long without a sign a host has no coordinator."""

_PREFIX: Final = ".coordinator."
_OF_QUEUE: Final = "%"  # no host's name has it
_KEPT_S: Final = 86400.0
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Beats:
    """The signs of life of a jobs root's coordinators.

    Attributes:
        silent_s: How long ago one of them looked at it; None if none ever did.
        queues: The queues of those that live; None if one of them does not tell its own.
    """

    silent_s: float | None = None
    queues: frozenset[str] | None = frozenset()

    @property
    def is_silent(self) -> bool:
        """Whether none of them lives."""
        return self.silent_s is None or self.silent_s > SILENT_S

    def serve(self, queue: str) -> bool:
        """Return whether one of them drives the jobs of a queue; an empty name is any queue."""
        return not self.is_silent and (not queue or self.queues is None or queue in self.queues)


class BeatWatch:
    """Watches the signs of life in a jobs root.

    A sign's age is taken from this host's clock when it is seen first, and then from its changes:
    other hosts may have other times.

    Args:
        root: The jobs root.
        clock: Seconds since 1970.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock
        self._seen: dict[str, tuple[float, float]] = {}  # a file's time, and ours when it was seen

    def look(self) -> Beats:
        """Return what there is now.

        Raises:
            OSError: If the root cannot be listed.
        """
        now, ages = self._clock(), {}
        for name in os.listdir(self._root):
            if name.startswith(_PREFIX):
                with contextlib.suppress(FileNotFoundError):
                    at = os.stat(self._root / name, follow_symlinks=False).st_mtime
                    before = self._seen.get(name)
                    if before is None:
                        self._seen[name] = at, at
                    elif before[0] != at:
                        self._seen[name] = at, now
                    ages[name.removeprefix(_PREFIX)] = max(0.0, now - self._seen[name][1])
        living = {name for name, age_s in ages.items() if age_s <= SILENT_S}
        of_queues = [name.partition(_OF_QUEUE) for name in living]
        queues = {unquote(queue) for _, mark, queue in of_queues if mark}
        mute = {host for host, _, _ in of_queues} - {host for host, mark, _ in of_queues if mark}
        return Beats(min(ages.values(), default=None), None if mute else frozenset(queues))


def beat(root: Path, host: str, queue: str = "") -> None:
    """Tell that a coordinator of a host has looked at a jobs root.

    Args:
        root: The jobs root.
        host: The host.
        queue: The queue whose jobs it drives; empty if it does not tell.

    Raises:
        OSError: If it cannot be written.
    """
    _touch(_path(root, host))
    if queue:
        _touch(_path(root, f"{host}{_OF_QUEUE}{quote(queue, safe='')}"))


def _touch(path: Path) -> None:
    now = time.time()
    try:
        os.utime(path, (now, now), follow_symlinks=False)
    except FileNotFoundError:
        os.close(os.open(path, _CREATE, 0o644))
        os.utime(path, (now, now), follow_symlinks=False)


def silent_s(root: Path, host: str) -> float | None:
    """Return how long ago a coordinator of this host looked at a jobs root; None if none ever did.

    Raises:
        OSError: If the root cannot be read.
    """
    try:
        return time.time() - os.stat(_path(root, host), follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return None


def remove_old_beats(root: Path) -> None:
    """Remove the signs of hosts that are gone, as containers are."""
    now = time.time()
    for path in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # that of another user, perhaps
            if now - path.lstat().st_mtime > _KEPT_S:
                path.unlink(missing_ok=True)


def _path(root: Path, host: str) -> Path:
    return root / f"{_PREFIX}{host}"
