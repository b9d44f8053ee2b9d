"""RabbitMQ as the broker: the same results, and recovery from its outages."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import ChannelError

from pyrmute_tasks import BrokerUnavailableError, Migrator
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.producer import broker
from pyrmute_tasks.distributed.producer.broker import Broker, Message
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.engine.events import ChunkDelivered, Event
from pyrmute_tasks.settings import Settings
from tests.conftest import is_alive, wait_until
from tests.fleets import USER, Fleet, RabbitMQ, rabbitmq_fleet
from tests.people import broken_step, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
CHUNKS = 120
CHUNK_SIZE = 5
SLEEP = "sleep:0.005"


@pytest.fixture(scope="module")
def fleet(rabbitmq: RabbitMQ) -> Iterator[Fleet]:
    with rabbitmq_fleet(rabbitmq, 2) as fleet:
        yield fleet


@pytest.fixture
def settings(fleet: Fleet, request: pytest.FixtureRequest) -> Settings:
    """Settings of the same servers, with a queue of the test's own that no worker reads."""
    return replace(fleet.settings, queue=request.node.name)


def open_broker(settings: Settings) -> Broker:
    return Broker(create_app(settings), settings)


def messages(count: int) -> list[Message]:
    asked = [TaskArguments("job", str(number), 0, "") for number in range(count)]
    return [Message(f"job-{number}-1", arguments, "") for number, arguments in enumerate(asked)]


# --- jobs ---------------------------------------------------------------------------------


def lines(sleep: str) -> str:
    records = ({"name": f"{sleep} {n}", "age": n % 90} for n in range(CHUNKS * CHUNK_SIZE))
    return "".join(json.dumps(record) + "\n" for record in records)


def expected() -> str:
    """Return the plain loop's outputs for `lines`, without the steps' delays."""
    records = [json.loads(line) for line in lines("sleep:0").splitlines()]
    models = manager.migrate_batch(records, *HOP)
    return "".join(model.model_dump_json() + "\n" for model in models).replace("sleep:0", SLEEP)


class FileJob:
    """A job from file to file, and its progress."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._settings = settings
        self._source, self._target = directory / "in.jsonl", directory / "out.jsonl"
        self._source.write_text(lines(SLEEP))
        self.delivered = 0

    def run(self) -> str:
        """Run the job and return its output."""
        with Migrator(manager, settings=self._settings) as migrator:
            migrator.migrate_file(
                self._source,
                self._target,
                *HOP,
                chunk_size=CHUNK_SIZE,
                observers=(self._observe,),
            )
        return self._target.read_text()

    def run_while(self, inject: Callable[[], None]) -> str:
        """Run the job with `inject` in the middle, and return its output."""
        outputs: list[str] = []
        thread = threading.Thread(target=lambda: outputs.append(self.run()))
        thread.start()
        wait_until(lambda: self.delivered > 0, "a first chunk has been delivered")
        inject()
        thread.join()
        [output] = outputs
        return output

    def _observe(self, event: Event) -> None:
        if isinstance(event, ChunkDelivered):
            self.delivered += 1


def test_files_equal_the_plain_loop(fleet: Fleet, tmp_path: Path) -> None:
    job = FileJob(tmp_path, fleet.settings)
    assert job.run() == expected()
    assert job.delivered == CHUNKS


def test_the_first_bad_record_is_the_error(fleet: Fleet) -> None:
    records = [person(index) for index in range(200)]
    records[70] = broken_step(70)
    records[150] = broken_step(150)
    outputs: list[Any] = []
    with (
        Migrator(manager, settings=fleet.settings) as migrator,
        pytest.raises(Exception, match="record 70") as caught,
    ):
        for data in migrator.migrate_batch_data_streaming(records, *HOP, chunk_size=CHUNK_SIZE):
            outputs.append(data)
    assert isinstance(caught.value.__cause__, LookupError)
    assert outputs == manager.migrate_batch_data(records[:70], *HOP)


@pytest.mark.slow
def test_restarts_in_the_middle_cost_only_time(
    fleet: Fleet, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    """The workers need no restart. (A quorum queue younger than a second survives no kill -9
    of RabbitMQ 3.10, so the clean stop comes first.)
    """
    workers = [worker.pid for worker in fleet.workers]
    for end in (rabbitmq.stop, rabbitmq.kill):
        job = FileJob(tmp_path, fleet.settings)

        def restart(job: FileJob = job, end: Callable[[], None] = end) -> None:
            end()
            assert job.delivered < CHUNKS, "the job was over before the broker was"
            rabbitmq.start()

        assert job.run_while(restart) == expected()
    assert all(is_alive(pid) for pid in workers)


# --- the queue ----------------------------------------------------------------------------


def test_the_queue_is_a_quorum_queue(settings: Settings) -> None:
    open_broker(settings).publish(messages(1))
    with create_app(settings).connection_for_write() as connection:
        options = {"queue": settings.queue, "durable": True, "auto_delete": False}
        connection.channel().queue_declare(**options, arguments={"x-queue-type": "quorum"})
        with pytest.raises(ChannelError, match="PRECONDITION_FAILED"):
            connection.channel().queue_declare(**options)


def test_workers_make_no_queues_for_delayed_tasks(fleet: Fleet) -> None:
    with create_app(fleet.settings).connection_for_write() as connection:
        connection.channel().queue_declare(queue=fleet.settings.queue, passive=True)
        with pytest.raises(ChannelError, match="NOT_FOUND"):
            connection.channel().queue_declare(queue="celery_delayed_0", passive=True)


def test_queue_of_another_kind_is_reported(settings: Settings) -> None:
    with create_app(settings).connection_for_write() as connection:
        options = {"queue": settings.queue, "durable": True, "auto_delete": False}
        connection.channel().queue_declare(**options)
    for call in (open_broker(settings).check, lambda: open_broker(settings).publish(messages(1))):
        with pytest.raises(BrokerUnavailableError, match="of another kind") as caught:
            call()
        assert settings.queue in str(caught.value)


def test_waiting_tasks_are_counted(settings: Settings) -> None:
    broker = open_broker(settings)
    assert broker.queue_depth() == 0  # there is no queue yet
    broker.publish(messages(3))
    assert broker.queue_depth() == 3
    broker.publish(messages(40))
    assert broker.queue_depth() == 43


# --- outages ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_outage_is_waited_out(rabbitmq: RabbitMQ, settings: Settings) -> None:
    """Three brokers: one that asks meanwhile, an impatient one, and one that does nothing."""
    broker, idle = open_broker(settings), open_broker(settings)
    impatient = open_broker(replace(settings, outage_s=2))
    for each in (broker, idle, impatient):
        each.publish(messages(1))
        assert each.queue_depth() is not None
    rabbitmq.stop()
    try:
        assert broker.queue_depth() is None
        broker.revoke(["job-0-1"])
        with pytest.raises(BrokerUnavailableError, match="no broker answers"):
            broker.check()
        with pytest.raises(BrokerUnavailableError, match="out of reach for 2 s") as caught:
            impatient.publish(messages(1))
        assert rabbitmq.password not in str(caught.value)
    finally:
        back = threading.Thread(target=rabbitmq.start)
        back.start()
        broker.publish(messages(2))
        back.join()
    assert broker.queue_depth() == 5  # what was confirmed before is still there
    idle.revoke(["job-0-1"])  # its pooled connection is stale
    idle.publish(messages(1))
    wait_until(lambda: idle.queue_depth() == 6, "all tasks wait")
    idle.check()


@pytest.mark.slow
def test_a_frozen_server_is_not_waited_for(
    rabbitmq: RabbitMQ, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_ANSWER_S", 0.5)
    frozen = open_broker(replace(settings, outage_s=2))
    frozen.publish(messages(1))
    rabbitmq.freeze()
    try:
        assert frozen.queue_depth() is None
        with pytest.raises(BrokerUnavailableError, match="out of reach"):
            frozen.publish(messages(1))
        frozen.revoke(["job-0-1"])
    finally:
        rabbitmq.thaw()
    wait_until(frozen.queue_depth, "the server goes on")
    frozen.publish(messages(1))


def test_wrong_password_is_reported_without_it(rabbitmq: RabbitMQ, settings: Settings) -> None:
    wrong = replace(settings, broker_url=rabbitmq.url_of(USER, "let-me-in"))
    broker = open_broker(wrong)
    for call in (broker.check, lambda: broker.publish(messages(1))):
        with pytest.raises(BrokerUnavailableError, match="refused the user") as caught:
            call()
        assert "ACCESS_REFUSED" in str(caught.value)
        assert "let-me-in" not in str(caught.value)
    assert broker.queue_depth() is None
    broker.revoke(["job-0-1"])


def test_a_job_with_a_wrong_password_ends_at_once(fleet: Fleet, rabbitmq: RabbitMQ) -> None:
    wrong = replace(fleet.settings, broker_url=rabbitmq.url_of(USER, "let-me-in"))
    with (
        closing(Migrator(manager, settings=wrong)) as migrator,
        pytest.raises(BrokerUnavailableError, match="refused the user") as caught,
    ):
        migrator.migrate_batch_data([person(0)], *HOP)
    assert "let-me-in" not in str(caught.value)
