"""Processes of a test: each in a group of its own, with a log, ended by its own pid.

Should this process be killed outright, a guard process ends the others.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pyrmute_tasks.distributed.guard import Guard
from tests.conftest import ROOT

__all__ = ["HOST", "Processes", "end", "free_port", "kill_group"]

HOST: Final = "127.0.0.1"

_END_S: Final = 20.0
# Below the ports that systems give to clients: one that tries to reach a server that is
# down could be given the server's own port, and would then be talking to itself.
_PORTS: Final = range(20_000, 32_000)


def free_port() -> int:
    """Return an unused port, which stays free while its server is down."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind((HOST, port))
            return port


class Processes:
    """Starts processes with logs, and ends them all.

    Args:
        directory: Where logs and temporary files go.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._guard = Guard(directory)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        cwd: Path = ROOT,
        inherits: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own; its log is appended to.

        Args:
            name: Of its log.
            command: What is run.
            env: Variables of its own.
            cwd: Where it runs.
            inherits: It has this process's variables, too.
        """
        inherited = os.environ | {"TMPDIR": str(self.directory)} if inherits else {}
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**inherited, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard.watch(process.pid)
        self._started.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def close(self) -> None:
        for process in self._started:
            kill_group(process, signal.SIGKILL)
        for process in self._started:
            process.wait()
        self._guard.dismiss()


def kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process that has not been waited for, and to its children."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process, and wait until its group has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        process.wait(_END_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
