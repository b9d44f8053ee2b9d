"""Signs of life of coordinators: an empty file for each host in the jobs root, touched anew.

Its time is that of the host's own clock, so a check on the same host needs no other clock to be
right; and touching it needs no room on the storage.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

__all__ = ["BEAT_EVERY_S", "SILENT_S", "beat", "remove_old_beats", "silent_s"]

BEAT_EVERY_S: Final = 5.0
"""How often a coordinator tells that it looks at its jobs root."""

SILENT_S: Final = 20.0
"""After how long without a sign a host has no coordinator."""

_PREFIX: Final = ".coordinator."
_KEPT_S: Final = 86400.0
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def beat(root: Path, host: str) -> None:
    """Tell that a coordinator of a host has looked at a jobs root.

    Raises:
        OSError: If it cannot be written.
    """
    path, now = _path(root, host), time.time()
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
    with contextlib.suppress(OSError):
        for path in root.glob(f"{_PREFIX}*"):
            if now - path.lstat().st_mtime > _KEPT_S:
                path.unlink(missing_ok=True)


def _path(root: Path, host: str) -> Path:
    return root / f"{_PREFIX}{host}"
