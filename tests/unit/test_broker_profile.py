"""The profile of a broker is chosen once, by its URL."""

import pytest

from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.broker_profile import (
    RabbitMQProfile,
    RedisProfile,
    broker_profile,
)
from pyrmute_tasks.distributed.queue_depth import AmqpDepth, RedisDepth, depth_of, queue_lists
from pyrmute_tasks.settings import Settings

STORE = "redis://127.0.0.1:1/0"


class NoBroker:
    def queue_depth(self) -> int | None:
        return None


@pytest.mark.parametrize(
    ("url", "kind", "depth"),
    [
        ("redis://127.0.0.1:1/0", RedisProfile, type(None)),
        ("redis://127.0.0.1:1/3", RedisProfile, RedisDepth),
        ("rediss://127.0.0.1:1/0", RedisProfile, RedisDepth),
        ("unix:///tmp/no.sock", RedisProfile, RedisDepth),
        ("redis+socket:///tmp/no.sock", RedisProfile, RedisDepth),
        ("amqp://127.0.0.1:1//", RabbitMQProfile, AmqpDepth),
        ("amqps://127.0.0.1:1//", RabbitMQProfile, AmqpDepth),
    ],
)
def test_scheme_chooses_the_profile(url: str, kind: type, depth: type) -> None:
    settings = Settings(broker_url=url, store_url=STORE)
    assert type(broker_profile(settings)) is kind
    assert type(depth_of(settings, NoBroker())) is depth
    assert bool(queue_lists(settings)) == (depth is type(None))
    with create_app(settings) as app:
        assert type(app.profile) is kind
        is_quorum = app.conf.task_default_queue_type == "quorum"
        assert is_quorum == (kind is RabbitMQProfile)
        assert ("visibility_timeout" in app.conf.broker_transport_options) != is_quorum


def test_keepalive_is_not_asked_of_a_unix_socket() -> None:
    tcp = RedisProfile().transport_options(Settings(broker_url=STORE))
    socket = RedisProfile().transport_options(Settings(broker_url="unix:///tmp/no.sock"))
    assert tcp.keys() - socket.keys() == {"socket_keepalive", "socket_keepalive_options"}
