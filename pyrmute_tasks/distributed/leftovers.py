"""Removes embedded fleets, folder and processes, whose producers were killed.

A fleet ends with its producer, or its guard ends it. If both are killed, its processes and its
folder stay. Each folder tells whose it is in a file that its owners keep locked: the system
takes the lock from a process that dies, however it dies. The next fleet to start removes the
folders whose lock is free, and the processes that they name.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Final

from pyrmute_tasks.logs import log

__all__ = ["FOLDER_PREFIX", "FolderLock", "remove_leftovers"]

FOLDER_PREFIX: Final = "pyrmute-tasks-"

_OWNER: Final = "owner"


class FolderLock:
    """A lock on a fleet's folder, and the list of the fleet's processes.

    Args:
        folder: The fleet's folder.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.descriptor: int = os.open(folder / _OWNER, flags, 0o600)
        # It is empty until it is locked, and empty ones are left alone.
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self._write({"system": _system(), **_process(os.getpid())})

    def add(self, pid: int) -> None:
        """Add a process that must end with its owner."""
        self._write(_process(pid))

    def release(self) -> None:
        """Release the folder's lock; the caller removes the folder before or after."""
        os.close(self.descriptor)

    def _write(self, line: dict[str, object]) -> None:
        # A full disk is reported by other writes to the folder.
        with contextlib.suppress(OSError):
            os.write(self.descriptor, json.dumps(line).encode() + b"\n")


def remove_leftovers(parent: Path) -> list[Path]:
    """Remove this user's fleets in `parent` whose producers were killed.

    What another user, host, container or release has made, and what cannot be read, is left.

    Returns:
        The folders that were removed.
    """
    removed = []
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if _is_ours(folder) and _remove_if_free(folder):
                removed.append(folder)
    if removed:
        log(
            logging.WARNING,
            "leftovers_removed",
            "embedded fleets whose producers were killed have been removed",
            fleets=len(removed),
        )
    return removed


def _is_ours(folder: Path) -> bool:
    return folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()


def _remove_if_free(folder: Path) -> bool:
    descriptor = os.open(folder / _OWNER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody has it
        with open(descriptor, "rb", closefd=False) as file:
            owner, *processes = [json.loads(line) for line in file]
        if owner["system"] != _system():
            return False  # another container's, whose processes cannot be seen from here
        for told in processes:
            if told == _process(told["pid"]):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(told["pid"], signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
    return True


def _system() -> list[str]:
    """Return an id of the boot and the namespace, in which process ids are unique."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    if boot.exists() and namespace.is_symlink():
        return [boot.read_text().strip(), os.readlink(namespace)]
    return list(os.uname()[:2])


def _process(pid: int) -> dict[str, object]:
    """Return a process's id and start, which together are unique: ids alone are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return {"pid": pid, "began": None, "unseen": os.getpid()}
    return {"pid": pid, "began": stat.rpartition(")")[2].split()[19]}
