"""A Valkey server of a test: killed, restarted, emptied, made to refuse writes."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from pyrmute_tasks.distributed.server_binary import server_binary
from tests.conftest import wait_until
from tests.fleets.processes import HOST, Processes, free_port, kill_group

__all__ = ["Valkey"]

_START_TIMEOUT_S: Final = 60.0
# How a server is made to refuse writes, and made to take them again.
_REFUSALS: Final = {
    "READONLY": (("REPLICAOF", HOST, "1"), ("REPLICAOF", "NO", "ONE")),
    "NOREPLICAS": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
}


class Valkey:
    """A server that can be killed and started again.

    With a host it has a port there, and keeps an append-only file as users do who want their
    data to survive a restart: with ``appendfsync everysec``, the default. A killed process
    loses nothing by that as a rule, a host that loses its power up to a second or two.
    Without, it has a socket in its folder, keeps nothing, and starts faster.

    Args:
        processes: What it is started with.
        name: Of its folder and its log.
        host: Where it listens.

    Attributes:
        port: Where it listens, if it has a host.
    """

    def __init__(self, processes: Processes, name: str = "valkey", host: str = "") -> None:
        self._processes = processes
        self._name = name
        self._host = host
        self._data = processes.directory / name
        self.port = free_port() if host else 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        if self._host:
            return f"redis://{self._host}:{self.port}/0"
        return f"unix://{self._data / 'valkey.sock'}"

    def client(self) -> redis.Redis:
        """Return a client that waits for a server that is being restarted."""
        patience = Retry(ConstantBackoff(0.1), 300)
        return redis.Redis.from_url(self.url, retry=patience)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._data.mkdir(exist_ok=True)
        self._process = self._processes.start(self._name, self._command())
        wait_until(self._answers, "Valkey answers", _START_TIMEOUT_S)

    def kill(self) -> None:
        assert self._process is not None
        kill_group(self._process, signal.SIGKILL)
        self._process.wait()

    def restart(self, down_s: float, *, empty: bool = False) -> None:
        """Kill it, and start it again after `down_s` seconds."""
        with self._lock:
            self.kill()
            if empty:
                shutil.rmtree(self._data)
            time.sleep(down_s)  # this is the fault's own length
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it accept connections and answer nothing, as a frozen host does."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    @contextmanager
    def refusing_writes(self, refusal: str) -> Iterator[None]:
        """Refuse every write with READONLY, as a replica, or with NOREPLICAS, as a lone master."""
        begin, end = _REFUSALS[refusal]
        with self.client() as client:
            client.execute_command(*begin)
            try:
                yield
            finally:
                client.execute_command(*end)

    @contextmanager
    def killing_connections(self, every_s: float) -> Iterator[Callable[[], int]]:
        """Kill all connections again and again; yields a function that returns their number."""
        stop, killed = threading.Event(), [0]

        def kill() -> None:
            with self.client() as client:
                while not stop.wait(every_s):
                    killed[0] += int(client.execute_command("CLIENT", "KILL", "TYPE", "normal"))

        thread = threading.Thread(target=kill, name="killer")
        thread.start()
        try:
            yield lambda: killed[0]
        finally:
            stop.set()
            thread.join()

    def lose_power(self, down_s: float) -> None:
        """Kill it as on a host that fails: writes of its last second are lost."""
        with self._lock:
            sizes = {path: path.stat().st_size for path in self._data.rglob("*.incr.aof")}
            time.sleep(1.0)
            self.kill()
            for path, size in sizes.items():
                os.truncate(path, size)
            time.sleep(down_s)
            self.start()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._processes.log(self._name).read_text()[-2000:]
        once = redis.Redis.from_url(self.url, retry=Retry(ConstantBackoff(0), 0))
        with once, contextlib.suppress(redis.RedisError):
            return bool(once.ping())
        return False

    def _command(self) -> list[str]:
        options = {"dir": str(self._data), "save": "", "maxmemory-policy": "noeviction"}
        if self._host:
            options |= {
                "bind": self._host,
                "protected-mode": "no",  # it is reached from another host if that is its address
                "port": str(self.port),
                "appendonly": "yes",
                "appendfsync": "everysec",
            }
        else:
            options |= {"port": "0", "unixsocket": str(self._data / "valkey.sock")}
        pairs = [(f"--{name}", value) for name, value in options.items()]
        return [str(server_binary()), *(text for pair in pairs for text in pair)]
