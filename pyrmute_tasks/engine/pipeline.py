"""The engine: chunks go out in any order and come back in theirs, within a window.

`run_ordered` is the one place that knows about the window, the reorder buffer, failing
fast and cancelling. It works against the three methods of `ChunkExecutor`, so a thread
pool and a Celery fleet run under the same rules, and the rules are tested without either.

The rules:

* A slot of the window is taken when a chunk is submitted and given back when it has been
  *delivered in order*, so one slow chunk cannot make the buffer behind it grow.
* Nothing is read from the source unless a slot is free; the consumer's pull drives it all.
* After a failure in chunk *k* nothing behind *k* is submitted and what is pending behind
  it is cancelled; everything before it is awaited and delivered, then the outputs before
  the failing record with the failure, and that is the end. A failure that arrives later but
  stands earlier takes its place: it is always the one a sequential run would meet.
* A failure is data here, whatever was raised. Whoever consumes the outcomes raises it.
* An error of the source itself is raised after everything read before it was delivered.
* A source is read by the consumer's thread, which it may block. One that has a thread of its own
  (`threaded`) is asked for one chunk when the window has room; what arrives meanwhile is
  delivered at once.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkSettled,
    ChunkSubmitted,
    Observers,
)
from pyrmute_tasks.engine.threaded_sources import ConvertedReader
from pyrmute_tasks.errors import ConfigurationError

__all__ = ["ChunkExecutor", "Sink", "Window", "run_ordered"]

In = TypeVar("In")
Out = TypeVar("Out")
Finished = TypeVar("Finished")

_MIN_CHUNKS: Final = 8
_MAX_CHUNKS: Final = 1024
_CHUNKS_PER_SLOT: Final = 4
_MAX_BYTES: Final = 64 * 1024 * 1024
_GROWTH: Final = 2.0  # what is expected of the first outcomes, in times of their inputs
_POLL_S: Final = 0.05  # how late an outcome may leave while a source with its own thread blocks
_WEIGHT: Final = 0.3  # of the newest outcome in what is expected of the next ones


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be between source and sink at once.

    Attributes:
        chunks: Chunks submitted and not yet delivered.
        size_bytes: Sum of the sizes of their inputs or, where they are larger, outcomes; those
            still to come are reckoned from those that came. A single chunk larger than this
            still passes, alone.

    Raises:
        ConfigurationError: If either is not positive.
    """

    chunks: int = _MIN_CHUNKS
    size_bytes: int = _MAX_BYTES

    def __post_init__(self) -> None:
        if self.chunks < 1 or self.size_bytes < 1:
            raise ConfigurationError("a window must admit at least one chunk and one byte")

    @classmethod
    def for_slots(cls, slots: int) -> "Window":
        """Return the default for an executor that runs `slots` chunks at a time.

        Four chunks a slot keep a slot busy while its last outcome travels, and let it run
        ahead of a sibling that is four times slower.
        """
        return cls(chunks=min(max(_CHUNKS_PER_SLOT * slots, _MIN_CHUNKS), _MAX_CHUNKS))


class Sink(Protocol[Out, Finished]):
    """What makes of an executor's outcomes what is delivered."""

    def finish(self, chunk: Chunk[None], outcome: Outcome[Out], /) -> Outcome[Finished]:
        """Return what is delivered of a chunk, whose payload is gone by now.

        Called once a chunk and in order. Decodes outputs, and may find a failure that nobody
        looked for where the chunk ran.
        """


class ChunkExecutor(Protocol[In, Out]):
    """Where chunks run."""

    def submit(self, chunk: Chunk[In], /) -> None:
        """Accept a chunk; must not wait for it to run."""

    def collect(self, *, wait: bool) -> Iterable[Outcome[Out]]:
        """Return the outcomes that have arrived since the last call, in any order.

        Repeated ones are ignored.

        Args:
            wait: Block until there is at least one. Otherwise this is a look in passing
                between two reads of the source, and may always return nothing.
        """

    def cancel(self, first: int) -> None:
        """Forget the chunks from index `first` on; their outcomes are no longer wanted."""


def run_ordered(
    chunks: Iterator[Chunk[In]] | ConvertedReader[Chunk[In]],
    executor: ChunkExecutor[In, Out],
    window: Callable[[], Window],
    *,
    sink: Sink[Out, Finished],
    observers: Observers | None = None,
) -> Generator[Outcome[Finished], None, None]:
    """Run `chunks` through `executor` and yield their outcomes in order.

    Args:
        chunks: The source, read lazily; closed at the end if it can be.
        executor: Where they run. Whatever is pending when this ends is cancelled.
        window: Says how much may be on its way now; a fleet may grow and shrink.
        sink: Finishes each outcome in order, right before delivery, in this thread.
        observers: Told what happens.

    Yields:
        Outcomes in order. Only the last one may have a failure: that of the failing record
        with the lowest index, with the outputs before that record.

    Raises:
        Exception: The source's, when everything read before it is delivered.
    """
    run = _Run(chunks, executor, window, observers or Observers())
    try:
        while True:
            run.fill()
            if not run.held:
                break
            chunk, outcome = run.next_in_order()
            finished = sink.finish(chunk, outcome)
            if _ends_job(finished):
                run.stop_behind(chunk.index)
            yield finished
            run.release(chunk, finished)
            if _ends_job(finished):
                return
        if run.source_error is not None:
            raise run.source_error
    finally:
        run.close()


def _ends_job(outcome: Outcome[Any]) -> bool:
    """Say whether nothing behind a chunk is wanted; the first failure ends a job."""
    return bool(outcome.failures)


class _Run(Generic[In, Out]):
    """The state of one `run_ordered`."""

    def __init__(
        self,
        chunks: Iterator[Chunk[In]] | ConvertedReader[Chunk[In]],
        executor: ChunkExecutor[In, Out],
        window: Callable[[], Window],
        tell: Observers,
    ) -> None:
        # Submitted and not delivered, by index, in order; without its payload once its outcome
        # is there, since a consumer may take long to come for that.
        self.held: dict[int, Chunk[In] | Chunk[None]] = {}
        self.source_error: Exception | None = None
        self._charges: dict[int, int] = {}  # what each of them takes of the window's bytes
        self._held_bytes = 0  # their sum
        self._growth = _GROWTH  # how many times its input an outcome is, of late
        self._waiting: Chunk[In] | None = None  # read, but too large for what is free
        self._arrived: dict[int, Outcome[Out]] = {}
        self._next = 0
        self._limit: int | None = None  # index of the earliest chunk known to have failed
        self._chunks = chunks
        self._exhausted = False
        self._executor = executor
        self._window = window
        self._tell = tell

    def fill(self) -> None:
        """Submit chunks while the window has room.

        Stops early when the next chunk in order has arrived: with a slow source the
        outputs that are ready should not wait for the window to fill.
        """
        window = self._window()
        while self._limit is None and len(self.held) < window.chunks:
            chunk = self._waiting or self._read()
            if chunk is None:
                return
            charge = int(chunk.size_bytes * max(1.0, self._growth))
            if self.held and self._held_bytes + charge > window.size_bytes:
                self._waiting = chunk
                return
            self._waiting = None
            self.held[chunk.index] = chunk
            self._charge(chunk.index, charge)
            self._executor.submit(chunk)
            self._tell(ChunkSubmitted(chunk.index, chunk.start, chunk.count))
            for outcome in self._executor.collect(wait=False):
                self._accept(outcome)
            if self._next in self._arrived:
                return

    def _read(self) -> Chunk[In] | None:
        if self._exhausted:
            return None
        try:
            if isinstance(self._chunks, ConvertedReader):
                return self._wait_for_source(self._chunks)
            return next(self._chunks)
        except StopIteration:
            self._exhausted = True
        except Exception as error:
            self._exhausted = True
            self.source_error = error
        return None

    def _wait_for_source(self, reader: ConvertedReader[Chunk[In]]) -> Chunk[In] | None:
        """Return the next chunk, or None as soon as there is something to deliver."""
        while True:
            chunk = reader.poll(_POLL_S)
            if chunk is not None:
                return chunk
            for outcome in self._executor.collect(wait=False) if self.held else ():
                self._accept(outcome)
            if self._limit is not None or self._next in self._arrived:
                return None

    def next_in_order(self) -> tuple[Chunk[None], Outcome[Out]]:
        """Wait for the outcome of the earliest chunk that is not delivered."""
        while self._next not in self._arrived:
            for outcome in self._executor.collect(wait=True):
                self._accept(outcome)
        return self.held[self._next].without_payload(), self._arrived.pop(self._next)

    def _accept(self, outcome: Outcome[Out]) -> None:
        index = outcome.index
        if index not in self.held or index in self._arrived:
            return
        failed = _ends_job(outcome)
        self._tell(
            ChunkSettled(index, self.held[index].count, outcome.seconds, outcome.worker, failed)
        )
        self._arrived[index] = outcome
        chunk = self.held[index] = self.held[index].without_payload()
        input_bytes = chunk.size_bytes
        self._charge(index, max(input_bytes, outcome.size_bytes))
        if failed:
            self.stop_behind(index)
        elif input_bytes:
            self._growth += _WEIGHT * (outcome.size_bytes / input_bytes - self._growth)

    def _charge(self, index: int, size_bytes: int) -> None:
        self._held_bytes += size_bytes - self._charges.pop(index, 0)
        if size_bytes:
            self._charges[index] = size_bytes

    def stop_behind(self, index: int) -> None:
        """Chunk `index` failed: cancel what is behind it, unless that is done already."""
        if self._limit is not None and self._limit <= index:
            return
        self._limit = index
        self._waiting = None
        self._executor.cancel(index + 1)
        for late in [late for late in self.held if late > index]:
            ran = self._arrived.pop(late, None) is not None
            self._charge(late, 0)
            self._tell(ChunkDiscarded(late, self.held.pop(late).count, ran))

    def release(self, chunk: Chunk[None], outcome: Outcome[Any]) -> None:
        """Give the slot of a delivered chunk back."""
        del self.held[chunk.index]
        self._charge(chunk.index, 0)
        self._next += 1
        done_bytes = 0 if _ends_job(outcome) else chunk.size_bytes
        self._tell(ChunkDelivered(chunk.index, outcome.count, done_bytes))

    def close(self) -> None:
        """Cancel whatever is still pending and close the source."""
        try:
            if self.held:
                self._executor.cancel(self._next)
        finally:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
