"""Break things on purpose; the output must be the same bytes, and nothing may hang."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks import JobLostError, Migrator, ProcessDiedError, Settings
from pyrmute_tasks.distributed import Broker, EmbeddedFleet
from pyrmute_tasks.distributed.broker import Message
from pyrmute_tasks.events import ChunkDelivered, Event
from tests.conftest import ROOT, descendants, is_alive, wait_until
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
RECORDS = 600
LINES = "".join(
    json.dumps({"name": f"sleep:0.002 {index}", "age": index % 90}) + "\n"
    for index in range(RECORDS)
)


def expected() -> str:
    records = [json.loads(line) for line in LINES.splitlines()]
    for record in records:
        record["name"] = record["name"].replace("sleep:0.002", "sleep:0")
    models = manager.migrate_batch(records, *HOP)
    return "".join(model.model_dump_json() + "\n" for model in models).replace(
        "sleep:0", "sleep:0.002"
    )


EXPECTED = expected()


class Run:
    """A job over a fleet of the test's own, and the longest time without a delivery."""

    def __init__(self, directory: Path, fleet: EmbeddedFleet) -> None:
        self.fleet = fleet
        self.delivered = 0
        self.longest_stall_s = 0.0
        self._last = time.monotonic()
        self._source, self._target = directory / "in.jsonl", directory / "out.jsonl"
        self._source.write_text(LINES)
        self._error: BaseException | None = None

    def observe(self, event: Event) -> None:
        if isinstance(event, ChunkDelivered):
            now = time.monotonic()
            self.longest_stall_s = max(self.longest_stall_s, now - self._last)
            self._last = now
            self.delivered += 1

    def run(self, inject: Callable[["Run"], None]) -> bool:
        """Run the job, let `inject` do its harm, and say whether the bytes are right."""
        migrator = Migrator(manager, settings=self.fleet.settings)
        thread = threading.Thread(target=self._inject, args=(inject,))
        thread.start()
        with migrator:
            migrator.migrate_file(
                self._source,
                self._target,
                *HOP,
                chunk_size=15,
                observers=(self.observe,),
            )
        thread.join()
        if self._error is not None:
            raise self._error
        return self._target.read_text() == EXPECTED

    def _inject(self, inject: Callable[["Run"], None]) -> None:
        try:
            wait_until(lambda: self.delivered > 0, "a first chunk has been delivered")
            inject(self)
        except BaseException as error:
            self._error = error


@pytest.fixture
def fleet() -> Iterator[EmbeddedFleet]:
    with EmbeddedFleet("tests.people:manager", 2, Settings()) as fleet:
        yield fleet


@contextmanager
def extra_worker(fleet: EmbeddedFleet, name: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pyrmute_tasks", "worker", "--concurrency", "1", "--name", name],
        cwd=ROOT,
        env=os.environ | fleet.settings.to_env() | {"TMPDIR": str(fleet.directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def has_ended(pid: int) -> bool:
    return not is_alive(pid)


def worker_pid(run: Run, number: int) -> int:
    return run.fleet.process_ids[1 + number]


def test_a_child_is_killed(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    def kill(run: Run) -> None:
        [child] = descendants(worker_pid(run, 0))
        os.kill(child, signal.SIGKILL)

    run = Run(tmp_path, fleet)
    assert run.run(kill)
    assert run.longest_stall_s < 3


def test_a_whole_worker_is_killed(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    def kill(run: Run) -> None:
        os.killpg(worker_pid(run, 0), signal.SIGKILL)

    run = Run(tmp_path, fleet)
    assert run.run(kill)
    assert run.longest_stall_s < 20


def test_a_worker_is_frozen_and_settles_late(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    def freeze(run: Run) -> None:
        pid = worker_pid(run, 0)
        os.killpg(pid, signal.SIGSTOP)
        before = run.delivered
        try:
            # Its chunk is sent to the other worker, so deliveries go on while it is frozen.
            wait_until(lambda: run.delivered >= before + 10, "the other worker goes on")
        finally:
            os.killpg(pid, signal.SIGCONT)

    run = Run(tmp_path, fleet)
    assert run.run(freeze)
    assert run.longest_stall_s < 20


def test_workers_are_replaced_again_and_again(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    """A rolling deployment: one leaves on SIGTERM while the next one starts."""

    def roll(run: Run) -> None:
        for number in range(4):
            os.kill(worker_pid(run, number % 2), signal.SIGTERM)
            process_has_ended = partial(has_ended, worker_pid(run, number % 2))
            wait_until(process_has_ended, "the worker has left")
            run.fleet.supervise()  # starts the next one

    run = Run(tmp_path, fleet)
    assert run.run(roll)


def test_the_worker_comes_after_the_job(tmp_path: Path) -> None:
    with EmbeddedFleet("tests.people:manager", 1, Settings(worker_wait_s=30)) as fleet:
        os.killpg(fleet.process_ids[1], signal.SIGKILL)
        run = Run(tmp_path, fleet)
        results: list[bool] = []
        thread = threading.Thread(target=lambda: results.append(run.run(lambda _: None)))
        thread.start()
        with extra_worker(fleet, "late@test"):
            thread.join()
        assert results == [True]


def test_every_message_is_delivered_twice(
    fleet: EmbeddedFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Broker._send

    def send_twice(self: Broker, message: Message, producer: Any) -> None:
        send(self, message, producer)
        send(self, message, producer)

    monkeypatch.setattr(Broker, "_send", send_twice)
    assert Run(tmp_path, fleet).run(lambda _: None)


def test_the_store_is_emptied(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    from redis import Redis

    def empty(run: Run) -> None:
        with Redis.from_url(run.fleet.settings.redis_store_url) as client:
            client.flushall()

    run = Run(tmp_path, fleet)
    with pytest.raises(JobLostError, match="no longer knows job"):
        run.run(empty)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("place", "deed"), [(0, "kill:"), (20, "exit:3"), (39, "kill:")])
def test_a_record_that_kills_its_process_is_named(
    fleet: EmbeddedFleet, place: int, deed: str
) -> None:
    records = [person(index) for index in range(40)]
    records[place] = {"name": deed, "age": 1}
    outputs: list[Any] = []
    began = time.monotonic()
    with (
        Migrator(manager, settings=fleet.settings) as migrator,
        pytest.raises(ProcessDiedError) as caught,
    ):
        for data in migrator.migrate_batch_data_streaming(records, *HOP, chunk_size=16):
            outputs.append(data)
    assert caught.value.record_index == place
    assert caught.value.how == ("signal 9 (SIGKILL)" if deed == "kill:" else "exit status 3")
    assert outputs == manager.migrate_batch_data(records[:place], *HOP)
    assert time.monotonic() - began < 60
