"""An embedded fleet: Valkey and workers as child processes for the length of a job.

Everything lives in one private temporary directory and listens on a unix socket inside
it, so nothing outside can reach it and two runs never meet. Leaving the context ends every
process and removes the directory; should this process be killed outright, a small guard
process notices and does the same.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis

from pyrmute_tasks.distributed.guard import Guard, Lifeline
from pyrmute_tasks.distributed.leftovers import FOLDER_PREFIX, FolderLock, remove_leftovers
from pyrmute_tasks.distributed.server_binary import server_binary
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.worker.command_line import worker_arguments
from pyrmute_tasks.errors import ConfigurationError, FleetError
from pyrmute_tasks.registry import is_loading
from pyrmute_tasks.settings import ENV_PREFIX, Settings

__all__ = ["EmbeddedFleet"]

_START_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.02
_LOG_LINES: Final = 15
_SOCKET: Final = "valkey.sock"
_ROOTS: Final = "roots"
_LONGEST_SOCKET_BYTES: Final = 103 if sys.platform == "darwin" else 107
# glibc returns the memory of every large buffer to the system and takes it again, page by
# page: a twentieth of a job's time. Other libraries do not know these variables.
_MALLOC: Final = (
    ("MALLOC_MMAP_THRESHOLD_", str(32 * 1024 * 1024)),
    ("MALLOC_TRIM_THRESHOLD_", str(128 * 1024 * 1024)),
)
# Without -P a file `redis.py` in the current directory would be taken for the library.
_DEATH_S: Final = 1.0  # a process that was killed may take a moment to be gone
_NO_EVENTS: Final = {"worker_send_task_events": False}  # nobody can reach its broker to see them
_COMMAND: Final = (sys.executable, "-P", "-m", "pyrmute_tasks")
# Celery's variables in this process's environment are for other fleets.
_NOT_INHERITED: Final = (ENV_PREFIX, "CELERY_", "REMAP_SIGTERM")


class EmbeddedFleet:
    """A Valkey server and Celery workers that live as long as this context.

    Args:
        manager: Name of the manager the workers run.
        workers: How many worker processes, each running one chunk at a time.
        settings: Options to start from; the URLs are replaced by the fleet's own.

    Attributes:
        settings: Settings for connecting to the fleet, once it has been started.
    """

    def __init__(self, manager: str, workers: int, settings: Settings) -> None:
        self._manager = manager
        self._count = workers
        self.settings: Settings = settings
        self._directory: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._guard: Guard | None = None
        self._lifeline: Lifeline | None = None
        self._folder_lock: FolderLock | None = None
        self._restarts = 0
        self._pid = os.getpid()
        self._lock = threading.Lock()  # against closing it while a worker is restarted
        self._is_closed = False

    def __enter__(self) -> Self:
        """Start the fleet and wait until every worker is ready; see `begin`."""
        try:
            self.begin()
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- starting ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the server and the workers, without waiting until they are ready.

        Raises:
            ConfigurationError: If called while a worker imports the manager's module, or if
            temporary files cannot be made, or have too long a path.
            FleetError: If the server does not start; it quotes its log.
        """
        if is_loading():
            raise ConfigurationError(
                "a fleet cannot be started while its manager's module is being imported; put the "
                "part of the module that runs jobs behind: if __name__ == '__main__':"
            )
        self._pid, self._is_closed = os.getpid(), False
        self._directory = _make_folder()
        self._folder_lock = FolderLock(self._directory)
        self._guard = Guard(self._directory, self._folder_lock.descriptor)
        self._lifeline = Lifeline()
        _fleets.add(self)
        _look_after_forks()
        socket = self._directory / _SOCKET
        roots = self._directory / _ROOTS
        roots.touch()
        self.settings = replace(
            self.settings,
            broker_url=f"unix://{socket}",
            store_url="",
            manager=self._manager,
            celery_config=_NO_EVENTS | dict(self.settings.celery_config),
            roots_file=str(roots),
        )
        self._server = self._spawn("valkey", _server_command(socket))
        self._wait_for_server()
        for number in range(self._count):
            self._workers.append(self._start_worker(number))

    def _start_worker(self, number: int) -> subprocess.Popen[bytes]:
        name = f"worker-{number + 1}"
        arguments = worker_arguments(f"{name}@embedded", 1)[1:]
        return self._spawn(name, [*_COMMAND, "worker", "--", *arguments])

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        assert self._directory is not None
        assert self._guard is not None
        assert self._lifeline is not None
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)
        }
        # Celery's pool leaves directories behind when it is killed: they go with ours.
        private = {"TMPDIR": str(self._directory), **self.settings.to_env()}
        with (self._directory / f"{name}.log").open("ab") as log_file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                env=dict(_MALLOC) | inherited | private,
                # A Ctrl-C at the terminal is for the producer, which then ends the others.
                start_new_session=True,
                pass_fds=[self._lifeline.descriptor],
            )
        self._guard.watch(process.pid)
        if self._folder_lock is not None:
            self._folder_lock.add(process.pid)
        return process

    def _wait_for_server(self) -> None:
        url = self.settings.redis_store_url
        for _ in self._until_started():
            self._check_started("valkey", self._server)
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
                client.ping()
                return

    def wait_until_ready(self) -> None:
        """Wait for the first heartbeat of every worker.

        Raises:
            FleetError: If one does not start; it quotes its log.
        """
        store = Store(self.settings)
        store.watch(self.check_server)
        try:
            for _ in self._until_started():
                for number, worker in enumerate(self._workers):
                    self._check_started(f"worker-{number + 1}", worker)
                if len(store.workers()) >= self._count:
                    return
        finally:
            store.close()

    def _until_started(self) -> Iterator[None]:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            yield
            time.sleep(_POLL_S)
        raise FleetError(f"the embedded fleet did not start within {_START_TIMEOUT_S:.0f} s")

    def _check_started(self, name: str, process: subprocess.Popen[bytes] | None) -> None:
        if process is None or process.poll() is None:
            return
        raise FleetError(
            f"the embedded {name} ended with status {process.returncode} while starting:\n"
            f"{self._tail(name)}"
        )

    def _tail(self, name: str) -> str:
        assert self._directory is not None
        text = (self._directory / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-_LOG_LINES:])

    # --- running ------------------------------------------------------------------------------

    @property
    def process_ids(self) -> list[int]:
        """The process ids of the server and the workers' main processes."""
        processes = [self._server, *self._workers]
        return [process.pid for process in processes if process is not None]

    @property
    def directory(self) -> Path | None:
        """The directory of the fleet's files; None before it starts and after it ends."""
        return self._directory

    def supervise(self) -> None:
        """Restart workers that have ended.

        Raises:
            FleetError: If the server has ended, or workers keep ending.
        """
        with self._lock:
            if not self._is_closed:
                self._supervise()

    def check_server(self) -> None:
        """Raise `FleetError` if the server has ended other than by `close`; takes no time."""
        server = self._server
        if self._is_closed or server is None or (status := server.poll()) is None:
            return
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise FleetError(f"embedded server ended ({how})\n{self._tail('valkey')}".rstrip())

    def _supervise(self) -> None:
        self.check_server()
        for number, worker in enumerate(self._workers):
            if worker.poll() is None:
                continue
            self._restarts += 1
            if self._restarts > 10 * self._count:
                raise FleetError(
                    f"embedded workers keep ending:\n{self._tail(f'worker-{number + 1}')}"
                )
            self._workers[number] = self._start_worker(number)

    # --- stopping -----------------------------------------------------------------------------

    def close(self) -> None:
        """End every process and remove every file; idempotent. Does nothing in a fork.

        Nothing in this fleet is worth a warm shutdown, which takes Celery seconds: when a
        job has ended no chunk is wanted, and the broker goes with its workers.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            self._is_closed = True
            self._end()

    def _end(self) -> None:
        for process in (*self._workers, self._server):
            if process is not None:
                _signal_group(process, signal.SIGKILL)
                process.wait()
        self._workers, self._server = [], None
        if self._lifeline is not None:
            self._lifeline.wait(_DEATH_S)
            self._lifeline = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self._folder_lock is not None:
            self._folder_lock.release()
            self._folder_lock = None

    def forget(self) -> None:
        """Close, in a fork, all that keeps the fleet alive: the guard's pipe, the folder's lock."""
        held = [self._folder_lock.descriptor] if self._folder_lock is not None else []
        if self._guard is not None:
            held += self._guard.descriptors
        if self._lifeline is not None:
            held += self._lifeline.descriptors
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in held:
            # Not closed: their objects would close whatever has the number by then.
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


def _make_folder() -> Path:
    """Remove the folders of fleets that were killed, and make a new one."""
    try:
        parent = Path(tempfile.gettempdir())
        remove_leftovers(parent)
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    except OSError as error:
        raise ConfigurationError(
            f"no temporary folder can be made ({error.strerror or error}); set TMPDIR to one that "
            "can be written"
        ) from None
    size = len(os.fsencode(folder / _SOCKET))
    if size > _LONGEST_SOCKET_BYTES:
        folder.rmdir()
        raise ConfigurationError(
            f"the folder for temporary files, {parent}, has too long a path: a Unix socket in it "
            f"would take {size} bytes, and {_LONGEST_SOCKET_BYTES} are allowed; set TMPDIR to a "
            "shorter one, as /tmp"
        )
    return folder


def _server_command(socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "dir": str(socket.parent),
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    command = [str(server_binary())]
    for name, value in options.items():
        command += [f"--{name}", value]
    return command


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Each was started in a session of its own, so its pid is its group's id.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


_fleets: "weakref.WeakSet[EmbeddedFleet]" = weakref.WeakSet()


@cache
def _look_after_forks() -> None:
    os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for fleet in list(_fleets):
        with contextlib.suppress(OSError):
            fleet.forget()
    _fleets.clear()
