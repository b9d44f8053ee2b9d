# Above 400 lines: the rules of a job's flow, which are read together, and its protocols.
"""The pipeline: chunks run in any order and are delivered in theirs, within a window.

`run_ordered` alone knows about the window, the reorder buffer, failing fast and cancelling. It
uses the three methods of `ChunkExecutor`, so a thread pool and a Celery fleet follow the same
rules, and the rules are tested without either.

The rules:

* A slot of the window is taken when a chunk is submitted and freed when it has been *delivered
  in order*, so one slow chunk cannot make the buffer behind it grow.
* A range takes its slot only until it has settled: its outcome is some hundred bytes unless
  records failed, and a straggler must not keep others from running.
* Nothing is read from the source unless a slot is free; the consumer's pull drives it all.
* After a failure in chunk *k* nothing behind *k* is submitted, and pending chunks behind it are
  cancelled; everything before it is awaited and delivered, then the outputs before the failing
  record with the failure. A failure that arrives later but stands earlier replaces it: the
  failure is always the one a sequential run would meet.
* A policy that skips records lets the job go on: a record that failed has no output, and its
  failure is delivered in its place. Failures are judged when their chunk is delivered, in the order
  of the input; the outputs behind the one that ends the job are cut off.
* A failure is data here; the consumer of the outcomes raises it.
* An error of the source itself is raised after everything read before it was delivered.
* A source is read in the consumer's thread and may block it; if outputs wait meanwhile, an event
  tells. A source with a thread of its own
  (`threaded_sources`) is asked for one chunk when the window has room; outcomes that arrive
  meanwhile are delivered at once.
* Whenever it waits, it looks about once a second whether another thread has asked it to stop
  (`stopping`).
* A pace (`pace`) holds chunks back before they are submitted; outcomes that arrive meanwhile are
  delivered at once.
* Before each wait, however brief, observers hear what it is for.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import RAISE, ErrorPolicy, FailureJudge
from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkSettled,
    ChunkSubmitted,
    Observers,
    RecordIsolated,
    SourceBlocked,
    Wait,
    WaitBegan,
)
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace, Pacer
from pyrmute_tasks.engine.stopping import Stop
from pyrmute_tasks.engine.threaded_sources import ConvertedReader
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import ProcessDiedError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.logs import log

__all__ = ["ChunkExecutor", "ChunkResult", "Sink", "run_ordered"]

In = TypeVar("In")
Out = TypeVar("Out")
Delivered = TypeVar("Delivered")

_GROWTH: Final = 2.0  # expected size of the first outcomes, relative to their inputs
_POLL_S: Final = 0.05  # poll interval for outcomes while a source with its own thread blocks
_BLOCKED_S: Final = 1.0  # a source that returns sooner is not reported
_HINT_S: Final = 10.0  # a longer block is logged, once a job
_WEIGHT: Final = 0.3  # of the newest outcome in the moving average of sizes
_SOURCE: Final = WaitBegan(Wait.SOURCE)
_WORKERS: Final = WaitBegan(Wait.WORKERS)
_OUTPUT: Final = WaitBegan(Wait.OUTPUT)
_PUBLISH: Final = WaitBegan(Wait.PUBLISH)


@dataclass(frozen=True, slots=True)
class ChunkResult(Generic[Delivered]):
    """A chunk's results, judged and in order.

    Attributes:
        chunk: The chunk, without its payload.
        start: Index of its first record in the whole input.
        count: How many outputs there are.
        outputs: The outputs, in order.
        rejects: The records that were skipped, in order.
        failure: The record that ended the job, if one did; nothing behind it is delivered.
        exceeded: The limit of the policy that the failure exceeded, in words; empty if none.
    """

    chunk: Chunk[None]
    start: int
    count: int
    outputs: Delivered
    rejects: tuple[RecordFailure, ...] = ()
    failure: RecordFailure | None = None
    exceeded: str = ""

    @property
    def index(self) -> int:
        """The chunk's position among the job's chunks."""
        return self.chunk.index

    def position_of(self, number: int) -> int:
        """Return how many of the outputs stand before the reject of that number, from 0."""
        return self.rejects[number].index - self.start - number


class Sink(Protocol[Out, Delivered]):
    """Converts outcomes for delivery."""

    def receive(self, chunk: Chunk[Any], outcome: Outcome[Out], /) -> Outcome[Delivered]:
        """Return the outcome to deliver for a chunk.

        Called once a chunk and in order. Decodes outputs, and may find failures that were not
        looked for where the chunk ran. The chunk's payload is gone, unless records failed that the
        policy may skip.
        """

    def cut(self, outputs: Delivered, count: int, /) -> Delivered:
        """Return the first `count` outputs of a chunk, in which the job ends; fewer than all."""


class ChunkExecutor(Protocol[In, Out]):
    """Runs chunks."""

    def submit(self, chunk: Chunk[In], /) -> None:
        """Accept a chunk, without waiting for it to run."""

    def collect(self, *, wait: bool) -> Iterable[Outcome[Out]]:
        """Return the outcomes that arrived since the last call, in any order.

        Repeated ones are ignored.

        Args:
            wait: Block until there is at least one, or for about a second. Otherwise this is a
                quick look between two reads of the source, and may always return nothing.
        """

    def cancel(self, first: int) -> None:
        """Forget the chunks from index `first` on; their outcomes are not wanted."""


def run_ordered(
    chunks: Iterator[Chunk[In]] | ConvertedReader[Chunk[In]],
    executor: ChunkExecutor[In, Out],
    window: Callable[[], Window],
    *,
    sink: Sink[Out, Delivered],
    observers: Observers | None = None,
    policy: ErrorPolicy = RAISE,
    stop: Stop | None = None,
    judge: FailureJudge | None = None,
    pace: Pace = FULL_SPEED,
) -> Generator[ChunkResult[Delivered], None, None]:
    """Run `chunks` through `executor` and yield their results in order.

    Args:
        chunks: The source, read lazily; closed at the end if possible.
        executor: Runs them. Chunks that are pending when this ends are cancelled.
        window: Returns the current window; a fleet may grow and shrink.
        sink: Converts each outcome in order, right before delivery, in this thread.
        observers: Called with the job's events.
        policy: Which failures of records the job survives.
        stop: Ends the run from another thread.
        judge: Judges failures; one that goes on from an earlier run, by default a new one.
        pace: How fast chunks may be submitted.

    Yields:
        Results in order. Only the last one may have a failure: that of the first record in the
        input that the policy does not skip, with the outputs before that record.

    Raises:
        Exception: The source's, after everything read before it is delivered.
        JobStopped: If `stop` was requested; pending chunks are cancelled.
    """
    notify = observers or Observers()
    pacer = Pacer(pace)
    flow = _Flow(chunks, executor, window, notify, stop or Stop(), pacer, skips=policy.skips)
    judge = judge or FailureJudge(policy)
    try:
        while True:
            flow.fill()
            if not flow.held:
                break
            found = flow.next_in_order()
            if found is None:
                continue
            chunk, outcome = found
            result = _judged(chunk, sink.receive(chunk, outcome), judge, sink)
            if result.failure is not None:
                flow.stop_behind(chunk.index)
            flow.deliver(result)
            yield result
            flow.release(result)
            if result.failure is not None:
                return
        if flow.source_error is not None:
            raise flow.source_error
        flow.wait_for(_PUBLISH)
    finally:
        flow.close()


def _judged(
    chunk: Chunk[Any], outcome: Outcome[Delivered], judge: FailureJudge, sink: Sink[Any, Delivered]
) -> ChunkResult[Delivered]:
    """Return the deliverable outputs of a chunk: all, or those before the end of the job."""
    bare = chunk.without_payload()
    start = chunk.start if outcome.start is None else outcome.start
    failures, outputs = outcome.failures, outcome.outputs
    survivable = len(failures) - outcome.ends_early(chunk)
    for number, failure in enumerate(failures):
        if not judge(failure) or number == survivable:
            count, failures = failure.index - start - number, failures[:number]
            if count < outcome.count:
                outputs = sink.cut(outputs, count)
            return ChunkResult(bare, start, count, outputs, failures, failure, judge.exceeded)
    return ChunkResult(bare, start, outcome.count, outputs, failures)


class _Flow(Generic[In, Out]):
    """The state of one call of `run_ordered`."""

    def __init__(
        self,
        chunks: Iterator[Chunk[In]] | ConvertedReader[Chunk[In]],
        executor: ChunkExecutor[In, Out],
        window: Callable[[], Window],
        notify: Observers,
        stop: Stop,
        pacer: Pacer,
        *,
        skips: bool,
    ) -> None:
        # Submitted and not delivered, by index, in order; without payload once the outcome is
        # there, since the consumer may be slow, unless records of it may be skipped.
        self.held: dict[int, Chunk[In] | Chunk[None]] = {}
        self._skips = skips
        self.source_error: Exception | None = None
        self._charges: dict[int, int] = {}  # bytes that each takes of the window
        self._held_bytes = 0  # their sum
        self._growth = _GROWTH  # moving average of outcome size relative to input size
        self._waiting: Chunk[In] | None = None  # read, but too large for the free window
        self._arrived: dict[int, Outcome[Out]] = {}
        self._aside: set[int] = set()  # ranges that have arrived, and take no slot any more
        self._next = 0
        self._limit: int | None = None  # index of the earliest chunk known to have failed
        self._chunks = chunks
        self._exhausted = False
        self._hinted = False
        self._executor = executor
        self._window = window
        self._notify = notify
        self._stop = stop
        self._pacer = pacer
        self._waits_for: WaitBegan | None = None

    def wait_for(self, wait: WaitBegan) -> None:
        """Notify observers of a wait, unless it is the one that they know of."""
        if wait != self._waits_for:
            self._waits_for = wait
            self._notify(wait)

    def fill(self) -> None:
        """Submit chunks while the window has room.

        Stops early when the next chunk in order has arrived: with a slow source, finished
        outputs do not wait for the window to fill.
        """
        window = self._window()
        while self._limit is None and len(self.held) - len(self._aside) < window.chunks:
            chunk = self._waiting or self._read()
            if chunk is None:
                return
            charge = 0 if chunk.is_range else int(chunk.size_bytes * max(1.0, self._growth))
            if self.held and self._held_bytes + charge > window.size_bytes:
                self._waiting = chunk
                return
            self._waiting = chunk
            if not self._keep_pace():
                return
            self._waiting = None
            self.held[chunk.index] = chunk
            self._charge(chunk.index, charge)
            self.wait_for(_WORKERS)  # it may hang at a store that is away: not at the source
            self._executor.submit(chunk)
            self._pacer.submitted(chunk)
            self._notify(ChunkSubmitted(chunk.index, chunk.start, chunk.count))
            for outcome in self._executor.collect(wait=False):
                self._accept(outcome)
            if self._next in self._arrived:
                return

    def _keep_pace(self) -> bool:
        """Wait until a chunk may be submitted; False once something else can be done before."""
        while (hold := self._pacer.hold()) is not None:
            wait, wait_s = hold
            self.wait_for(wait)
            self._stop.check()
            for outcome in self._executor.collect(wait=False) if self.held else ():
                self._accept(outcome)
            if self._limit is not None or self._next in self._arrived:
                return False
            time.sleep(min(max(wait_s, 0.0), _POLL_S))
        return True

    def _read(self) -> Chunk[In] | None:
        if self._exhausted:
            return None
        self.wait_for(_SOURCE)
        if isinstance(self._chunks, ConvertedReader):
            return self._wait_for_source(self._chunks)
        began = time.monotonic()
        chunk = self._ask(partial(next, self._chunks))
        if chunk is None:
            return None
        self._look_behind(time.monotonic() - began)
        return chunk if self._limit is None else None

    def _ask(self, read: Callable[[], Chunk[In] | None]) -> Chunk[In] | None:
        """Return the next chunk if the source has one; note its end or its error."""
        try:
            return read()
        except StopIteration:
            self._exhausted = True
        except Exception as error:
            self._exhausted = True
            self.source_error = error
        return None

    def _look_behind(self, blocked_s: float) -> None:
        """Tell if outputs that could be delivered have waited while the source blocked."""
        if blocked_s < _BLOCKED_S or not self.held:
            return
        for outcome in self._executor.collect(wait=False):
            self._accept(outcome)
        if self._next not in self._arrived:
            return
        self._notify(SourceBlocked(blocked_s))
        if blocked_s >= _HINT_S and not self._hinted:
            self._hinted = True
            log(
                logging.WARNING,
                "source_blocked",
                "the source blocked while finished outputs waited; if another thread may read it, "
                "wrap it in in_thread(...)",
                seconds=round(blocked_s, 1),
            )

    def _wait_for_source(self, reader: ConvertedReader[Chunk[In]]) -> Chunk[In] | None:
        """Return the next chunk, or None once an outcome can be delivered."""
        while True:
            self._stop.check()
            chunk = self._ask(partial(reader.poll, _POLL_S))
            if chunk is not None or self._exhausted:
                return chunk
            for outcome in self._executor.collect(wait=False) if self.held else ():
                self._accept(outcome)
            if self._limit is not None or self._next in self._arrived:
                return None

    def next_in_order(self) -> tuple[Chunk[Any], Outcome[Out]] | None:
        """Wait for the outcome of the earliest undelivered chunk; None if slots were freed."""
        while self._next not in self._arrived:
            self._stop.check()
            self.wait_for(_WORKERS)
            aside = len(self._aside)
            for outcome in self._executor.collect(wait=True):
                self._accept(outcome)
            if len(self._aside) > aside and self._next not in self._arrived:
                return None
        return self.held[self._next], self._arrived.pop(self._next)

    def _accept(self, outcome: Outcome[Out]) -> None:
        index = outcome.index
        if index not in self.held or index in self._arrived:
            return
        chunk = self.held[index]
        failed_records = bool(outcome.failures)
        failed = outcome.ends_early(chunk) if self._skips else failed_records
        self._notify(ChunkSettled(index, chunk.count, outcome.seconds, outcome.worker, failed))
        self._arrived[index] = outcome
        if chunk.is_range and not outcome.worker:
            self._pacer.restored(chunk)
        input_bytes = chunk.size_bytes
        keeps_payload = self._skips and failed_records
        if not keeps_payload:
            self.held[index] = chunk.without_payload()
        if chunk.is_range:
            self._aside.add(index)
            input_bytes = 0
        if keeps_payload:
            self._charge(index, input_bytes + outcome.size_bytes)
        elif not chunk.is_range:
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
        """Cancel the chunks behind failed chunk `index`, unless that is done already."""
        if self._limit is not None and self._limit <= index:
            return
        self._limit = index
        self._waiting = None
        self._executor.cancel(index + 1)
        for late in [late for late in self.held if late > index]:
            ran = self._arrived.pop(late, None) is not None
            self._charge(late, 0)
            self._aside.discard(late)
            self._notify(ChunkDiscarded(late, self.held.pop(late).count, ran))

    def deliver(self, result: ChunkResult[Any]) -> None:
        """Notify observers before a chunk's outputs are taken."""
        for reject in result.rejects:
            if isinstance(reject.error, ProcessDiedError):
                self._notify(RecordIsolated(reject.index, reject.source, reject.error.how))
        self.wait_for(_OUTPUT)

    def release(self, result: ChunkResult[Any]) -> None:
        """Free the slot of a delivered chunk."""
        chunk = result.chunk
        self._pacer.delivered(chunk, result.count + len(result.rejects))
        del self.held[chunk.index]
        self._aside.discard(chunk.index)
        self._charge(chunk.index, 0)
        self._next += 1
        done_bytes = chunk.size_bytes if result.failure is None else 0
        rejected = len(result.rejects)
        self._notify(ChunkDelivered(chunk.index, result.count, done_bytes, rejected))

    def close(self) -> None:
        """Cancel pending chunks and close the source."""
        try:
            if self.held:
                self._executor.cancel(self._next)
        finally:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
