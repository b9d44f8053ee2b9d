"""The engine's rules, tested over a scripted executor."""

from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pyrmute_tasks.engine import pipeline
from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import RAISE, ChunkFailures, ErrorPolicy
from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkSubmitted,
    Event,
    Observers,
    SourceBlocked,
)
from pyrmute_tasks.engine.job_tally import JobTally
from pyrmute_tasks.engine.pipeline import run_ordered
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.failures import RecordFailure, Stage, detach_failure

SIZE = 3  # records a chunk


def make_chunk(index: int, size_bytes: int = 0) -> Chunk[int]:
    return Chunk(index, index * SIZE, SIZE, index, size_bytes)


def fail(record: int) -> RecordFailure:
    """Return a record's failure; no policy skips that of every tenth record."""
    error = SystemExit if record % 10 == 9 else ValueError
    return RecordFailure.of(record, Stage.STEP, "", error(f"bad {record}"))


def ends_chunk(record: int) -> bool:
    """Return whether a record's failure says that its chunk cannot be run."""
    return record % 10 == 8


def make_outcome(
    index: int,
    bad: Collection[int] = (),
    *,
    skips: bool = False,
    records: Iterable[int] | None = None,
) -> Outcome[list[int]]:
    """Return a chunk's outcome: the indices of its good records as outputs."""
    start = index * SIZE
    failures, outputs = ChunkFailures(skips, detach_failure), []
    is_final = False
    for record in range(start, start + SIZE) if records is None else records:
        if record not in bad:
            outputs.append(record)
            continue
        goes_on = failures(fail(record))
        is_final = not goes_on or ends_chunk(record)
        if is_final:
            break
    return Outcome(index, len(outputs), outputs, tuple(failures.found), is_final=is_final)


class Keep:
    """Delivers outcomes unchanged."""

    def receive(self, chunk: Chunk[Any], outcome: Outcome[list[int]], /) -> Outcome[list[int]]:
        assert chunk.index == outcome.index
        return outcome

    def cut(self, outputs: list[int], count: int, /) -> list[int]:
        return outputs[:count]


KEEP = Keep()


@dataclass
class ScriptedExecutor:
    """Completes chunks on command; if it must wait with nothing done, the oldest."""

    bad: Collection[int] = ()
    skips: bool = False
    submitted: list[int] = field(default_factory=list)
    pending: dict[int, Chunk[int]] = field(default_factory=dict)
    arrivals: list[Outcome[list[int]]] = field(default_factory=list)
    cancelled_from: int | None = None

    def submit(self, chunk: Chunk[int], /) -> None:
        assert self.cancelled_from is None or chunk.index < self.cancelled_from
        self.submitted.append(chunk.index)
        self.pending[chunk.index] = chunk

    def complete(self, index: int) -> None:
        del self.pending[index]
        self.arrivals.append(make_outcome(index, self.bad, skips=self.skips))

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[int]]]:
        if wait and not self.arrivals:
            assert self.pending, "waiting for an outcome of nothing"
            self.complete(min(self.pending))
        arrived, self.arrivals = self.arrivals, []
        return arrived

    def cancel(self, first: int) -> None:
        self.cancelled_from = first if self.cancelled_from is None else self.cancelled_from
        self.cancelled_from = min(first, self.cancelled_from)
        self.pending = {index: chunk for index, chunk in self.pending.items() if index < first}


some_records = st.frozensets(st.integers(0, 12 * SIZE - 1), max_size=5)
policies = (
    st.just(RAISE)
    | st.just(ErrorPolicy.skip())
    | st.builds(ErrorPolicy.skip, max_errors=st.integers(0, 6))
)


class FlowMachine(RuleBasedStateMachine):
    """Completes, repeats and pulls in any order; every record may fail, under any policy."""

    @initialize(
        total=st.integers(0, 12),
        window=st.integers(1, 5),
        byte_limit=st.integers(1, 40),
        sizes=st.lists(st.integers(0, 20), min_size=12, max_size=12),
        bad=some_records,
        found_late=some_records,
        policy=policies,
        source_fails=st.booleans(),
    )
    def begin(
        self,
        total: int,
        window: int,
        byte_limit: int,
        sizes: list[int],
        bad: frozenset[int],
        found_late: frozenset[int],
        policy: ErrorPolicy,
        source_fails: bool,
    ) -> None:
        self.window, self.byte_limit, self.sizes = window, byte_limit, sizes
        self.total, self.source_fails = total, source_fails
        self.read = self.delivered = self.discarded = 0
        self.source_closed = False
        self.outputs: list[int] = []
        self.rejects: list[int] = []
        self.error: BaseException | None = None
        self.ended = self.left = False
        self.found_late, self.policy = found_late, policy
        self.executor = ScriptedExecutor(bad, policy.skips)
        self.bad = bad | found_late
        self.run = run_ordered(
            self.source(),
            self.executor,
            lambda: Window(window, byte_limit),
            sink=self,
            observers=Observers((self.observe,)),
            policy=policy,
        )

    def source(self) -> Generator[Chunk[int], None, None]:
        try:
            for index in range(self.total):
                self.read += 1
                yield make_chunk(index, self.sizes[index])
            if self.source_fails:
                raise OSError("the source broke")
        finally:
            self.source_closed = True

    def receive(self, chunk: Chunk[Any], outcome: Outcome[list[int]], /) -> Outcome[list[int]]:
        kept = chunk.payload is not None
        assert kept == bool(self.policy.skips and outcome.failures)
        skips = self.policy.skips
        late = make_outcome(chunk.index, self.found_late, skips=skips, records=outcome.outputs)
        if not late.failures:
            return outcome
        both = sorted((*outcome.failures, *late.failures), key=lambda failure: failure.index)
        last = late.failures[-1]
        if late.is_final:
            both = [failure for failure in both if failure.index <= last.index]
        return replace(late, failures=tuple(both), is_final=late.is_final or outcome.is_final)

    def cut(self, outputs: list[int], count: int, /) -> list[int]:
        assert count < len(outputs)
        return outputs[:count]

    def observe(self, event: Event) -> None:
        if isinstance(event, ChunkDelivered):
            self.delivered += 1
        if isinstance(event, ChunkDiscarded):
            self.discarded += 1

    @rule(data=st.data())
    @precondition(lambda self: not self.ended and self.executor.pending)
    def complete_one(self, data: st.DataObject) -> None:
        self.executor.complete(data.draw(st.sampled_from(sorted(self.executor.pending))))

    @rule(data=st.data())
    @precondition(lambda self: not self.ended and self.executor.submitted)
    def arrive_again(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(self.executor.submitted))
        if index not in self.executor.pending:
            outcome = make_outcome(index, self.executor.bad, skips=self.policy.skips)
            self.executor.arrivals.append(outcome)

    @rule()
    @precondition(lambda self: not self.ended)
    def pull(self) -> None:
        try:
            result = next(self.run)
            assert len(result.outputs) == result.count
            for number, reject in enumerate(result.rejects):
                assert [n for n in result.outputs if n < reject.index] == (
                    result.outputs[: result.position_of(number)]
                )
            self.outputs += result.outputs
            self.rejects += [reject.index for reject in result.rejects]
            if result.failure is not None:
                self.error = result.failure.exception()
        except StopIteration:
            self.ended = True
        except OSError as error:
            self.ended, self.error = True, error

    @rule()
    @precondition(lambda self: not self.ended and self.delivered > 2)
    def leave(self) -> None:
        self.run.close()
        assert not self.executor.pending
        assert self.source_closed
        self.ended = self.left = True

    @rule()
    @precondition(lambda self: self.ended)
    def rest(self) -> None:
        pass

    @invariant()
    def results_are_a_prefix_in_order(self) -> None:
        assert self.outputs == sorted(self.outputs)
        assert self.rejects == sorted(self.rejects)
        both = sorted(self.outputs + self.rejects)
        assert both == list(range(len(both)))

    def loop(self) -> tuple[list[int], list[int], int | None]:
        """Return a loop's outputs and rejects, and the record at which it ends."""
        outputs: list[int] = []
        rejects: list[int] = []
        for record in range(self.total * SIZE):
            if record not in self.bad:
                outputs.append(record)
                continue
            most = self.policy.max_errors
            is_full = isinstance(most, int) and len(rejects) == most
            if not self.policy.skips or is_full or record % 10 == 9 or ends_chunk(record):
                return outputs, rejects, record
            rejects.append(record)
        return outputs, rejects, None

    @invariant()
    def never_more_than_the_window(self) -> None:
        assert self.read - self.delivered - self.discarded <= self.window
        held = [index for index in self.executor.submitted if index >= self.delivered]
        size = sum(self.sizes[index] for index in held)
        assert size <= self.byte_limit or len(held) - self.discarded <= 1

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        while not self.ended:
            self.pull()
        executor = self.executor
        assert executor.submitted == list(range(len(executor.submitted)))
        assert not executor.pending
        assert self.source_closed
        if self.left:
            return
        outputs, rejects, end = self.loop()
        assert (self.outputs, self.rejects) == (outputs, rejects)
        if end is not None:
            assert str(self.error) == f"bad {end}"
            assert vars(self.error)["record_index"] == end
            assert executor.cancelled_from == end // SIZE + 1
        elif self.source_fails:
            assert str(self.error) == "the source broke"
        else:
            assert self.error is None


TestFlow = FlowMachine.TestCase
TestFlow.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)


@pytest.mark.slow
class TestMoreFlows(TestFlow):  # type: ignore[misc, valid-type]  # made at run time
    settings = settings(TestFlow.settings, max_examples=300)


def run_all(chunks: Iterator[Chunk[int]], window: Window) -> list[int]:
    outcomes = run_ordered(chunks, ScriptedExecutor(), lambda: window, sink=KEEP)
    return [record for outcome in outcomes for record in outcome.outputs]


class SlowFirst(ScriptedExecutor):
    """The first chunk completes only when nothing else is left to do."""

    most_held = 0

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[int]]]:
        self.most_held = max(self.most_held, len(self.submitted))
        if wait and 0 in self.pending and len(self.pending) > 1:
            self.complete(max(self.pending))
        return super().collect(wait=wait)


def test_a_slow_first_chunk_holds_no_more_than_the_window() -> None:
    executor = SlowFirst()
    chunks = (make_chunk(index) for index in range(2000))
    outcomes = run_ordered(chunks, executor, lambda: Window(16), sink=KEEP)
    assert next(outcomes).index == 0
    assert executor.most_held == 16
    assert [outcome.index for outcome in outcomes] == list(range(1, 2000))


class SlowTwentieth(ScriptedExecutor):
    """Outcomes are three times as large as inputs; chunk 20 completes when nothing else can."""

    held_behind_it = 0

    def complete(self, index: int) -> None:
        super().complete(index)
        self.arrivals[-1] = replace(self.arrivals[-1], size_bytes=30)

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[int]]]:
        others = [index for index in self.pending if index != 20]
        if wait and 20 in self.pending and others:
            self.complete(others[0])
        elif wait and 20 in self.pending:
            self.held_behind_it = len(self.submitted) - 20
        return super().collect(wait=wait)


def test_window_counts_outcome_bytes_where_larger() -> None:
    executor = SlowTwentieth()
    chunks = (make_chunk(index, size_bytes=10) for index in range(200))
    window = Window(chunks=1000, size_bytes=300)
    outcomes = run_ordered(chunks, executor, lambda: window, sink=KEEP)
    assert [outcome.index for outcome in outcomes] == list(range(200))
    assert executor.held_behind_it == 300 // 30


def test_reading_waits_for_the_consumer() -> None:
    read = []

    def source() -> Iterator[Chunk[int]]:
        for index in range(100):
            read.append(index)
            yield make_chunk(index)

    outcomes = run_ordered(source(), ScriptedExecutor(), lambda: Window(4), sink=KEEP)
    next(outcomes)
    assert len(read) <= 4
    next(outcomes)
    assert len(read) <= 5


def test_ready_outcome_does_not_wait_for_a_slow_source() -> None:
    executor = ScriptedExecutor()
    read = []

    def source() -> Iterator[Chunk[int]]:
        for index in range(100):
            if index == 2:
                executor.complete(0)
            read.append(index)
            yield make_chunk(index)

    next(run_ordered(source(), executor, lambda: Window(50), sink=KEEP))
    assert len(read) == 3


@pytest.mark.parametrize("bad", [(), (0,)], ids=["good", "failed"])
def test_a_source_that_blocks_while_outputs_wait_is_reported(
    bad: Collection[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "_BLOCKED_S", 0.0)
    monkeypatch.setattr(pipeline, "_HINT_S", 0.0)
    executor = ScriptedExecutor(bad)
    events: list[Event] = []

    def source() -> Iterator[Chunk[int]]:
        yield make_chunk(0)
        yield make_chunk(1)  # returns before an output waits
        executor.complete(0)
        yield make_chunk(2)
        yield make_chunk(3)

    tally = JobTally("job")
    observers = Observers([events.append, tally])
    list(run_ordered(source(), executor, lambda: Window(50), sink=KEEP, observers=observers))
    waits = [event for event in events if isinstance(event, SourceBlocked)]
    assert [tally.report().source_blocked_s] == [event.seconds for event in waits]
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "the source blocked while finished outputs waited; if another thread may read it, wrap it "
        "in in_thread(...)"
    ]
    # What was read behind a failure is not sent.
    assert executor.submitted == ([0, 1] if bad else [0, 1, 2, 3])


def test_chunk_larger_than_the_window_is_sent_alone() -> None:
    chunks = (make_chunk(index, size_bytes=100) for index in range(3))
    assert run_all(chunks, Window(8, size_bytes=10)) == list(range(9))


def test_earlier_failure_wins_and_discarded_chunks_are_reported() -> None:
    executor = ScriptedExecutor(bad={SIZE + 1, 3 * SIZE})
    events: list[Event] = []
    outcomes = run_ordered(
        (make_chunk(index) for index in range(100)),
        executor,
        lambda: Window(6),
        sink=KEEP,
        observers=Observers((events.append,)),
    )
    next(outcomes)
    executor.complete(5)
    executor.complete(3)
    last = next(outcomes)
    assert last.outputs == [3]
    assert last.failure is not None
    assert last.failure.index == 4
    with pytest.raises(StopIteration):
        next(outcomes)
    submitted = [event.chunk for event in events if isinstance(event, ChunkSubmitted)]
    assert max(submitted) <= 6
    discarded = {event.chunk: event.ran for event in events if isinstance(event, ChunkDiscarded)}
    assert sorted(discarded) == sorted(set(submitted) - {0, 1})
    assert discarded[5]


def test_nothing_is_submitted_behind_a_chunk_that_ended_early() -> None:
    executor = ScriptedExecutor(bad={10, 13, 19}, skips=True)
    results = run_ordered(
        (make_chunk(index) for index in range(100)),
        executor,
        lambda: Window(8),
        sink=KEEP,
        policy=ErrorPolicy.skip(),
    )
    next(results)
    for index in (6, 4, 3):  # record 19 is in chunk 6
        executor.complete(index)
    assert [result.index for result in results] == [1, 2, 3, 4, 5, 6]
    assert executor.submitted == list(range(9))


def test_raising_observer_is_dropped() -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("observer")

    chunks = (make_chunk(index) for index in range(3))
    outcomes = run_ordered(
        chunks, ScriptedExecutor(), lambda: Window(2), sink=KEEP, observers=Observers((broken,))
    )
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]


def test_the_window_may_grow_and_shrink() -> None:
    executor = ScriptedExecutor()
    size = 2
    chunks = (make_chunk(index) for index in range(100))
    outcomes = run_ordered(chunks, executor, lambda: Window(size), sink=KEEP)
    next(outcomes)
    assert len(executor.submitted) <= 2
    size = 10
    next(outcomes)
    next(outcomes)
    assert len(executor.submitted) > 10
    size = 1
    submitted = len(executor.submitted)
    for _ in range(5):
        next(outcomes)
    assert len(executor.submitted) == submitted


def test_an_empty_source_yields_nothing() -> None:
    assert run_all(iter(()), Window()) == []


@pytest.mark.parametrize(("slots", "chunks"), [(1, 8), (2, 8), (3, 12), (100, 400), (999, 1024)])
def test_the_default_window_follows_the_slots(slots: int, chunks: int) -> None:
    assert Window.for_slots(slots).chunks == chunks


def test_empty_window_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Window(chunks=0)
    with pytest.raises(ConfigurationError):
        Window(size_bytes=0)


# --- jobs that share a window -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "jobs", "chunks"),
    [(1, 1, 8), (2, 1, 8), (8, 1, 32), (1000, 1, 1024), (22, 20, 5), (8, 8, 4), (2, 20, 1)],
)
def test_jobs_share_the_default_window(slots: int, jobs: int, chunks: int) -> None:
    window = Window.for_slots(slots, jobs)
    assert window.chunks == chunks
    assert window.size_bytes * jobs - Window().size_bytes in range(jobs)


@pytest.mark.parametrize(
    ("jobs", "weight", "chunks"),
    [(1, 2.0, 32), (1, 0.5, 32), (4, 2.0, 16), (4, 1.0, 8), (4, 0.5, 4), (64, 0.5, 1), (2, 9, 32)],
)
def test_share_of_the_window_goes_by_weight(jobs: int, weight: float, chunks: int) -> None:
    window = Window.for_slots(8, jobs, weight)
    assert window.chunks == chunks
    assert window.size_bytes <= Window().size_bytes


def test_smaller_limits_of_two_windows_apply() -> None:
    assert Window(3, 50).at_most(Window(5, 20)) == Window(3, 20)
