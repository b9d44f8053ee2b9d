"""Streams for event loops, over the calls of a `ModelManager`: their rules need no fleet."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from pyrmute_tasks import AsyncMigrator, ConfigurationError, Migrator, MigratorClosedError
from pyrmute_tasks.engine.async_stream import AsyncStream
from tests.people import manager, person

HOP = ("Person", "1.0.0", "2.0.0")
SOON_S = 20.0


def stream_of(records: Any, **options: Any) -> AsyncStream[Any]:
    def call(given: Any) -> Any:
        return manager.migrate_batch_data_streaming(given, *HOP, **options)

    return AsyncStream(call, records)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SOON_S))


async def all_of(stream: AsyncStream[Any]) -> list[Any]:
    return [output async for output in stream]


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [OSError, Odd, asyncio.CancelledError, GeneratorExit], ids=lambda error: error.__name__
)
def test_any_exception_of_an_asynchronous_source_is_raised(error: type[BaseException]) -> None:
    async def source() -> AsyncIterator[Any]:
        yield person(0)
        raise error

    async def test() -> None:
        with pytest.raises(error):
            await all_of(stream_of(source()))

    run(test)


def test_source_that_waits_for_a_cancelled_task_does_not_hang() -> None:
    async def source() -> AsyncIterator[Any]:
        yield person(0)
        task = asyncio.create_task(asyncio.sleep(SOON_S))
        task.cancel()
        await task

    async def test() -> None:
        with pytest.raises(asyncio.CancelledError):
            await all_of(stream_of(source()))

    run(test)


class NoIterator:
    def __aiter__(self) -> Any:
        return iter([])


def test_source_that_is_no_asynchronous_iterator_is_an_error() -> None:
    async def test() -> None:
        with pytest.raises(TypeError, match="async iterator"):
            await all_of(stream_of(NoIterator()))

    run(test)


@pytest.mark.parametrize("single", [person(0), "people.jsonl"], ids=["record", "path"])
def test_single_record_is_refused(single: Any) -> None:
    async def test() -> None:
        with pytest.raises(ConfigurationError, match="got a single"):
            await all_of(stream_of(single))

    run(test)


def test_tasks_that_share_a_stream_get_each_output_once() -> None:
    people = [person(index) for index in range(1000)]
    got: list[Any] = []

    async def read(stream: AsyncStream[Any]) -> None:
        async for output in stream:
            got.append(output)
            time.sleep(0.001)  # the thread goes on meanwhile
            await asyncio.sleep(0)

    async def test() -> None:
        stream = stream_of(people)
        await asyncio.gather(*(read(stream) for _ in range(4)))

    run(test)
    expected = manager.migrate_batch_data(people, *HOP)
    assert sorted(got, key=str) == sorted(expected, key=str)


def test_stream_that_a_cancelled_reader_ended_does_not_look_whole() -> None:
    go_on = threading.Event()

    def source() -> Iterator[Any]:
        yield person(0)
        go_on.wait(SOON_S)
        yield person(1)

    async def test() -> None:
        stream = stream_of(source())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await all_of(stream)
        go_on.set()
        for _ in range(2):
            with pytest.raises(MigratorClosedError, match="a task was cancelled that waited"):
                await anext(stream)

    run(test)


def test_stop_of_a_callback_is_not_the_end_of_the_stream() -> None:
    def stop(_: object) -> None:
        raise StopAsyncIteration

    async def test() -> None:
        with pytest.raises(RuntimeError, match="StopAsyncIteration"):
            await all_of(stream_of([person(0), {}], on_error="skip", on_reject=stop))

    run(test)


def test_migrator_is_closed_even_if_closing_is_cancelled() -> None:
    go_on = threading.Event()
    closed = threading.Event()

    def source() -> Iterator[Any]:
        yield person(0)
        go_on.wait(SOON_S)

    class Spied(Migrator):
        def start(self) -> None:
            pass

        def close(self) -> None:
            closed.set()
            super().close()

    async def use(leaving: asyncio.Event) -> None:
        async with AsyncMigrator(Spied("tests.people:manager")) as migrator:
            call = partial(
                manager.migrate_batch_data_streaming,
                name="Person",
                from_version="1.0.0",
                to_version="2.0.0",
            )
            stream = migrator._stream(call, source())
            await anext(stream)
            leaving.set()
        raise AssertionError(stream)

    async def test() -> None:
        leaving = asyncio.Event()
        task = asyncio.create_task(use(leaving))
        await leaving.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed.is_set()
        go_on.set()

    run(test)
