"""A job's log: its entries, which of them count, leases, the fold, states."""

import json
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrmute_tasks.errors import JobError, JobFormatError, JobLogError, LeaseLostError
from pyrmute_tasks.jobs import lease as leases
from pyrmute_tasks.jobs import states
from pyrmute_tasks.jobs.entries import (
    OPEN_END,
    BadLineError,
    Ended,
    Entry,
    JobResult,
    Leased,
    Note,
    Noted,
    Opened,
    Piece,
    Publishing,
    Range,
    Settled,
    Wished,
    decode,
    encode,
)
from pyrmute_tasks.jobs.fold import Fold, Prefix
from pyrmute_tasks.jobs.lease import Lease, take
from pyrmute_tasks.jobs.log import History, LogReader, epochs, newest_opened
from pyrmute_tasks.jobs.states import Event, LoggedState, ShownState, Wish, next_state, shown
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.view import JobView

ENTRIES: list[Entry] = [
    Leased(7, "token", {"host": "h", "pid": 3}),
    Opened(7, "code", {5: 100, 6: 18230}),
    Settled(0, 0, 9, 3, 2, 1, Piece("parts/p", 0, 9), "d", Piece("rejects/r", 5, 7), "w@h", 0.5, 4),
    Settled(1, 0, 9, 3, 3, 0, Piece("stream.7", 12, 9), "d"),
    *(Noted(note, "because") for note in Note),
    Wished({"wish": "pause", "why": "release"}),
    Publishing(12, "digest", ".out.tmp"),
    *(Ended(result, 3, 2, 1, "why") for result in JobResult),
]


def settled(start: int, end: int, *, file: int = 0, rejected: int = 0) -> Settled:
    """Return a settled range of one record a position."""
    count = end - start
    put = Piece("stream.1", start, count) if count > rejected else None
    rejects = Piece("rejects.1", start, count) if rejected else None
    return Settled(file, start, end, count, count - rejected, rejected, put, "", rejects)


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    (tmp_path / "parts").mkdir()
    return FolderStorage(tmp_path)


def take_it(storage: FolderStorage) -> Lease:
    return take(storage, {"host": "h"}, "code")


def settle(lease: Lease, *ranges: Settled) -> list[Settled]:
    for each in ranges:
        lease.log.settle(each)
    return lease.log.commit()


def counted(storage: FolderStorage) -> list[Entry]:
    return [each.entry for each in History(storage) if isinstance(each.entry, Settled)]


# --- entries --------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda each: type(each).__name__)
def test_entry_round_trips(entry: Entry) -> None:
    line = encode(entry, 12.3456, 7, 1000)
    assert line.count(b"\n") == 1
    assert json.loads(line)["at"] == 12.346
    logged = decode(line, 7, 1000)
    assert (logged.entry, logged.epoch, logged.offset) == (entry, 7, 1000)


@pytest.mark.parametrize(("epoch", "offset"), [(8, 1000), (7, 1001), (6, 1000), (7, 0)])
def test_entry_of_another_place_is_refused(epoch: int, offset: int) -> None:
    with pytest.raises(BadLineError, match="checksum"):
        decode(encode(ENTRIES[2], 1.0, 7, 1000), epoch, offset)


@given(st.data())
def test_damaged_entry_is_refused(data: st.DataObject) -> None:
    line = encode(data.draw(st.sampled_from(ENTRIES)), 1.0, 7, 1000)
    at = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != line[at]))
    for damaged in (line[:at] + bytes([byte]) + line[at + 1 :], line[:at], line[at + 1 :]):
        with pytest.raises(BadLineError):
            decode(damaged, 7, 1000)


# --- logs -----------------------------------------------------------------------------------


def test_log_is_lines_of_json(storage: FolderStorage) -> None:
    lease = take_it(storage)
    settle(lease, settled(0, 5))
    lease.let_go("interrupted")
    lines = storage.read("log.1").splitlines()
    kinds = [next(iter(json.loads(line))) for line in lines]
    assert kinds == ["lease", "open", "range", "stopped"]
    assert json.loads(lines[2])["range"] == [0, 0, 5]


def test_next_epoch_continues_the_job(storage: FolderStorage) -> None:
    first = take_it(storage)
    settle(first, settled(0, 5), settled(8, 9))
    first.let_go("paused")
    second = take_it(storage)
    assert second.epoch == 2
    assert list(second.fold.gaps([Range(0, 0, 12)])) == [Range(0, 5, 8), Range(0, 9, 12)]
    settle(second, settled(5, 8))
    assert counted(storage) == [settled(0, 5), settled(8, 9), settled(5, 8)]


def test_uncommitted_entries_do_not_count(storage: FolderStorage) -> None:
    lease = take_it(storage)
    lease.log.settle(settled(0, 5))
    lease.log.close()
    assert counted(storage) == []


def test_frozen_writer_that_wakes_is_not_read(storage: FolderStorage) -> None:
    frozen = take_it(storage)
    settle(frozen, settled(0, 5))
    other = take_it(storage)
    frozen.log.settle(settled(5, 9))
    with pytest.raises(LeaseLostError, match=r"log\.2 was created"):
        frozen.log.commit()
    with pytest.raises(LeaseLostError):
        frozen.log.settle(settled(9, 10))
    with pytest.raises(LeaseLostError):
        frozen.let_go("woken")
    assert b'"range":[0,5,9]' in storage.read("log.1")
    assert counted(storage) == [settled(0, 5)]
    settle(other, settled(5, 7))
    assert counted(take_it(storage).log._storage) == [settled(0, 5), settled(5, 7)]  # type: ignore[arg-type]  # the same


def test_beat_finds_that_the_lease_is_lost(storage: FolderStorage) -> None:
    frozen = take_it(storage)
    frozen.log.beat()
    take_it(storage)
    with pytest.raises(LeaseLostError):
        frozen.log.beat()
    with pytest.raises(LeaseLostError):
        frozen.log.put(b"data")


def test_who_beats_beside_its_work_learns_there_that_the_lease_is_lost(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not its storage was away before."""
    monkeypatch.setattr(leases, "BEAT_EVERY_S", 0.001)
    beats, frozen, has_lost = iter([OSError("away")]), take_it(storage), threading.Event()
    beat = frozen.log.beat

    def noted() -> None:
        for error in beats:
            raise error
        try:
            beat()
        except LeaseLostError:
            has_lost.set()
            raise

    monkeypatch.setattr(frozen.log, "beat", noted)
    with frozen.beating():
        take_it(storage)
        assert has_lost.wait(60)
        with pytest.raises(LeaseLostError):
            frozen.log.commit()


@pytest.mark.parametrize("name", ["log.007", "log.0", "log.\u0663", "log.2.old", "log.", "log.-1"])
def test_file_that_is_no_log_is_left_alone(storage: FolderStorage, name: str) -> None:
    (storage.path / name).write_bytes(b"mine")
    assert JobView.of(History(storage)).state is LoggedState.QUEUED
    assert take_it(storage).epoch == 1
    assert (storage.path / name).read_bytes() == b"mine"


def test_taker_that_died_before_opening_is_passed_over(storage: FolderStorage) -> None:
    settle(take_it(storage), settled(0, 5))
    line = encode(Leased(2, "token", {}), 1.0, 2, 0)
    (storage.path / "log.2").write_bytes(line + b'{"open":2,"co')
    lease = take_it(storage)
    assert lease.epoch == 3
    assert lease.fold.records == 5
    assert lease.view.opened is not None
    assert list(lease.view.opened.seal) == [1]


@pytest.mark.parametrize("torn", [b'{"range":[0,5', b"\0" * 80, b"\0" * 80 + b"\n", b"\n"])
def test_torn_end_of_the_newest_log_is_not_an_entry(storage: FolderStorage, torn: bytes) -> None:
    lease = take_it(storage)
    settle(lease, settled(0, 5))
    lease.log.close()
    with (storage.path / "log.1").open("ab") as file:
        file.write(torn)
    reader = LogReader(storage, 1)
    assert len(list(reader)) == 3
    assert reader.torn_bytes == len(torn)
    settle(take_it(storage), settled(5, 6))
    assert counted(storage) == [settled(0, 5), settled(5, 6)]


def sealed_log(storage: FolderStorage) -> Path:
    settle(take_it(storage), settled(0, 5), settled(5, 6))
    take_it(storage)
    return storage.path / "log.1"


def test_damage_under_a_seal_is_an_error_with_its_place(storage: FolderStorage) -> None:
    path = sealed_log(storage)
    data = path.read_bytes()
    at = data.index(b'{"range":[0,5,6]')
    path.write_bytes(data.replace(b'"range":[0,5,6]', b'"range":[0,5,7]'))
    with pytest.raises(JobLogError, match=rf"log\.1 is damaged at byte {at}: its checksum"):
        JobView.of(History(storage))


def test_sealed_log_that_is_cut_is_an_error(storage: FolderStorage) -> None:
    path = sealed_log(storage)
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(JobLogError, match="sealed bytes are missing"):
        take_it(storage)
    path.unlink()
    with pytest.raises(JobLogError, match=rf"log\.1 is missing, and {size} bytes of it are sealed"):
        JobView.of(History(storage))


def test_damaged_open_line_is_an_error_if_more_follows(storage: FolderStorage) -> None:
    lease = take_it(storage)
    settle(lease, settled(0, 5))
    path = storage.path / "log.1"
    path.write_bytes(path.read_bytes().replace(b'"open":1', b'"open":2'))
    with pytest.raises(JobLogError, match=r"log\.1 is damaged"):
        JobView.of(History(storage))


def test_log_of_a_newer_version_is_refused(storage: FolderStorage) -> None:
    (storage.path / "log.1").write_bytes(b'{"lease":1,"format":3,"sum":"other"}\n{"open":1}\n')
    with pytest.raises(JobFormatError, match="format 3, and this version reads up to 2"):
        take_it(storage)


def test_entries_are_committed_once_a_second(storage: FolderStorage) -> None:
    now = 100.0
    lease = take(storage, {}, "code", monotonic=lambda: now)
    lease.log.settle(settled(0, 5))
    assert lease.log.commit_if_due() == []
    now += 0.99
    assert lease.log.commit_if_due() == []
    now += 0.02
    assert lease.log.commit_if_due() == [settled(0, 5)]
    now += 10
    assert lease.log.commit_if_due() == []


def test_stream_is_named_by_its_place(storage: FolderStorage) -> None:
    lease = take_it(storage)
    pieces = [lease.log.put(b"abc"), lease.log.put(memoryview(b"de")), lease.log.put_rejects(b"r")]
    assert pieces == [Piece("stream.1", 0, 3), Piece("stream.1", 3, 2), Piece("rejects.1", 0, 1)]
    lease.log.commit()
    assert storage.read("stream.1", 3, 2) == b"de"


def test_writer_is_dead_after_a_write_that_failed(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take_it(storage)
    lease.log.settle(settled(0, 5))

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            lease.log.commit()
    with pytest.raises(OSError, match="No space"):
        lease.log.commit()
    # The kernel kept it all the same; either would do, as nobody was told.
    assert take_it(storage).fold.records in (0, 5)


def test_interrupted_commit_ends_the_writer(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take_it(storage)
    lease.log.settle(settled(0, 5))

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lease.log.commit()
    with pytest.raises(JobError, match="interrupted while it was written"):
        lease.log.commit()


def test_contradicting_entry_leaves_the_log_unchanged(storage: FolderStorage) -> None:
    lease = take_it(storage)
    settle(lease, settled(0, 5))
    with pytest.raises(JobLogError, match="file 0, 4 to 6 overlaps a settled range"):
        lease.log.settle(settled(4, 6))
    with pytest.raises(JobLogError, match="3 records in, 2 out and 0 rejected"):
        lease.log.settle(Settled(0, 5, 6, 3, 2, 0, Piece("parts/p", 0, 1)))
    with pytest.raises(JobLogError, match="a job that is running does not allow the event"):
        lease.log.log(Ended(JobResult.SUCCEEDED, 5, 5, 0))
    settle(lease, settled(5, 6))
    assert counted(storage) == [settled(0, 5), settled(5, 6)]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../in",
        "parts/../log.1",
        "parts/..",
        "parts/",
        "log.1",
        "parts/a/b",
        "parts/a\n",
    ],
)
def test_outcome_that_names_other_files_is_refused(storage: FolderStorage, name: str) -> None:
    lease = take_it(storage)
    for place in ({"put": Piece(name, 0, 1)}, {"put": None, "rejects": Piece(name, 0, 1)}):
        outputs = 1 if place["put"] else 0
        with pytest.raises(JobLogError, match="a place that is none of the job's"):
            lease.log.settle(Settled(0, 0, 1, 1, outputs, 1 - outputs, **place))
    with pytest.raises(JobLogError, match="a place that is none of the job's"):
        lease.log.settle(Settled(0, 0, 1, 1, 1, 0, Piece("parts/a", -1, 1)))


# --- leases ---------------------------------------------------------------------------------


def test_one_of_two_takers_wins(storage: FolderStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    winners: list[Lease] = []
    create = FolderStorage.create

    def be_quicker(self: FolderStorage, name: str, /) -> object:
        monkeypatch.undo()
        winners.append(take_it(storage))
        return create(self, name)

    monkeypatch.setattr(FolderStorage, "create", be_quicker)
    with pytest.raises(LeaseLostError, match=r"it was quicker with log\.1"):
        take_it(storage)
    assert epochs(storage) == [1]
    settle(winners[0], settled(0, 5))
    assert [name for name in storage.names() if name.startswith(".")] == []


def failing_link(error: OSError, *, after: bool) -> Callable[..., None]:
    link = FolderStorage.link

    def fail(self: FolderStorage, name: str, new: str, /) -> None:
        if after:
            link(self, name, new)
        raise error

    return fail


def test_lost_answer_to_a_link_is_understood(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderStorage, "link", failing_link(FileExistsError(), after=True))
    assert settle(take_it(storage), settled(0, 5)) == [settled(0, 5)]


def test_lease_without_hard_links(storage: FolderStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(1, "Operation not permitted")
    monkeypatch.setattr(FolderStorage, "link", failing_link(error, after=False))
    settle(take_it(storage), settled(0, 5))
    second = take_it(storage)
    assert (second.epoch, second.fold.records) == (2, 5)


def test_holder_is_named(storage: FolderStorage) -> None:
    take(storage, {"host": "there", "pid": 7}, "abc")
    view = JobView.of(History(storage))
    assert view.leased is not None
    assert view.leased.holder == {"host": "there", "pid": 7}
    assert view.opened is not None
    assert view.opened.code == "abc"


# --- the fold -------------------------------------------------------------------------------


@given(st.data())
def test_fold_equals_the_settled_ranges(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    cuts = sorted({0, size, *data.draw(st.sets(st.integers(0, size), max_size=12))})
    pieces = [
        settled(start, end, rejected=data.draw(st.sampled_from([0, 0, 1])))
        for start, end in pairwise(cuts)
    ]
    order = data.draw(st.permutations(pieces))
    left = data.draw(st.integers(0, len(pieces)))
    fold, units = Fold(), set()
    for each in order[:left]:
        fold.add(each)
        units |= set(range(each.start, each.end))
        with pytest.raises(JobLogError, match="overlaps"):
            fold.add(each)
    wanted = Range(0, 0, size)
    gaps = list(fold.gaps([wanted]))
    assert {at for gap in gaps for at in range(gap.start, gap.end)} == set(range(size)) - units
    assert all(left.end < right.start for left, right in pairwise(gaps))
    assert fold.is_settled([wanted]) == (not gaps)
    assert fold.records == len(units) == fold.outputs + fold.rejected
    first_gap = gaps[0].start if gaps else size
    rejected = sum(each.rejected for each in order[:left] if each.end <= first_gap)
    assert fold.prefix([wanted]) == Prefix(first_gap, rejected)
    for span in fold.spans():
        assert span.first_record == (span.range.start if span.range.start <= first_gap else -1)
    bad = sorted(each.range for each in order[:left] if each.rejected)
    assert [span.range for span in fold.spans() if span.rejected] == bad


def test_spans_count_records_over_files_and_lines_in_each() -> None:
    fold = Fold()
    fold.add(Settled(0, 0, 10, 3, 3, 0, Piece("parts/p", 0, 1), lines=5))
    fold.add(Settled(1, 0, 10, 2, 1, 1, Piece("parts/p", 1, 1), rejects=Piece("rejects.1", 0, 1)))
    fold.add(settled(10, 12, file=1))
    spans = list(fold.spans())
    assert [(s.range.file, s.first_record, s.first_line) for s in spans] == [
        (0, 0, 0),
        (1, 3, 0),
        (1, 5, 2),
    ]
    assert spans[0].lines == 5


def test_fold_keeps_gaps_and_not_ranges() -> None:
    fold = Fold()
    for at in range(1000):
        fold.add(settled(at, at + 1))
    assert len(list(fold.spans())) == 1
    assert fold.ranges == 1000


def test_source_of_unknown_length_has_an_open_gap() -> None:
    fold = Fold()
    fold.add(settled(0, 5))
    assert list(fold.gaps([Range(0, 0, OPEN_END)])) == [Range(0, 5, OPEN_END)]
    assert not fold.is_settled([Range(0, 0, OPEN_END)])
    assert fold.is_settled([Range(0, 0, 5)])


def test_gaps_of_a_retry_are_within_its_ranges() -> None:
    fold = Fold()
    wanted = [Range(0, 10, 20), Range(0, 40, 50), Range(2, 0, 3)]
    assert list(fold.gaps(wanted)) == wanted
    fold.add(settled(40, 45))
    assert list(fold.gaps(wanted)) == [Range(0, 10, 20), Range(0, 45, 50), Range(2, 0, 3)]
    assert fold.overlaps(Range(0, 44, 46))
    assert not fold.overlaps(Range(0, 45, 46))


# --- states ---------------------------------------------------------------------------------

R, S, P = LoggedState.RUNNING, LoggedState.STOPPED, LoggedState.PUBLISHING
MOVES = {
    (LoggedState.QUEUED, Event.OPENED): R,
    **{(R, event): R for event in (Event.OPENED, Event.SETTLED, Event.NOTED)},
    (R, Event.STOPPED): S,
    (R, Event.GONE): S,
    (R, Event.PUBLISHING): P,
    (R, Event.FAILED): LoggedState.FAILED,
    (R, Event.CANCELLED): LoggedState.CANCELLED,
    (S, Event.OPENED): R,
    (S, Event.GONE): S,
    (P, Event.OPENED): R,
    (P, Event.NOTED): P,
    (P, Event.STOPPED): S,
    (P, Event.GONE): S,
    (P, Event.PUBLISHING): P,
    (P, Event.SUCCEEDED): LoggedState.SUCCEEDED,
    (P, Event.SUCCEEDED_WITH_REJECTS): LoggedState.SUCCEEDED_WITH_REJECTS,
    (P, Event.FAILED): LoggedState.FAILED,
    (LoggedState.FAILED, Event.OPENED): R,
}


@pytest.mark.parametrize("state", LoggedState)
@pytest.mark.parametrize("event", Event)
def test_every_state_and_event(state: LoggedState, event: Event) -> None:
    expected = MOVES.get((state, event))
    if expected is None:
        with pytest.raises(
            JobLogError, match=f"a job that is {state} does not allow the event: {event}"
        ):
            next_state(state, event)
    else:
        assert next_state(state, event) is expected


def test_final_states_are_those_without_a_way_on() -> None:
    final = {state for state in LoggedState if state.is_final}
    assert final == {
        LoggedState.SUCCEEDED,
        LoggedState.SUCCEEDED_WITH_REJECTS,
        LoggedState.CANCELLED,
    }
    assert {state for state in LoggedState if state.has_ended} == final | {LoggedState.FAILED}


@pytest.mark.parametrize("state", LoggedState)
@pytest.mark.parametrize("wish", Wish)
@pytest.mark.parametrize("waits", ["", "no worker answers"])
def test_every_state_is_shown(state: LoggedState, wish: Wish, waits: str) -> None:
    told = shown(state, wish, waits)
    active = {LoggedState.QUEUED, LoggedState.RUNNING, LoggedState.STOPPED}
    if state not in active:
        assert told.value == state.value  # what has ended, or nearly, is not "pausing"
    elif wish is Wish.CANCEL:
        assert told is ShownState.CANCELLING
    elif wish is Wish.PAUSE:
        assert told is (ShownState.PAUSING if state is R else ShownState.PAUSED)
    else:
        assert told.value == ("waiting" if waits and state is R else state.value)


def test_table_names_every_state() -> None:
    assert set(states._NEXT) == set(LoggedState)


def test_view_follows_a_job(storage: FolderStorage) -> None:
    lease = take_it(storage)
    view = lease.view
    lease.log.log(Noted(Note.WAIT, "no worker answers"))
    assert (view.state, view.waits) == (LoggedState.RUNNING, "no worker answers")
    lease.log.log(Noted(Note.RESUMED, "a worker answers"))
    lease.log.log(Noted(Note.CRASH, "signal 9"))
    assert (view.waits, view.crashes) == ("", 1)
    settle(lease, settled(0, 5))
    lease.log.log(Publishing(5, "d", "t"))
    lease.log.log(Ended(JobResult.FAILED, 5, 5, 0, "the disk is full"))
    lease.let_go("not noted, as it has ended")
    again = take_it(storage)
    assert (again.view.state, again.view.ended) == (R, None)
    assert again.view.publishing == Publishing(5, "d", "t")
    again.log.log(Noted(Note.STOPPED, "paused"))
    again.log.commit()
    found = JobView.of(History(storage))
    assert (found.state, found.stopped, found.epoch) == (S, "paused", 2)


class GrowingStorage(FolderStorage):
    """A log that its writer goes on with right after it was read to its end."""

    written_next = b""

    def read(self, name: str, start: int = 0, length: int | None = None, /) -> bytes:
        data = super().read(name, start, length)
        if not data:
            more, self.written_next = self.written_next, b""
            with (self.path / name).open("ab") as file:
                file.write(more)
        return data


def test_log_that_is_written_while_it_is_read_is_not_damaged(tmp_path: Path) -> None:
    lease = take(FolderStorage(tmp_path), {"host": "h"}, "f00d")
    for at in range(5):
        lease.log.settle(Settled(0, at, at + 1, 1, 0, 1))
    lease.let_go("for the test")
    first, behind = (tmp_path / "log.1").read_bytes().split(b"\n", 1)
    (tmp_path / "log.1").write_bytes(first + b"\n")
    storage = GrowingStorage(tmp_path)
    storage.written_next = behind
    opened = newest_opened(storage, [1])
    assert opened is not None
    assert opened.epoch == 1
