"""Servers that are slow, frozen or silent: no leak, no hang."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pyrmute_tasks import (
    BrokerUnavailableError,
    FleetError,
    Migrator,
    Settings,
    StoreUnavailableError,
)
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.distributed.producer.executor import CeleryExecutor
from pyrmute_tasks.distributed.producer.surveys import ThreadedSurveyor
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.wire.frames import FrameKind
from tests.conftest import wait_until
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
OUTAGE_S = 1.0
ANSWER_S = 2.0


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


@pytest.mark.slow
def test_frozen_store_ends_the_job_in_time() -> None:
    """It accepts connections and answers nothing, as a frozen host does."""
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


def test_received_outcomes_are_dropped_without_new_ones() -> None:
    with EmbeddedFleet("tests.people:manager", 0, Settings()) as fleet:
        found = Store(fleet.settings)
        found._redis.hset("pt:{job}:out", "0", b"an outcome")
        found.take("job", wait_s=0.05, forget=["0"])
        assert found._redis.hlen("pt:{job}:out") == 0
        found.close()


@pytest.mark.parametrize("secret", ["", "sixteen characters"])
def test_repeated_crash_notice_counts_once(secret: str) -> None:
    """A worker reports a crash again after the answer was lost."""
    with EmbeddedFleet("tests.people:manager", 0, Settings(secret=secret)) as fleet:
        found = Store(fleet.settings)
        spec = JobSpec("7f3a21c4", "Person", "1.0.0", "3.0.0", FrameKind.LINES, "abc")
        found.open_job(spec)
        found.put_parts(spec.id, [("0", b"a frame")])
        for _ in range(2):
            found.note_crash(spec.id, "0", "signal 9 (SIGKILL)", f"{spec.id}-0-1")
        assert len(found.take(spec.id, wait_s=0).crashes) == 1
        found.note_crash(spec.id, "0", "signal 9 (SIGKILL)", f"{spec.id}-0-1")
        assert not found.take(spec.id, wait_s=0).crashes
        found.note_crash(spec.id, "0", "signal 9 (SIGKILL)", f"{spec.id}-0-2")
        assert len(found.take(spec.id, wait_s=0).crashes) == 1
        found.end_job(spec.id)
        assert not found._told
        found.close()


class Interrupted(ThreadedSurveyor):
    """A thread whose start is interrupted by Ctrl-C."""

    def begin(self) -> None:
        super().begin()
        raise KeyboardInterrupt


def test_interrupted_start_of_a_job_leaves_nothing() -> None:
    with (
        EmbeddedFleet("tests.people:manager", 0, Settings()) as fleet,
        create_app(fleet.settings) as app,
    ):
        store = Store(fleet.settings)
        spec = JobSpec("7f3a21c4", "Person", "1.0.0", "3.0.0", FrameKind.LINES, "abc")
        surveyor = Interrupted(store, None, spec.id, 30)
        broker = Broker(app, fleet.settings)
        executor = CeleryExecutor(broker, store, spec, fleet.settings, surveyor=surveyor)
        with pytest.raises(KeyboardInterrupt):
            executor.__enter__()
        thread = surveyor._thread
        assert thread is not None
        wait_until(lambda: not thread.is_alive(), "its thread has ended")
        assert not store._redis.keys("pt:*")
        store.close()


def test_complete_job_survives_the_end_of_its_server() -> None:
    with (
        EmbeddedFleet("tests.people:manager", 0, Settings()) as fleet,
        create_app(fleet.settings) as app,
    ):
        store = Store(fleet.settings)
        store.watch(fleet.check_server)
        spec = JobSpec("7f3a21c4", "Person", "1.0.0", "3.0.0", FrameKind.LINES, "abc")
        with CeleryExecutor(Broker(app, fleet.settings), store, spec, fleet.settings):
            os.kill(fleet.process_ids[0], signal.SIGKILL)
            wait_until(lambda: has_ended(fleet.check_server), "the server has ended")
        store.close()


def has_ended(check: Callable[[], None]) -> bool:
    try:
        check()
    except FleetError:
        return True
    return False


@contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A server that gives one answer to every input, or none; yields its port."""
    stop = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while client.recv(65_536) and not stop.is_set():
                client.sendall(answer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                client, _ = server.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        stop.set()
        server.shutdown(socket.SHUT_RDWR)


LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [pytest.param(b"", "Timeout", marks=pytest.mark.slow), (LOADING, "LOADING")],
)
def test_a_server_that_is_not_ready_at_the_start_ends_the_job_in_time(
    answer: bytes, why: str
) -> None:
    with listening(answer) as port:
        settings = Settings(broker_url=f"redis://127.0.0.1:{port}/0", outage_s=OUTAGE_S)
        began = time.monotonic()
        with (
            Migrator("tests.people:manager", settings=settings) as migrator,
            pytest.raises(StoreUnavailableError, match=why),
        ):
            migrator.migrate_batch([person(0)], *HOP)
        assert OUTAGE_S / 2 < time.monotonic() - began < OUTAGE_S + 5.0


@pytest.mark.parametrize("answer", [pytest.param(b"", marks=pytest.mark.slow), LOADING])
def test_a_broker_that_is_not_ready_at_the_start_ends_the_job_in_time(answer: bytes) -> None:
    with (
        listening(answer) as port,
        EmbeddedFleet("tests.people:manager", 0, Settings(outage_s=OUTAGE_S)) as fleet,
    ):
        url = f"redis://127.0.0.1:{port}/0"
        store = fleet.settings.redis_store_url
        settings = replace(fleet.settings, broker_url=url, store_url=store)
        began = time.monotonic()
        with (
            create_app(settings) as app,
            pytest.raises(BrokerUnavailableError, match="no broker answers"),
        ):
            Broker(app, settings).check()
        assert OUTAGE_S / 2 < time.monotonic() - began < OUTAGE_S + 12.0


@pytest.mark.slow
def test_a_server_that_is_frozen_at_the_start_is_waited_for() -> None:
    with (
        EmbeddedFleet("tests.people:manager", 1, Settings(outage_s=20.0)) as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        server = fleet.process_ids[0]
        os.kill(server, signal.SIGSTOP)
        threading.Timer(2.0, os.kill, (server, signal.SIGCONT)).start()
        assert len(migrator.migrate_batch([person(0)], *HOP)) == 1


def test_nothing_that_listens_ends_the_job_at_once() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{bound.getsockname()[1]}/0"
        began = time.monotonic()
        with (
            Migrator("tests.people:manager", settings=Settings(broker_url=url)) as migrator,
            pytest.raises(StoreUnavailableError, match="no store answers"),
        ):
            migrator.migrate_batch([person(0)], *HOP)
        assert time.monotonic() - began < 2.0
