"""Tasks of other applications on our queue: moved unread, and bounded."""

import base64
import json
from typing import Any

import pytest
from amqp.exceptions import ChannelError
from celery import Celery

from pyrmute_tasks import Migrator, Settings
from pyrmute_tasks.distributed.app import create_app
from tests.conftest import wait_until
from tests.fleets import QUEUE, RabbitMQ, private_fleet, rabbitmq_fleet
from tests.integration.hostile import Envelope
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
FOREIGN = f"{QUEUE}.foreign"
RECORDS = [person(index) for index in range(12)]


def somebody(settings: Settings) -> Celery:
    """Another application that sends to our queue."""
    app = Celery("somebody", broker=settings.celery_broker_url, set_as_current=False)
    app.conf.update(task_default_queue=settings.queue, task_ignore_result=True)
    if settings.broker_url.startswith("amqp"):
        app.conf.task_default_queue_type = "quorum"
    return app


def works(settings: Settings) -> bool:
    with Migrator("tests.people:manager", settings=settings) as migrator:
        return bool(
            migrator.migrate_batch_data(RECORDS, *HOP) == manager.migrate_batch_data(RECORDS, *HOP)
        )


def received(settings: Settings, count: int) -> list[Any]:
    """Return the messages on the foreign queue, once the worker has declared it and filled it."""
    foreign = f"{settings.queue}.foreign"
    with create_app(settings).connection_for_read() as connection:

        def is_filled() -> bool:
            # A queue that is not there yet, or just begins, is an error that ends the channel.
            try:
                with connection.channel() as channel:
                    declared = channel.queue_declare(queue=foreign, passive=True)
                    return bool(declared.message_count == count)
            except ChannelError:
                return False

        wait_until(is_filled, f"{count} foreign tasks are moved")
        with connection.channel() as channel:
            return [channel.basic_get(foreign, no_ack=True) for _ in range(count)]


def test_foreign_tasks_are_moved_on_redis() -> None:
    with private_fleet("tests.people:manager") as fleet:
        worker = fleet.start_worker()
        app = somebody(fleet.settings)
        sent = [app.send_task("somebody.pay", args=[index], expires=60) for index in range(3)]
        wait_until(lambda: fleet.broker.llen(FOREIGN) == len(sent), "they are moved")
        assert works(fleet.settings)
        wait_until(fleet.is_drained, "nothing is left on our queue")
        kept = [json.loads(raw) for raw in reversed(fleet.broker.lrange(FOREIGN, 0, -1))]
        assert [each["headers"]["id"] for each in kept] == [task.id for task in sent]
        bodies = [json.loads(base64.b64decode(each["body"])) for each in kept]
        assert [body[0] for body in bodies] == [[0], [1], [2]]
        assert worker.log.count("of another application was moved off this queue") == len(sent)


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_foreign_tasks_take_bounded_room() -> None:
    with private_fleet("tests.people:manager") as fleet:
        fleet.start_worker()
        envelopes = [Envelope([index], task="other") for index in range(1100)]
        fleet.broker.lpush(QUEUE, *(envelope.dumps() for envelope in envelopes))

        def newest() -> object:
            raw = fleet.broker.lindex(FOREIGN, 0)
            return raw and json.loads(raw)["headers"]["id"]

        wait_until(lambda: newest() == envelopes[-1].id, "all are moved", 100)
        wait_until(lambda: fleet.broker.llen(FOREIGN) == 1000, "the oldest are gone")


@pytest.mark.timeout(180)
def test_foreign_tasks_are_moved_on_rabbitmq(rabbitmq: RabbitMQ) -> None:
    with rabbitmq_fleet(rabbitmq, 1) as fleet:
        app = somebody(fleet.settings)
        sent = [app.send_task("somebody.pay", args=[index], expires=60) for index in range(3)]
        messages = received(fleet.settings, len(sent))
        assert [message.headers["id"] for message in messages] == [task.id for task in sent]
        assert json.loads(messages[0].body)[0] == [0]
        assert works(fleet.settings)
