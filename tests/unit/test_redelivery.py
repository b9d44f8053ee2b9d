"""The rules of resending, without broker and store."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrmute_tasks.distributed.producer.parts import Ignored, Part, Resend, Settled
from pyrmute_tasks.distributed.producer.redelivery import Deliveries, FleetSnapshot, Loss
from pyrmute_tasks.distributed.protocol import TOO_LARGE, ClaimInfo
from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_records
from pyrmute_tasks.errors import FrameError, ProcessDiedError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame, encode_frame, pack


def chunk_of(index: int, count: int, kind: FrameKind = FrameKind.OBJECTS) -> Chunk[bytes]:
    if kind is FrameKind.OBJECTS:
        payload = pack(list(range(count)))
    else:
        payload = b"".join(b"%d\n" % n for n in range(count))
    frame = encode_frame(kind, count, payload)
    return Chunk(index, 100 * index, count, frame, len(frame))


def echo(part: Part) -> Outcome[Frame]:
    """Return the outcome of a worker that returns its inputs."""
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


def lost(deliveries: Deliveries, now: float, snapshot: FleetSnapshot) -> list[tuple[str, Loss]]:
    return [(part.key, loss) for part, loss in deliveries.lost(now, snapshot)]


@pytest.mark.parametrize(
    ("outputs", "failing"),
    [
        (4, [102]),  # outputs of records behind the first that failed
        (0, [102]),  # outputs lost
        (3, []),
        (1, [101, 101]),
        (1, [102, 101]),
        (1, [101, 104]),  # of another chunk
    ],
)
def test_outcome_of_other_records_is_damaged(outputs: int, failing: list[int]) -> None:
    deliveries = Deliveries()
    sent(deliveries, 1)
    frame = decode_frame(chunk_of(1, outputs).payload)
    failures = tuple(RecordFailure(index, Stage.STEP, "", KeyError()) for index in failing)
    with pytest.raises(FrameError, match="is not about its records"):
        deliveries.settle("1", Outcome(1, outputs, frame, failures))


@pytest.mark.parametrize(
    ("outputs", "failing", "is_final"),
    [
        (4, [], False),
        (0, [100], False),
        (1, [101, 102], False),  # a worker went on behind the first, and not behind the second
        (2, [101, 103], False),
        (0, [100, 101, 102, 103], False),
        (3, [103], True),
    ],
)
def test_outcome_may_have_several_failures(
    outputs: int, failing: list[int], is_final: bool
) -> None:
    deliveries = Deliveries()
    sent(deliveries, 1)
    frame = decode_frame(chunk_of(1, outputs).payload)
    failures = tuple(RecordFailure(index, Stage.STEP, "", KeyError()) for index in failing)
    outcome = Outcome(1, outputs, frame, failures, is_final=is_final)
    assert deliveries.settle("1", outcome) == outcome


def skipping(*counts: int) -> tuple[Deliveries, list[Part]]:
    """Return a chunk of a job that skips, in parts of these sizes."""
    deliveries = Deliveries(skips=True)
    sent(deliveries, 0)
    [part] = [deliveries.declined("0", "job-0-1")]
    assert part is not None
    parts = [part]
    while [part.chunk.count for part in parts] != list(counts):
        for part in list(parts):
            match deliveries.crashed(part.key, TOO_LARGE):
                case Resend(halves, _):
                    parts[parts.index(part) : parts.index(part) + 1] = halves
    return deliveries, parts


def failed(part: Part, *positions: int, until: int | None = None) -> Outcome[Frame]:
    """Return the outcome of a worker that skips these records, and ends behind record `until`."""
    records = [n for n in range(part.chunk.count)[:until] if n not in positions]
    start = part.chunk.start
    failures = tuple(RecordFailure(start + n, Stage.STEP, "", KeyError()) for n in positions)
    frame = encode_frame(FrameKind.OBJECTS, len(records), pack(records))
    return Outcome(part.chunk.index, len(records), decode_frame(frame), failures)


def test_parts_behind_a_reject_are_awaited() -> None:
    deliveries, (first, second) = skipping(2, 2)
    assert deliveries.settle(first.key, failed(first, 1)) is None
    whole = deliveries.settle(second.key, failed(second, 0))
    assert whole is not None
    assert whole.count == 2
    assert [failure.index for failure in whole.failures] == [1, 2]


def test_parts_behind_a_run_that_ended_are_not_awaited() -> None:
    deliveries, (first, _) = skipping(2, 2)
    whole = deliveries.settle(first.key, failed(first, 0, until=1))
    assert whole is not None
    assert (whole.count, [failure.index for failure in whole.failures]) == (0, [0])
    assert not len(deliveries)


def test_record_that_kills_its_process_is_a_reject() -> None:
    deliveries, (first, second, third, fourth) = skipping(1, 1, 1, 1)
    for part in (first, third, fourth):
        assert deliveries.settle(part.key, echo(part)) is None
    while isinstance(after := deliveries.crashed(second.key, "signal 9 (SIGKILL)"), Resend):
        pass
    assert isinstance(after, Settled)
    assert after.part == second.key
    assert after.outcome is not None
    assert after.outcome.count == 3
    [failure] = after.outcome.failures
    assert failure.index == 1
    assert isinstance(failure.error, ProcessDiedError)
    assert not after.outcome.ends_early(chunk_of(0, 4))


def test_running_claim_is_not_lost() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    snapshot = see({"0": ClaimInfo("w", part.task, 50)}, {"w": {part.task}})
    for now in (1, 10, 50):
        assert lost(deliveries, now, snapshot) == []


def test_claim_of_a_dead_worker_is_lost() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    snapshot = see({"0": ClaimInfo("gone", part.task, 0)})
    assert lost(deliveries, 1, snapshot) == [("0", Loss.WORKER_GONE)]


def test_stale_claim_is_lost_after_the_next_heartbeat() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    assert lost(deliveries, 2, see({"0": ClaimInfo("w", part.task, 2)})) == []
    assert lost(deliveries, 4, see({"0": ClaimInfo("w", part.task, 4)})) == [("0", Loss.CLAIM_LOST)]


def test_unclaimed_chunk_is_lost_when_the_queue_stays_empty() -> None:
    deliveries = Deliveries()
    sent(deliveries, 0)
    assert lost(deliveries, 5, see(empty=False)) == []
    assert lost(deliveries, 6, see()) == []
    assert lost(deliveries, 8, see()) == [("0", Loss.UNCLAIMED)]


def test_waiting_chunks_are_not_lost_without_workers() -> None:
    deliveries = Deliveries()
    sent(deliveries, 0)
    for now in (5, 10, 100):
        assert lost(deliveries, now, see(running={})) == []


def test_overtaken_chunk_is_lost_while_the_queue_is_full() -> None:
    deliveries = Deliveries()
    sent(deliveries, 0, now=0)
    later = sent(deliveries, 1, now=6)
    assert lost(deliveries, 7, see(empty=False)) == []
    deliveries.settle("1", echo(later))
    assert lost(deliveries, 8, see(empty=False)) == [("0", Loss.UNCLAIMED)]


def test_unclaimed_chunk_is_resent_with_backoff_while_the_queue_is_full() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    again = []
    for now in range(1, 200):
        for found, _ in deliveries.lost(float(now), see(empty=False)):
            deliveries.send(found, "job", float(now))
            again.append(now)
    assert again == [15, 15 + 30, 15 + 30 + 60]
    assert part.sends == 4


def test_prefetched_chunk_is_not_lost_while_all_workers_are_busy() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    held = FleetSnapshot({}, {"w": ["other", part.task]}, queue_is_empty=True, any_idle=False)
    assert lost(deliveries, 1.0, held) == []
    assert lost(deliveries, 60.0, held) == []


def test_prefetched_chunk_moves_from_a_busy_to_an_idle_worker() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    held = FleetSnapshot(
        {}, {"w": ["other", part.task], "v": []}, queue_is_empty=True, any_idle=True
    )
    assert lost(deliveries, 1.0, held) == []
    assert lost(deliveries, 3.5, held) == [("0", Loss.UNCLAIMED)]


def test_prefetched_chunk_of_a_leaving_worker_is_resent_at_once() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    running = {"w": ["other", part.task], "v": []}
    held = FleetSnapshot({}, running, queue_is_empty=False, leaving={"w"}, any_idle=False)
    assert lost(deliveries, 0.1, held) == [("0", Loss.UNCLAIMED)]


def test_claim_of_an_earlier_delivery_does_not_hide_the_next() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    old = ClaimInfo("gone", part.task, 0)
    deliveries.send(part, "job", 1)
    assert lost(deliveries, 2, see({"0": old})) == []


def test_failed_late_delivery_does_not_hide_a_loss() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    earlier = part.task
    deliveries.send(part, "job", 1)
    assert lost(deliveries, 3, see({"0": ClaimInfo("w", earlier, 2)})) == []
    assert lost(deliveries, 5, see({"0": ClaimInfo("w", earlier, 4)})) == [("0", Loss.UNCLAIMED)]
    assert lost(deliveries, 9, see({"0": ClaimInfo("w", earlier, 8)}, {"w": {earlier}})) == []


def test_straggler_gets_one_backup_task() -> None:
    deliveries = Deliveries()
    quick = sent(deliveries, 1)
    part = sent(deliveries, 0)
    deliveries.settle("1", Outcome(1, 4, echo(quick).outputs, seconds=0.1))

    def running_for(seconds: float) -> FleetSnapshot:
        return see({"0": ClaimInfo("w", part.task, seconds)}, {"w": {part.task}})

    assert lost(deliveries, 1059, running_for(59)) == []  # it has waited for long, and run little
    assert lost(deliveries, 1061, running_for(61)) == [("0", Loss.SLOW)]
    assert lost(deliveries, 1090, running_for(90)) == []


@pytest.mark.parametrize("kind", [FrameKind.OBJECTS, FrameKind.LINES])
@given(count=st.integers(1, 40), data=st.data())
def test_killing_record_is_found_with_few_crashes(
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
        match deliveries.crashed(part.key, "signal 9"):
            case Settled(_, outcome) if outcome is not None:
                result = outcome
            case Resend(parts):
                to_send += parts
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


def test_chunk_with_a_single_crash_is_not_halved() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    assert deliveries.crashed("0", "signal 9") == Resend((part,))
    outcome = echo(part)
    assert deliveries.settle("0", outcome) is outcome


def test_chunk_with_too_large_outputs_is_halved_without_crashes() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    decided = deliveries.crashed("0", TOO_LARGE)
    assert isinstance(decided, Resend)
    assert decided.replaced == part.key
    halves = decided.parts
    assert len(halves) == 2
    assert [half.may_kill for half in halves] == [part.may_kill] * 2
    assert deliveries.settle(halves[1].key, echo(halves[1])) is None
    outcome = deliveries.settle(halves[0].key, echo(halves[0]))
    assert outcome is not None
    assert outcome.count == part.chunk.count


def test_record_is_not_blamed_for_disappearing_workers() -> None:
    deliveries = Deliveries()
    part = deliveries.add(chunk_of(0, 1))
    assert deliveries.disappeared(part, "w1") == Resend((part,))
    assert deliveries.disappeared(part, "w2") == Resend((part,))
    assert isinstance(deliveries.disappeared(part, "w3"), Settled)


@pytest.mark.parametrize("count", [1, 8])
def test_returning_workers_count_as_no_crash(count: int) -> None:
    """Heartbeats are missed because of the connection, and the workers live."""
    deliveries = Deliveries()
    part = deliveries.add(chunk_of(0, count))
    for send in range(10):
        deliveries.send(part, "j", float(send))
        claims = {"0": ClaimInfo("w1", part.task, 10.0)}
        ((lost, loss),) = deliveries.lost(send + 0.5, see(claims, {}))
        assert (lost, loss) == (part, Loss.WORKER_GONE)
        assert deliveries.disappeared(part, "w1") == Resend((part,))
        back = see(claims, {"w1": {part.task}})
        assert list(deliveries.lost(send + 0.6, back)) == []
    assert part.crashes == []


def test_dropped_chunk_is_forgotten() -> None:
    deliveries = Deliveries()
    parts = [sent(deliveries, index) for index in range(3)]
    assert deliveries.drop(1) == parts[1:]
    assert deliveries.settle("2", echo(parts[2])) is None
    assert deliveries.crashed("1", "x") == Ignored()
    assert deliveries.keys == ["0"]


def test_part_that_never_settles_is_halved_and_named() -> None:
    deliveries = Deliveries()
    part = sent(deliveries, 0)
    for _ in range(10):
        assert deliveries.came_to_nothing(part) == Resend((part,))
    decided = deliveries.came_to_nothing(part)
    decided = deliveries.came_to_nothing(part) if decided == Resend((part,)) else decided
    while isinstance(decided, Resend):
        assert len(decided.parts) == 2
        half = decided.parts[0]
        for _ in range(10):
            assert deliveries.came_to_nothing(half) == Resend((half,))
        decided = deliveries.came_to_nothing(half)
    assert isinstance(decided, Settled)
    assert decided.outcome is not None
    failure = decided.outcome.failure
    assert failure is not None
    assert failure.index == 0
    assert "came to nothing" in str(failure.error)
