"""Sources read in a thread of their own."""

import contextvars
import threading
from collections.abc import Generator, Iterable, Iterator

import pytest

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.pipeline import run_ordered
from pyrmute_tasks.engine.threaded_sources import ConvertedReader, ThreadedReader, in_thread
from pyrmute_tasks.engine.window import Window
from tests.conftest import wait_until
from tests.unit.test_pipeline import KEEP, ScriptedExecutor, make_chunk

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


class Source:
    """A source whose chunks come on command."""

    def __init__(self, free: int = 0, error: BaseException | None = None, end: int = 100) -> None:
        self.gate = threading.Semaphore(free)
        self.error = error
        self.end = end
        self.read = 0
        self.threads: set[int] = set()
        self.closed_by = 0
        self.who = ""

    def __call__(self) -> Iterator[Chunk[int]]:
        self.who = WHO.get()
        try:
            for index in range(self.end):
                self.threads.add(threading.get_ident())
                self.read += 1
                assert self.gate.acquire(timeout=30)
                yield make_chunk(index)
            if self.error is not None:
                raise self.error
        finally:
            self.closed_by = threading.get_ident()


def reader_of(source: Source) -> ConvertedReader[Chunk[int]]:
    def same(chunk: Chunk[int]) -> Chunk[int]:
        return chunk

    reader: ThreadedReader[Chunk[int]] = ThreadedReader(source)  # type: ignore[arg-type]  # a generator it is
    return ConvertedReader(reader, same, next(reader))


def test_finished_outputs_leave_while_the_source_blocks() -> None:
    source = Source(free=3)
    executor = ScriptedExecutor()
    outcomes = run_ordered(reader_of(source), executor, lambda: Window(16), sink=KEEP)

    def complete() -> None:
        for index in range(3):
            executor.complete(index)

    timer = threading.Timer(0.2, complete)
    timer.start()
    assert [next(outcomes).index for _ in range(3)] == [0, 1, 2]
    assert source.read == 4  # and that one is waited for
    source.gate.release()
    executor.bad = {10}
    timer = threading.Timer(0.2, lambda: executor.complete(3))
    timer.start()
    failed = next(outcomes)
    assert failed.failure is not None
    assert failed.failure.index == 10
    assert list(outcomes) == []
    assert source.closed_by == 0  # it blocks
    source.gate.release()
    wait_until(lambda: source.closed_by, "the source is closed")
    assert {source.closed_by} == source.threads
    assert threading.get_ident() not in source.threads


def test_nothing_is_read_beyond_the_window() -> None:
    source = Source(free=1000)
    outcomes = run_ordered(reader_of(source), ScriptedExecutor(), lambda: Window(4), sink=KEEP)
    for delivered in range(50):
        next(outcomes)
        assert source.read <= delivered + 4 + 1
    outcomes.close()
    wait_until(lambda: source.closed_by, "the source is closed")


@pytest.mark.parametrize("error", [OSError("broke"), KeyboardInterrupt(), GeneratorExit()])
def test_source_error_is_raised_after_its_records(error: BaseException) -> None:
    source = Source(free=1000, error=error, end=5)
    outcomes = run_ordered(reader_of(source), ScriptedExecutor(), lambda: Window(2), sink=KEEP)
    got = []
    with pytest.raises(type(error)):
        for outcome in outcomes:
            got.append(outcome.index)
    # What is no `Exception` does not wait, as with a source without a thread.
    assert got == list(range(5 if isinstance(error, Exception) else len(got)))


class Failing(ScriptedExecutor):
    """Cannot be asked once the first chunk is submitted and looked for."""

    looks = 0

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[int]]]:
        self.looks += 1
        if self.looks == 2:
            raise ConnectionError("no store")
        return super().collect(wait=wait)


def test_executor_that_fails_while_the_source_blocks_ends_the_job_at_once() -> None:
    source = Source(free=1)
    outcomes = run_ordered(reader_of(source), Failing(), lambda: Window(4), sink=KEEP)
    with pytest.raises(ConnectionError, match="no store"):
        next(outcomes)
    source.gate.release()
    wait_until(lambda: source.closed_by, "the source is closed")


def test_a_source_sees_the_context_of_its_consumer() -> None:
    source = Source(free=1000, end=3)
    token = WHO.set("somebody")
    try:
        reader = reader_of(source)
    finally:
        WHO.reset(token)
    outcomes = run_ordered(reader, ScriptedExecutor(), lambda: Window(2), sink=KEEP)
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert source.who == "somebody"
    assert list(in_thread([1, 2])) == [1, 2]


def test_a_source_that_blocks_is_waited_for_once() -> None:
    may_go_on, is_read = threading.Event(), threading.Event()

    def blocking() -> Generator[int, None, None]:
        is_read.set()
        may_go_on.wait(30)
        yield 1

    reader = ThreadedReader(blocking)
    assert reader.poll(0) is None
    assert is_read.wait(30)
    try:
        reader.close()
        reader.close()
        assert reader._asked.qsize() == 1
    finally:
        may_go_on.set()
    wait_until(lambda: not reader._thread.is_alive(), "its thread has ended")
