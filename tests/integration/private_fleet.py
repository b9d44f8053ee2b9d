"""A fleet whose broker and store are servers of their own, and whose log is in reach."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import redis

from pyrmute_tasks.distributed.embedded import _server_command
from pyrmute_tasks.distributed.guard import Guard
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.settings import Settings
from tests.conftest import ROOT, descendants, is_alive, wait_until

__all__ = ["PrivateFleet", "PrivateWorker", "private_fleet"]

QUEUE: Final = "pyrmute-tasks"
SERVERS: Final = ("broker", "store")


class PrivateWorker:
    """A worker with one child, started as an operator starts it."""

    def __init__(
        self, settings: Settings, directory: Path, name: str, options: Sequence[str]
    ) -> None:
        self._log = directory / f"{name}.log"
        command = [sys.executable, "-m", "pyrmute_tasks", "worker", "--concurrency", "1"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--name", f"{name}@private", *options],
                cwd=ROOT,
                env=os.environ | settings.to_env() | {"TMPDIR": str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pids = [self.pid]

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_it_lives(self, settings: Settings) -> None:
        store = Store(settings)
        try:
            wait_until(lambda: self._has_ended() or self._beats(store), "a worker lives")
        finally:
            store.close()
        assert not self._has_ended(), self.log
        self.pids = self.pids_now()

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _beats(self, store: Store) -> bool:
        return any(f":{self.pid}-" in worker.name for worker in store.workers())

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def pids_now(self) -> list[int]:
        return [self.pid, *descendants(self.pid)]

    def is_healthy(self) -> bool:
        """Whether the very processes that it began with live, and no others."""
        return self.pids_now() == self.pids and all(map(is_alive, self.pids))

    def wait(self, timeout_s: float) -> int:
        """Wait until its main process ends; return its exit status."""
        return self._process.wait(timeout_s)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class PrivateFleet:
    """What runs, and how to reach it.

    Attributes:
        settings: For producers.
        directory: Where everything lives.
        broker: A client of the broker's server.
        store: A client of the store's server.
        workers: Those that have been started.
    """

    def __init__(self, stack: ExitStack, directory: Path, settings: Settings, guard: Guard) -> None:
        self._stack = stack
        self._guard = guard
        self.directory = directory
        self.settings = settings
        self.broker: Any = stack.enter_context(_client(settings.broker_url))
        self.store: Any = stack.enter_context(_client(settings.redis_store_url))
        self.workers: list[PrivateWorker] = []

    def start_worker(self, *options: str) -> PrivateWorker:
        name = f"worker-{len(self.workers) + 1}"
        worker = PrivateWorker(self.settings, self.directory, name, options)
        self._stack.callback(worker.close)
        self._guard.watch(worker.pid)
        worker.wait_until_it_lives(self.settings)
        self.workers.append(worker)
        return worker

    def is_drained(self) -> bool:
        """Whether no message waits, and no worker holds one."""
        return not self.broker.llen(QUEUE) and not self.broker.hlen("unacked")


@contextmanager
def private_fleet(manager: str, **options: Any) -> Iterator[PrivateFleet]:
    """Start a broker and a store for `manager`, without workers, with `options` as settings."""
    with ExitStack() as stack:
        # Short, because the path of a unix socket must be.
        path = stack.enter_context(TemporaryDirectory(prefix="pt-private-", dir="/tmp"))
        directory = Path(path)
        guard = Guard(directory)  # ends everything should this process be killed
        stack.callback(guard.dismiss)
        urls = [stack.enter_context(_valkey(directory / name, guard)) for name in SERVERS]
        settings = Settings(broker_url=urls[0], store_url=urls[1], manager=manager, **options)
        yield PrivateFleet(stack, directory, settings, guard)


@contextmanager
def _valkey(directory: Path, guard: Guard) -> Iterator[str]:
    directory.mkdir()
    socket = directory / "valkey.sock"
    process = subprocess.Popen(
        _server_command(socket), stdout=subprocess.DEVNULL, start_new_session=True
    )
    guard.watch(process.pid)
    try:
        wait_until(socket.exists, f"{socket} is there")
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()


def _client(url: str) -> "contextlib.AbstractContextManager[Any]":
    return contextlib.closing(redis.Redis.from_url(url))
