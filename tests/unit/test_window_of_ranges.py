"""The window counts unsettled ranges: a straggler keeps no other range from running."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import RAISE, ErrorPolicy
from pyrmute_tasks.engine.events import ChunkSubmitted, Event, Observers
from pyrmute_tasks.engine.pipeline import run_ordered
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.failures import RecordFailure, Stage

CHUNKS = 40
WINDOW = Window(chunks=4, size_bytes=100)


@dataclass
class AllButFirst:
    """Settles everything at once, except the first chunk, which comes last."""

    fails: int | None = None
    all_have_rejects: bool = False
    held: list[int] = field(default_factory=list)
    most_underway: int = 0
    cancelled_from: int | None = None

    def submit(self, chunk: Chunk[None], /) -> None:
        self.held.append(chunk.index)
        self.most_underway = max(self.most_underway, len(self.held))

    def collect(self, *, wait: bool) -> Iterable[Outcome[int]]:
        if not wait:
            return []
        others = [index for index in self.held if index]
        found = others[:1] or self.held[:1]
        self.held = [index for index in self.held if index not in found]
        return map(self._outcome, found)

    def _outcome(self, index: int) -> Outcome[int]:
        failure = RecordFailure.of(index, Stage.STEP, "", ValueError())
        if index == self.fails:
            return Outcome(index, 0, index, (failure,), start=index)
        if self.all_have_rejects:
            return Outcome(index, 0, index, (failure,), size_bytes=30, start=index)
        return Outcome(index, 1, index, size_bytes=1000)

    def cancel(self, first: int) -> None:
        self.cancelled_from = first
        self.held = [index for index in self.held if index < first]


class Keep:
    def receive(self, chunk: Chunk[None], outcome: Outcome[int], /) -> Outcome[int]:
        return outcome

    def cut(self, outputs: int, count: int, /) -> int:
        return outputs


def chunks(*, is_range: bool) -> Generator[Chunk[None], None, None]:
    for index in range(CHUNKS):
        yield Chunk(index, index * 1000, 1000, None, 1000, is_range=is_range)


def run(
    executor: AllButFirst, *, is_range: bool, policy: ErrorPolicy = RAISE
) -> tuple[list[int], int]:
    """Return the deliveries, and the number of chunks submitted before the first."""
    submitted = 0
    before = -1

    def count(event: Event, /) -> None:
        nonlocal submitted
        submitted += isinstance(event, ChunkSubmitted)

    delivered = []
    for outcome in run_ordered(
        chunks(is_range=is_range),
        executor,
        lambda: WINDOW,
        sink=Keep(),
        observers=Observers((count,)),
        policy=policy,
    ):
        before = submitted if before < 0 else before
        delivered.append(outcome.outputs)
    return delivered, before


def test_straggler_keeps_no_range_from_running() -> None:
    executor = AllButFirst()
    delivered, before = run(executor, is_range=True)
    assert delivered == list(range(CHUNKS))
    assert before == CHUNKS
    assert executor.most_underway == WINDOW.chunks


def test_failures_that_wait_for_a_straggler_take_room() -> None:
    executor = AllButFirst(all_have_rejects=True)
    delivered, before = run(executor, is_range=True, policy=ErrorPolicy.skip())
    assert delivered == list(range(CHUNKS))
    # The fourth that has settled fills the window of 100 bytes; with it three others run.
    assert 5 <= before <= 4 + WINDOW.chunks


def test_straggler_holds_back_chunks_whose_bytes_are_kept() -> None:
    delivered, before = run(AllButFirst(), is_range=False)
    assert delivered == list(range(CHUNKS))
    assert before == 1  # each is larger than the window, and so alone


def test_failure_ends_a_job_of_ranges_like_any_other() -> None:
    executor = AllButFirst(fails=7)
    delivered, _ = run(executor, is_range=True)
    assert delivered == list(range(8))
    assert executor.cancelled_from == 8
