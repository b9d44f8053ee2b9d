"""Sources that block, on a real fleet."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyrmute_tasks import MigrationError, Migrator, in_thread
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from tests.conftest import descendants
from tests.people import broken_step, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
SOON_S = 5.0


@pytest.fixture(scope="module")
def people(people_fleet: EmbeddedFleet) -> Iterator[Migrator]:
    with Migrator(manager, settings=people_fleet.settings) as migrator:
        yield migrator


class Slow:
    """Records, and then nothing for a long time."""

    def __init__(self, records: list[Any]) -> None:
        self.records = records
        self.goes_on = threading.Event()
        self.is_closed = threading.Event()
        self.blocked_at = 0.0

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.records
            self.blocked_at = time.monotonic()
            self.goes_on.wait(60)
            yield person(0)
        finally:
            self.is_closed.set()


def test_outputs_and_errors_leave_at_once(people: Migrator) -> None:
    source = Slow([*(person(index) for index in range(30)), broken_step(30)])
    got = []
    with pytest.raises(MigrationError) as caught:
        for model in people.migrate_batch_streaming(in_thread(source), *HOP, chunk_size=1):
            got.append(model)
    if source.blocked_at:  # the error may be quicker than the source's thread
        assert time.monotonic() - source.blocked_at < SOON_S
    assert caught.value.record_index == 30
    assert got == manager.migrate_batch([person(index) for index in range(30)], *HOP)
    assert not source.is_closed.is_set()
    source.goes_on.set()
    assert source.is_closed.wait(10)


@pytest.mark.slow
def test_a_lost_chunk_is_sent_again_while_the_source_blocks() -> None:
    """A whole worker is frozen: the collector must find out without a message."""
    records = [{"name": f"sleep:0.2 {index}", "age": 30} for index in range(20)]
    source = Slow(records)
    with Migrator(manager, workers=2) as migrator:
        stream = migrator.migrate_batch_data_streaming(in_thread(source), *HOP, chunk_size=1)
        got = [next(stream)]
        assert migrator._jobs.session is not None
        fleet = migrator._jobs.session.fleet
        assert fleet is not None
        worker = fleet.process_ids[1]
        frozen = [worker, *descendants(worker)]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            got += [next(stream) for _ in range(len(records) - 1)]
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        assert not source.goes_on.is_set()
        assert time.monotonic() - source.blocked_at < 30.0
        assert got == manager.migrate_batch_data(records, *HOP)
        source.goes_on.set()
        assert list(stream) == manager.migrate_batch_data([person(0)], *HOP)


def test_a_source_that_belongs_to_a_thread_is_read_in_it(people: Migrator) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("create table people (name text, age int)")
    rows = [(row["name"], row["age"]) for row in map(person, range(100))]
    database.executemany("insert into people values (?, ?)", rows)
    select = "select name, age from people order by rowid"
    got = people.migrate_batch(records_of(database, select), *HOP, chunk_size=10)
    assert got == manager.migrate_batch(map(person, range(100)), *HOP)
    with pytest.raises(sqlite3.ProgrammingError, match="same thread"):
        people.migrate_batch(in_thread(records_of(database, select)), *HOP, chunk_size=10)
    database.close()


def records_of(database: sqlite3.Connection, select: str) -> Iterator[dict[str, Any]]:
    for name, age in database.execute(select):
        yield {"name": name, "age": age}


@pytest.mark.parametrize("records", [[], [person(0)], [person(index) for index in range(1000)]])
def test_threaded_source_gives_the_same_outputs(people: Migrator, records: list[Any]) -> None:
    assert people.migrate_batch(in_thread(records), *HOP) == manager.migrate_batch(records, *HOP)
    assert manager.migrate_batch(in_thread(records), *HOP) == manager.migrate_batch(records, *HOP)
    threads = [thread for thread in threading.enumerate() if thread.name == "source"]
    for thread in threads:
        thread.join(5)
    assert not [thread for thread in threads if thread.is_alive()]
