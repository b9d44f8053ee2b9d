"""Jobs that cannot move end in time, with the reason; others go on."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from pyrmute_tasks import (
    BrokerUnavailableError,
    FleetError,
    Migrator,
    NoWorkersError,
    Settings,
    StalledError,
)
from pyrmute_tasks.distributed import store
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.queue_depth import RedisDepth, depth_of, queue_lists
from tests.acceptance.test_run import call_here
from tests.conftest import wait_until
from tests.fleets import Fleet, RabbitMQ, private_fleet, rabbitmq_fleet
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
MANAGER = "tests.people:manager"
STALL_S = 2.0
SOON_S = 5.0  # after a deadline
FAR_S = 0.15
HALF_OPEN_S = 12.0  # until a connection that swallows everything is dropped, more than once
FAR_CHUNKS = 25


def people(count: int = 8) -> list[Any]:
    return [person(index) for index in range(count)]


def sleepers(count: int, seconds: float) -> list[Any]:
    return [{"name": f"sleep:{seconds} {index}", "age": 30} for index in range(count)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A fleet with one worker, which listens to the queue again when a test ends."""
    with private_fleet(MANAGER) as found:
        found.start_worker()
        yield found


# --- nobody takes the chunks ------------------------------------------------------------------


@pytest.mark.parametrize(
    "store_is_broker",
    [
        pytest.param(False, marks=pytest.mark.slow, id="two servers"),
        pytest.param(True, id="one server"),
    ],
)
def test_workers_on_another_database_are_named(store_is_broker: bool) -> None:
    with private_fleet(MANAGER, stall_s=STALL_S) as fleet:
        if store_is_broker:
            fleet.settings = replace(fleet.settings, broker_url=fleet.settings.store_url)
        producers = fleet.settings
        fleet.settings = replace(producers, broker_url=f"{producers.broker_url}?db=1")
        fleet.start_worker()
        began = time.monotonic()
        with (
            Migrator(manager, settings=producers) as migrator,
            pytest.raises(
                StalledError, match=r"idle workers: 1 with 1 free slots; \d+ tasks in queue"
            ),
        ):
            migrator.migrate_batch(people(), *HOP, chunk_size=1)
        assert time.monotonic() - began < STALL_S + SOON_S
        # The same worker runs jobs of producers that send them where it listens.
        with Migrator(manager, settings=fleet.settings) as migrator:
            assert len(migrator.migrate_batch(people(), *HOP)) == 8


@pytest.mark.slow  # the error is that of `test_workers_on_another_database_are_named`
def test_command_line_reports_a_wrong_broker_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(person(0)) + "\n")
    with private_fleet(MANAGER) as fleet:
        producers = fleet.settings
        fleet.settings = replace(producers, broker_url=f"{producers.broker_url}?db=1")
        fleet.start_worker()
        command = ["run", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--stall", 1, "--quiet"]
        options = ["--manager", MANAGER, "--model", HOP[0], "--from", HOP[1], "--to", HOP[2]]
        servers = ["--broker", producers.broker_url, "--store", producers.store_url]
        result = call_here(*command, *options, *servers)
    assert result.returncode == 1
    assert "has moved for 1 s although workers are idle" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_workers_on_another_broker_are_named(rabbitmq: RabbitMQ) -> None:
    """Producers use RabbitMQ, and the worker the store's Redis."""
    with rabbitmq_fleet(rabbitmq, 0, stall_s=STALL_S) as fleet:
        producers = fleet.settings
        fleet.settings = replace(producers, broker_url=producers.store_url)
        fleet.start_worker()
        began = time.monotonic()
        with (
            Migrator(manager, settings=producers) as migrator,
            pytest.raises(StalledError, match="listen to the same broker, virtual host"),
        ):
            migrator.migrate_batch(people(), *HOP, chunk_size=1)
        assert time.monotonic() - began < STALL_S + SOON_S


@pytest.mark.slow
def test_foreign_consumer_of_the_queue_is_suspected() -> None:
    """Another fleet, with another store, listens to the same queue."""
    with private_fleet(MANAGER, stall_s=STALL_S) as fleet:
        stop = threading.Event()

        def take_tasks() -> None:
            with closing(redis.Redis.from_url(producers.broker_url)) as client:
                while not stop.is_set():
                    client.brpop([fleet.settings.queue], timeout=0.1)

        producers = fleet.settings
        thief = threading.Thread(target=take_tasks)
        fleet.settings = replace(producers, broker_url=f"{producers.broker_url}?db=1")
        fleet.start_worker()
        thief.start()
        try:
            with (
                Migrator(manager, settings=producers) as migrator,
                pytest.raises(StalledError, match="something takes the tasks and runs none"),
            ):
                migrator.migrate_batch(people(), *HOP, chunk_size=1)
        finally:
            stop.set()
            thief.join()


@pytest.mark.slow
def test_a_consumer_that_was_cancelled_is_named(fleet: Fleet) -> None:
    settings = replace(fleet.settings, worker_wait_s=1.0, outage_s=2.0)
    with create_app(settings) as app, Migrator(manager, settings=settings) as migrator:
        assert len(migrator.migrate_batch(people(), *HOP)) == 8
        app.control.cancel_consumer(settings.queue, reply=True, limit=1, timeout=5)
        wait_until(lambda: not any(w.is_serving for w in heard(fleet)), "it has told so")
        with pytest.raises(NoWorkersError, match=r"1 are there and take none.*cancel_consumer"):
            migrator.migrate_batch(people(), *HOP)
        listen_again(app, fleet)
        assert len(migrator.migrate_batch(people(), *HOP)) == 8


@pytest.mark.slow
def test_a_cancelled_consumer_that_runs_a_chunk_is_waited_for(fleet: Fleet) -> None:
    # The worker may hold the second chunk, too, and none of the others.
    records = [*sleepers(1, 4.0), *sleepers(8, 0.1)]
    settings = replace(fleet.settings, worker_wait_s=1.0, outage_s=1.0, stall_s=2.0)
    with create_app(settings) as app, Migrator(manager, settings=settings) as job:
        stream = job.migrate_batch_data_streaming(records, *HOP, chunk_size=1)
        cancel = threading.Timer(1.0, lambda: app.control.cancel_consumer(settings.queue))
        cancel.start()
        assert next(stream)["first_name"] == "sleep:4.0"
        cancel.join()
        with pytest.raises(NoWorkersError, match="cancel_consumer"):
            list(stream)
        listen_again(app, fleet)


def listen_again(app: Any, fleet: Fleet) -> None:
    app.control.add_consumer(fleet.settings.queue, reply=True, limit=1, timeout=5)
    wait_until(lambda: any(w.is_serving for w in heard(fleet)), "it has told so")


def heard(fleet: Fleet) -> list[Any]:
    with closing(store.Store(fleet.settings)) as found:
        return found.workers()


# --- chunks that are begun again and again ------------------------------------------------------


@pytest.mark.slow
def test_a_consumer_timeout_that_is_too_short_interrupts_no_chunk() -> None:
    with (
        RabbitMQ(consumer_timeout_s=1.0) as server,
        rabbitmq_fleet(server, 1, stall_s=STALL_S) as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        assert len(migrator.migrate_batch_data(sleepers(1, 8.0), *HOP)) == 1
        # What is quick enough is not disturbed.
        assert len(migrator.migrate_batch(people(), *HOP)) == 8
        log = fleet.workers[0].log
        assert "Connection to broker lost" in log or "PRECONDITION_FAILED" in log


# --- what is no stall ---------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_that_are_busy_with_other_jobs_are_waited_for(fleet: Fleet) -> None:
    quick = replace(fleet.settings, stall_s=0.5)
    with (
        Migrator(manager, settings=fleet.settings) as first,
        Migrator(manager, settings=quick) as second,
    ):
        busy = threading.Thread(target=first.migrate_batch_data, args=(sleepers(2, 2.0), *HOP, 1))
        busy.start()
        wait_until(lambda: any(w.running for w in heard(fleet)), "the other job runs")
        assert len(second.migrate_batch(people(), *HOP)) == 8
        busy.join()


@pytest.mark.slow
def test_slow_chunk_is_waited_for(fleet: Fleet) -> None:
    with Migrator(manager, settings=replace(fleet.settings, stall_s=2.0)) as migrator:
        assert len(migrator.migrate_batch_data(sleepers(1, 4.0), *HOP, chunk_size=1)) == 1


# --- servers ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_far_server_holds_up_nothing(tmp_path: Path) -> None:
    """A delay of 150 ms each way: surveys run beside collecting, which does not wait for them."""
    with Fleet(tmp_path, MANAGER, queue="far", delay_s=FAR_S) as fleet:
        settings = fleet.producer_settings(through_proxy=True)
        records = sleepers(FAR_CHUNKS, 0.1)
        with Migrator(manager, settings=settings) as migrator, fleet.valkey.client() as client:
            migrator.migrate_batch_data(records[:1], *HOP)  # connections are there then
            connections_before = connections(client)
            began = time.monotonic()
            outputs = migrator.migrate_batch_data(records, *HOP, chunk_size=1)
            took_s = time.monotonic() - began
            opened = connections(client) - connections_before
        print(f"{FAR_CHUNKS} chunks took {took_s:.1f} s; {opened} connections were opened")
        assert [output["age"] for output in outputs] == [30] * FAR_CHUNKS
        assert took_s < 0.4 * FAR_CHUNKS + 4  # the first ones wait for the window to fill
        assert opened < 15


@pytest.mark.slow
def test_lost_chunk_is_resent_during_a_half_open_read(tmp_path: Path) -> None:
    """The producer's read never gets an answer, and a worker is lost at the same moment."""
    with Fleet(tmp_path, MANAGER, queue="half-open") as fleet:
        settings = replace(fleet.settings, store_url=fleet.proxy.url)
        with Migrator(manager, settings=settings) as migrator:
            stream = migrator.migrate_batch_data_streaming(sleepers(40, 0.1), *HOP, chunk_size=1)
            outputs = [next(stream)]
            fleet.proxy.swallow()
            fleet.living[0].kill()
            began = time.monotonic()
            outputs += stream
            took_s = time.monotonic() - began
        print(f"went on after {took_s:.1f} s")
        assert len(outputs) == 40
        assert took_s < HALF_OPEN_S + 40 * 0.1 + SOON_S


def connections(client: Any) -> int:
    return int(client.info("stats")["total_connections_received"])


@pytest.fixture
def embedded() -> Iterator[Migrator]:
    with Migrator(manager, workers=1) as migrator:
        yield migrator


def kill_server(migrator: Migrator) -> float:
    assert migrator._jobs.session is not None
    assert migrator._jobs.session.fleet is not None
    os.kill(migrator._jobs.session.fleet.process_ids[0], signal.SIGKILL)
    return time.monotonic()


def test_ended_embedded_server_is_reported_at_once(embedded: Migrator) -> None:
    stream = embedded.migrate_batch_data_streaming(sleepers(50, 0.2), *HOP, chunk_size=1)
    next(stream)
    killed_at = kill_server(embedded)
    with pytest.raises(FleetError, match=r"embedded server ended \(signal 9\)"):
        list(stream)
    assert time.monotonic() - killed_at < 2
    with pytest.raises(FleetError, match=r"embedded server ended \(signal 9\)"):
        embedded.migrate_batch(people(), *HOP)


def test_embedded_server_ending_during_a_chunk_is_reported(embedded: Migrator) -> None:
    timers: list[float] = []
    timer = threading.Timer(1.0, lambda: timers.append(kill_server(embedded)))
    embedded.migrate_batch(people(), *HOP)
    timer.start()
    with pytest.raises(FleetError, match=r"embedded server ended \(signal 9\)"):
        embedded.migrate_batch_data(sleepers(1, 10.0), *HOP)
    assert time.monotonic() - timers[0] < 2


# --- the depth of the queue ---------------------------------------------------------------------


def test_the_depth_is_that_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a task's priority nor Celery's environment changes it."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    with private_fleet(MANAGER) as fleet:
        settings = replace(fleet.settings, broker_url=f"{fleet.settings.broker_url}?db=3")
        with create_app(settings) as app, closing(RedisDepth(settings)) as depth:
            assert depth.ask() == 0
            for priority in (None, 0, 3, 5, 9):
                app.send_task("of.another", priority=priority, queue=settings.queue)
            assert depth.ask() == 5
            assert fleet.broker.info("keyspace").keys() == {"db3"}
            before = connections(fleet.broker)
            assert [depth.ask() for _ in range(20)] == [5] * 20
            assert connections(fleet.broker) == before


def test_the_store_counts_what_is_in_its_own_database() -> None:
    with private_fleet(MANAGER) as fleet:
        one = replace(fleet.settings, broker_url=fleet.settings.store_url)
        assert depth_of(one, Nobody()) is None
        assert queue_lists(one)[0] == one.queue
        assert queue_lists(fleet.settings) == ()
        other = replace(one, broker_url=f"{one.broker_url}?db=1")
        assert isinstance(depth_of(other, Nobody()), RedisDepth)


class Nobody:
    def queue_depth(self) -> int | None:
        raise AssertionError("it is not asked")


def test_a_broker_that_is_away_and_one_that_refuses_differ() -> None:
    with private_fleet(MANAGER) as fleet:
        url = fleet.settings.broker_url
        away = replace(fleet.settings, broker_url=f"{url}.not-there")
        with closing(RedisDepth(away)) as depth:
            assert depth.ask() is None
        fleet.broker.config_set("requirepass", "right")
        wrong = Settings(broker_url=f"{url}?password=wrong", store_url=fleet.settings.store_url)
        with (
            closing(RedisDepth(wrong)) as depth,
            pytest.raises(BrokerUnavailableError, match="refused the user or the password"),
        ):
            depth.ask()
