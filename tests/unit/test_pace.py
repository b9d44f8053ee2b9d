"""The pace of a job: a greatest rate, and a throttle."""

from collections.abc import Iterator
from typing import Any

import pytest

from pyrmute_tasks import ConfigurationError, JobError, Wait, WaitBegan
from pyrmute_tasks.engine.chunks import Chunk
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace, Pacer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def chunk(index: int, count: int, *, is_range: bool = False) -> Chunk[None]:
    return Chunk(index, 0, count, None, is_range=is_range)


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
    assert pacer.hold() == (WaitBegan(Wait.PACE), pytest.approx(1.0))


def test_ranges_are_estimated_from_what_was_delivered() -> None:
    clock = Clock()
    pacer = Pacer(Pace(max_rate=100), clock)
    pacer.submitted(chunk(0, 1000, is_range=True))
    clock.now += 50
    assert pacer.hold() is not None, "nobody knows how many records a range has"
    pacer.delivered(chunk(0, 1000, is_range=True), 200)
    assert pacer.hold() == (WaitBegan(Wait.PACE), pytest.approx(2.0))
    clock.now += 2
    assert pacer.hold() is None
    pacer.submitted(chunk(1, 500, is_range=True))
    assert pacer.hold() == (WaitBegan(Wait.PACE), pytest.approx(1.0))
    pacer.delivered(chunk(1, 500, is_range=True), 150)
    assert pacer.hold() == (WaitBegan(Wait.PACE), pytest.approx(1.5))


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
