"""The chaos suite's own measures notice lost, doubled, misplaced and wrong outputs."""

import random
from pathlib import Path
from typing import Any, cast

import pytest

from tests.chaos.runs import Damage, Feed, Flights, Run

RIGHT = b"aa\nbb\ncc\nbb\n"


@pytest.mark.parametrize(
    ("got", "damage"),
    [
        (RIGHT, Damage()),
        (b"aa\nbb\ncc\n", Damage(lost=1, wrong_bytes=3)),
        (b"aa\nbb\ncc\nbb\nbb\n", Damage(doubled=1, wrong_bytes=3)),
        (b"bb\naa\ncc\nbb\n", Damage(out_of_order=1, wrong_bytes=4)),
        (b"aa\nbb\nXc\nbb\n", Damage(lost=1, wrong_bytes=1)),
        (b"", Damage(lost=4, wrong_bytes=12)),
    ],
)
def test_damage_is_counted(got: bytes, damage: Damage) -> None:
    assert Damage.of(got, RIGHT) == damage


@pytest.mark.parametrize(
    ("faults", "outages", "stall_s"),
    [
        ([], [], 6.0),  # from the job's begin
        ([6.0], [], 2.0),  # what was before the fault does not count
        ([8.6], [], 1.0),  # up to the job's end
        ([3.0], [(3.0, 5.5)], 2.5),  # an outage does not count
        ([3.0], [(5.0, 6.5), (3.5, 5.5)], 2.0),  # they may overlap
    ],
)
def test_a_stall_is_the_longest_time_without_a_delivery(
    faults: list[float], outages: list[tuple[float, float]], stall_s: float
) -> None:
    run = Run(cast("Any", None), cast("Any", None), random.Random(0))
    run._began, run._ended = 1.0, 10.5
    run._deliveries = [2.0, 8.0, 9.5]
    run._faults, run._outages = faults, outages
    assert run._longest_stall() == pytest.approx(stall_s)


def test_feed_grows_with_its_outputs(tmp_path: Path) -> None:
    flights = Flights([b"1\n", b"2\n", b"3\n"], [b"one\n", b"two\n", b"three\n"])
    feed = Feed(tmp_path / "in", flights, 2, {1: b"poison\n"})
    feed.grow(2)
    feed.grow(1)
    feed.grow(4)
    assert feed.path.read_bytes() == b"3\npoison\n2\n3\n"
    assert feed.outputs(3) == [b"three\n", b"one\n", b"two\n"]
