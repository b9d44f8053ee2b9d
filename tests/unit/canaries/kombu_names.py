"""Undocumented behaviour of kombu and amqp that workers and producers rely on."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from queue import Empty
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp.transport import TCPTransport
from kombu import Connection, Producer
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer
from kombu.message import Message
from kombu.pidbox import Mailbox
from kombu.transport import pyamqp, redis
from kombu.utils.objects import cached_property

from pyrmute_tasks.distributed.queue_depth import queue_lists
from pyrmute_tasks.settings import Settings
from tests.unit.canaries.table import internal

base_producer: Any = Producer  # its stubs want all arguments repeated
redis_channel: Any = redis.Channel


@internal(
    "kombu",
    "`Timer._queue`: the heap; its items' `entry.canceled`",
    r"timer\._queue\b",
    purpose="Drops cancelled timers: Celery sets two for each task, which stay for a quarter of an "
    "hour.",
    until="when kombu drops cancelled timers itself",
)
def check_timer_queue() -> None:
    def is_canceled(entry: Any) -> bool:
        return bool(entry.canceled)

    timer = Timer()
    later, sooner = timer.call_after(20, print), timer.call_after(10, print)
    assert [item.entry for item in timer._queue] == [sooner, later]
    assert not is_canceled(later)
    later.cancel()
    assert is_canceled(later)
    timer._queue[:] = [item for item in timer._queue if not item.entry.canceled]
    assert [item.entry for item in timer.queue] == [sooner]


@internal(
    "kombu",
    "`Hub.call_repeatedly`, `Hub.timer`",
    r"hub\.call_repeatedly",
    purpose="Looks after children and timers within the worker's event loop.",
    until="when the rows about timers and the pool have gone",
)
def check_hub() -> None:
    hub = Hub()
    called: list[int] = []
    hub.call_repeatedly(0.25, called.append, 1)
    (item,) = hub.timer._queue
    item.entry()
    assert called == [1]
    assert item.entry.canceled is False


@internal(
    "kombu",
    "`transport.redis.Channel`: `sep`, `priority_steps`",
    r"_SEPARATOR",
    purpose="The lists that hold a queue on Redis, to count its tasks in the survey's round trip.",
    until="when kombu counts a queue in one round trip over a given connection",
)
def check_priority_lists() -> None:
    channel = redis_channel.__new__(redis_channel)
    names = [channel._q_for_pri("chunks", priority) for priority in channel.priority_steps]
    assert names == list(queue_lists(Settings(queue="chunks", broker_url="redis://h/0")))


@internal(
    "kombu",
    "`transport.redis.Channel.client`",
    r"(channel|default_channel)\.client\b",
    purpose="Counts a queue, and shortens the one of foreign tasks, over the broker's connection.",
    until="when kombu can count and shorten a queue",
)
def check_channel_client() -> None:
    with_lists = redis_channel.__new__(redis_channel)
    with_lists.__dict__["client"] = client = object()  # a cached property
    assert with_lists.client is client
    assert isinstance(redis_channel.client, cached_property)


@internal(
    "kombu",
    "Redis keeps the newest message at the left of a queue's list",
    r"client\.ltrim",
    purpose="The queue of foreign tasks keeps the newest thousand.",
    until="when kombu can limit the length of a queue on Redis",
)
def check_newest_at_left() -> None:
    pushed: list[str] = []
    client = SimpleNamespace(lpush=lambda name, _: pushed.append(name))
    channel = redis_channel.__new__(redis_channel)
    channel.conn_or_acquire = lambda: contextlib.nullcontext(client)
    channel._expires = {}
    channel._get_message_priority = lambda *_, **__: 0
    channel._put("chunks", {"body": ""})
    assert pushed == ["chunks"]


@internal(
    "kombu",
    "transport options of Redis: `unacked_restore_interval`, `unacked_restore_throttle`, "
    "`health_check_interval`, `socket_keepalive_options`",
    r'"unacked_restore_interval"',
    purpose="How soon a dead worker's messages return, and a dead connection is noticed.",
    until="never: kombu reads unknown options without an error, so this is only checked",
)
def check_redis_options() -> None:
    known = redis_channel.from_transport_options
    assert {"visibility_timeout", "unacked_restore_limit", "socket_timeout"} <= set(known)
    for name in ("socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"):
        assert name in known
    for name in ("unacked_restore_interval", "unacked_restore_throttle", "health_check_interval"):
        assert name in known or hasattr(redis_channel, name), name


@internal(
    "kombu",
    "`virtual_host` in the URL of a unix socket is the number of the database",
    r"virtual_host",
    purpose="kombu does not read `?db=` there, as redis-py does.",
    until="when both libraries agree",
)
def check_virtual_host() -> None:
    url = "redis+socket:///nowhere/canary.sock?virtual_host=5"
    channel = redis_channel.__new__(redis_channel)
    channel.__dict__["connection"] = SimpleNamespace(client=Connection(url), default_port=6379)
    params = channel._connparams()
    assert params["db"] == 5
    assert params["path"] == "/nowhere/canary.sock"


@internal(
    "kombu",
    "`Mailbox.producer_or_acquire`, `abcast`",
    r"def producer_or_acquire",
    purpose="Replaced: kombu's own sends with `retry=True`, which retries until it succeeds.",
    until="when a broadcast can be told not to retry",
)
def check_mailbox() -> None:
    sent: list[tuple[Any, dict[str, Any]]] = []

    class Recording(base_producer):  # type: ignore[misc]  # it is a class
        def publish(self, body: Any, **options: Any) -> Any:
            sent.append((body, options))

    class Ours(Mailbox):
        @contextlib.contextmanager
        def producer_or_acquire(self, producer: Any = None, channel: Any = None) -> Iterator[Any]:
            yield Recording(channel, auto_declare=False)

    with Connection("memory://") as connection:
        mailbox = Ours("celery", type="fanout", connection=connection, serializer="json")
        mailbox.abcast("revoke", {"task_id": ["a"]})
    ((body, options),) = sent
    assert (body["method"], body["arguments"]) == ("revoke", {"task_id": ["a"]})
    assert options["retry"] is True


@internal(
    "kombu",
    "`Producer.batch`",
    r"producer\.batch\(",
    purpose="Publishes many tasks in one round trip; after an error some may have been published.",
    until="when Celery has an interface for it",
)
def check_batch() -> None:
    with Connection("memory://") as connection:
        queue = connection.SimpleQueue("batched")
        producer: Any = Producer(connection, auto_declare=False)
        with producer.batch(max_size=2):
            for number in range(3):
                producer.publish(number, routing_key="batched", exchange="batched")
        assert [queue.get_nowait().payload for _ in range(3)] == [0, 1, 2]
    assert hasattr(redis_channel, "create_publish_batch")


@internal(
    "kombu",
    "`Connection.collect`, then the pool's next user connects again",
    r"connection\.collect\(\)",
    purpose="A connection on which an answer may still arrive is dropped without talking to it.",
    until="when the pool has a way to drop a connection",
)
def check_collect() -> None:
    pool = Connection("memory://").Pool(1)
    connection = pool.acquire(block=True)
    connection.ensure_connection(max_retries=1)
    before = connection.connection
    connection.collect()
    connection.release()
    again = pool.acquire(block=True)
    again.ensure_connection(max_retries=1)
    assert again.connection is not before
    again.release()
    pool.force_close_all()


@internal(
    "kombu",
    "`Connection.connection.sock`: amqp's socket; its timeout bounds waiting for answers",
    r"\"sock\"",
    purpose="A broker that does not answer is given up after 5 s.",
    until="when amqp or kombu has such a setting for a connection in use",
)
def check_sock() -> None:
    connection: Any = amqp.Connection("localhost")
    here, there = socket.socketpair()
    transport: Any = TCPTransport("localhost")
    transport.sock = here
    connection._transport = transport
    try:
        assert connection.sock is here
        assert pyamqp.Transport.Connection is pyamqp.Connection
        assert issubclass(pyamqp.Connection, amqp.Connection)
    finally:
        connection._transport = None
        transport.sock = None
        here.close()
        there.close()
    with Connection("memory://") as other:
        other.ensure_connection(max_retries=1)
        assert getattr(other.connection, "sock", None) is None


@internal(
    "kombu",
    "`Message.ack_log_error`, `reject_log_error(logger, errors, requeue)`",
    r"(ack|reject)_log_error",
    purpose="Settles messages that the filter has taken; a lost connection is logged, not raised.",
    until="never: these are what Celery's own consumer calls",
)
def check_settling() -> None:
    done: list[Any] = []
    channel = SimpleNamespace(
        basic_ack=lambda tag, **_: done.append(("ack", tag)),
        basic_reject=lambda tag, requeue: done.append(("reject", tag, requeue)),
    )
    logger = logging.getLogger("canary")
    for number, settle in enumerate(("ack_log_error", "reject_log_error", "reject_log_error")):
        message: Any = Message(channel=channel, delivery_tag=str(number))
        message.channel.no_ack_consumers = None
        getattr(message, settle)(logger, (OSError,), *([True] if number == 2 else []))
    assert done == [("ack", "0"), ("reject", "1", False), ("reject", "2", True)]


@internal(
    "amqp",
    "`confirm_publish`, `socket_settings` as transport options",
    r'"socket_settings"',
    purpose="A task counts as published when the queue confirmed it; a dead line is noticed.",
    until="never: kombu passes options on unchecked, so this is only checked",
)
def check_amqp_options() -> None:
    options: dict[str, Any] = {"confirm_publish": True, "socket_settings": {}}
    with Connection("amqp://localhost", transport_options=options) as connection:
        made: list[dict[str, Any]] = []

        def connect(**given: Any) -> Any:
            made.append(given)
            return SimpleNamespace(connect=lambda: None, client=None)

        transport: Any = connection.transport
        transport.Connection = connect
        transport.establish_connection()
    assert made[0]["confirm_publish"] is True
    assert made[0]["socket_settings"] == {}
    assert amqp.Connection("localhost", **options).confirm_publish is True


@internal(
    "amqp",
    "errors' `reply_code`, `reply_text`",
    r"\"reply_code\"",
    purpose="Tells refusals (403, 404, 406, 530) from outages.",
    until="never: this is close to the protocol",
)
def check_reply_code() -> None:
    for code, kind in (
        (403, amqp.AccessRefused),
        (404, amqp.NotFound),
        (406, amqp.PreconditionFailed),
        (530, amqp.NotAllowed),
    ):
        error: Any = kind("told")
        assert (error.reply_code, error.reply_text) == (code, "told")


@internal(
    "amqp",
    "the text `inequivalent arg` of error 406, `PRECONDITION_FAILED`",
    r"inequivalent arg",
    purpose="Tells a queue of another kind from a chunk that exceeded `consumer_timeout`.",
    until="when the server has an error of its own for it",
)
def check_inequivalent() -> None:
    error = amqp.PreconditionFailed(
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'chunks'", (50, 10)
    )
    assert "inequivalent arg" in str(error)
    with pytest.raises(amqp.PreconditionFailed):
        raise error


@internal(
    "kombu",
    "`transport.redis.QoS`: `pipe_or_acquire`, `restore_by_tag`, `restore_unacked_once`; "
    "`Channel.QoS`, `Transport.Channel`, `Connection.transport_cls`, `Connection.resolve_aliases`",
    r"kombu\.transport\.redis|pipe_or_acquire|\.transport_cls|\.resolve_aliases",
    purpose="Workers note and acknowledge messages without waiting for the server's answer, which "
    "costs a worker two round trips a chunk in its event loop.",
    until="when kombu acknowledges without waiting on Redis",
)
def check_qos() -> None:
    sent: list[list[str]] = []

    class Transaction:
        def __init__(self) -> None:
            self.names: list[str] = []

        def __getattr__(self, name: str) -> Any:
            self.names.append(name)
            return lambda *_: self

        def execute(self) -> None:
            sent.append(self.names)

    class Ours(redis.QoS):
        def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Any:
            return contextlib.nullcontext(pipe or Transaction())

    channel = SimpleNamespace(unacked_key="unacked", unacked_index_key="unacked_index")
    qos: Any = Ours(channel, 1)
    message = SimpleNamespace(delivery_info={"exchange": "", "routing_key": "q"}, _raw={})
    qos.append(message, "tag")
    qos.ack("tag")
    assert sent == [["zadd", "hset"], ["zrem", "hdel"]]
    qos._on_collect.cancel()
    assert redis_channel.QoS is redis.QoS
    assert redis.Transport.Channel is redis.Channel
    connection: Any = Connection("redis://host/0")
    connection.transport_cls = type("Ours", (redis.Transport,), {})
    assert isinstance(connection.transport, connection.transport_cls)
    assert connection.as_uri().startswith("<class")
    connection.resolve_aliases = connection.resolve_aliases | {connection.transport_cls: "redis"}
    assert connection.as_uri().startswith("redis://")
    assert isinstance(connection.clone().transport, connection.transport_cls)
    assert callable(qos.restore_by_tag)
    assert callable(qos.restore_unacked_once)


@internal(
    "kombu",
    "`transport.redis.Channel`: `_in_poll`, `_brpop_read`, `active_queues`",
    r"_in_poll|_brpop_read|active_queues",
    purpose="A worker that leaves reads the answer to its last request for a message, and puts the "
    "message back; kombu reads it when the last chunk has ended.",
    until="when kombu puts back what arrives after its consumers have ended",
)
def check_last_answer() -> None:
    read: list[str] = []

    class Ours(redis.Channel):
        _in_poll = object()
        closed = True

        def __init__(self) -> None:
            pass

        def _brpop_read(self, **_: Any) -> None:
            read.append("answer")
            raise Empty

    channel: Any = Ours()
    channel._active_queues = []
    assert not channel.active_queues
    channel.close()
    assert read == ["answer"]
