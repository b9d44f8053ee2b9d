"""The pace of a job: a greatest rate, and a throttle."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyrmute_tasks import ConfigurationError, JobError, Wait, WaitBegan
from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.events import Event, Observers
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace, Pacer
from pyrmute_tasks.engine.pipeline import run_ordered
from pyrmute_tasks.engine.stopping import JobStopped, Stop
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.local.executors import ThreadExecutor


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def chunk(index: int, count: int, *, is_range: bool = False) -> Chunk[None]:
    return Chunk(index, 0, count, None, is_range=is_range)


def paced_s(pacer: Pacer) -> float:
    held = pacer.hold()
    assert held is not None
    assert held[0] == WaitBegan(Wait.PACE)
    return held[1]


def test_full_speed_holds_nothing() -> None:
    pacer = Pacer(FULL_SPEED)
    pacer.submitted(chunk(0, 1_000_000))
    assert pacer.hold() is None
    assert FULL_SPEED.chunk_size is None


def test_greatest_rate_is_kept_from_the_first_chunk_on() -> None:
    clock = Clock()
    pacer = Pacer(Pace(max_rate=100), clock)
    sent = 0
    while clock.now < 110:
        held = pacer.hold()
        if held is None:
            pacer.submitted(chunk(sent, 25))
            sent += 1
        else:
            assert held[0] == WaitBegan(Wait.PACE)
            clock.now += held[1]
    assert sent == 40
    assert Pace(max_rate=100).chunk_size == 25
    assert Pace(max_rate=0.5).chunk_size == 1


def test_pause_is_not_made_up_for() -> None:
    clock = Clock()
    pacer = Pacer(Pace(max_rate=100), clock)
    pacer.submitted(chunk(0, 100))
    clock.now += 60
    assert pacer.hold() is None
    pacer.submitted(chunk(1, 100))
    assert paced_s(pacer) == pytest.approx(1.0)


def test_ranges_are_estimated_from_what_was_delivered() -> None:
    clock = Clock()
    pacer = Pacer(Pace(max_rate=100), clock)
    pacer.submitted(chunk(0, 1000, is_range=True))
    clock.now += 50
    assert pacer.hold() is not None, "nobody knows how many records a range has"
    pacer.delivered(chunk(0, 1000, is_range=True), 200)
    assert paced_s(pacer) == pytest.approx(2.0)
    clock.now += 2
    assert pacer.hold() is None
    pacer.submitted(chunk(1, 500, is_range=True))
    assert paced_s(pacer) == pytest.approx(1.0)
    pacer.delivered(chunk(1, 500, is_range=True), 150)
    assert paced_s(pacer) == pytest.approx(1.5)


def test_ranges_of_earlier_runs_take_no_time() -> None:
    clock = Clock()
    pacer = Pacer(Pace(max_rate=100), clock)
    for index in range(50):
        assert pacer.hold() is None
        earlier = chunk(index, 1000, is_range=True)
        pacer.submitted(earlier)
        pacer.restored(earlier)
        pacer.delivered(earlier, 10)
    pacer.submitted(chunk(50, 1000, is_range=True))
    assert paced_s(pacer) == pytest.approx(0.1), "they tell how many records a range has"


def test_throttle_is_asked_about_once_a_second() -> None:
    clock = Clock()
    answers: Iterator[str | None] = iter(["the database lags", "", None])
    asked: list[float] = []

    def throttle() -> str | None:
        asked.append(clock.now)
        return next(answers)

    pacer = Pacer(Pace(throttle=throttle), clock)
    assert pacer.hold() == (WaitBegan(Wait.THROTTLE, "the database lags"), 1.0)
    clock.now += 0.5
    assert pacer.hold() == (WaitBegan(Wait.THROTTLE, "the database lags"), 0.5)
    clock.now += 0.5
    assert pacer.hold() is None
    assert pacer.hold() is None
    clock.now += 1
    assert pacer.hold() is None
    assert asked == [100.0, 101.0, 102.0]


def test_throttle_that_fails_ends_the_job() -> None:
    def broken() -> str | None:
        raise ValueError("secret")

    with pytest.raises(JobError, match="the throttle raised ValueError") as caught:
        Pacer(Pace(throttle=broken)).hold()
    assert "secret" not in str(caught.value)
    wrong: Any = lambda: 3  # noqa: E731  # of a type that it must not return
    with pytest.raises(JobError, match="the throttle returned int"):
        Pacer(Pace(throttle=wrong)).hold()


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), True, "10"])
def test_rates_that_make_no_sense(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_rate must be a positive number"):
        Pace(max_rate=rate)


def test_throttle_must_be_a_function() -> None:
    wrong: Any = "module:name"
    with pytest.raises(ConfigurationError, match="throttle must be a function"):
        Pace(throttle=wrong)


# --- in the pipeline ------------------------------------------------------------------------


class AsTheyCome:
    """Delivers outcomes as they are."""

    def receive(self, _: Chunk[Any], outcome: Outcome[int], /) -> Outcome[int]:
        return outcome

    def cut(self, outputs: int, count: int, /) -> int:
        return outputs


def run_paced(
    pace: Pace, chunks: int, observers: Observers, stop: Stop | None = None
) -> Iterator[int]:
    source = (chunk(index, 1) for index in range(chunks))
    with ThreadExecutor[None, int](lambda given: Outcome(given.index, 1, given.index), 2) as pool:
        results = run_ordered(
            source, pool, Window, sink=AsTheyCome(), observers=observers, stop=stop, pace=pace
        )
        yield from (result.outputs for result in results)


class HeardAtSubmission(ThreadExecutor[None, int]):
    """Notes what observers know when a chunk is submitted, which may take long."""

    def __init__(self, heard: list[Event]) -> None:
        super().__init__(lambda given: Outcome(given.index, 1, given.index), 2)
        self.known: list[Wait] = []
        self._heard = heard

    def submit(self, chunk: Chunk[None], /) -> None:
        self.known.append([each.wait for each in self._heard if isinstance(each, WaitBegan)][-1])
        super().submit(chunk)


def test_submission_that_hangs_is_not_blamed_on_the_source() -> None:
    heard: list[Event] = []
    source = (chunk(index, 1) for index in range(5))
    with HeardAtSubmission(heard) as pool:
        results = run_ordered(
            source, pool, Window, sink=AsTheyCome(), observers=Observers([heard.append])
        )
        assert [result.outputs for result in results] == [0, 1, 2, 3, 4]
    assert pool.known == [Wait.WORKERS] * 5


def test_throttled_job_delivers_what_is_under_way() -> None:
    seen: list[Event] = []
    reasons = iter([None, "it is late", "it is late", None])
    clock_moves = Pace(throttle=lambda: next(reasons, None))
    outputs = list(run_paced(clock_moves, 5, Observers([seen.append])))
    assert outputs == [0, 1, 2, 3, 4]
    waits = [event.wait for event in seen if isinstance(event, WaitBegan)]
    assert waits[0] is Wait.SOURCE
    assert waits[-1] is Wait.PUBLISH


def test_rate_of_a_job() -> None:
    begun = time.monotonic()
    assert list(run_paced(Pace(max_rate=20), 11, Observers())) == list(range(11))
    assert time.monotonic() - begun >= 0.5


def test_throttled_job_can_be_stopped() -> None:
    stop = Stop()

    def request(event: Event) -> None:
        if event == WaitBegan(Wait.THROTTLE, "never"):
            stop.request()

    with pytest.raises(JobStopped):
        list(run_paced(Pace(throttle=lambda: "never"), 3, Observers([request]), stop))
