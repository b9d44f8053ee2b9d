"""Fleets for tests: servers and workers that get real signals."""

import contextlib
import enum
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

import redis

from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.settings import Settings
from tests.conftest import wait_until
from tests.fleets.namespaces import FAR, TwoHosts
from tests.fleets.processes import HOST, Processes
from tests.fleets.proxy import Proxy
from tests.fleets.rabbitmq import RabbitMQ
from tests.fleets.valkey import Valkey
from tests.fleets.worker import Worker

__all__ = ["QUEUE", "Fleet", "Side", "private_fleet", "rabbitmq_fleet"]

QUEUE: Final = Settings().queue

_LOOK_EVERY_S: Final = 0.05
_RESTART_AFTER_S: Final = 0.2
_START_TIMEOUT_S: Final = 60.0


class Side(enum.Enum):
    """The side of a fleet that is on a host of its own."""

    PRODUCER = "producer"
    WORKERS = "workers"


class Fleet:
    """A private store and workers, with a broker that is the same server or another one.

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
        on_sockets: Servers have sockets in `directory`, and broker and store are two servers.
        hosts: Where it is, if that is not the host of everything else: servers on the far one.
        apart: Who is on the near one.
        delay_s: How long the proxy's way is, each way.

    Attributes:
        settings: How to reach the fleet; what workers are started with from now on.
        valkey: The store, and the broker if there is no other.
        rabbitmq: The other broker.
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
        on_sockets: bool = False,
        hosts: TwoHosts | None = None,
        apart: Collection[Side] = (),
        delay_s: float = 0.0,
    ) -> None:
        self.hosts = hosts
        self._apart = apart
        self._delay_s = delay_s
        self._processes = Processes(directory)
        self._stack = ExitStack()
        self._count = workers
        self._is_supervised = is_supervised
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._look_after_workers, name="supervisor")
        self._began = time.monotonic()
        host = "" if on_sockets else FAR if hosts else HOST
        self.valkey = Valkey(self._processes, "store", host)
        is_apart = on_sockets and rabbitmq is None
        self._broker = Valkey(self._processes, "broker") if is_apart else self.valkey
        self.rabbitmq = rabbitmq
        self.workers: list[Worker] = []
        broker_url = rabbitmq.url if rabbitmq else self._broker.url
        self.settings = replace(
            settings or Settings(),
            broker_url=broker_url,
            store_url="" if broker_url == self.valkey.url else self.valkey.url,
            manager=manager,
            queue=queue,
        )

    def __enter__(self) -> Self:
        try:
            for server in {self.valkey, self._broker}:
                server.start()
            for worker in [self.launch_worker() for _ in range(self._count)]:
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
        self._stack.close()
        self._processes.close()

    def place_of(self, side: Side) -> AbstractContextManager[None]:
        """Put this thread on the host of producers or workers, for a block."""
        is_apart = self.hosts is not None and side in self._apart
        return self.hosts.near() if self.hosts and is_apart else contextlib.nullcontext()

    @property
    def broker_server(self) -> Valkey | None:
        """The server that is the broker; None if it is RabbitMQ."""
        return None if self.rabbitmq else self._broker

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def directory(self) -> Path:
        return self._processes.directory

    @property
    def processes(self) -> Processes:
        """What starts processes, for those that have settings of their own."""
        return self._processes

    # --- servers ----------------------------------------------------------------------------

    @cached_property
    def store(self) -> Any:
        """A client of the store's server."""
        return self._client_of(self.valkey)

    @cached_property
    def broker(self) -> Any:
        """A client of the broker's server, if that is Valkey."""
        assert self.rabbitmq is None
        return self._client_of(self._broker)

    @cached_property
    def proxy(self) -> Proxy:
        """A proxy to Valkey, for `producer_settings`."""
        proxy = Proxy(self.valkey.port, self._delay_s)
        self._stack.callback(proxy.close)
        return proxy

    def _client_of(self, server: Valkey) -> redis.Redis:
        return self._stack.enter_context(contextlib.closing(redis.Redis.from_url(server.url)))

    def producer_settings(self, *, through_proxy: bool) -> Settings:
        """Return the settings of a producer, which may reach Valkey by a way of its own."""
        if not through_proxy:
            return self.settings
        if self.rabbitmq is not None:
            return replace(self.settings, store_url=self.proxy.url)
        return replace(self.settings, broker_url=self.proxy.url)

    def is_drained(self) -> bool:
        """Whether no message waits and no worker holds one; only if the broker is Valkey."""
        return not self.broker.llen(self.settings.queue) and not self.broker.hlen("unacked")

    # --- workers ----------------------------------------------------------------------------

    @property
    def living(self) -> list[Worker]:
        """The live workers that have not been asked to leave."""
        return [worker for worker in self.workers if worker.is_wanted and worker.is_alive]

    def start_worker(
        self,
        *options: str,
        manager: str = "",
        name: str = "",
        settings: Settings | None = None,
    ) -> Worker:
        """Start a worker and wait until it is ready.

        Args:
            options: Of its command line.
            manager: Another manager than that of the others.
            name: Another name than ``worker-1`` and so on.
            settings: Other ones than those of the others.
        """
        worker = self.launch_worker(*options, manager=manager, name=name, settings=settings)
        self.wait_for(worker)
        return worker

    def launch_worker(
        self,
        *options: str,
        manager: str = "",
        name: str = "",
        settings: Settings | None = None,
    ) -> Worker:
        """Start a worker, without waiting until it is ready."""
        with self._lock:
            own = settings or self.settings
            own = replace(own, manager=manager or own.manager)
            node = f"{name or f'worker-{len(self.workers) + 1}'}@test"
            process = self._spawn(node, own, options)
            worker = Worker(node, own, process, self._processes.log(node), options)
            self.workers.append(worker)
            return worker

    def wait_for(self, worker: Worker) -> None:
        """Wait for the first heartbeat of a worker."""
        with contextlib.closing(Store(worker.settings)) as store:

            def is_ready() -> bool:
                may_end = self._is_supervised or not worker.is_wanted
                assert worker.is_alive or may_end, worker.log[-3000:]
                return worker.full_name in _names_in(store) or not worker.is_wanted

            wait_until(is_ready, f"{worker.name} is ready", _START_TIMEOUT_S)
        worker.note_ready()

    def known_workers(self) -> set[str]:
        """Return the names of the workers with a fresh heartbeat."""
        with contextlib.closing(Store(self.settings)) as store:
            return _names_in(store)

    def claiming_workers(self) -> set[str]:
        """Return the names of the workers that have claimed a chunk."""
        with self.valkey.client() as client:
            names = {
                claim.rpartition(b" ")[2].decode()  # behind what seals it, if there is a secret
                for key in client.scan_iter("pt:{*}:claims")
                for claim in client.hvals(key)
            }
        return set(map(_without_token, names))

    def start_process(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start another process with the fleet's settings in its environment."""
        return self._processes.start(name, command, self.settings.to_env())

    def _spawn(
        self, name: str, settings: Settings, options: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pyrmute_tasks", "worker", "--concurrency", "1"]
        with self.place_of(Side.WORKERS):
            return self._processes.start(
                name, [*command, "--name", name, *options], settings.to_env()
            )

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
                worker.process = self._spawn(worker.name, worker.settings, worker.options)
                worker.starts += 1

    @contextmanager
    def without_workers(self) -> Iterator[None]:
        """Kill all workers, and start as many new ones at the end of the block."""
        with self._lock:
            victims = self.living
            for worker in victims:
                worker.is_wanted = False
            for worker in victims:
                worker.kill()
        yield
        for worker in victims:
            self.launch_worker(manager=worker.settings.manager)
        if victims:
            # Not just those: they may be replaced or killed meanwhile by another fault.
            wait_until(
                lambda: {worker.full_name for worker in self.living} & self.known_workers(),
                "a worker is back",
                _START_TIMEOUT_S,
            )


def _names_in(store: Store) -> set[str]:
    return {_without_token(worker.name) for worker in store.workers()}


def _without_token(name: str) -> str:
    return name.rpartition("-")[0]


@contextmanager
def private_fleet(manager: str, workers: int = 0, **options: Any) -> Iterator[Fleet]:
    """A broker, a store, and `workers` that run `manager`, with `options` as settings."""
    # Short, because the path of a unix socket must be.
    with TemporaryDirectory(prefix="pt-private-", dir="/tmp") as path:
        settings = Settings(**options)
        fleet = Fleet(
            Path(path), manager, workers=workers, settings=settings, queue=QUEUE, on_sockets=True
        )
        with fleet:
            yield fleet


@contextmanager
def rabbitmq_fleet(
    rabbitmq: RabbitMQ, workers: int, manager: str = "tests.people:manager", **options: Any
) -> Iterator[Fleet]:
    """A store and `workers` that take chunks from a queue of their own on `rabbitmq`."""
    with TemporaryDirectory(prefix="pt-rabbitmq-", dir="/tmp") as path:
        fleet = Fleet(
            Path(path),
            manager,
            workers=workers,
            settings=Settings(**options),
            rabbitmq=rabbitmq,
            queue=f"test-{secrets.token_hex(4)}",
            on_sockets=True,
        )
        with fleet:
            yield fleet
