"""Undocumented behaviour of redis-py that connections to the store rely on."""

import contextlib
import inspect
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hiredis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.unit.canaries.table import internal

TIME_BOUND = "when redis-py can bound retries by elapsed time"
FileConnection: Any = redis.UnixDomainSocketConnection  # its stubs lack most of it

LIVE_LINES = "when redis-py can tell a slow line from a dead one"


@contextlib.contextmanager
def server(answers: list[bytes]) -> Iterator[dict[str, Any]]:
    """Accept connections at a socket file and give each command the next answer."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listener.accept()
                    with line:
                        for command in _commands(line):
                            is_own = b"SETINFO" in command  # a new connection's
                            line.sendall(b"+OK\r\n" if is_own else answers.pop(0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield {"path": path, "protocol": 2, "socket_timeout": 5}
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(5)


def _commands(line: socket.socket) -> Iterator[Any]:
    reader = hiredis.Reader()
    while data := line.recv(1 << 16):
        reader.feed(data)
        while (command := reader.gets()) is not False:
            yield command


def pool_of(options: dict[str, Any], kind: Any = redis.ConnectionPool, **more: Any) -> Any:
    given = {"connection_class": FileConnection, **options, **more}
    return kind(**given)


# --- retries ------------------------------------------------------------------------------


@internal(
    "redis",
    "`Retry.call_with_retry(do, fail, is_retryable, with_failure_count)`",
    r"def call_with_retry",
    purpose="Replaced: retries end after a time, and not after a number of them. Every command and "
    "every connection attempt goes through it.",
    until=TIME_BOUND,
)
def check_call_with_retry() -> None:
    names = list(inspect.signature(Retry.call_with_retry).parameters)
    assert names[:3] == ["self", "do", "fail"]
    assert set(names[3:]) <= {"is_retryable", "with_failure_count"}
    calls: list[dict[str, Any]] = []

    class Ours(Retry):
        def call_with_retry(self, do: Any, fail: Any, *args: Any, **options: Any) -> Any:
            calls.append(options)
            return super().call_with_retry(do, fail, *args, **options)

    with server([b"+PONG\r\n"]) as options:
        pool = pool_of(options, retry=Ours(NoBackoff(), 1))
        client = redis.Redis.from_pool(pool)
        assert client.ping() is True
        client.close()
    assert len(calls) >= 2  # connecting and the command
    assert all(set(given) <= {"is_retryable", "with_failure_count"} for given in calls)


@internal(
    "redis",
    "connections copy their `Retry` with `copy.deepcopy`",
    r"def __deepcopy__",
    purpose="Ours returns itself: the attempts to connect count towards the time of the command.",
    until=TIME_BOUND,
)
def check_deepcopy() -> None:
    class Ours(Retry):
        def __deepcopy__(self, memo: object) -> "Ours":
            return self

    retry = Ours(NoBackoff(), 1)
    assert FileConnection(path="/nowhere", retry=retry).retry is retry


# --- connections --------------------------------------------------------------------------


@internal(
    "redis",
    "`ConnectionPool.get_connection`, `connection_kwargs`",
    r"def get_connection",
    purpose="`StorePool` retries taking a connection out: the library raises if a new connection "
    "is lost at once.",
    until="when redis-py retries that itself",
)
def check_get_connection() -> None:
    taken: list[Any] = []

    class Ours(redis.ConnectionPool):
        def get_connection(self, *args: Any, **options: Any) -> Any:
            taken.append(self.connection_kwargs["retry"])
            return super().get_connection()

    retry = Retry(NoBackoff(), 1)
    with server([b"+PONG\r\n", b"+PONG\r\n"]) as options:
        pool = pool_of(options, Ours, retry=retry)
        client = redis.Redis.from_pool(pool)
        client.ping()
        with client.pipeline(transaction=False) as pipe:
            pipe.ping()
            pipe.execute()
        client.close()
    assert taken == [retry, retry]


@internal(
    "redis",
    "`ConnectionPool.from_url(connection_class=…)` keeps the class for every URL",
    r"connection_class=connection_class\(url\)",
    purpose="Our connections wait as long as anything moves.",
    until=LIVE_LINES,
)
def check_connection_class() -> None:
    for url, base in (
        ("redis://host/0", redis.Connection),
        ("rediss://host/0", redis.SSLConnection),
        ("unix:///nowhere", redis.UnixDomainSocketConnection),
    ):
        kind = type("Ours", (base,), {})
        pool = redis.ConnectionPool.from_url(url, connection_class=kind)
        assert pool.connection_class is kind
        assert type(pool.make_connection()) is kind


@internal(
    "redis",
    "`Connection._sock`",
    r"\b_sock\b",
    purpose="How many bytes the other side has not acknowledged.",
    until=LIVE_LINES,
)
def check_sock() -> None:
    with server([]) as options:
        connection: Any = FileConnection(**options)
        found = [connection._sock]
        connection.connect()
        found.append(connection._sock)
        connection.disconnect()
        found.append(connection._sock)
    assert [type(each) for each in found] == [type(None), socket.socket, type(None)]


@internal(
    "redis",
    "`Connection.send_packed_command(command, check_health)`: sends item by item",
    r"def send_packed_command",
    purpose="A large command is sent in pieces, each with the timeout for itself.",
    until=LIVE_LINES,
)
def check_send() -> None:
    sent: list[Any] = []

    class Ours(FileConnection):  # type: ignore[misc]  # it is a class
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            whole: bytes = b"".join([command] if isinstance(command, bytes) else command)
            sent.append(whole)
            pieces = [memoryview(whole[start : start + 4]) for start in range(0, len(whole), 4)]
            super().send_packed_command(iter(pieces), check_health)

    with server([b"$2\r\nok\r\n"]) as options:
        pool = pool_of(options | {"connection_class": Ours})
        client = redis.Redis.from_pool(pool)
        assert client.get("name") == b"ok"
        client.close()
    assert sent[-1] == b"*2\r\n$3\r\nGET\r\n$4\r\nname\r\n"


@internal(
    "redis",
    "`Connection.read_response(disconnect_on_error, timeout)`: after a timeout the rest is read",
    r"def read_response",
    purpose="An answer is waited for as long as bytes are acknowledged; the connection stays open.",
    until=LIVE_LINES,
)
def check_read() -> None:
    names = inspect.signature(redis.Connection.read_response).parameters
    assert "disconnect_on_error" in names
    with server([b"$5\r\nhe", b"llo\r\n-ERR told\r\n"]) as options:
        connection: Any = FileConnection(**options)
        connection.connect()
        line = connection._sock
        line.settimeout(0.05)
        connection.send_command("GET", "name")
        with pytest.raises(redis.TimeoutError):
            connection.read_response(disconnect_on_error=False)
        assert connection._sock is line
        line.settimeout(5)
        connection.send_command("PING")
        assert connection.read_response(disconnect_on_error=False) == b"hello"
        with pytest.raises(redis.ResponseError):
            connection.read_response(disconnect_on_error=False)
        assert connection._sock is line
        connection.disconnect()


@internal(
    "redis",
    "`Redis.from_pool`: the client closes the pool",
    r"Redis\.from_pool",
    purpose="Closing the store closes its connections.",
    until="never: it is documented, and checked since a leak would show late",
)
def check_from_pool() -> None:
    with server([b"+PONG\r\n"]) as options:
        pool = pool_of(options)
        client = redis.Redis.from_pool(pool)
        client.ping()
        (connection,) = pool._available_connections
        client.close()
        assert connection._sock is None


# --- errors -------------------------------------------------------------------------------


@internal(
    "redis",
    "texts of errors: `… of pipeline caused error: …`, in front of the server's own",
    r"of pipeline caused error",
    purpose="Finds the server's word (`READONLY`…) behind the command, which holds records and is "
    "never shown.",
    until="when every error has the server's word as an attribute",
)
def check_pipeline_text() -> None:
    with server([b"-READONLY told\r\n"]) as options:
        client = redis.Redis.from_pool(pool_of(options))
        with client.pipeline(transaction=False) as pipe:
            pipe.set("name", "secret")
            with pytest.raises(redis.ResponseError) as caught:
                pipe.execute()
        client.close()
    text = str(caught.value)
    told = text.rpartition(" of pipeline caused error: ")[2]
    assert "secret" not in told
    assert told.removeprefix("READONLY ") == "told"


@internal(
    "redis",
    "`RedisError.status_code`",
    r"\.status_code",
    purpose="The server's word, where the library takes it out of the text.",
    until="never: it is public since redis 7.2; which errors have it is not said",
)
def check_status_code() -> None:
    for word in ("READONLY", "LOADING", "MASTERDOWN"):
        with server([f"-{word} told\r\n".encode()]) as options:
            client = redis.Redis.from_pool(pool_of(options, retry=Retry(NoBackoff(), 0)))
            with pytest.raises(redis.RedisError) as caught:
                client.set("name", "secret")
            client.close()
        assert caught.value.status_code == word
    assert redis.ConnectionError("lost").status_code is None


@internal(
    "redis",
    "classes of errors: `OutOfMemoryError`, `NoPermissionError`, `AuthorizationError`, "
    "`NoScriptError`",
    r"NoScriptError|OutOfMemoryError|NoPermissionError|AuthorizationError",
    purpose="Tell a full store, missing rights and a script that is not loaded.",
    until="never: they are public; which answers raise them is not said",
)
def check_error_classes() -> None:
    for answer, kind in (
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "OutOfMemoryError"),
        (b"-NOPERM told\r\n", "NoPermissionError"),
        (b"-NOSCRIPT told\r\n", "NoScriptError"),
    ):
        with server([answer]) as options:
            client = redis.Redis.from_pool(pool_of(options))
            with pytest.raises(getattr(redis.exceptions, kind)):
                client.get("name")
            client.close()


# --- transactions that nobody waits for ---------------------------------------------------


@internal(
    "redis",
    "`client.Pipeline.command_stack`; `Connection`: `pack_commands`, "
    "`send_packed_command(check_health)`, `can_read`, `read_response`",
    r"redis\.client import Pipeline|command_stack|pack_commands",
    purpose="Sends a transaction and reads its answers later; a check of the connection's health "
    "would take one for its own.",
    until="when redis-py can send a transaction without waiting for its answers",
)
def check_unanswered_transactions() -> None:
    with server([b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n:1\r\n"]) as options:
        pool = pool_of(options)
        pipe = redis.Redis.from_pool(pool).pipeline()
        pipe.hset("key", "field", "value")
        ((args, _),) = pipe.command_stack
        assert args == ("HSET", "key", "field", "value")
        connection = pool.get_connection()
        connection.health_check_interval, connection.next_health_check = 1, 0
        packed = connection.pack_commands([("MULTI",), args, ("EXEC",)])
        connection.send_packed_command(packed, check_health=False)
        assert connection.can_read(timeout=5)
        assert [connection.read_response() for _ in range(3)][2] == [1]
        pool.release(connection)
        pool.disconnect()
