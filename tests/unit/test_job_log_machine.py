"""The rules of a job's log, on a disk that loses unsynced data.

Several processes drive one job at once: one has the lease, others have lost it and do not know yet,
stopped in the middle of anything. Any of them may die, or all with the power. After each step,
what the logs say is what was acknowledged, and nothing twice. ``JOB_LOG_SCHEDULES`` sets how many
schedules are tried (`make job-log`).
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyrmute_tasks.errors import JobLogError, LeaseLostError
from pyrmute_tasks.jobs import entries, lease, log
from pyrmute_tasks.jobs.entries import (
    Ended,
    JobResult,
    Logged,
    Note,
    Noted,
    Opened,
    Piece,
    Range,
    Settled,
)
from pyrmute_tasks.jobs.lease import Lease, take
from pyrmute_tasks.jobs.log import History, LogReader, LogWriter, epochs
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.storage import Storage
from pyrmute_tasks.jobs.view import JobView
from tests.unit.simulated_disk import Disk, SimulatedProcess, SimulatedStorage

SCHEDULES: Final = int(os.environ.get("JOB_LOG_SCHEDULES", "40"))
SOURCE: Final = (Range(0, 0, 7), Range(1, 0, 5))
MOST_PROCESSES: Final = 4
STILL: Final[dict[str, Any]] = {"now": lambda: 0.0, "monotonic": lambda: 0.0}


@dataclass(frozen=True)
class Work:
    """The work of a process with the lease; a process without it takes it."""

    kind: str
    pick: int
    length: int
    rejected: int
    by_reference: bool


seeds = st.integers(0, 2**32 - 1)
which = st.integers(0, MOST_PROCESSES - 1)
steps = st.integers(1, 9)
works = st.builds(
    Work,
    st.sampled_from(
        ["settle", "settle and commit", "settle and commit", "commit", "note", "let go", "fail"]
    ),
    st.integers(0, 20),
    st.integers(1, 4),
    st.sampled_from([0, 0, 0, 1, 9]),
    st.booleans(),
)


class Truth:
    """Facts known from outside: acknowledged ranges, and the right content of each piece."""

    def __init__(self) -> None:
        self.winners: dict[int, SimulatedProcess] = {}
        self.acknowledged: list[Settled] = []
        self.written: dict[Piece, bytes] = {}
        self.sealed: tuple[int, list[Settled]] = (0, [])  # by the newest epoch that was opened
        self.left: dict[int, str] = {}  # epochs whose driver let go, and how
        self.attempts = 0


class Driver:
    """A process that drives the job when it has the lease."""

    def __init__(self, process: SimulatedProcess, truth: Truth) -> None:
        self.process, self.truth = process, truth
        self.storage: Storage = process.storage
        self.lease: Lease | None = None

    def take(self) -> None:
        before = self.truth.sealed
        self.truth.attempts += 1
        token = f"{self.truth.attempts}"
        try:
            self.lease = lease.take(self.storage, {"host": "h"}, "code", token=token, **STILL)
        except LeaseLostError:
            return
        epoch, fold = self.lease.epoch, self.lease.fold
        assert self.truth.winners.setdefault(epoch, self.process) is self.process, "two winners"
        if epoch > max(before[0], self.truth.sealed[0]):
            found = [each for each in visible(self.process.storage.disk) if each.epoch < epoch]
            self.truth.sealed = (epoch, ranges(found))
            assert fold.ranges == len(self.truth.sealed[1]), "what is planned is not what counts"

    def do(self, work: Work) -> None:
        """Do the requested work, or take the lease."""
        if self.lease is None:
            self.take()
            return
        held = self.lease
        try:
            self._do(held, work)
        except LeaseLostError:
            assert held.epoch < max(epochs(SimulatedStorage(self.process.storage.disk)))
            self.lease = None

    def _do(self, lease: Lease, work: Work) -> None:
        if work.kind.startswith("settle"):
            self._settle(lease, work)
        if work.kind.endswith("commit"):
            self.truth.acknowledged += lease.log.commit()
        if work.kind == "note":
            lease.log.log(Noted(Note.CRASH, "a worker died"))
        if work.kind == "fail":
            lease.log.log(Ended(JobResult.FAILED, 0, 0, 0))
        if work.kind in ("let go", "fail"):
            self.lease = None
            lease.let_go("paused")
            self.truth.left[lease.epoch] = work.kind

    def _settle(self, lease: Lease, work: Work) -> None:
        """Settle a part of a gap."""
        pick = work.pick
        gaps = list(lease.fold.gaps(SOURCE))
        if not gaps:
            return
        gap = gaps[pick % len(gaps)]
        start = gap.start + pick % (gap.end - gap.start)
        done = Range(gap.file, start, min(gap.end, start + work.length))
        self.truth.attempts += 1
        count = done.end - done.start
        rejected = min(work.rejected, count)
        data = b"%d:%d-%d by %d;" % (*done, self.truth.attempts)
        put = self._put(lease, data, work.by_reference) if rejected < count else None
        rejects = self._put(lease, b"bad " + data, True) if rejected else None
        counts = (count, count - rejected, rejected)
        lease.log.settle(Settled(*done, *counts, put=put, rejects=rejects))

    def _put(self, lease: Lease, data: bytes, by_reference: bool) -> Piece:
        if not by_reference:
            piece = lease.log.put(data)
            self.truth.written[piece] = data
            return piece
        # A worker does this, into a file of its own.
        piece = Piece(f"parts/{lease.epoch}.{self.truth.attempts}.{data[0]}", 0, len(data))
        self.truth.written[piece] = data
        file = self.storage.create(piece.name)
        file.append(data)
        file.sync()
        file.close()
        self.storage.sync_folder("parts")
        return piece


class LogMachine(RuleBasedStateMachine):
    """Processes that come, stop, go on and die, and a disk that forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.disk, self.truth = Disk(), Truth()
        self.drivers: list[Driver] = []
        self.checked = -1
        self.known: dict[tuple[tuple[str, bytes], ...], list[Logged]] = {}

    # --- what happens -------------------------------------------------------------------------

    @rule(which=which, work=works)
    def do(self, which: int, work: Work) -> None:
        self.begin(which, work).finish()

    @rule(which=which, work=works, steps=steps)
    def begin_to_do(self, which: int, work: Work, steps: int) -> None:
        self.step(self.begin(which, work), steps)

    @rule(which=which, steps=steps)
    def go_on(self, which: int, steps: int) -> None:
        busy = [driver.process for driver in self.drivers if driver.process.is_busy]
        if busy:
            self.step(busy[which % len(busy)], steps)

    @rule(which=which, work=works, steps=steps, other=which, others=works)
    def do_while_another_sleeps(
        self, which: int, work: Work, steps: int, other: int, others: Work
    ) -> None:
        process = self.begin(which, work)
        self.step(process, steps)
        self.begin(other, others).finish()
        self.check()
        process.finish()

    @precondition(lambda self: any(driver.lease for driver in self.drivers))
    @rule(work=works, steps=steps)
    def take_over_from_a_busy_one(self, work: Work, steps: int) -> None:
        """Take the lease while its holder settles and commits."""
        holder = max(self.drivers, key=lambda each: each.lease.epoch if each.lease else 0)
        if len(self.drivers) < MOST_PROCESSES:
            self.drivers.append(Driver(SimulatedProcess(self.disk), self.truth))
        taker = self.drivers[-1]
        if taker is holder or taker.process.is_busy:
            return
        taker.process.start(lambda: taker.do(work))
        self.step(taker.process, steps)
        holder.process.finish()
        if holder.lease is not None:
            holder.process.start(lambda: holder.do(replace(work, kind="settle and commit")))
            holder.process.finish()
        self.check()
        taker.process.finish()

    @rule(which=which, work=works, steps=steps, seed=seeds)
    def die(self, which: int, work: Work, steps: int, seed: int) -> None:
        process = self.begin(which, work)
        self.step(process, steps)
        self.drivers = [each for each in self.drivers if each.process is not process]
        process.die(random.Random(seed))

    @precondition(lambda self: self.drivers)
    @rule(which=which, work=works, fate=st.sampled_from(["sleep", "die", "power"]), seed=seeds)
    def be_caught_between_write_and_sync(
        self, which: int, work: Work, fate: str, seed: int
    ) -> None:
        """Stop where the log is written and not synced, the most dangerous moment."""
        driver = self.drivers[which % len(self.drivers)]
        driver.process.finish()
        if driver.lease is None:
            return
        driver.process.start(lambda: driver.do(replace(work, kind="settle and commit")))
        while driver.process.is_busy and not driver.process.storage.has_own("log."):
            driver.process.step()
        driver.process.storage.leak(random.Random(seed))
        self.check()
        if fate == "die":
            self.drivers.remove(driver)
            driver.process.die(random.Random(seed))
        elif fate == "power":
            self.cut_power(seed)

    @rule(which=which, work=works, steps=steps, seed=seeds)
    def lose_power(self, which: int, work: Work, steps: int, seed: int) -> None:
        self.step(self.begin(which, work), steps)
        self.cut_power(seed)

    @precondition(lambda self: self.drivers)
    @rule(which=which, seed=seeds)
    def show_some(self, which: int, seed: int) -> None:
        self.drivers[which % len(self.drivers)].process.storage.leak(random.Random(seed))

    def begin(self, which: int, work: Work) -> SimulatedProcess:
        """Let a process begin a work, unless it is in the middle of another."""
        if which >= len(self.drivers):
            self.drivers.append(Driver(SimulatedProcess(self.disk), self.truth))
        driver = self.drivers[min(which, len(self.drivers) - 1)]
        if not driver.process.is_busy:
            driver.process.start(lambda: driver.do(work))
        return driver.process

    def step(self, process: SimulatedProcess, steps: int) -> None:
        for _ in range(steps):
            process.step()
            self.check()

    def cut_power(self, seed: int) -> None:
        rng = random.Random(seed)
        while self.drivers:
            self.drivers.pop().process.die(rng)
        self.disk.cut_power(rng)

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        if self.checked == self.disk.changes:
            return
        self.checked = self.disk.changes
        found = self.visible(self.disk)
        for each in (found, self.visible(self.disk.after_the_worst())):
            counted = ranges(each)
            self.check_counted(counted)
            lost = set(self.truth.acknowledged) - set(counted)
            assert not lost, f"acknowledged and lost: {lost}"
            view = JobView.of(each)
            if view.epoch in self.truth.left:
                failed = self.truth.left[view.epoch] == "fail"
                assert view.state is (LoggedState.FAILED if failed else LoggedState.STOPPED)
        epoch, sealed = self.truth.sealed
        before = ranges(each for each in found if each.epoch < epoch)
        assert before == sealed, "what was sealed has changed"

    def visible(self, disk: Disk) -> list[Logged]:
        """Return a disk's logs as read; most steps do not change them."""
        logs = tuple((n, i.visible) for n, i in disk.names.items() if n.startswith("log."))
        if logs not in self.known:
            self.known[logs] = visible(disk)
        return self.known[logs]

    def check_counted(self, counted: list[Settled]) -> None:
        units = [(each.file, at) for each in counted for at in range(each.start, each.end)]
        assert len(units) == len(set(units)), "settled twice"
        for piece in (p for each in counted for p in (each.put, each.rejects) if p is not None):
            inode = self.disk.durable_names.get(piece.name)
            assert inode is not None, f"{piece} has no durable name"
            found = inode.durable[piece.offset : piece.offset + piece.length]
            assert found == self.truth.written.get(piece), f"{piece} is not durable"

    def teardown(self) -> None:
        """End with a power cut; a new process can finish the job."""
        self.cut_power(0)
        self.check()
        storage = SimulatedStorage(self.disk)
        last = take(storage, {"host": "h"}, "code", token="last", **STILL)
        for gap in list(last.fold.gaps(SOURCE)):
            data = b"%d:%d-%d;" % gap
            count = gap.end - gap.start
            piece = last.log.put(data)
            self.truth.written[piece] = data
            last.log.settle(Settled(*gap, count, count, 0, piece))
        self.truth.acknowledged += last.log.commit()
        self.check()
        whole = JobView.of(History(storage)).fold
        assert whole.is_settled(SOURCE)
        assert not list(whole.gaps(SOURCE))
        assert whole.records == whole.outputs + whole.rejected == 12


def visible(disk: Disk) -> list[Logged]:
    """Return the logs as a new process reads them."""
    found = list(History(SimulatedStorage(disk)))
    JobView.of(found)  # raises if they contradict each other
    return found


def ranges(found: Any) -> list[Settled]:
    return [each.entry for each in found if isinstance(each.entry, Settled)]


LONG: Final = settings(
    max_examples=SCHEDULES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(3600 if SCHEDULES > 1000 else 120)
@pytest.mark.parametrize("schedules", [SCHEDULES, pytest.param(200, marks=pytest.mark.slow)])
def test_acknowledged_ranges_count_once_and_for_ever(schedules: int) -> None:
    run_state_machine_as_test(LogMachine, settings=settings(LONG, max_examples=schedules))


# --- the machine finds seeded faults --------------------------------------------------------------


def without_seal(self: History) -> Any:
    """Count all whole lines of all logs."""
    for epoch in epochs(self._storage):
        if not self._before or epoch < self._before:
            reader = LogReader(self._storage, epoch)
            yield from reader
            self.seal[epoch] = reader.end


def without_checksum(line: bytes, epoch: int, offset: int) -> Logged:
    """Take any line that looks like an entry for one."""
    head, _, _ = line.rpartition(b',"sum":"')
    text = head.decode(errors="replace") + "}"
    try:
        fields = entries._LOADS(text)
        return Logged(epoch, offset, len(line), fields["at"], entries._entry(fields))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise entries.BadLineError from error


def seal_before_lease(
    storage: Storage, holder: Mapping[str, str | int], code: str, *, token: str, **clocks: Any
) -> Lease:
    """Read the older logs before taking the lease."""
    epoch = max(epochs(storage), default=0) + 1
    history = History(storage, before=epoch)
    view = JobView.of(history)
    history.sync()
    leased = entries.Leased(epoch, token, holder)
    line = entries.encode(leased, 0.0, epoch, 0)
    file = lease._create(storage, leased, line)
    storage.sync_folder()
    view.apply(leased)
    writer = LogWriter(storage, epoch, file, len(line), view, **clocks)
    writer.log(Opened(epoch, code, history.seal))
    writer.commit()
    return Lease(epoch, view, writer)


def replacing(self: SimulatedStorage, name: str, new: str, /) -> None:
    """Take the new name whether it is free or not."""
    self.pause()
    self.disk.changes += 1
    self.disk.names[new] = self.find(name)


def log_before_data(self: LogWriter) -> list[Settled]:
    """Write and sync the log before the data it describes."""
    self._check()
    try:
        self._file.append(b"".join(self._lines))
        self._file.sync()
        self._sync_data()
        self._confirm()
    except BaseException as error:
        self._failed = error
        raise
    settled, self._settled, self._lines = self._settled, [], []
    return settled


def nothing(_: object) -> None:
    """Leave this call out."""


MUTATIONS: Final[dict[str, tuple[object, str, object]]] = {
    "no seal": (History, "__iter__", without_seal),
    "no checksum": (log, "decode", without_checksum),
    "seal taken before the lease": (lease, "take", seal_before_lease),
    "replacing instead of linking": (SimulatedStorage, "link", replacing),
    "log synced before the data": (LogWriter, "commit", log_before_data),
    "no look for a newer epoch": (LogWriter, "_confirm", nothing),
    "sealed and not synced": (History, "sync", nothing),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_state_machine_finds_seeded_faults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, broken = MUTATIONS[name]
    monkeypatch.setattr(owner, attribute, broken)
    quick = settings(
        LONG,
        max_examples=1500,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
    )
    with pytest.raises((AssertionError, JobLogError)) as found:
        run_state_machine_as_test(LogMachine, settings=quick)
    print(name, "→", str(found.value).splitlines()[0])
