"""Slow connections are waited for, silent ones are dropped; Unix sockets have no TCP options."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.connections import TCP_OPTIONS
from pyrmute_tasks.distributed.internals.redis_client import StorePool, connection_class
from pyrmute_tasks.distributed.redis_retry import TimedRetry
from pyrmute_tasks.settings import Settings

TIMEOUT_S = 0.6
LOST = 8  # connections
PIECE = 32 * 1024
PIECE_EVERY_S = 0.1


@contextmanager
def serving(
    talk: Callable[[socket.socket], None], retry: Retry | None = None
) -> Iterator[tuple[redis.Redis, list[int]]]:
    """Yield a client of a server with this behaviour, and its connections as they come."""
    seen: list[int] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                seen.append(client.fileno())
                threading.Thread(target=talk, args=(client,), daemon=True).start()

    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=accept, daemon=True).start()
        client = redis.Redis(
            connection_pool=StorePool(
                connection_class=connection_class("redis://"),
                port=server.getsockname()[1],
                socket_timeout=TIMEOUT_S,
                socket_keepalive_options=TCP_OPTIONS,
                retry=retry or Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=None,
            )
        )
        with client:
            yield client, seen
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_slow_send_is_waited_for() -> None:
    """The data under way takes several timeouts to send, and is sent once."""
    value = b"x" * (24 * PIECE)

    def read_slowly(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            got = 0
            while got < len(value):
                threading.Event().wait(PIECE_EVERY_S)
                got += len(client.recv(PIECE))
            client.sendall(b"+OK\r\n")
            client.recv(PIECE)

    with serving(read_slowly) as (client, seen):
        began = time.monotonic()
        assert client.set("key", value)
        assert time.monotonic() - began > 2 * TIMEOUT_S
        assert len(seen) == 1


@pytest.mark.parametrize("size", [1, 4_000_000])
def test_silent_connection_is_dropped(size: int) -> None:
    over = threading.Event()

    def be_silent(client: socket.socket) -> None:
        with client:
            over.wait(10)

    with serving(be_silent) as (client, _):
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.set("key", b"x" * size)
        assert time.monotonic() - began < 4 * TIMEOUT_S
        over.set()


@pytest.mark.slow
def test_connections_that_are_lost_at_once_are_opened_again() -> None:
    def close_most(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while len(seen) > LOST and client.recv(PIECE):
                client.sendall(b"+OK\r\n")

    with serving(close_most, TimedRetry(10.0)) as (client, seen):
        assert client.set("key", "value")


def test_error_reply_keeps_the_connection() -> None:
    def refuse(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while client.recv(PIECE):
                client.sendall(b"-ERR no\r\n")

    with serving(refuse) as (client, seen):
        for _ in range(3):
            with pytest.raises(redis.ResponseError):
                client.set("key", "value")
        assert len(seen) == 1


@pytest.mark.parametrize(
    ("url", "has_tcp"),
    [
        ("redis://127.0.0.1/0", True),
        ("rediss://127.0.0.1/0", True),
        ("unix:///tmp/socket", False),
        ("redis+socket:///tmp/socket", False),
    ],
)
def test_only_tcp_has_options_of_tcp(url: str, has_tcp: bool) -> None:
    with create_app(Settings(broker_url=url)) as app:
        options = app.conf.broker_transport_options
        assert ("socket_keepalive_options" in options) == has_tcp


def test_dead_connection_is_detected() -> None:
    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while client.recv(PIECE):
                client.sendall(b"+OK\r\n")

    with serving(answer) as (client, _):
        client.set("key", "value")
        connection = client.connection_pool.get_connection()
        found: object = connection._sock
        assert isinstance(found, socket.socket)
        for option, value in TCP_OPTIONS.items():
            assert found.getsockopt(socket.IPPROTO_TCP, option) == value
        client.connection_pool.release(connection)
