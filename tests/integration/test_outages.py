"""Servers that are slow, stand still or have nothing to say: no leak, no hang."""

import os
import signal
import time
from pathlib import Path

import pytest

from pyrmute_tasks import Migrator, Settings, StoreUnavailableError
from pyrmute_tasks.distributed import store
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.distributed.store import Store
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
OUTAGE_S = 1.0
ANSWER_S = 1.5


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_looking_at_an_empty_queue_keeps_no_connection() -> None:
    with (
        EmbeddedFleet("tests.people:manager", 0, Settings()) as fleet,
        create_app(fleet.settings) as app,
    ):
        broker = Broker(app, fleet.settings)
        assert broker.queue_depth() == 0
        before = open_files()
        for _ in range(20):
            assert broker.queue_depth() == 0
        assert open_files() <= before + 1


def test_a_store_that_stands_still_ends_a_job_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and answers nothing, as a frozen host does."""
    monkeypatch.setattr(store, "_SOCKET_TIMEOUT_S", ANSWER_S)
    with (
        EmbeddedFleet("tests.people:manager", 1, Settings(outage_s=OUTAGE_S)) as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        server = fleet.process_ids[0]
        stream = migrator.migrate_batch_streaming(
            (person(index) for index in range(10_000)), *HOP, chunk_size=10
        )
        try:
            next(stream)
            os.kill(server, signal.SIGSTOP)
            frozen_at = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="failed"):
                for _ in stream:
                    pass
            assert time.monotonic() - frozen_at < 2 * (OUTAGE_S + ANSWER_S) + 1
        finally:
            os.kill(server, signal.SIGCONT)
        assert len(migrator.migrate_batch([person(0)], *HOP)) == 1


def test_a_store_that_is_away_is_waited_for_once() -> None:
    with (
        EmbeddedFleet("tests.people:manager", 1, Settings(outage_s=OUTAGE_S)) as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        stream = migrator.migrate_batch_streaming(
            (person(index) for index in range(10_000)), *HOP, chunk_size=10
        )
        next(stream)
        os.kill(fleet.process_ids[0], signal.SIGKILL)
        killed_at = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            for _ in stream:
                pass
        assert time.monotonic() - killed_at < OUTAGE_S + 2


def test_what_was_received_leaves_the_store_though_nothing_new_arrives() -> None:
    with EmbeddedFleet("tests.people:manager", 0, Settings()) as fleet:
        found = Store(fleet.settings)
        found._redis.hset("pt:{job}:out", "0", b"an outcome")
        found.take("job", wait_s=0.05, forget=["0"])
        assert found._redis.hlen("pt:{job}:out") == 0
        found.close()
