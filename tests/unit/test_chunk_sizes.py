"""Chunk sizes in a closed loop: a simulated worker measures the sizer's choices."""

from itertools import pairwise

import pytest

from pyrmute_tasks.engine.chunk_sizes import ChunkSizer, RangeSizer, RecordSizer
from pyrmute_tasks.engine.chunks import cut_records
from pyrmute_tasks.engine.events import ChunkSettled, SlotsChanged

KIB = 1024
MIB = 1024 * KIB
OVERHEAD_S = 0.003


class SimulatedFleet:
    """Runs chunks in order within a window; each takes as long as its bytes say."""

    def __init__(self, sizer: ChunkSizer, s_per_mib: float, window: int = 8) -> None:
        self.sizer = sizer
        self.s_per_mib = s_per_mib
        self.window = window
        self.sizes: list[int] = []

    def run(self, total_bytes: int) -> "SimulatedFleet":
        left = total_bytes
        while left > 0:
            size = min(self.sizer.next_bytes(left), left)
            self.sizer.cut(len(self.sizes), size)
            self.sizes.append(size)
            left -= size
            if len(self.sizes) >= self.window:
                self.settle(len(self.sizes) - self.window)
        return self

    def settle(self, index: int) -> None:
        self.sizer(ChunkSettled(index, 1, self.seconds(index), "worker", failed=False))

    def seconds(self, index: int) -> float:
        return OVERHEAD_S + self.s_per_mib * self.sizes[index] / MIB


@pytest.mark.parametrize("s_per_mib", [0.4, 1.0, 2.5, 30.0, 400.0])
def test_chunks_converge_to_a_second(s_per_mib: float) -> None:
    fleet = SimulatedFleet(ChunkSizer(512 * KIB, 4 * MIB), s_per_mib).run(100 * MIB)
    middle = [fleet.seconds(index) for index in range(20, len(fleet.sizes) - 20)]
    assert middle
    assert all(0.9 <= seconds <= 1.1 for seconds in middle)


def test_quick_work_is_limited_by_bytes() -> None:
    fleet = SimulatedFleet(ChunkSizer(512 * KIB, 4 * MIB), 0.01).run(200 * MIB)
    assert max(fleet.sizes) == 4 * MIB
    assert fleet.sizes[30] == 4 * MIB


def test_sizes_grow_by_a_fifth_at_most() -> None:
    fleet = SimulatedFleet(ChunkSizer(10 * KIB, 4 * MIB), 0.01).run(60 * MIB)
    assert all(later <= 1.2 * earlier + 1 for earlier, later in pairwise(fleet.sizes))


def test_sizer_reacts_to_a_slow_step_within_a_window() -> None:
    fleet = SimulatedFleet(ChunkSizer(512 * KIB, 4 * MIB), 0.1).run(50 * MIB)
    began = len(fleet.sizes)
    fleet.s_per_mib = 10.0
    fleet.run(50 * MIB)
    assert fleet.seconds(began + 20) < 2.0


def test_the_last_chunks_get_smaller_so_that_all_slots_end_together() -> None:
    sizer = ChunkSizer(512 * KIB, 4 * MIB)
    sizer(SlotsChanged(4))
    fleet = SimulatedFleet(sizer, 0.065).run(100 * MIB)
    assert sum(fleet.sizes) == 100 * MIB
    assert fleet.sizes[-1] <= 64 * KIB
    assert max(fleet.sizes[-8:]) <= MIB


@pytest.mark.parametrize("slots", [1, 8, 64, 512])
def test_a_window_holds_chunks_for_all_slots(slots: int) -> None:
    sizer = ChunkSizer(512 * KIB, MIB, window_bytes=64 * MIB)
    sizer(SlotsChanged(slots))
    fleet = SimulatedFleet(sizer, 0.01).run(400 * MIB)
    assert 4 * slots * 2 * max(fleet.sizes) <= 64 * MIB


@pytest.mark.parametrize(("slots", "target_s"), [(2, 1.0), (100, 1.0), (400, 4.0), (5000, 10.0)])
def test_ranges_go_towards_a_second_and_ten_on_large_fleets(slots: int, target_s: float) -> None:
    sizer = RangeSizer()
    sizer(SlotsChanged(slots))
    fleet = SimulatedFleet(sizer, 0.065).run(slots * 1024 * MIB)
    assert max(map(fleet.seconds, range(len(fleet.sizes)))) == pytest.approx(target_s, rel=0.1)


def test_ranges_are_few_and_end_together() -> None:
    sizer = RangeSizer()
    sizer(SlotsChanged(2))
    fleet = SimulatedFleet(sizer, 0.065).run(450 * MIB)  # thirty seconds of small records
    assert len(fleet.sizes) < 55
    assert fleet.sizes[-1] <= MIB
    assert max(fleet.sizes[-4:]) <= 4 * MIB


def test_first_ranges_are_small_so_that_slow_steps_show_soon() -> None:
    sizer = RangeSizer()
    assert sizer.next_bytes(1024 * MIB) == 64 * KIB


def test_ranges_whose_failures_must_fit_into_memory_are_shorter() -> None:
    longest = []
    for skips in (False, True):
        sizer = RangeSizer(skips=skips)
        sizer(SlotsChanged(2))
        longest.append(max(SimulatedFleet(sizer, 0.001).run(4096 * MIB).sizes))
    assert longest[0] > 100 * MIB
    assert longest[1] == 8 * MIB


def test_failed_chunks_do_not_change_sizes() -> None:
    sizer = ChunkSizer(1000, 10_000)
    sizer.cut(0, 1000)
    sizer(ChunkSettled(0, 1, 9.0, "worker", failed=True))
    sizer(ChunkSettled(7, 1, 9.0, "worker", failed=False))
    assert sizer.next_bytes() == 1000


@pytest.mark.parametrize(("record_bytes", "low", "high"), [(50, 4_000, 6_000), (100_000, 2, 3)])
def test_record_counts_follow_the_size_of_records(record_bytes: int, low: int, high: int) -> None:
    sizer = RecordSizer(ChunkSizer(256 * KIB, MIB))
    sizes = []
    for index in range(6):
        sizes.append(sizer())
        sizer.cut(index, sizes[-1], sizes[-1] * record_bytes)
    assert low <= sizes[-1] <= high
    assert all(later <= 4 * earlier for earlier, later in pairwise(sizes))


def test_a_record_larger_than_a_chunk_is_a_chunk() -> None:
    sizer = RecordSizer(ChunkSizer(256 * KIB, MIB))
    sizer.cut(0, 1, 10**9)
    assert sizer() == 1
    assert [chunk.count for chunk in cut_records(range(3), sizer)] == [1, 1, 1]
