"""A distant worker waits for two round trips a chunk: its child's claim and settling.

Counts, no timings: a relay keeps back what the worker must not wait for.
"""

import contextlib
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import redis
from kombu import Connection

from pyrmute_tasks import Migrator
from pyrmute_tasks.distributed.broker_profile import RedisProfile
from pyrmute_tasks.distributed.internals.kombu_redis import PromptTransport
from tests.conftest import wait_until
from tests.fleets import QUEUE, Fleet, private_fleet
from tests.integration.hostile import Envelope
from tests.people import person

SPEC = "tests.people:manager"
HOP = ("Person", "1.0.0", "2.0.0")
CHUNKS = 24
KEPT_BACK: Final = 6
NOTES: Final = (b"\r\nZADD\r\n$13\r\nunacked_index", b"\r\nZREM\r\n$13\r\nunacked_index")


@dataclass
class Relay:
    """A proxy that delays answers about unacknowledged messages by `KEPT_BACK` of them.

    Attributes:
        port: Where it listens.
        notes: How many notes there were, by the connection they came over.
        clients: The connections.
        threads: One for each connection.
    """

    server: str
    port: int = 0
    notes: Counter[int] = field(default_factory=Counter)
    clients: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def close(self) -> None:
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()

    def serve(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                thread = threading.Thread(target=self._join, args=(client,), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _join(self, client: socket.socket) -> None:
        number = client.getpeername()[1]
        kept: deque[bytes] = deque()
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self.server)
            self.clients.append(client)
            back = threading.Thread(
                target=self._answer, args=(server, client, number, kept), daemon=True
            )
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65_536):
                    self.notes[number] += sum(map(data.count, NOTES))
                    server.sendall(data)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _answer(
        self, server: socket.socket, client: socket.socket, number: int, kept: deque[bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                kept.append(data)
                while kept and (not self.notes[number] or len(kept) > KEPT_BACK):
                    client.sendall(kept.popleft())
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(url.removeprefix("unix://"))
        threading.Thread(target=relay.serve, args=(listener,), daemon=True).start()
        wait_until(lambda: relay.port, "the relay listens")
        yield relay
        listener.shutdown(socket.SHUT_RDWR)
    relay.close()


@contextmanager
def scripts_of_chunks(client: Any) -> Iterator[list[str]]:
    """List the scripts that a store runs for chunks: each is a round trip of a child's."""
    asked: list[str] = []
    own: Any = redis.Redis.from_pool(client.connection_pool)
    with own.monitor() as monitor:

        def listen() -> None:
            with contextlib.suppress(redis.RedisError, OSError, ValueError, AttributeError):
                for event in monitor.listen():
                    name, _, rest = event["command"].partition(" ")
                    if name == "EVALSHA" and ":claims" in rest:
                        asked.append(rest)

        threading.Thread(target=listen, daemon=True).start()
        yield asked


def test_chunk_waits_for_no_acknowledgement() -> None:
    with private_fleet(SPEC) as fleet, relay_to(fleet.settings.broker_url) as relay:
        fleet.settings = far = replace(
            fleet.settings, broker_url=f"redis://127.0.0.1:{relay.port}/0"
        )
        worker = fleet.start_worker()
        records = [person(index) for index in range(CHUNKS)]
        with scripts_of_chunks(fleet.store) as asked, Migrator(SPEC, settings=far) as migrator:
            assert len(migrator.migrate_batch_data(records, *HOP, chunk_size=1)) == CHUNKS
        assert worker.is_healthy()
    # All over one connection, which was never given up: no answer was waited for.
    (notes,) = [count for count in relay.notes.values() if count]
    assert 2 * CHUNKS - 1 <= notes <= 2 * CHUNKS
    # The child's two: claiming and settling. Each is loaded once, if no other process was quicker.
    assert 2 * CHUNKS <= len(asked) <= 2 * CHUNKS + 2


def test_acknowledgements_of_a_lost_connection_are_repeated() -> None:
    with private_fleet(SPEC) as fleet, consumer(fleet) as (connection, received):
        first, second, third = received
        first.ack()
        assert kill_others(fleet, connection) > 0
        second.ack()
        third.ack()
        connection.default_channel.qos.restore_unacked_once()
        assert fleet.is_drained()


def test_messages_that_were_not_acknowledged_are_put_back() -> None:
    with private_fleet(SPEC) as fleet:
        with consumer(fleet) as (connection, received):
            received[1].ack()
            channel = connection.default_channel
        channel.pool.disconnect()  # which kombu makes to put messages back, and leaves open
        assert fleet.broker.llen(QUEUE) == len(received) - 1
        assert not fleet.broker.hlen("unacked")
        assert not fleet.broker.zcard("unacked_index")


def test_leaving_worker_hands_a_message_back_while_its_chunk_runs(tmp_path: Path) -> None:
    """It may have asked for one before it was told to leave, and its chunk may take hours."""
    go = tmp_path / "go"
    records = [{"name": f"wait-for:{go} 0", "age": 1}]
    with (
        private_fleet(SPEC) as fleet,
        Migrator(SPEC, settings=fleet.settings) as migrator,
        ThreadPoolExecutor() as pool,
    ):
        worker = fleet.start_worker("--", "--loglevel=DEBUG")
        running = pool.submit(migrator.migrate_batch_data, records, *HOP)
        wait_until(lambda: any(fleet.store.scan_iter("pt:{*}:claims")), "the chunk is claimed")
        asked = times_asked(fleet)
        wait_until(lambda: times_asked(fleet) > asked, "it asks again, for a second")
        worker.ask_to_leave()
        wait_until(lambda: "Canceling task consumer" in worker.log, "it takes no more")
        fleet.broker.lpush(QUEUE, Envelope([]).dumps())
        wait_until(lambda: not is_asking(fleet), "it has the answer")
        wait_until(lambda: fleet.broker.llen(QUEUE) == 1, "the message is in the queue", 10.0)
        assert not running.done()
        go.touch()
        assert running.result(timeout=20)


def times_asked(fleet: Fleet) -> int:
    """Count how often the worker has asked for a message."""
    found: dict[str, dict[str, int]] = fleet.broker.info("commandstats")
    return found.get("cmdstat_brpop", {}).get("calls", 0)


def is_asking(fleet: Fleet) -> bool:
    return any("b" in client["flags"] for client in fleet.broker.client_list())


def kill_others(fleet: Fleet, connection: Any) -> int:
    """Kill all connections to the broker but this call's."""
    return int(fleet.broker.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))


@contextmanager
def consumer(fleet: Fleet) -> Iterator[tuple[Any, list[Any]]]:
    """Take three messages through a transport like a worker's."""
    received: list[Any] = []
    url = fleet.settings.celery_broker_url
    options = RedisProfile().transport_options(fleet.settings)
    connection: Any = Connection(url, transport_options=options)
    with connection:
        connection.transport_cls = PromptTransport
        queue = connection.SimpleQueue(QUEUE)
        for number in range(3):
            queue.put({"number": number})
        received += [queue.get(timeout=10) for _ in range(3)]
        assert isinstance(connection.transport, PromptTransport)
        yield connection, received
