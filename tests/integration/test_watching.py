"""What watches workers sees chunks and bad records; what a project passes to Celery is obeyed."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from pyrmute_tasks import MigrationError, Migrator
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.settings import Settings
from tests.conftest import ROOT, descendants, wait_until
from tests.fleets import Fleet, private_fleet
from tests.integration.watched_people import LOG
from tests.people import broken_step, manager, person

HOP = ("Person", "1.0.0", "3.0.0")


class Events:
    """A monitor, as exporters are: receives a fleet's events in a thread."""

    def __init__(self, fleet: Fleet) -> None:
        self.seen: list[dict[str, Any]] = []
        self._stop = threading.Event()
        app: Any = Celery(broker=fleet.settings.celery_broker_url, set_as_current=False)
        self._connection = app.connection()
        self._receiver = app.events.Receiver(self._connection, handlers={"*": self.seen.append})
        self._thread = threading.Thread(target=self._capture)

    def __enter__(self) -> "Events":
        self._thread.start()
        wait_until(lambda: self.of("worker-heartbeat"), "the monitor hears the worker")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _capture(self) -> None:
        consumer = self._receiver.itercapture(timeout=1, wakeup=True)
        while not self._stop.is_set():
            try:
                next(consumer)
            except TimeoutError:
                consumer = self._receiver.itercapture(timeout=1, wakeup=False)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.seen if event["type"] == kind]


def test_monitors_and_receivers_see_chunks_and_bad_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "bad records"
    monkeypatch.setenv(LOG, str(log))
    with private_fleet("tests.integration.watched_people:manager") as fleet:
        worker = fleet.start_worker()
        with Events(fleet) as events, Migrator(manager, settings=fleet.settings) as migrator:
            migrator.migrate_batch([person(0)] * 4, *HOP, chunk_size=2)
            wait_until(lambda: len(events.of("task-succeeded")) == 2, "two chunks are told")
            assert not log.exists()
            for event in events.of("task-succeeded"):
                assert re.fullmatch(r"2 records, 0 failed, [\d.]+ m?s", event["result"])
            people = [person(0), person(1), broken_step(2), broken_step(3)]
            with pytest.raises(MigrationError):
                migrator.migrate_batch_data(people, *HOP, chunk_size=3)
            wait_until(lambda: events.of("task-record-failed"), "the bad record is told")
            (event,) = [e for e in events.of("task-record-failed") if e["record"] == 2]
            chunk = {"type": "task-succeeded", "uuid": event["uuid"]}
            wait_until(lambda: [e for e in events.seen if chunk.items() <= e.items()], "its end")
        (told,) = [e for e in events.seen if chunk.items() <= e.items()]
        assert told["result"].startswith("✗ bad record 2: LookupError · 3 records, 1 failed, ")
        assert told["result"].endswith(event["description"])
        assert event["model"] == "Person"
        assert event["versions"] == "1.0.0→3.0.0"
        assert event["stage"] == "step"
        assert event["description"] == (
            "step Person 2.0.0 → 3.0.0 raised LookupError at people.py:"
            f"{add_adults_line()} in add_adult"
        )
        line = log.read_text().splitlines()[0]
        assert repr((event["job"], 2, "step", "2.0.0 → 3.0.0", event["description"])) in line
        assert line.endswith(" MigrationError")
        assert worker.is_healthy()
        assert "a receiver that fails does no harm" in worker.log  # Celery logs it
        assert "Secret" not in f"{events.seen}"


def add_adults_line() -> int:
    source = ROOT / "tests" / "people.py"
    lines = source.read_text().splitlines()
    return 1 + next(n for n, line in enumerate(lines) if "raise LookupError" in line)


def test_settings_of_celery_are_obeyed_by_workers() -> None:
    config = {"worker_max_tasks_per_child": 1}
    with private_fleet("tests.people:manager", celery_config=config) as fleet:
        worker = fleet.start_worker()
        children = set(descendants(worker.pid))
        with Migrator(manager, settings=fleet.settings) as migrator:
            for _ in range(3):
                records = [person(index) for index in range(4)]
                assert migrator.migrate_batch(records, *HOP) == manager.migrate_batch(records, *HOP)
                children |= set(descendants(worker.pid))
        wait_until(lambda: set(descendants(worker.pid)) - children, "the child is replaced again")
        assert len(children) >= 3


def test_embedded_fleet_sends_no_events() -> None:
    with EmbeddedFleet("tests.people:manager", 0, Settings()) as fleet:
        assert fleet.settings.celery_config == {"worker_send_task_events": False}
