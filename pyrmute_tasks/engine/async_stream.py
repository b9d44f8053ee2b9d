"""The outputs of a job in a thread, as an asynchronous iterator; asynchronous sources for it."""

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Generic, Self, TypeAlias, TypeVar

from pyrmute_tasks.engine.handover import Handover, HandoverClosedError
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.stopping import JobStopped, Stop, stoppable
from pyrmute_tasks.engine.stream import Stream
from pyrmute_tasks.engine.threaded_sources import in_thread
from pyrmute_tasks.errors import MigratorClosedError
from pyrmute_tasks.records import RecordLike

__all__ = ["AsyncStream", "Records", "StreamingCall", "run_in_thread"]

Output = TypeVar("Output")
Result = TypeVar("Result")

Records: TypeAlias = Iterable[RecordLike] | AsyncIterable[RecordLike]
"""A source for an event loop."""

StreamingCall: TypeAlias = Callable[[Iterable[RecordLike]], Stream[Output]]

_CLOSE_S: Final = 5.0  # a source that blocks is not waited for any longer


class AsyncStream(AsyncIterator[Output]):
    """The outputs of a streaming call, in order: ``async for output in stream``.

    The job begins with the first output that is asked for, and runs ahead of its reader by a window
    and 256 outputs. If the reader is cancelled while it waits, or the stream is dropped, what is
    pending is withdrawn within about a second. Use it as an ``async with`` context, or call
    `aclose`, to wait for that. Tasks may share a stream: each output goes to one of them.

    Args:
        call: Returns the outputs of records; called and read in a thread.
        records: The source.

    Example:
        ```python
        users = migrator.migrate_batch_streaming(rows, "User", "1.0.0", "2.0.0")
        async with users:
            async for user in users:
                await save(user)
        ```
    """

    def __init__(self, call: StreamingCall[Output], records: Records) -> None:
        self._call = call
        self._records = records
        self._taken: deque[Output] = deque()
        self._job: _Job[Output] | None = None
        self._is_over = False
        self._cut_by: Exception | None = None

    @property
    def report(self) -> JobReport | None:
        """The report of this call's job, as of now; None before the job has begun."""
        stream = self._job.stream if self._job is not None else None
        return None if stream is None else stream.report

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Output:
        """Return the next output.

        Raises:
            StopAsyncIteration: At the end.
            MigratorClosedError: If a task was cancelled that waited for an output before, or the
                `AsyncMigrator` was closed.
            Exception: As the call that made the stream says.
        """
        if self._taken:
            return self._taken.popleft()
        if self._is_over:
            raise self._cut_by or StopAsyncIteration
        if self._job is None:
            self._job = _Job(asyncio.get_running_loop(), self._call, self._records)
        try:
            # Another task may have taken some meanwhile, and not returned them yet.
            self._taken.extend(await self._job.outputs.take_async())
        except HandoverClosedError:
            self._is_over = True
            raise self._cut_by or StopAsyncIteration from None
        except StopAsyncIteration as error:  # of a callback, say: it is not the end
            self._end_with(error)
            raise RuntimeError("a stream raised StopAsyncIteration") from error
        except BaseException as error:
            self._end_with(error)
            raise
        if self._taken:
            return self._taken.popleft()
        self._is_over = True
        raise StopAsyncIteration

    def _end_with(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError) and not self._is_over:
            self._cut_by = MigratorClosedError(
                "this stream has ended before its last output: a task was cancelled that waited "
                "for the next one"
            )
        self._is_over = True
        if self._job is not None:
            self._job.stop()

    async def __aenter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the job and wait until it is withdrawn; a source that blocks is not waited for."""
        self._is_over = True
        self._taken.clear()
        if self._job is not None:
            self._job.stop()
            await asyncio.wait((asyncio.wrap_future(self._job.done),), timeout=_CLOSE_S)

    async def cut(self, error: Exception) -> None:
        """End the job like `aclose`; a reader that goes on gets `error`.

        Args:
            error: What to raise, unless the stream has ended.
        """
        if not self._is_over:
            self._cut_by = error
        await self.aclose()

    def __del__(self) -> None:
        if self._job is not None:
            self._job.stop()


class _Job(Generic[Output]):
    """A job in a thread of its own, which does not keep its stream alive.

    Attributes:
        outputs: Hands its outputs over.
        done: Set when it has ended.
        stream: The outputs in the thread; None before it has begun.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        call: StreamingCall[Output],
        records: Records,
    ) -> None:
        self.outputs: Handover[Output] = Handover(loop)
        self.stream: Stream[Output] | None = None
        self._source: _AsyncSource | None = None
        self._stop = Stop()
        given: Iterable[RecordLike]
        if isinstance(records, AsyncIterable):
            self._source = _AsyncSource(records, loop)
            given = in_thread(self._source)
        else:
            given = records if isinstance(records, Sequence) else in_thread(records)
        self.done = _begin(self._run, call, given)

    def stop(self) -> None:
        """End it, without waiting."""
        self._stop.request()
        self.outputs.close()
        if self._source is not None:
            self._source.close()

    def _run(self, call: StreamingCall[Output], records: Iterable[RecordLike]) -> None:
        try:
            self.stream = call(records)
            with stoppable(self._stop), contextlib.closing(self.stream):
                for output in self.stream:
                    self.outputs.put(output)
        except (JobStopped, HandoverClosedError):
            self.outputs.end()
        except BaseException as error:
            self.outputs.end(error)
        else:
            self.outputs.end()


class _AsyncSource(Iterator[RecordLike]):
    """The records of an asynchronous source, for a thread."""

    def __init__(self, records: AsyncIterable[RecordLike], loop: asyncio.AbstractEventLoop) -> None:
        self._records = records
        self._loop = loop
        self._handover: Handover[RecordLike] = Handover(loop)
        self._taken: Iterator[RecordLike] = iter(())
        self._context = contextvars.copy_context()
        self._reader: asyncio.Task[None] | None = None
        self._has_begun = self._is_closed = False

    def __next__(self) -> RecordLike:
        for record in self._taken:
            return record
        if not self._has_begun:
            self._has_begun = True
            self._loop.call_soon_threadsafe(self._begin, context=self._context)
        try:
            self._taken = iter(self._handover.take())
        except HandoverClosedError:
            raise StopIteration from None
        return next(self._taken)

    def close(self) -> None:
        """Read no further, and close the source; from any thread."""
        self._is_closed = True
        self._handover.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks with it
            self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        if not self._is_closed:
            self._reader = self._loop.create_task(self._read())

    def _cancel(self) -> None:
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        try:
            records = aiter(self._records)
            try:
                async for record in records:
                    await self._handover.put_async(record)
            finally:
                aclose = getattr(records, "aclose", None)
                if aclose is not None:
                    await aclose()
        except HandoverClosedError:
            pass
        # Also a `CancelledError` of a task that the source waited for: a loop would raise it.
        except BaseException as error:
            self._handover.end(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._handover.end()


def _begin(function: Callable[..., Result], *args: object) -> "Future[Result]":
    """Call a function in a thread of its own, in a copy of this context."""
    done: Future[Result] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            done.set_result(context.run(function, *args))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="migration", daemon=True).start()
    return done


async def run_in_thread(
    function: Callable[..., Result], *args: object, **options: object
) -> Result:
    """Call a function that runs jobs, in a thread; cancelling this ends them, and waits for it."""
    stop = Stop()

    def run() -> Result:
        with stoppable(stop):
            return function(*args, **options)

    done = asyncio.wrap_future(_begin(run))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        stop.request()
        await asyncio.wait((done,), timeout=_CLOSE_S)
        raise
