"""The guard, a process that ends an embedded fleet when its producer dies."""

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, Final

__all__ = ["Guard", "Lifeline"]


class Lifeline:
    """A pipe that every process of a fleet holds open; its end of file means that all have ended.

    Waiting for a worker's main process says nothing about its children: they got the same signal
    and may take a moment longer.

    Attributes:
        descriptor: The end that the fleet's processes inherit.
    """

    def __init__(self) -> None:
        self.descriptor: int
        self._ended, self.descriptor = os.pipe()

    @property
    def descriptors(self) -> list[int]:
        """File descriptors to close in a fork."""
        return [self._ended, self.descriptor]

    def wait(self, timeout_s: float) -> bool:
        """Wait until all holders of the pipe have ended; False if some live on. Once only."""
        os.close(self.descriptor)
        try:
            return bool(select.select([self._ended], [], [], timeout_s)[0])
        finally:
            os.close(self._ended)


class Guard:
    """A process that cleans up if this one is killed.

    It reads process ids from a pipe. When the pipe ends without a farewell, or the guard is
    given another parent, the process at the other end has died, and the guard kills what it was
    told of. The parent counts because a fork made without Python keeps the pipe open.

    Args:
        directory: Removed with the processes.
        lock: A descriptor that it keeps open as long as it lives.
    """

    def __init__(self, directory: Path, lock: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD_PROGRAM, str(directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )

    @property
    def descriptors(self) -> list[int]:
        """File descriptors to close in other processes, so that the guard sees this one's end."""
        pipe = self._process.stdin
        return [] if pipe is None or pipe.closed else [pipe.fileno()]

    def watch(self, pid: int) -> None:
        """Add a process whose group must not outlive this process."""
        self._write(f"{pid}\n")

    def dismiss(self) -> None:
        """End the guard, after everything has been cleaned up."""
        self._write("done\n")
        pipe: IO[bytes] | None = self._process.stdin
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.write(line.encode())
            pipe.flush()


_GUARD_PROGRAM: Final = """
import os, select, shutil, signal, sys
parent, told = os.getppid(), b""
while os.getppid() == parent:
    if select.select([0], [], [], 1.0)[0]:
        read = os.read(0, 4096)
        if not read:
            break
        told += read
        if told.endswith(b"done\\n"):
            sys.exit()
pids = [int(line) for line in told.split()]
for pid in reversed(pids):
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
