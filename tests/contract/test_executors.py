"""The contract of every executor, on which `run_ordered` relies."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.distributed.producer.executor import CeleryExecutor
from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.engine.chunks import Chunk, Origin, Outcome, decode_records, encode_packed
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.engine.pipeline import ChunkExecutor
from pyrmute_tasks.errors import JobError
from pyrmute_tasks.local.executors import ProcessExecutor, ThreadExecutor, pack_or_pickle
from pyrmute_tasks.ranges.frames import Range, SourceFile, read_pieces
from pyrmute_tasks.ranges.roots import allow
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import Compression, FrameKind, pack_record
from tests.attempts import Attempts
from tests.contract.migrating import HOP, PLAN, begin_here, run_here
from tests.fleets import Fleet, RabbitMQ, private_fleet, rabbitmq_fleet
from tests.people import broken_step, manager, person

Executor = ChunkExecutor[list[Any], list[Any]]
Opened = Callable[[], AbstractContextManager[Executor]]


class Packed:
    """The executor of processes, which takes packed records, adapted to records."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self._executor = ProcessExecutor(begin_here, None, 2, context)
        self.collect = self._executor.collect
        self.cancel = self._executor.cancel

    def __enter__(self) -> Self:
        self._executor.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.__exit__(*error)

    def submit(self, chunk: Chunk[list[Any]], /) -> None:
        packed = list(map(pack_or_pickle, chunk.payload))
        self._executor.submit(Chunk(chunk.index, chunk.start, chunk.count, packed))


class Framed:
    """The Celery executor, which takes and returns frames, adapted to records."""

    def __init__(self, executor: CeleryExecutor) -> None:
        self._executor = executor
        self.cancel = executor.cancel

    def submit(self, chunk: Chunk[list[Any]], /) -> None:
        packed = Chunk(chunk.index, chunk.start, chunk.count, list(map(pack_record, chunk.payload)))
        self._executor.submit(encode_packed(packed, Compression.NONE))

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[Any]]]:
        for outcome in self._executor.collect(wait=wait):
            decoded: Outcome[Any] = outcome
            yield replace(decoded, outputs=decode_records(outcome.outputs))


class Referred:
    """The Celery executor with ranges of files, over records."""

    def __init__(self, executor: CeleryExecutor, folder: Attempts) -> None:
        self._executor = executor
        self._folder = folder
        self._chunks: dict[int, Chunk[list[Any]]] = {}
        self.cancel = executor.cancel

    def submit(self, chunk: Chunk[list[Any]], /) -> None:
        self._chunks[chunk.index] = chunk
        path = self._folder.path / f"in-{chunk.index}.jsonl"
        path.write_text("".join(f"{json.dumps(record)}\n" for record in chunk.payload))
        found = path.stat()
        source = SourceFile(os.fsencode(path), found.st_size, found.st_mtime_ns)
        folder = os.fsencode(self._folder.path)
        wanted = Range(source, 0, found.st_size, folder, self._folder.nonce, 1_000_000)
        length, origin = found.st_size, Origin(str(path), 1)
        frame = wanted.to_frame()
        sent = Chunk(chunk.index, 0, length, frame, length, origin, is_range=True)
        self._executor.submit(sent)

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[Any]]]:
        for outcome in self._executor.collect(wait=wait):
            [piece] = read_pieces(outcome.outputs)
            lines = self._folder.path_of(piece).read_text() if piece.attempt else ""
            start = self._chunks[outcome.index].start
            failures = tuple(replace(bad, index=start + bad.index) for bad in outcome.failures)
            outputs = list(map(json.loads, lines.encode().splitlines()))
            yield Outcome(outcome.index, outcome.count, outputs, failures)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    roots = tmp_path_factory.mktemp("roots") / "roots"
    roots.touch()
    with private_fleet("tests.people:manager", 2, roots_file=str(roots)) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def fleet_on_rabbitmq(rabbitmq: RabbitMQ) -> Iterator[Fleet]:
    with rabbitmq_fleet(rabbitmq, 2) as fleet:
        yield fleet


@contextmanager
def on_celery(settings: Settings) -> Iterator[Framed]:
    store, app = Store(settings), create_app(settings)
    spec = JobSpec(new_job_id(), *HOP, FrameKind.OBJECTS, PLAN.fingerprint)
    with CeleryExecutor(Broker(app, settings), store, spec, settings) as executor:
        yield Framed(executor)
    app.close()
    store.close()


@contextmanager
def by_reference(settings: Settings, path: Path) -> Iterator[Referred]:
    store, app = Store(settings), create_app(settings)
    spec = JobSpec(new_job_id(), *HOP, FrameKind.RANGES, PLAN.fingerprint)
    allow(settings.roots_file, [path.parent])
    with CeleryExecutor(Broker(app, settings), store, spec, settings) as executor:
        yield Referred(executor, Attempts(path))
    app.close()
    store.close()


# What is asked for by name is not seen to be shared (tests/conftest.py); "tests" has RabbitMQ.
ON_REDIS = pytest.mark.xdist_group("tests/contract")
ON_RABBITMQ = pytest.mark.xdist_group("tests")


@pytest.fixture(
    params=[
        "threads",
        "processes",
        pytest.param("celery", marks=ON_REDIS),
        pytest.param("by-reference", marks=ON_REDIS),
        pytest.param("celery-rabbitmq", marks=ON_RABBITMQ),
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    if request.param == "threads":
        return lambda: ThreadExecutor(run_here, 2)
    if request.param == "processes":
        return Packed
    if request.param == "by-reference":
        own = request.getfixturevalue("fleet")
        return lambda: by_reference(own.settings, tmp_path / "job")
    name = "fleet" if request.param == "celery" else "fleet_on_rabbitmq"
    fleet = request.getfixturevalue(name)
    return lambda: on_celery(fleet.settings)


def chunk_of(index: int, records: list[Any]) -> Chunk[list[Any]]:
    return Chunk(index, index * 10, len(records), records)


def collect(executor: Executor, count: int) -> dict[int, Outcome[list[Any]]]:
    found: dict[int, Outcome[list[Any]]] = {}
    while len(found) < count:
        for outcome in executor.collect(wait=True):
            assert outcome.index not in found
            found[outcome.index] = outcome
    return found


def test_every_chunk_has_its_outcome(opened: Opened) -> None:
    chunks = [[person(10 * index + n) for n in range(10)] for index in range(20)]
    with opened() as executor:
        for index, records in enumerate(chunks):
            executor.submit(chunk_of(index, records))
        outcomes = collect(executor, len(chunks))
    for index, records in enumerate(chunks):
        assert outcomes[index].outputs == manager.migrate_batch_data(records, *HOP)
        assert outcomes[index].failure is None


def test_a_failure_comes_with_the_outputs_before_it(opened: Opened) -> None:
    with opened() as executor:
        executor.submit(chunk_of(3, [person(30), person(31), broken_step(32), person(33)]))
        outcome = collect(executor, 1)[3]
    assert outcome.count == 2
    assert outcome.failure is not None
    assert outcome.failure.index == 32
    assert outcome.failure.step == "2.0.0 → 3.0.0"
    assert isinstance(outcome.failure.error.__cause__, LookupError)


def test_poll_without_timeout_does_not_wait(opened: Opened) -> None:
    with opened() as executor:
        assert list(executor.collect(wait=False)) == []


def test_cancelled_chunks_have_no_outcome(opened: Opened) -> None:
    with opened() as executor:
        executor.submit(chunk_of(0, [person(0)]))
        executor.submit(chunk_of(1, [{"name": "sleep:0.2", "age": 1}]))
        executor.submit(chunk_of(2, [{"name": "sleep:0.2", "age": 1}]))
        executor.cancel(1)
        assert set(collect(executor, 1)) == {0}
        assert list(executor.collect(wait=False)) == []


def test_values_survive_the_wire(opened: Opened) -> None:
    record = {**person(1), "age": 2**40}
    with opened() as executor:
        if isinstance(executor, Referred):
            record["age"] = 100  # lines are validated where they run
        executor.submit(chunk_of(0, [record]))
        outcome = collect(executor, 1)[0]
    [data] = outcome.outputs
    assert json.dumps(data) == json.dumps(manager.migrate_data(record, *HOP))


def test_text_survives_the_wire(opened: Opened) -> None:
    record = {**person(1), "name": "Zoë \u2028 💡"}
    with opened() as executor:
        executor.submit(chunk_of(0, [record]))
        outcome = collect(executor, 1)[0]
    assert outcome.outputs == [manager.migrate_data(record, *HOP)]


def test_dead_process_is_reported() -> None:
    with Packed() as executor:
        executor.submit(chunk_of(0, [{"name": "kill:", "age": 1}]))
        with pytest.raises(JobError, match="a process that ran a chunk was killed"):
            collect(executor, 1)
