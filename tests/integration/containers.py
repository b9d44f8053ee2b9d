"""What a compose file takes away from a container, taken away from a process: mounts, user, rights.

A process that is confined sees only its service's volumes, those read-only that are so there, and
can write nothing else but a temporary folder; it runs as the service's user, without
capabilities. It needs root; elsewhere processes run as they are.
"""

import functools
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.conftest import ROOT

__all__ = ["Confined", "can_confine"]

_SCRIPT: Final = """
set -e
while [ "$1" != -- ]; do
    case "$1" in
        hidden) mount -t tmpfs -o mode=755 tmpfs "$2" ;;
        scratch) mount -t tmpfs -o mode=1777 tmpfs "$2" ;;
        unlocked) mount -t tmpfs -o mode=755 tmpfs "$2" ;;
        staged) mount --bind "$2" "$3"; shift ;;
        moved) mkdir -p "$2"; mount --move "$3" "$2"; shift ;;
        *) mount --bind "$2" "$2" ;;
    esac
    case "$1" in
        ro) mount -o remount,ro,bind "$2" ;;
    esac
    shift 2
done
shift
mount -o remount,ro,bind /
exec "$@"
"""


@dataclass(frozen=True)
class Confined:
    """How a service's processes are confined.

    Attributes:
        user: User and group, as numbers with a colon between.
        groups: More groups.
        writable: Folders that it may write.
        readable: Folders of the same kind that it may only read.
        hidden: Those that it does not see.
        scratch: Its own temporary folder.
    """

    user: str
    scratch: Path
    groups: Sequence[int] = ()
    writable: Sequence[Path] = ()
    readable: Sequence[Path] = ()
    hidden: Sequence[Path] = ()

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another one, confined; it is the same process."""
        return self._command(command) if can_confine() else list(command)

    def _command(self, command: Sequence[str]) -> list[str]:
        kinds = {"rw": self.writable, "ro": self.readable, "hidden": self.hidden}
        mounts = [(kind, path) for kind, paths in kinds.items() for path in paths]
        told = [part for kind, path in mounts for part in (kind, str(path))]
        told = [*_python_for_all(str(self.scratch)), *told, "scratch", str(self.scratch)]
        user, _, group = self.user.partition(":")
        groups = ",".join(map(str, self.groups))
        drop = [
            *("setpriv", "--reuid", user, "--regid", group),
            *(("--groups", groups) if groups else ("--clear-groups",)),
            *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"),
        ]
        return [*_UNSHARED, *told, "--", *drop, *command]


_UNSHARED: Final = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh")


def _python_for_all(stage: str) -> list[str]:
    """Return mounts that let other users reach this Python, if its folder is in root's home."""
    base = Path(sys.base_prefix)
    locked = [path for path in base.parents if not path.stat().st_mode & stat.S_IXOTH]
    if not locked:
        return []
    return ["staged", str(base), stage, "unlocked", str(locked[-1]), "moved", str(base), stage]


@functools.cache
def can_confine() -> bool:
    """Whether this process may confine others, which can import this package then."""
    if os.geteuid() != 0:
        return False
    program = [sys.executable, "-c", "import pyrmute_tasks.worker"]
    with TemporaryDirectory() as scratch:
        trial = Confined("10001:10001", Path(scratch))
        try:
            found = subprocess.run(
                trial._command(program), cwd=ROOT, capture_output=True, check=False
            )
        except OSError:
            return False
    return found.returncode == 0
