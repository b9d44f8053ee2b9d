"""`CeleryExecutor` over a simulated fleet with every fault, in any order."""

import itertools
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pyrmute_tasks.distributed.producer.executor import CeleryExecutor
from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_records
from pyrmute_tasks.engine.error_policy import RAISE, ErrorPolicy
from pyrmute_tasks.engine.pipeline import ChunkResult, run_ordered
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import (
    BrokerUnavailableError,
    CodeMismatchError,
    JobLostError,
    NoWorkersError,
    ProcessDiedError,
    StalledError,
)
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.wire.frames import Frame
from tests.unit.simulated_fleet import (
    OTHER_CODE,
    SETTINGS,
    End,
    Fleet,
    Harm,
    HarmKind,
    SimulatedSurveyor,
    Work,
    chunk_of,
    migrated,
    spec_of,
)

JOB = "0123abcd"
SURVIVED_S = 500.0  # longer than anything in a fleet waits for


@pytest.fixture(autouse=True, scope="module")
def silence() -> Iterator[None]:
    """Silence the log, in which almost every fault appears."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


some_records = st.frozensets(st.integers(0, 30), max_size=2)
works = st.builds(
    Work,
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8).map(tuple),
    seconds=st.lists(st.sampled_from((0.02, 0.5, 3.0, 7.0)), min_size=1, max_size=4).map(tuple),
    bad=st.just(frozenset()) | some_records,
    poison=st.just(frozenset()) | some_records,
    kills_hosts=st.booleans(),
    poison_first=st.booleans(),
    skips=st.booleans(),
)
fleets = st.lists(st.integers(1, 2), min_size=1, max_size=3)
harms = st.builds(
    Harm,
    kind=st.sampled_from(HarmKind),
    pick=st.integers(0, 5),
    seconds=st.sampled_from((0.0, 0.3, 2.5, 6.0, 20.0)),
)


def enter(stack: ExitStack, fleet: Fleet) -> CeleryExecutor:
    """Return an executor in its context, on a fleet."""
    executor = CeleryExecutor(
        fleet.broker,
        fleet.store,
        spec_of(JOB, skips=fleet.work.skips),
        SETTINGS,
        clock=fleet.clock,
        surveyor=SimulatedSurveyor(fleet, JOB),
    )
    return stack.enter_context(executor)


def may_be_blamed(fleet: Fleet, record: int) -> bool:
    """Return whether enough processes of a record died for it to be suspected.

    A host may take one process with it, and deployments may take two workers.
    """
    ends = fleet.ends[record]
    return len(ends) >= (2 if End.DIED in ends else 3)


def check_failure(fleet: Fleet, error: BaseException, index: int) -> None:
    if isinstance(error, ProcessDiedError):
        assert may_be_blamed(fleet, index), f"record {index} is innocent"
    else:
        assert isinstance(error, ValueError)
        assert str(error) == f"bad {index}"
        assert index in fleet.work.bad


def check_outcome(fleet: Fleet, outcome: Outcome[Frame]) -> None:
    """Check that an outcome is a sequential run's, or blames a record with good reason."""
    records = fleet.work.records(outcome.index)
    assert outcome.count == outcome.outputs.count
    check_results(fleet, records, decode_records(outcome.outputs), outcome.failures)


def check_results(
    fleet: Fleet,
    records: range,
    outputs: list[dict[str, int]],
    failures: Sequence[RecordFailure],
) -> None:
    """Check that each record has an output or a failure with good reason, up to the end."""
    failed = [failure.index for failure in failures]
    assert failed == sorted(failed)
    assert set(failed) <= set(records)
    for failure in failures:
        check_failure(fleet, failure.error, failure.index)
    end = records.stop
    if not fleet.work.skips and failures:
        assert len(failures) == 1
        end = failed[0] + 1
    assert (fleet.work.bad | fleet.work.poison) & set(range(records.start, end)) <= set(failed)
    assert outputs == migrated(n for n in range(records.start, end) if n not in failed)


def check_nothing_is_left(fleet: Fleet) -> None:
    """Check that the job has left nothing behind, and running tasks add nothing."""
    assert fleet.store.left_of(JOB) == {}
    fleet.advance(SURVIVED_S)
    assert fleet.store.left_of(JOB) == {}


# --- the executor's three methods, in any order -----------------------------------------------


class ExecutorMachine(RuleBasedStateMachine):
    """Submits, collects and cancels as an engine may, while the fleet has faults."""

    @initialize(work=works, slots=fleets, window=st.integers(1, 6))
    def begin(self, work: Work, slots: list[int], window: int) -> None:
        self.fleet = Fleet(work, slots)
        self.window = window
        self.submitted = 0
        self.wanted = len(work.sizes)  # index of the first chunk that nobody wants
        self.pending: set[int] = set()
        self.received: set[int] = set()
        self.stack = ExitStack()
        self.executor = enter(self.stack, self.fleet)

    def accept(self, outcomes: list[Outcome[Frame]]) -> None:
        for outcome in outcomes:
            assert outcome.index in self.pending, "not asked for, cancelled, or had before"
            self.pending.remove(outcome.index)
            self.received.add(outcome.index)
            check_outcome(self.fleet, outcome)

    @rule()
    @precondition(lambda self: self.submitted < self.wanted and len(self.pending) < self.window)
    def submit(self) -> None:
        self.pending.add(self.submitted)
        self.executor.submit(chunk_of(self.fleet.work, self.submitted))
        self.submitted += 1

    @rule()
    def look(self) -> None:
        self.accept(list(self.executor.collect(wait=False)))

    @rule()
    @precondition(lambda self: self.pending)
    def wait(self) -> None:
        while not (outcomes := list(self.executor.collect(wait=True))):
            pass
        self.accept(outcomes)

    @rule(data=st.data())
    @precondition(lambda self: self.submitted)
    def cancel(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, min(self.wanted, self.submitted)), label="first")
        self.wanted = first
        self.pending = {index for index in self.pending if index < first}
        self.executor.cancel(first)
        self.fleet.store.unwanted_from = first

    @rule(harm=harms)
    def suffer(self, harm: Harm) -> None:
        self.fleet.suffer(harm)

    @rule(seconds=st.sampled_from((0.02, 0.3, 1.0, 5.0, 40.0)))
    def pass_time(self, seconds: float) -> None:
        self.fleet.advance(seconds)

    @invariant()
    def an_input_is_in_the_store_for_as_long_as_it_is_wanted(self) -> None:
        assert self.fleet.store.chunks_of(JOB) <= set(range(self.submitted))
        assert max(self.fleet.store.settled.values(), default=0) <= 1

    def teardown(self) -> None:
        if not hasattr(self, "executor"):
            return
        with self.stack:
            while self.pending:
                self.wait()
            self.fleet.advance(1.0)
            self.look()
        check_nothing_is_left(self.fleet)


TestExecutor = ExecutorMachine.TestCase
TestExecutor.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)


@pytest.mark.slow
class TestExecutorInMoreStates(TestExecutor):  # type: ignore[misc, valid-type]  # made at run time
    settings = settings(TestExecutor.settings, max_examples=150)


# --- whole runs ---------------------------------------------------------------------------------


class Run:
    """A run of the engine over a fleet with faults as time passes."""

    def __init__(
        self,
        fleet: Fleet,
        window: int,
        schedule: list[tuple[float, Harm]],
        pauses: tuple[float, ...] = (0.0,),
    ) -> None:
        self.fleet = fleet
        self.window = window
        self.pauses = itertools.cycle(pauses)  # of the consumer
        self.read = self.delivered = 0
        self.outputs: list[dict[str, int]] = []
        self.failures: list[RecordFailure] = []
        self.error: BaseException | None = None
        for seconds, harm in schedule:
            fleet.later(seconds, partial(fleet.suffer, harm))

    def source(self) -> Iterator[Chunk[bytes]]:
        for index in range(len(self.fleet.work.sizes)):
            self.read += 1
            assert self.read - self.delivered <= self.window
            assert len(self.fleet.store.chunks_of(JOB)) <= self.window
            # What has been received is forgotten with the next question.
            assert len(self.fleet.store.outcomes_of(JOB)) <= 2 * self.window
            yield chunk_of(self.fleet.work, index)

    def receive(
        self, chunk: Chunk[Any], outcome: Outcome[Frame], /
    ) -> Outcome[list[dict[str, int]]]:
        outputs = decode_records(outcome.outputs)
        return Outcome(chunk.index, outcome.count, outputs, outcome.failures)

    def cut(self, outputs: list[dict[str, int]], count: int, /) -> list[dict[str, int]]:
        return outputs[:count]

    def go(self) -> "Run":
        with ExitStack() as stack:
            executor = enter(stack, self.fleet)
            policy = ErrorPolicy.skip(max_crashes=100) if self.fleet.work.skips else RAISE
            results = run_ordered(
                self.source(), executor, lambda: Window(self.window), sink=self, policy=policy
            )
            try:
                self.consume(results)
            except CodeMismatchError as error:
                self.error = error
        return self

    def consume(self, results: Generator[ChunkResult[list[dict[str, int]]], None, None]) -> None:
        for result in results:
            self.outputs += result.outputs
            self.failures += result.rejects
            self.delivered += result.count > 0 or result.failure is None
            if result.failure is not None:
                self.failures.append(result.failure)
                self.error = result.failure.exception()
            self.fleet.advance(next(self.pauses))

    def check(self) -> None:
        """Check that it ended as a sequential run would, or blames a record with good reason."""
        assert not isinstance(self.error, CodeMismatchError), str(self.error)
        assert (self.error is None) or not self.fleet.work.skips
        check_results(self.fleet, range(self.fleet.work.total), self.outputs, self.failures)
        check_nothing_is_left(self.fleet)


schedules = st.lists(
    st.tuples(st.floats(0, 30).map(lambda seconds: round(seconds, 2)), harms), max_size=12
)


@given(
    work=works,
    slots=fleets,
    window=st.integers(1, 6),
    schedule=schedules,
    pauses=st.lists(st.sampled_from((0.0, 1.0, 40.0)), min_size=1, max_size=3).map(tuple),
)
@example(  # the broker goes away again while a message is published
    work=Work((1, 1), (0.02,)),
    slots=[1],
    window=2,
    schedule=[
        *[(0.0, Harm(HarmKind.DROP))] * 5,
        (0.0, Harm(HarmKind.JOIN_OTHER)),
        (8.0, Harm(HarmKind.KILL)),
        (10.0, Harm(HarmKind.BROKER_AWAY, seconds=20.0)),
        (21.0, Harm(HarmKind.BROKER_AWAY, seconds=20.0)),
    ],
    pauses=(0.0,),
)
@settings(max_examples=150, deadline=None)
def test_run_with_faults_equals_a_sequential_run(
    work: Work,
    slots: list[int],
    window: int,
    schedule: list[tuple[float, Harm]],
    pauses: tuple[float, ...],
) -> None:
    Run(Fleet(work, slots), window, schedule, pauses).go().check()


@given(work=works, slots=st.integers(1, 4), window=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_nothing_is_resent_without_faults(work: Work, slots: int, window: int) -> None:
    # One worker: of several, one may have to wait for a chunk that another could run.
    fleet = Fleet(Work(work.sizes, work.seconds, work.bad), [slots])
    run = Run(fleet, window, []).go()
    run.check()
    assert len(fleet.broker.published) == len({message.task for message in fleet.broker.published})
    assert len(fleet.broker.published) <= run.read
    if run.error is None:
        assert set(fleet.store.settled.values()) == {1}


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    slots=fleets,
    window=st.integers(1, 4),
    kills_hosts=st.booleans(),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_killing_record_is_named_after_few_crashes(
    sizes: tuple[int, ...], slots: list[int], window: int, kills_hosts: bool, data: st.DataObject
) -> None:
    killer = data.draw(st.integers(0, sum(sizes) - 1), label="killer")
    work = Work(sizes, poison=frozenset({killer}), kills_hosts=kills_hosts)
    fleet = Fleet(work, slots)
    # A host that dies takes others' chunks with it; alone, nobody else can be blamed.
    run = Run(fleet, 1 if kills_hosts else window, []).go()
    run.check()
    assert isinstance(run.error, ProcessDiedError)
    assert vars(run.error)["record_index"] == killer
    size = next(size for index, size in enumerate(sizes) if killer in work.records(index))
    # Of whole workers three may disappear with a single record before it is suspected.
    most = (size - 1).bit_length() + (4 if kills_hosts else 2)
    assert fleet.killed_by[killer] <= most


@given(
    work=works,
    slots=fleets,
    window=st.integers(1, 6),
    ends_after_s=st.floats(0, 10),
    is_abrupt=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_job_ends_if_every_worker_declines(
    work: Work,
    slots: list[int],
    window: int,
    ends_after_s: float,
    is_abrupt: bool,
) -> None:
    fleet = Fleet(work, slots, heals=False)
    fleet.join(1, OTHER_CODE)

    def deploy_other_code() -> None:
        for worker in fleet.workers:
            if is_abrupt:
                worker.kill()
            else:
                worker.leave()
        fleet.join(1, OTHER_CODE)

    fleet.later(ends_after_s, deploy_other_code)
    run = Run(fleet, window, []).go()
    if isinstance(run.error, CodeMismatchError):
        event("given up")
        assert OTHER_CODE in str(run.error)
        delivered = range(len(run.outputs) + len(run.failures))
        check_results(fleet, delivered, run.outputs, run.failures)
        check_nothing_is_left(fleet)
    else:
        event("ended before")
        run.check()


@pytest.mark.parametrize("slots", [(1, 1, 1), (2, 2), (4, 4)])
def test_chunk_settled_during_the_check_is_not_resent(
    slots: tuple[int, ...],
) -> None:
    # Two chunks end a few calls apart, and then the second has neither claim nor notice.
    fleet = Fleet(Work((1,) * 9, (3.0,)), slots)
    Run(fleet, 2, []).go().check()
    assert len(fleet.broker.published) == 9


@pytest.mark.parametrize("slots", [(1,) * 4, (4, 4)])
@pytest.mark.parametrize("seconds", [(20.0, 40.0, 10.0, 60.0), (30.0, 31.0, 29.0), (100.0,)])
def test_chunks_behind_long_ones_are_not_resent(
    slots: tuple[int, ...], seconds: tuple[float, ...]
) -> None:
    fleet = Fleet(Work((1,) * 48, seconds), slots)
    fleet.be_patient(300.0)
    Run(fleet, 4 * sum(slots), []).go().check()
    assert len(fleet.broker.published) == 48


def test_job_waits_for_a_worker_busy_with_other_jobs() -> None:
    """Another one holds other code and declines, but this one has not been asked yet."""
    fleet = Fleet(Work((1,) * 4), (1,), heals=False)
    fleet.join(1, OTHER_CODE)
    fleet.be_patient(300.0)
    fleet.workers[0].be_busy(3 * SETTINGS.code_wait_s)
    run = Run(fleet, 4, []).go()
    run.check()
    assert run.error is None


@pytest.mark.parametrize("error", [redis.ConnectionError(), redis.ResponseError("OOM")])
def test_store_that_fails_while_chunks_are_withdrawn_hides_no_failure(
    monkeypatch: pytest.MonkeyPatch, error: redis.RedisError
) -> None:
    def fail(*_: object) -> None:
        raise error

    fleet = Fleet(Work((1,) * 4, bad=frozenset({1})), (1,))
    monkeypatch.setattr(fleet.store, "stop_job", fail)
    run = Run(fleet, 4, []).go()
    assert str(run.error) == "bad 1"


# --- ends that no worker can help -----------------------------------------------------------------


def test_job_ends_without_workers() -> None:
    fleet = Fleet(Work((3, 3)), (), heals=False)
    began = fleet.now
    with pytest.raises(NoWorkersError):
        Run(fleet, 2, []).go()
    assert fleet.now - began < SETTINGS.worker_wait_s + 3
    check_nothing_is_left(fleet)


def test_job_stalls_when_idle_workers_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They listen to another broker; pauses of the consumer do not count."""
    fleet = Fleet(Work((1,) * 16), (1, 1), heals=False)
    fleet.be_patient(300.0)
    run = Run(fleet, 4, [], pauses=(100.0, 0.0, 0.0))

    def listen_elsewhere() -> None:
        for worker in fleet.workers:
            monkeypatch.setattr(worker, "wants_more", lambda: False)

    fleet.later(150.0, listen_elsewhere)
    with pytest.raises(StalledError, match=r"2 with 2 free slots; \d+ tasks in queue"):
        run.go()
    assert run.outputs == migrated(range(len(run.outputs)))
    assert run.outputs
    assert fleet.now < 1000.0 + 3 * 100.0 + SETTINGS.stall_s + 20
    check_nothing_is_left(fleet)


@pytest.mark.parametrize("pause_s", [100.0, 3600.0])
def test_slow_consumer_is_not_a_stall(pause_s: float) -> None:
    fleet = Fleet(Work((1,) * 8, (1.0,)), (1,))
    run = Run(fleet, 2, [], pauses=(pause_s,)).go()
    run.check()
    assert run.error is None


def test_job_ends_if_the_store_lost_it() -> None:
    fleet = Fleet(Work((3, 3, 3), seconds=(5.0,)))
    fleet.later(7.0, fleet.store.forget_everything)
    run = Run(fleet, 2, [])
    with pytest.raises(JobLostError):
        run.go()
    assert run.outputs == migrated(range(3))
    check_nothing_is_left(fleet)


@given(window=st.integers(1, 6), lost=st.integers(0, 19), seconds=st.sampled_from((0.1, 2.0)))
@settings(max_examples=20, deadline=None)
def test_lost_chunk_is_found_while_other_jobs_fill_the_queue(
    window: int, lost: int, seconds: float
) -> None:
    fleet = Fleet(Work((1,) * 20, (seconds,)))
    fleet.broker.others_wait = 1
    fleet.be_patient(100.0)
    fleet.broker.lose(lost)
    Run(fleet, window, []).go().check()


def test_lost_chunk_is_found_while_a_later_one_runs() -> None:
    """Other jobs keep the queue full, the window is full, and all but the two are settled."""
    fleet = Fleet(Work((1,) * 8, (1.0, 440.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)), (1, 1))
    fleet.broker.others_wait = 1
    fleet.be_patient(700.0)
    fleet.broker.lose(0)
    run = Run(fleet, 8, [])
    found_at: list[float] = []
    fleet.later(40.0, lambda: found_at.append(fleet.store.settled["0"]))
    run.go().check()
    assert found_at == [1]


def test_hanging_chunk_is_rerun_once() -> None:
    fleet = Fleet(Work((1,) * 8, (1.0,)), (1, 1))
    Run(fleet, 4, [(2.5, Harm(HarmKind.GET_STUCK))]).go().check()


@pytest.mark.parametrize("answers_after_s", [0.0, 30.0], ids=["refuses", "is frozen"])
@pytest.mark.parametrize("chunks", [8, 20], ids=["all sent", "more to send"])
def test_unreachable_broker_ends_the_job(chunks: int, answers_after_s: float) -> None:
    fleet = Fleet(Work((1,) * chunks), heals=False)
    fleet.broker.silent_s = answers_after_s
    fleet.be_patient(1000.0)
    fleet.later(0.05, fleet.broker.queue.clear)
    fleet.later(0.05, partial(fleet.suffer, Harm(HarmKind.BROKER_AWAY, seconds=36_000.0)))
    began = fleet.now
    run = Run(fleet, 8, [])
    with pytest.raises(BrokerUnavailableError):
        run.go()
    assert fleet.now - began < SETTINGS.outage_s + 5 + answers_after_s
    assert run.outputs == migrated(range(len(run.outputs)))
    check_nothing_is_left(fleet)
