"""The wishes of several users for one job, and the coordinators that obey them.

Users read and write at the same moment, coordinators freeze, die and wake up, files are torn. A
job obeys the last wish that was accepted, and each refusal gives its reason.
``JOB_LOG_SCHEDULES`` sets how many schedules are tried (`make job-log`).
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pyrmute_tasks.errors import JobError, JobFailedError, LeaseLostError, OutputInUseError
from pyrmute_tasks.io import kept_jobs
from pyrmute_tasks.jobs.driver import DriverWatch
from pyrmute_tasks.jobs.entries import Logged, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import Want
from pyrmute_tasks.service import driving, steering
from pyrmute_tasks.service.handles import SubmittedJob
from pyrmute_tasks.service.logged_job import LoggedJob
from pyrmute_tasks.service.steering import Limits
from pyrmute_tasks.service.turns import Act, FleetFacts, Turn, decide
from pyrmute_tasks.service.watched_jobs import WatchedJob
from tests.unit.stepped_jobs import KEEPS, Process, SteppedFolder, World, replaced_by

SCHEDULES: Final = int(os.environ.get("JOB_LOG_SCHEDULES", "40"))
COORDINATORS: Final = 3
USERS: Final = 2
SILENT_S: Final = 25.0
GARBAGE: Final = (b"", b'{"wish": "pau', b'{"wish": "stop"}', b"\0" * 100, None)
LIMITS: Final = {"limit to 3": Limits(window=3), "limit to 4": Limits(window=4, max_rate=7)}
REFUSED: Final = {
    "cancel": ("has ended", "has cancelled", "is being published"),
    "pause": ("has ended", "has cancelled"),
    "resume": ("has ended", "has cancelled", "is not paused", "is held: "),
    "limit": ("has ended", "has cancelled", "is held, ", "want.json"),
    "publish": ("",),
}

coordinators = st.integers(0, COORDINATORS - 1)
users = st.integers(0, USERS - 1)
steps = st.integers(1, 40)
few_steps = st.integers(1, 8)
fates = st.sampled_from(["", "", "", "lazy", "lazy", "fail", "suspend"])
wishes = st.sampled_from(["pause", "pause", "resume", "resume", "cancel", *LIMITS, "publish"])


class SteeringMachine(RuleBasedStateMachine):
    """Users, coordinators, and one job."""

    def __init__(self) -> None:
        super().__init__()
        self.undone = contextlib.ExitStack()
        self.processes: list[Process] = []

    @initialize(holds=st.sampled_from([False, False, True]))
    def submit(self, holds: bool) -> None:
        self.world = World(holds)
        self.undone.callback(self.world.temporary.cleanup)
        self.undone.enter_context(replaced(replaced_by(self.world)))
        self.undone.enter_context(replaced(by_hand(self.world)))
        self.coordinators = [Coordinator(self.world, number) for number in range(COORDINATORS)]
        self.users = [Process(self.world, number + COORDINATORS) for number in range(USERS)]
        self.processes = self.world.processes
        self.processes += [each.process for each in self.coordinators] + self.users
        self.handle = SubmittedJob(self.world.root, self.world.folder, None)  # type: ignore[arg-type]  # it submits none
        self.followed = LoggedJob(self.world.folder.storage)
        self.sealed: tuple[int, list[Logged]] = (0, [])
        self.known: tuple[int, int, bool] = (-1, 0, False)

    # --- what happens -------------------------------------------------------------------------

    @rule(
        which=coordinators, steps=steps, fate=fates, trouble=st.sampled_from(["", "", "", "none"])
    )
    def coordinate(self, which: int, steps: int, fate: str, trouble: str) -> None:
        """Let a coordinator look, or go on with what it does."""
        coordinator = self.coordinators[which]
        coordinator.process.fate = coordinator.process.fate or fate
        coordinator.begin(trouble)
        coordinator.process.step(steps)

    @rule(which=coordinators, fate=fates)
    def coordinate_to_the_end(self, which: int, fate: str) -> None:
        coordinator = self.coordinators[which]
        coordinator.process.fate = coordinator.process.fate or fate
        coordinator.begin()
        coordinator.process.finish()

    @rule(which=users, wish=wishes)
    def steer(self, which: int, wish: str) -> None:
        self.begin_to_steer(which, wish, 0)
        self.users[which].finish()

    @rule(which=users, wish=wishes, steps=few_steps)
    def begin_to_steer(self, which: int, wish: str, steps: int) -> None:
        """Let a user begin, or go on with what it has begun."""
        user = self.users[which]
        if not user.is_busy:
            user.begin(lambda: self.wish(user, wish))
        user.step(steps)

    @rule(wish=wishes, other=wishes, steps=few_steps)
    def steer_at_once(self, wish: str, other: str, steps: int) -> None:
        """Let a user read, another one read and write, and the first one write."""
        self.begin_to_steer(0, wish, steps)
        self.steer(1, other)
        self.users[0].finish()

    @rule(
        which=coordinators,
        late=st.booleans(),
        steps=few_steps,
        wish=st.sampled_from(["cancel", "cancel", "cancel", "pause", "resume", "publish"]),
        more=st.integers(1, 30),
        goes_on=st.booleans(),
    )
    def steer_while_it_publishes(
        self, which: int, late: bool, steps: int, wish: str, more: int, goes_on: bool
    ) -> None:
        """Let a user wish something while a driver is about to log that the output appears."""
        coordinator = self.coordinators[which]
        coordinator.begin()
        process = coordinator.process
        process.step(1)
        while process.is_busy and not self.is_publishing(process, late=late):
            process.step(1)
            if process.waits_for_lock:
                process.finish()
        if not late:
            process.step(steps - 1)
            self.begin_to_steer(0, wish, more)
            process.step(steps)
            self.users[0].finish()
        elif not self.users[0].is_busy:
            self.steer(0, wish)
        if goes_on:
            process.finish()

    @rule(which=coordinators, steps=steps, wish=wishes, fate=st.sampled_from(["", "fail"]))
    def steer_in_its_last_moments(self, which: int, steps: int, wish: str, fate: str) -> None:
        """Let a user wish something that the driver does not see before its epoch ends."""
        coordinator = self.coordinators[which]
        coordinator.begin()
        coordinator.process.step(steps)
        self.steer(0, wish)
        self.world.clock += 1.0
        coordinator.process.fate = fate
        coordinator.process.finish()

    @rule(which=coordinators, steps=steps, more=steps)
    def wake_up_when_another_drives(self, which: int, steps: int, more: int) -> None:
        """Let a driver freeze, another one take over, and the first one go on."""
        frozen, other = self.coordinators[which], self.coordinators[which - 1]
        frozen.begin()
        frozen.process.step(steps)
        for _ in range(2):  # silence counts from the first look
            other.begin()
            other.process.step(more)
            self.world.clock += SILENT_S
        other.begin()
        other.process.step(more)
        self.check()
        frozen.process.finish()
        self.check()

    @rule(seconds=st.sampled_from([1.0, 3.0, SILENT_S, 100.0]), frozen=st.booleans())
    def let_time_pass(self, seconds: float, frozen: bool) -> None:
        """Let time pass, in which drivers look and beat unless they are frozen."""
        self.world.clock += seconds
        if not frozen:
            for each in self.coordinators:
                each.look()

    @rule(which=coordinators)
    def look_at_the_wishes(self, which: int) -> None:
        self.coordinators[which].look()

    @rule(which=coordinators)
    def die(self, which: int) -> None:
        self.coordinators[which].process.die()
        fresh = self.coordinators[which] = Coordinator(self.world, which)
        self.processes[which] = fresh.process

    @rule(garbage=st.sampled_from(GARBAGE))
    def tear(self, garbage: bytes | None) -> None:
        self.world.tear(garbage)

    # --- what users do ------------------------------------------------------------------------

    def is_publishing(self, process: Process, *, late: bool) -> bool:
        """Whether a driver has settled all, or has written that it publishes, but not synced it."""
        if process.epoch is None:
            return False
        view = process.epoch.lease.view
        if late:
            return view.publishing is not None
        return view.fold.is_settled(self.world.folder.spec.wanted)

    def wish(self, user: Process, wish: str) -> None:
        kind = "limit" if wish in LIMITS else wish
        folder, user.asks = user.folder, kind
        calls: dict[str, Callable[[], object]] = {
            "pause": lambda: steering.pause(folder, "freeze"),
            "resume": lambda: steering.resume(folder),
            "cancel": lambda: steering.cancel(folder, "wrong"),
            "limit": lambda: steering.set_limits(folder, LIMITS[wish]),
            "publish": lambda: kept_jobs.publish_job(folder.path),
        }
        try:
            calls[kind]()
        except (JobError, OutputInUseError) as error:
            told = str(error)
            assert "\n" not in told
            assert any(reason in told for reason in REFUSED[kind]), told
            self.check_refusal(kind, told)

    def check_refusal(self, kind: str, told: str) -> None:
        """Check reasons that hold for ever, once they do."""
        view = self.world.folder.view()
        if "is being published" in told:
            assert view.publishing is not None
        if kind == "cancel" and "has ended" in told:
            assert view.state.is_final
        if "has cancelled" in told:
            assert Wish.CANCEL in [each.want.wish for each in self.world.written]

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        world = self.world
        seen = (world.log_bytes(), len(world.written), world.is_torn)
        if seen == self.known:
            return
        self.known = seen
        entries = list(History(world.folder.storage))
        view = JobView.of(entries)
        self.check_views(entries, view)
        self.check_epochs(entries, view)
        self.check_obeyed(entries, view)
        self.check_wait(view)

    def check_views(self, entries: list[Logged], view: JobView) -> None:
        """Check that a reader of each change sees the same as one that reads all at once."""
        clock = self.world.clock
        assert self.followed.look(clock) == LoggedJob(self.world.folder.storage).look(clock)
        for each in self.coordinators:
            epoch = each.process.epoch
            if epoch is None or epoch.lease.epoch != view.epoch or epoch.lease.log._lines:
                continue
            if epoch.lease.log._failed is None and not each.process.is_busy:
                assert told(epoch.lease.view) == told(view)

    def check_epochs(self, entries: list[Logged], view: JobView) -> None:
        """Check that once an epoch is opened, nothing is read of who drove before."""
        before = [each for each in entries if each.epoch < view.epoch]
        if view.epoch == self.sealed[0]:
            assert before == self.sealed[1], "an older epoch has grown"
        self.sealed = (view.epoch, before)

    def check_obeyed(self, entries: list[Logged], view: JobView) -> None:
        """Check that nothing is done that the last accepted wish forbids, and nothing unsaid."""
        last = self.world.written[-1]
        if view.stopped.startswith("paused by"):
            assert view.wished["wish"] == Wish.PAUSE
        if view.state is LoggedState.CANCELLED:
            assert view.wished["wish"] == Wish.CANCEL
        if last.want.wish not in KEEPS:
            return
        settled = [each.epoch for each in entries if isinstance(each.entry, Settled)]
        assert not [epoch for epoch in settled if epoch > last.since], "driven against the wish"
        if last.want.wish is Wish.CANCEL and not self.world.was_torn_while_driven:
            assert not self.world.target.exists(), "published, and was cancelled"
            assert view.publishing is None
            assert view.state not in (LoggedState.SUCCEEDED, LoggedState.SUCCEEDED_WITH_REJECTS)

    def check_wait(self, view: JobView) -> None:
        """Check that `wait` ends exactly if no coordinator goes on with the job."""
        try:
            is_over: bool | None = self.handle.is_over()
        except JobFailedError:
            is_over = None
        if view.state in (LoggedState.SUCCEEDED, LoggedState.SUCCEEDED_WITH_REJECTS):
            assert is_over is True
        elif view.state is LoggedState.CANCELLED:
            assert is_over is None
        elif self.world.is_torn:  # each may know what it has read before
            assert is_over is not True or view.is_held
        elif view.state is LoggedState.FAILED:
            goes_on = self.fresh_turn().act is not Act.WAIT
            assert is_over is (False if goes_on else None)
        elif view.is_held and view.state is LoggedState.STOPPED:
            turn = self.fresh_turn()
            is_paused = "paused" in turn.why
            assert is_over is (turn.act is Act.WAIT and not is_paused)
        else:
            assert is_over is False

    def fresh_turn(self) -> Turn:
        job = WatchedJob(self.world.folder, DriverWatch(self.world.folder.storage))
        job.look()
        facts = replace(job.facts(0.0, None), driven="", seen_s=1e5)
        return decide(facts, FleetFacts(""), self.world.now())

    # --- the end ------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Let all end or die; one healthy coordinator does what was wished last."""
        try:
            if hasattr(self, "known"):
                self.come_to_rest()
        finally:
            for each in self.processes:
                each.die()
            self.undone.close()

    def come_to_rest(self) -> None:
        for user in self.users:
            user.finish()
        self.check()
        for which in range(COORDINATORS):
            self.die(which)
        self.check()
        world, last = self.world, self.world.written[-1]
        ended_before = world.folder.end()
        if world.is_torn:
            before = ranges_of(world)
            self.drive()
            if last.want.wish in KEEPS:
                assert ranges_of(world) == before
            again = {Wish.PAUSE: "pause", Wish.CANCEL: "cancel"}.get(last.want.wish, "resume")
            self.wish(self.users[0], again)
            last = world.written[-1]
        self.drive()
        self.check()
        self.check_rest(last.want, ended_before is not None)

    def drive(self) -> None:
        """Let a healthy coordinator look again and again; nobody else is there."""
        healthy = self.coordinators[0]
        healthy.process.fate = ""
        for _ in range(6):
            self.world.clock += 100.0
            healthy.begin()
            healthy.process.finish()

    def check_rest(self, want: Want, had_ended: bool) -> None:
        view = self.world.folder.view()
        assert not view.state.is_driven, "nobody drives it any more"
        is_success = view.state in (LoggedState.SUCCEEDED, LoggedState.SUCCEEDED_WITH_REJECTS)
        assert self.world.target.exists() or not is_success
        # Its driver may have died before it could log the end, and the next one be paused.
        assert is_success or view.publishing or not self.world.target.exists()
        was_cancelled = Wish.CANCEL in [each.want.wish for each in self.world.written]
        if view.state is LoggedState.CANCELLED:  # what is torn does not withdraw what was read
            assert was_cancelled
        elif is_success:
            lines = self.world.target.read_bytes().splitlines()
            assert [int(line.split()[0]) for line in lines] == [0, 10, 20, 30]
        elif want.wish is Wish.PAUSE:
            assert view.state in (LoggedState.QUEUED, LoggedState.STOPPED, LoggedState.FAILED)
        elif view.state is LoggedState.FAILED:
            assert had_ended, "it was to be resumed"
            assert not self.is_newer(want), "it was to be resumed"
        else:
            assert view.is_held
            assert self.world.holds
            assert view.state is LoggedState.STOPPED
        if want.wish is Wish.CANCEL and not self.world.was_torn_while_driven:
            assert view.state is LoggedState.CANCELLED
        if view.state is not LoggedState.CANCELLED and want.wish is Wish.RUN and view.epoch:
            obeyed = view.wished
            is_known = is_success or view.state is LoggedState.FAILED
            assert is_known or obeyed["window"] == want.window

    def is_newer(self, want: Want) -> bool:
        """Whether a wish was written when the job had failed already."""
        size = 0
        for each in sorted(self.world.folder.path.glob("log.*"), key=lambda path: path.name):
            size += each.stat().st_size
        return self.world.written[-1].entries == size and want is self.world.written[-1].want


class Coordinator:
    """A coordinator of one job, as far as it needs no fleet and no threads."""

    def __init__(self, world: World, number: int) -> None:
        self.process = Process(world, number)
        watch = DriverWatch(self.process.folder.storage, lambda: world.clock)
        self.job = WatchedJob(self.process.folder, watch)
        self.world = world

    def begin(self, trouble: str = "") -> None:
        """Begin to look at the job, unless it drives it already."""
        if not self.process.is_busy:
            self.process.begin(lambda: self.coordinate(trouble))

    def coordinate(self, trouble: str) -> None:
        job, process = self.job, self.process
        try:
            job.look()
            turn = decide(job.facts(0.0, None), FleetFacts("", trouble), self.world.now())
            if turn.act in (Act.WAIT, Act.LEAVE):
                return
            process.epoch = driving.take_epoch(job.folder, job.want, job.newest)
            process.epoch.carry_out(turn, lambda: None)  # type: ignore[arg-type,return-value]  # no fleet
        except LeaseLostError:
            pass
        except JobError as error:
            if "has ended" not in str(error):
                raise
        process.epoch = None
        job.forget()

    def look(self) -> None:
        """Let the watch of its epoch look at the wishes, as its thread does."""
        if self.process.epoch is not None:
            before, self.world.current = self.world.current, self.process
            self.process.epoch.watch._look()
            self.world.current = before


def told(view: JobView) -> dict[str, Any]:
    """Return what a view tells, but for times, which its writer does not keep."""
    fold = view.fold
    counts = (fold.ranges, fold.records, fold.outputs, fold.rejected)
    names = ("state", "epoch", "publishing", "ended", "let_go", "stopped", "wished", "suspensions")
    return {"counts": counts, **{name: getattr(view, name) for name in names}}


def ranges_of(world: World) -> int:
    return world.folder.view().fold.ranges


def by_hand(world: World) -> list[tuple[object, str, object]]:
    """Return what `publish_job` has in place of what it would take for this process."""

    def folder(_: object) -> JobFolder:
        return SteppedFolder(world)

    return [(kept_jobs, "JobFolder", folder), (kept_jobs, "this_process", world.holder)]


@contextlib.contextmanager
def replaced(what: list[tuple[object, str, object]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, other in what:
            patch.setattr(owner, name, other)
        yield


LONG: Final = settings(
    max_examples=SCHEDULES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(3600 if SCHEDULES > 1000 else 120)
@pytest.mark.parametrize("schedules", [SCHEDULES, pytest.param(200, marks=pytest.mark.slow)])
def test_last_accepted_wish_is_obeyed(schedules: int) -> None:
    run_state_machine_as_test(SteeringMachine, settings=settings(LONG, max_examples=schedules))
