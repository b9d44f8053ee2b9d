"""Children that Celery ends from outside: no good record fails because of it."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pyrmute_tasks import Migrator
from pyrmute_tasks.settings import Settings
from tests.conftest import descendants, wait_until
from tests.fleets import Fleet, RabbitMQ, private_fleet, rabbitmq_fleet
from tests.people import manager

HOP = ("Person", "1.0.0", "3.0.0")
DEEDS = ["sleep:0.05", "touchy:0.05"]
DEED_PARAMETERS = [pytest.param(DEEDS[0], marks=pytest.mark.slow), DEEDS[1]]
RECORDS = 100


@pytest.fixture(scope="module")
def on_redis() -> Iterator[Fleet]:
    with private_fleet("tests.people:manager", 2) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def on_rabbitmq(rabbitmq: RabbitMQ) -> Iterator[Fleet]:
    with rabbitmq_fleet(rabbitmq, 2) as fleet:
        yield fleet


@contextmanager
def meanwhile(disturb: Callable[[], None]) -> Iterator[None]:
    """Disturb something in another thread, and check that this succeeded."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            disturb()
        except BaseException as error:  # told below, in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not errors, errors


def migrate_disturbed(
    settings: Settings, deed: str, disturb: Callable[[Callable[[int], None]], None]
) -> None:
    """Migrate records one task at a time while disturbed, and compare the outputs."""
    records: list[Any] = [{"name": f"{deed} {n}", "age": n % 90} for n in range(RECORDS)]
    outputs: list[Any] = []

    def wait_for_outputs(count: int) -> None:
        wait_until(lambda: len(outputs) >= count, f"{count} outputs are there", 60)

    with (
        Migrator(manager, settings=settings) as migrator,
        meanwhile(lambda: disturb(wait_for_outputs)),
    ):
        outputs.extend(migrator.migrate_batch_data_streaming(records, *HOP, chunk_size=4))
    quick = [{**record, "name": record["name"].replace("0.05", "0")} for record in records]
    expected = manager.migrate_batch_data(quick, *HOP)
    assert [output["age"] for output in outputs] == [output["age"] for output in expected]
    assert [output["last_name"] for output in outputs] == [each["last_name"] for each in expected]


def log_of(fleet: Fleet) -> str:
    return "".join(worker.log for worker in fleet.workers)


def interrupted(fleet: Fleet) -> int:
    """Return the number of children that reported being ended in a chunk."""
    return log_of(fleet).count("its chunk is sent again")


@pytest.mark.parametrize("deed", DEED_PARAMETERS)
def test_children_that_are_ended_fail_no_record(on_redis: Fleet, deed: str) -> None:
    """The pool ends them like this when its worker shuts down and runs out of time."""

    def end(wait_for_outputs: Callable[[int], None]) -> None:
        for count in (8, 24, 48):
            wait_for_outputs(count)
            for worker in on_redis.workers:
                for child in descendants(worker.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGTERM)

    before = interrupted(on_redis)
    migrate_disturbed(on_redis.settings, deed, end)
    assert interrupted(on_redis) > before


@pytest.mark.parametrize("deed", DEED_PARAMETERS)
def test_connections_to_redis_that_are_cut_interrupt_no_chunk(on_redis: Fleet, deed: str) -> None:
    def cut(wait_for_outputs: Callable[[int], None]) -> None:
        for count in (8, 24, 48):
            wait_for_outputs(count)
            for kind in ("normal", "pubsub"):
                on_redis.broker.client_kill_filter(_type=kind, skipme=True)

    before = interrupted(on_redis)
    migrate_disturbed(on_redis.settings, deed, cut)
    assert interrupted(on_redis) == before
    assert "Connection to broker lost" in log_of(on_redis)


@pytest.mark.slow
def test_a_rabbitmq_that_restarts_interrupts_no_chunk(
    rabbitmq: RabbitMQ, on_rabbitmq: Fleet
) -> None:
    def restart(wait_for_outputs: Callable[[int], None]) -> None:
        wait_for_outputs(10)
        rabbitmq.restart()

    migrate_disturbed(on_rabbitmq.settings, DEEDS[0], restart)
    assert interrupted(on_rabbitmq) == 0
    assert "Connection to broker lost" in log_of(on_rabbitmq)
