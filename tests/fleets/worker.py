"""A worker as an operator starts it, with one child that runs chunks."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pyrmute_tasks.settings import Settings
from tests.conftest import descendants, is_alive
from tests.fleets.processes import kill_group

__all__ = ["Worker"]


class Worker:
    """A worker process.

    Attributes:
        name: Its node name.
        settings: What it was started with.
        options: Of its command line, too.
        process: Its main process, which is the leader of its group.
        pids: Of its main process and its child, when it was ready.
        is_wanted: Whether it is started again when it ends.
        starts: How often it was started.
        started_at: When it was started first.
        left_after_s: How long it took to leave when it was asked to; None before.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        process: subprocess.Popen[bytes],
        log: Path,
        options: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.settings = settings
        self.options = options
        self.process = process
        self.pids = [process.pid]
        self.is_wanted = True
        self.starts = 1
        self.started_at = time.monotonic()
        self.left_after_s: float | None = None
        self._log = log
        self._asked_at = 0.0

    # --- what it is -------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def full_name(self) -> str:
        """Its name in the store, without the token of its start."""
        return f"{self.name}:{self.pid}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def children(self) -> list[int]:
        return descendants(self.pid)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def note_ready(self) -> None:
        """Record the processes that it starts with."""
        self.pids = [self.pid, *self.children]

    def is_healthy(self) -> bool:
        """Whether exactly the processes it started with are alive."""
        return [self.pid, *self.children] == self.pids and all(map(is_alive, self.pids))

    # --- what is done to it -----------------------------------------------------------------

    def kill_child(self) -> None:
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def kill(self) -> None:
        """Kill its main process and its child at once, as on a host that fails."""
        kill_group(self.process, signal.SIGKILL)

    def close(self) -> None:
        """Kill it and wait for its end."""
        self.is_wanted = False
        self.kill()
        self.process.wait()

    def wait(self, timeout_s: float) -> int:
        """Wait until its main process ends; return its exit status."""
        return self.process.wait(timeout_s)

    def freeze(self) -> None:
        kill_group(self.process, signal.SIGSTOP)

    def thaw(self) -> None:
        kill_group(self.process, signal.SIGCONT)

    def ask_to_leave(self) -> None:
        """Send SIGTERM to its main process, as a deployment does."""
        self.is_wanted = False
        self._asked_at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()

    def note_end(self) -> None:
        """Record that its process has ended."""
        if self._asked_at and self.left_after_s is None:
            self.left_after_s = time.monotonic() - self._asked_at
