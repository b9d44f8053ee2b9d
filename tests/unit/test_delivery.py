"""The rules of sending again, without broker and store."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrmute_tasks.distributed.producer.redelivery import Deliveries, FleetSnapshot, Loss, Part
from pyrmute_tasks.distributed.protocol import TOO_LARGE, ClaimInfo
from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_records
from pyrmute_tasks.errors import ProcessDiedError
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame, encode_frame, pack


def chunk_of(index: int, count: int, kind: FrameKind = FrameKind.OBJECTS) -> Chunk[bytes]:
    if kind is FrameKind.OBJECTS:
        payload = pack(list(range(count)))
    else:
        payload = b"".join(b"%d\n" % n for n in range(count))
    frame = encode_frame(kind, count, payload)
    return Chunk(index, 100 * index, count, frame, len(frame))


def echo(part: Part) -> Outcome[Frame]:
    """What a worker gives that returns its inputs."""
    frame = decode_frame(part.chunk.payload)
    return Outcome(part.chunk.index, frame.count, frame)


def sent(deliveries: Deliveries, index: int, now: float = 0.0) -> Part:
    part = deliveries.add(chunk_of(index, 4))
    deliveries.send(part, "job", now)
    return part


def see(
    claims: dict[str, ClaimInfo] | None = None,
    running: dict[str, Collection[str]] | None = None,
    empty: bool = True,
) -> FleetSnapshot:
    return FleetSnapshot(claims or {}, running if running is not None else {"w": ()}, empty)


def lost(deliveries: Deliveries, now: float, sighting: FleetSnapshot) -> list[tuple[str, Loss]]:
    return [(part.key, loss) for part, loss in deliveries.lost(now, sighting)]


def test_what_is_claimed_and_runs_is_not_lost() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    sighting = see({"0": ClaimInfo("w", part.task, 50)}, {"w": {part.task}})
    for now in (1, 10, 50):
        assert lost(deliveries, now, sighting) == []


def test_what_a_worker_took_that_is_gone_is_lost() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    sighting = see({"0": ClaimInfo("gone", part.task, 0)})
    assert lost(deliveries, 1, sighting) == [("0", Loss.WORKER_GONE)]


def test_what_a_worker_took_and_no_longer_runs_is_lost_once_its_heartbeat_can_tell() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    assert lost(deliveries, 2, see({"0": ClaimInfo("w", part.task, 2)})) == []
    assert lost(deliveries, 4, see({"0": ClaimInfo("w", part.task, 4)})) == [("0", Loss.CLAIM_LOST)]


def test_what_nobody_took_is_lost_when_the_queue_has_been_empty_for_a_while() -> None:
    deliveries = Deliveries()
    sent(deliveries, 0)
    assert lost(deliveries, 5, see(empty=False)) == []
    assert lost(deliveries, 6, see()) == []
    assert lost(deliveries, 8, see()) == [("0", Loss.UNCLAIMED)]


def test_without_workers_nothing_is_lost_that_only_waits() -> None:
    deliveries = Deliveries()
    sent(deliveries, 0)
    for now in (5, 10, 100):
        assert lost(deliveries, now, see(running={})) == []


def test_what_later_chunks_have_overtaken_is_lost_though_the_queue_is_never_empty() -> None:
    deliveries = Deliveries()
    sent(deliveries, 0, now=0)
    later = sent(deliveries, 1, now=6)
    assert lost(deliveries, 7, see(empty=False)) == []
    deliveries.settle("1", echo(later))
    assert lost(deliveries, 8, see(empty=False)) == [("0", Loss.UNCLAIMED)]


def test_what_nobody_took_is_sent_again_ever_more_rarely_though_the_queue_is_long() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    again = []
    for now in range(1, 200):
        for found, _ in deliveries.lost(float(now), see(empty=False)):
            deliveries.send(found, "job", float(now))
            again.append(now)
    assert again == [15, 15 + 30, 15 + 30 + 60]
    assert part.sends == 4


def test_what_waits_at_a_worker_for_its_turn_is_not_lost_while_all_are_busy() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    held = FleetSnapshot({}, {"w": ["other", part.task]}, queue_is_empty=True, any_idle=False)
    assert lost(deliveries, 1.0, held) == []
    assert lost(deliveries, 60.0, held) == []


def test_what_waits_at_a_busy_worker_goes_to_an_idle_one() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    held = FleetSnapshot(
        {}, {"w": ["other", part.task], "v": []}, queue_is_empty=True, any_idle=True
    )
    assert lost(deliveries, 1.0, held) == []
    assert lost(deliveries, 3.5, held) == [("0", Loss.UNCLAIMED)]


def test_what_waits_at_a_worker_that_leaves_is_sent_to_others_at_once() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    running = {"w": ["other", part.task], "v": []}
    held = FleetSnapshot({}, running, queue_is_empty=False, leaving={"w"}, any_idle=False)
    assert lost(deliveries, 0.1, held) == [("0", Loss.UNCLAIMED)]


def test_a_claim_by_an_earlier_delivery_does_not_hide_the_next_one() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    old = ClaimInfo("gone", part.task, 0)
    deliveries.send(part, "job", 1)
    assert lost(deliveries, 2, see({"0": old})) == []


def test_an_earlier_delivery_that_came_late_and_to_nothing_hides_nothing_for_long() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    earlier = part.task
    deliveries.send(part, "job", 1)
    assert lost(deliveries, 3, see({"0": ClaimInfo("w", earlier, 2)})) == []
    assert lost(deliveries, 5, see({"0": ClaimInfo("w", earlier, 4)})) == [("0", Loss.UNCLAIMED)]
    assert lost(deliveries, 9, see({"0": ClaimInfo("w", earlier, 8)}, {"w": {earlier}})) == []


def test_what_takes_far_longer_than_others_is_backed_up_once() -> None:
    deliveries = Deliveries()
    quick = sent(deliveries, 1)
    part = sent(deliveries, 0)
    deliveries.settle("1", Outcome(1, 4, echo(quick).outputs, seconds=0.1))

    def running_for(seconds: float) -> FleetSnapshot:
        return see({"0": ClaimInfo("w", part.task, seconds)}, {"w": {part.task}})

    assert lost(deliveries, 1059, running_for(59)) == []  # it has waited for long, and run little
    assert lost(deliveries, 1061, running_for(61)) == [("0", Loss.SLOW)]
    assert lost(deliveries, 1090, running_for(90)) == []


@pytest.mark.parametrize("kind", FrameKind)
@given(count=st.integers(1, 40), data=st.data())
def test_the_record_that_kills_is_found_and_few_processes_die(
    kind: FrameKind, count: int, data: st.DataObject
) -> None:
    killer = data.draw(st.integers(0, count - 1))
    deliveries = Deliveries()
    to_send = [deliveries.add(chunk_of(3, count, kind))]
    crashes = 0
    result: Outcome[Frame] | None = None
    while result is None:
        part = to_send.pop(data.draw(st.integers(0, len(to_send) - 1)))
        first = part.chunk.start - 300
        if part.key not in deliveries:
            continue
        if not first <= killer < first + part.chunk.count:
            result = deliveries.settle(part.key, echo(part))
            continue
        crashes += 1
        verdict = deliveries.crashed(part.key, "signal 9")
        if isinstance(verdict, Outcome):
            result = verdict
        elif verdict is not None:
            to_send += verdict
    assert crashes <= (count - 1).bit_length() + 2
    assert result.failure is not None
    assert result.failure.index == 300 + killer
    assert isinstance(result.failure.error, ProcessDiedError)
    assert result.count == killer
    if kind is FrameKind.OBJECTS:
        assert decode_records(result.outputs) == list(range(killer))
    else:
        assert bytes(result.outputs.payload).splitlines() == [b"%d" % n for n in range(killer)]
    assert len(deliveries) == 0


def test_a_chunk_that_only_once_took_a_process_with_it_is_whole() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    assert deliveries.crashed("0", "signal 9") == [part]
    outcome = echo(part)
    assert deliveries.settle("0", outcome) is outcome


def test_a_chunk_whose_outputs_are_too_large_is_halved_at_once_and_nobody_died() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    halves = deliveries.crashed("0", TOO_LARGE)
    assert isinstance(halves, list)
    assert len(halves) == 2
    assert [half.may_kill for half in halves] == [part.may_kill] * 2
    assert deliveries.settle(halves[1].key, echo(halves[1])) is None
    outcome = deliveries.settle(halves[0].key, echo(halves[0]))
    assert outcome is not None
    assert outcome.count == part.chunk.count


def test_a_single_record_is_not_blamed_for_two_workers_that_disappear() -> None:
    deliveries = Deliveries()
    part = deliveries.add(chunk_of(0, 1))
    assert deliveries.disappeared(part) == [part]
    assert deliveries.disappeared(part) == [part]
    assert isinstance(deliveries.disappeared(part), Outcome)


def test_what_is_dropped_is_forgotten() -> None:
    deliveries = Deliveries()
    parts = [sent(deliveries, index) for index in range(3)]
    assert deliveries.drop(1) == parts[1:]
    assert deliveries.settle("2", echo(parts[2])) is None
    assert deliveries.crashed("1", "x") is None
    assert deliveries.keys == ["0"]


def test_a_part_that_keeps_coming_to_nothing_is_halved_and_named_in_the_end() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    for _ in range(10):
        assert deliveries.came_to_nothing(part) == [part]
    verdict = deliveries.came_to_nothing(part)
    verdict = deliveries.came_to_nothing(part) if verdict == [part] else verdict
    while isinstance(verdict, list):
        assert len(verdict) == 2
        half = verdict[0]
        for _ in range(10):
            assert deliveries.came_to_nothing(half) == [half]
        verdict = deliveries.came_to_nothing(half)
    assert verdict is not None
    assert verdict.failure is not None
    assert verdict.failure.index == 0
    assert "came to nothing" in str(verdict.failure.error)
