"""`AsyncMigrator` on a real fleet, and under FastAPI served by a real server."""

import asyncio
import contextvars
import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from pyrmute_tasks import (
    AsyncMigrator,
    Event,
    JobEnded,
    JobState,
    MigrationError,
    Migrator,
    MigratorClosedError,
    ModelNotFoundError,
)
from tests.fleets import Fleet, private_fleet
from tests.people import PersonV2, broken_step, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")
SOON_S = 20.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with private_fleet("tests.people:manager") as fleet:
        fleet.start_worker()
        yield fleet


@pytest.fixture
def run(fleet: Fleet) -> "Callable[[Test], None]":
    """Run a coroutine with an `AsyncMigrator`, and see that nothing of its jobs is left."""

    def run_test(test: Test) -> None:
        async def with_migrator() -> None:
            async with AsyncMigrator(Migrator(manager, settings=fleet.settings)) as migrator:
                await asyncio.wait_for(test(migrator), 60)

        asyncio.run(with_migrator(), debug=True)  # coroutines that block are told
        gc.collect()
        assert jobs_of(fleet) == []

    return run_test


Test = Callable[[AsyncMigrator], Coroutine[Any, Any, None]]
Run = Callable[[Test], None]


def jobs_of(fleet: Fleet) -> list[bytes]:
    return list(fleet.store.scan_iter("pt:{*}:job"))


async def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, f"waited too long until {what}"
        await asyncio.sleep(0.01)


class Endless:
    """People without end, asynchronously; knows how far it was read, and whether it was closed."""

    def __init__(self, name: str = "Ada Lovelace", *, stalls_at: int | None = None) -> None:
        self.name = name
        self.stalls_at = stalls_at
        self.read = 0
        self.is_closed = False
        self.who = ""

    async def __aiter__(self) -> AsyncIterator[Any]:
        self.who = WHO.get()
        try:
            while True:
                if self.read == self.stalls_at:
                    await asyncio.Event().wait()
                await asyncio.sleep(0)
                self.read += 1
                yield {"name": self.name, "age": 36}
        finally:
            self.is_closed = True


# --- outputs ----------------------------------------------------------------------------------


def test_batches_equal_a_loop(run: Run) -> None:
    people = [person(index) for index in range(700)]

    async def test(migrator: AsyncMigrator) -> None:
        models, data = await asyncio.gather(
            migrator.migrate_batch(people, *HOP), migrator.migrate_batch_data(iter(people), *HOP)
        )
        assert models == manager.migrate_batch(people, *HOP)
        assert data == manager.migrate_batch_data(people, *HOP)
        seconds = await migrator.migrate_batch_as(people, "Person", "1.0.0", "2.0.0", PersonV2)
        assert seconds == manager.migrate_batch_as(people, "Person", "1.0.0", "2.0.0", PersonV2)
        assert await migrator.migrate_batch([], *HOP) == []

    run(test)


def test_streams_take_asynchronous_sources(run: Run) -> None:
    people = [person(index) for index in range(700)]

    async def source() -> AsyncIterator[Any]:
        for record in people:
            await asyncio.sleep(0)
            yield record

    async def test(migrator: AsyncMigrator) -> None:
        models = [model async for model in migrator.migrate_batch_streaming(source(), *HOP)]
        assert models == manager.migrate_batch(people, *HOP)
        stream = migrator.migrate_batch_data_streaming(source(), *HOP, chunk_size=7)
        assert [data async for data in stream] == manager.migrate_batch_data(people, *HOP)
        assert [data async for data in stream] == []  # it has ended

    run(test)


def test_stream_has_the_report_of_its_job(run: Run) -> None:
    events: list[Event] = []

    async def test(migrator: AsyncMigrator) -> None:
        people = [person(index) for index in range(10)]
        stream = migrator.migrate_batch_streaming(people, *HOP, observers=[events.append])
        reports = [stream.report]
        assert len([model async for model in stream]) == 10
        reports.append(stream.report)
        assert [report and (report.state, report.records) for report in reports] == [
            None,
            (JobState.SUCCEEDED, 10),
        ]

    run(test)
    assert isinstance(events[-1], JobEnded)


def test_source_is_read_in_the_callers_context(run: Run) -> None:
    source = Endless()

    async def test(migrator: AsyncMigrator) -> None:
        WHO.set("ada")
        async with migrator.migrate_batch_streaming(source, *HOP, chunk_size=1) as stream:
            await anext(stream)

    run(test)
    assert source.who == "ada"


def test_event_loop_runs_other_tasks_during_a_job(run: Run) -> None:
    async def test(migrator: AsyncMigrator) -> None:
        slow = asyncio.create_task(
            migrator.migrate_batch([person(0) | {"name": "sleep:1 x"}], *HOP)
        )
        ticks = 0
        while not slow.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 20

    run(test)


def test_outputs_leave_while_the_source_waits(run: Run) -> None:
    source = Endless(stalls_at=5)

    async def test(migrator: AsyncMigrator) -> None:
        async with migrator.migrate_batch_streaming(source, *HOP, chunk_size=1) as stream:
            got = [await anext(stream) for _ in range(5)]
        assert len(got) == 5
        assert source.is_closed

    run(test)


def test_reader_that_pauses_holds_the_source(run: Run) -> None:
    source = Endless()

    async def test(migrator: AsyncMigrator) -> None:
        async with migrator.migrate_batch_streaming(source, *HOP, chunk_size=10) as stream:
            await anext(stream)
            read = -1
            while read != source.read:
                read = source.read
                await asyncio.sleep(0.5)
            # The window of a fleet with one slot, one chunk that is cut, and what is handed over.
            assert read <= (8 + 2) * 10 + 2 * 256

    run(test)


# --- errors -----------------------------------------------------------------------------------


def test_first_error_comes_after_the_outputs_before_it(run: Run) -> None:
    people = [*(person(index) for index in range(20)), broken_step(20), person(21), broken_step(22)]

    async def test(migrator: AsyncMigrator) -> None:
        got = []
        with pytest.raises(MigrationError) as caught:
            async for model in migrator.migrate_batch_streaming(people, *HOP, chunk_size=3):
                got.append(model)
        assert caught.value.record_index == 20
        assert got == manager.migrate_batch(people[:20], *HOP)
        with pytest.raises(ModelNotFoundError):
            await migrator.migrate_batch(people, "Nobody", "1.0.0", "2.0.0")

    run(test)


def test_bad_records_can_be_skipped(run: Run) -> None:
    people = [person(0), broken_step(1), person(2)]
    rejects: list[int] = []

    async def test(migrator: AsyncMigrator) -> None:
        models = await migrator.migrate_batch(
            people, *HOP, on_error="skip", on_reject=lambda reject: rejects.append(reject.index)
        )
        assert models == manager.migrate_batch([people[0], people[2]], *HOP)

    run(test)
    assert rejects == [1]


def test_error_of_an_asynchronous_source_is_raised(run: Run) -> None:
    async def source() -> AsyncIterator[Any]:
        for index in range(10):
            yield person(index)
        raise OSError("the service is gone")

    async def test(migrator: AsyncMigrator) -> None:
        got = []
        with pytest.raises(OSError, match="the service is gone"):
            async for model in migrator.migrate_batch_streaming(source(), *HOP, chunk_size=3):
                got.append(model)
        assert got == manager.migrate_batch([person(index) for index in range(10)], *HOP)

    run(test)


# --- cancelling -------------------------------------------------------------------------------


def test_cancelling_withdraws_what_is_pending(run: Run, fleet: Fleet) -> None:
    source = Endless("sleep:5 x")

    async def test(migrator: AsyncMigrator) -> None:
        reader = asyncio.create_task(migrator.migrate_batch(source, *HOP, chunk_size=1))
        await eventually(lambda: fleet.broker.llen(fleet.settings.queue), "chunks wait")
        await asyncio.sleep(0)
        assert jobs_of(fleet)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        # The reader has waited for it, although a chunk runs for seconds.
        assert jobs_of(fleet) == []
        assert source.is_closed
        await no_threads_of_jobs()

    run(test)


@pytest.mark.slow
def test_stream_that_is_dropped_is_withdrawn(run: Run, fleet: Fleet) -> None:
    source = Endless()

    async def test(migrator: AsyncMigrator) -> None:
        async for _ in migrator.migrate_batch_streaming(source, *HOP, chunk_size=5):
            break
        await eventually(lambda: not jobs_of(fleet) and not threads_of_jobs(), "it is withdrawn")
        await eventually(lambda: source.is_closed, "the source is closed")

    run(test)


def test_closing_ends_open_streams(fleet: Fleet) -> None:
    async def test() -> None:
        async with AsyncMigrator(Migrator(manager, settings=fleet.settings)) as migrator:
            stream = migrator.migrate_batch_streaming(Endless(), *HOP, chunk_size=5)
            await anext(stream)
            unread = migrator.migrate_batch_streaming(Endless(), *HOP)
        assert jobs_of(fleet) == []
        await no_threads_of_jobs()
        for cut in (stream, unread):
            with pytest.raises(MigratorClosedError):
                await anext(cut)

    asyncio.run(test())


async def no_threads_of_jobs() -> None:
    """Wait for the end of threads that have reported their result: it is their last act."""
    await eventually(lambda: not threads_of_jobs(), "the threads end")


def threads_of_jobs() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "migration"]


# --- files ------------------------------------------------------------------------------------


def test_file_is_migrated_or_leaves_nothing(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    people = [person(index) for index in range(500)]
    source.write_text("".join(json.dumps(record) + "\n" for record in people))
    slow = tmp_path / "slow.jsonl"
    slow.write_text(json.dumps({"name": "sleep:5 x", "age": 1}) + "\n")

    async def test(migrator: AsyncMigrator) -> None:
        report = await migrator.migrate_file(source, target, *HOP)
        assert (report.state, report.records) == (JobState.SUCCEEDED, 500)
        lines = target.read_text().splitlines()
        assert lines == [model.model_dump_json() for model in manager.migrate_batch(people, *HOP)]
        target.unlink()
        job = asyncio.create_task(migrator.run_file(slow, target, *HOP))
        await eventually(lambda: jobs_of(fleet), "it runs")
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "slow.jsonl"]

    run(test)


# --- under FastAPI ----------------------------------------------------------------------------


async def lines(models: AsyncIterator[Any]) -> AsyncIterator[str]:
    async for model in models:
        yield model.model_dump_json() + "\n"


def app_of(fleet: Fleet, sources: list[Endless]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncMigrator(Migrator(manager, settings=fleet.settings)) as migrator:
            app.state.migrator = migrator
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/migrate")
    async def migrate(people: list[dict[str, Any]], request: Request) -> StreamingResponse:
        stream = request.app.state.migrator.migrate_batch_streaming(people, *HOP, chunk_size=50)
        return StreamingResponse(lines(stream), media_type="application/jsonl")

    @app.get("/endless")
    async def endless(request: Request) -> StreamingResponse:
        sources.append(Endless())
        stream = request.app.state.migrator.migrate_batch_streaming(sources[-1], *HOP, chunk_size=5)
        return StreamingResponse(lines(stream), media_type="application/jsonl")

    return app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started or serving.done(), "the server listens")
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


def test_fastapi_streams_a_migration_as_its_response(fleet: Fleet) -> None:
    people = [person(index) for index in range(2000)]

    async def test() -> None:
        async with served(app_of(fleet, [])) as client:
            response = await client.post("/migrate", json=people)
        expected = [model.model_dump_json() for model in manager.migrate_batch(people, *HOP)]
        assert response.text.splitlines() == expected

    asyncio.run(test())
    assert jobs_of(fleet) == []


def test_fastapi_withdraws_the_job_of_a_client_that_leaves(fleet: Fleet) -> None:
    sources: list[Endless] = []

    async def test() -> None:
        async with served(app_of(fleet, sources)) as client:
            async with client.stream("GET", "/endless") as response:
                received = response.aiter_lines()
                first = [json.loads(await anext(received)) for _ in range(20)]
                assert len(jobs_of(fleet)) == 1
            assert {line["last_name"] for line in first} == {"Lovelace"}
            await eventually(lambda: jobs_of(fleet) == [], "the job is withdrawn")
            await eventually(lambda: sources[0].is_closed, "its source is closed")

    asyncio.run(test())
