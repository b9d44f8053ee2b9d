"""A coordinator: watches a jobs root, decides what is due, and drives it in threads."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyrmute_tasks.errors import LeaseLostError, PyrmuteTasksError, printable
from pyrmute_tasks.jobs.pruning import collect_orphans, prune
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.logs import log
from pyrmute_tasks.service.beats import BEAT_EVERY_S, beat, remove_old_beats
from pyrmute_tasks.service.driving import Epoch, take_epoch
from pyrmute_tasks.service.end_commands import run_if_due
from pyrmute_tasks.service.probing import FleetProbe, Probed
from pyrmute_tasks.service.troubles import log_failure
from pyrmute_tasks.service.turns import (
    Act,
    Ending,
    FleetFacts,
    Kind,
    Turn,
    decide,
    suspension_s,
)
from pyrmute_tasks.service.watched_jobs import WatchedJob, WatchedJobs
from pyrmute_tasks.settings import Settings

if TYPE_CHECKING:
    from pyrmute_tasks.distributed.producer.session import Session

__all__ = ["Coordinator", "CoordinatorOptions"]

_LOOK_EVERY_S: Final = 1.0
_SIGN: Final = ".sign"  # no job has this name: that it cannot tell that it lives
_GLANCE_EVERY_S: Final = 0.1
_REST: Final = 4  # times as long as a look has taken
_PRUNE_EVERY_S: Final = 3600.0
_GRACE_S: Final = 5.0
_MOST_COMMANDS: Final = 4  # commands at a time, for jobs that other processes have ended
_MOST_BRIEF: Final = 16  # jobs at a time that are cancelled, given up and the like


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorOptions:
    """Options of a coordinator.

    Attributes:
        most_running: How many jobs it drives at a time.
        slice_s: How long a job is driven while others wait for their turn; longer if nothing of it
            was settled by then.
        allow_on_end: Run the commands that jobs have for their end.
        until_idle: End as soon as nothing is due and nothing runs.
        queue: The queue of the jobs that it drives; empty for that of the settings.
    """

    most_running: int = 32
    slice_s: float = 30.0
    allow_on_end: bool = False
    until_idle: bool = False
    queue: str = ""


@dataclass(slots=True)
class _Running:
    """A job that is driven here.

    Attributes:
        job: The job.
        turn: What was decided about it.
        epoch: Its epoch, once the lease is taken.
        ending: How the epoch has ended; None before, or if it could not even be logged.
        is_over: Whether its thread has nothing left to do.
    """

    job: WatchedJob
    turn: Turn
    since: float = field(default_factory=time.monotonic)
    epoch: Epoch | None = None
    asked: Ending | None = None
    ending: Ending | None = None
    thread: threading.Thread | None = None
    is_over: bool = False

    def has_had(self, seconds: float) -> bool:
        """Return whether it has been driven for so long, and has settled something meanwhile."""
        if self.epoch is None or time.monotonic() - self.since < seconds:
            return False
        return self.epoch.lease.fold.ranges > self.epoch.settled_before

    def end(self, ending: Ending) -> None:
        """Ask it to end."""
        self.asked = self.asked or ending
        if self.epoch is not None:
            self.epoch.watch.end(ending)


# Above 250 lines: what is due, what is driven, and when to look share the same jobs.
class Coordinator:
    """Drives the jobs of a jobs root; any number of them may, on any hosts.

    Args:
        root: The jobs root.
        settings: How to reach the fleet.
        options: How many jobs it drives, and what else it may do.
        session: Connections to the fleet that are open already; None to open some.

    Example:
        ```python
        stop = threading.Event()
        Coordinator(JobsRoot("jobs"), Settings.from_env()).run(stop)
        ```
    """

    def __init__(
        self,
        root: JobsRoot,
        settings: Settings,
        options: CoordinatorOptions | None = None,
        session: "Session | None" = None,
    ) -> None:
        self._root = root
        self._settings = settings if session is None else session.settings
        self._options = options or CoordinatorOptions()
        self._given = session
        self._session: Session | None = session
        self._jobs = WatchedJobs(
            root.path, finds_commands=self._options.allow_on_end, queue=self._queue
        )
        self._running: dict[str, _Running] = {}
        self._told: dict[str, str] = {}
        self._pruned_at = -_PRUNE_EVERY_S
        self._news = threading.Event()  # an epoch has ended, or the fleet was looked at
        self._beaten_at = -BEAT_EVERY_S

    def run(self, stop: threading.Event) -> None:
        """Drive jobs until it is told to stop, whatever happens meanwhile.

        Args:
            stop: Set to end it, from any thread.
        """
        from pyrmute_tasks.distributed.producer.session import Session  # Celery, redis

        if self._given is None:
            self._session = Session.open(self._settings)
        probe = FleetProbe(self._settings, self._news)
        try:
            probe.want()
            while not stop.is_set():
                began = time.monotonic()
                self._news.clear()
                is_idle = self._round(probe)
                if is_idle and self._options.until_idle:
                    return
                self._rest(stop, began)
        finally:
            self._let_go_of_all()
            probe.close()
            if self._given is None and self._session is not None:
                self._session.close()

    def _rest(self, stop: threading.Event, began: float) -> None:
        """Wait until the next look is due, which is sooner if there is news."""
        now = time.monotonic()
        stop.wait(max(0.05, _REST * min(now - began, _LOOK_EVERY_S)))
        while not stop.is_set() and time.monotonic() < began + _LOOK_EVERY_S:
            if self._news.wait(_GLANCE_EVERY_S) or self._jobs.have_changed():
                return

    # --- one look ---------------------------------------------------------------------------

    def _round(self, probe: FleetProbe) -> bool:
        """Look at all jobs, and begin what is due; return whether there is nothing to do."""
        self._reap()
        try:
            self._jobs.look(but=frozenset(self._running))
            self._beat_if_due()
            self._prune_if_due()
        except OSError as error:
            self._tell("", f"the jobs root cannot be read: {error.strerror}")
            return False
        self._tell("", "")
        for name, trouble in self._jobs.troubles.items():
            self._tell(name, trouble)
        seen = probe.seen  # once: the fleet may answer at any moment
        commands = dict(self._due_commands())  # before it goes on, if it is resumed
        due = sorted(self._due(probe, seen), key=lambda each: each[1].order)
        due = [*commands.items(), *(each for each in due if each[0] not in commands)]
        self._begin(due, probe)
        if self._options.until_idle and seen is None:
            probe.want()  # else nobody might, once the last job has ended
        return not self._running and not due and seen is not None

    def _due(self, probe: FleetProbe, seen: Probed | None) -> Iterator[tuple[str, Turn]]:
        """Yield the jobs that something is to be done about."""
        fleet = FleetFacts(self._queue, None if seen is None else seen.trouble)
        turned_at = 0.0 if seen is None else seen.turned_at
        clock, now, is_wanted = time.monotonic(), time.time(), False
        for name, job in self._jobs.open.items():
            if name in self._running or name in self._jobs.troubles or clock < job.not_before:
                continue
            facts = job.facts(turned_at, self._jobs.result(job.terms.after))
            turn = decide(facts, fleet, now)
            is_wanted |= turn.act in (Act.DRIVE, Act.SUSPEND) or job.view.is_suspended
            is_wanted |= turn.act is Act.WAIT and fleet.trouble is None
            if turn.act is Act.SUSPEND and probe.looked_at < job.seen_at:
                continue  # what was seen before it came may be over
            if turn.act not in (Act.WAIT, Act.LEAVE):
                yield name, turn
            else:
                self._tell(name, turn.why)
        if is_wanted:
            probe.want()

    def _due_commands(self) -> Iterator[tuple[str, Turn]]:
        """Yield the jobs whose command for their end is due here, the oldest end first."""
        clock = time.monotonic()
        for name, job in sorted(
            self._jobs.with_command.items(), key=lambda each: each[1].view.changed_at
        ):
            if name not in self._running and clock >= job.command_at:
                yield name, Turn(Act.RUN_COMMAND)

    def _begin(self, due: list[tuple[str, Turn]], probe: FleetProbe) -> None:
        """Begin what is due, as far as there is room; end long turns if there is none."""
        driving = [each for each in self._running.values() if each.turn.act is Act.DRIVE]
        room = self._options.most_running - len(driving)
        commands = sum(each.turn.act is Act.RUN_COMMAND for each in self._running.values())
        brief = len(self._running) - len(driving) - commands
        for name, turn in due:
            if turn.act is Act.RUN_COMMAND:
                if commands >= _MOST_COMMANDS:
                    continue
                commands += 1
                self._jobs.with_command[name].note_command()
            elif turn.act is Act.DRIVE:
                room -= 1
                if room < 0:
                    self._tell(name, "it waits for its turn")
                    continue
            else:
                if brief >= _MOST_BRIEF:
                    continue
                brief += 1
            self._start(name, turn, probe)
        over = [each for each in driving if each.asked is None]
        over = [each for each in over if each.has_had(self._options.slice_s)]
        for each in sorted(over, key=lambda each: each.since)[: max(0, -room)]:
            each.end(Ending(Kind.TURN_OVER, "its turn is over, as others wait"))

    def _start(self, name: str, turn: Turn, probe: FleetProbe) -> None:
        jobs = self._jobs.with_command if turn.act is Act.RUN_COMMAND else self._jobs.open
        running = self._running[name] = _Running(jobs[name], turn)
        running.thread = threading.Thread(
            target=self._drive, args=(running, probe), name=f"job-{name}", daemon=True
        )
        running.thread.start()

    # --- in the thread of a job ---------------------------------------------------------------

    def _drive(self, running: _Running, probe: FleetProbe) -> None:
        job, turn = running.job, running.turn
        spec = job.folder.spec
        try:
            if turn.act is Act.RUN_COMMAND:
                self._run_command(job)
                return
            epoch = running.epoch = take_epoch(job.folder, job.want, job.newest)
            if running.asked is not None:
                epoch.watch.end(running.asked)
            probe.forget(spec.job, epoch.lease.epoch)
            log(logging.INFO, "epoch_began", turn.act.value, job=spec.job, epoch=epoch.lease.epoch)
            assert self._session is not None
            ending = running.ending = epoch.carry_out(turn, self._session_of)
            log(
                logging.INFO,
                "epoch_ended",
                f"{ending.kind.value}: {printable(ending.why)}"
                if ending.why
                else ending.kind.value,
                job=spec.job,
                epoch=epoch.lease.epoch,
            )
            if ending.kind.ends_job and (turn.act is Act.DRIVE or not self._options.allow_on_end):
                self._run_command(job)  # else it is soon found, and run as one of few
        except LeaseLostError as error:
            running.ending = Ending(Kind.LOST, str(error))
            log(logging.INFO, "lease_lost", str(error), job=spec.job)
        except PyrmuteTasksError as error:
            log(logging.WARNING, "epoch_failed", printable(error), job=spec.job)
        except OSError as error:
            told = f"it cannot be driven: {job.folder.path}: {error.strerror or error}"
            log(logging.WARNING, "epoch_failed", printable(told), job=spec.job)
        except Exception as error:  # of this library: other jobs must be driven
            log_failure(spec.job, error)
        finally:
            running.is_over = True
            self._news.set()

    def _session_of(self) -> "Session":
        assert self._session is not None
        return self._session

    def _run_command(self, job: WatchedJob) -> None:
        """Run the command that the job has for its end, where that is allowed."""
        if self._options.allow_on_end:
            run_if_due(job.folder)
        elif job.terms.on_end:
            log(
                logging.WARNING,
                "on_end_refused",
                "a job has a command for its end, which needs a coordinator with --allow-on-end",
                job=job.folder.spec.job,
            )

    # --- around it ----------------------------------------------------------------------------

    def _reap(self) -> None:
        """Forget the epochs that have ended."""
        for name, running in list(self._running.items()):
            if not running.is_over:
                continue
            del self._running[name]
            job = running.job
            job.forget()
            if running.turn.act is Act.RUN_COMMAND:
                continue
            job.failures = 0 if running.ending is not None else job.failures + 1
            if job.failures:  # they are not in the log, which would tell how long to wait
                job.not_before = time.monotonic() + suspension_s(job.failures)

    def _let_go_of_all(self) -> None:
        """End all epochs; what does not end in time is taken over when this process has ended."""
        for running in self._running.values():
            running.end(Ending(Kind.TURN_OVER, "the coordinator was told to end"))
        until = time.monotonic() + _GRACE_S
        for running in self._running.values():
            if running.thread is not None:
                running.thread.join(max(0.0, until - time.monotonic()))

    @property
    def _queue(self) -> str:
        return self._options.queue or self._settings.queue

    def _beat_if_due(self) -> None:
        if time.monotonic() - self._beaten_at >= BEAT_EVERY_S:
            self._beaten_at = time.monotonic()
            try:
                beat(self._root.path, socket.gethostname(), self._queue)
            except OSError as error:  # the health check notices that it is missing
                told = f"it cannot write to the jobs root {self._root.path}: {error.strerror}"
                self._tell(_SIGN, f"{told}; jobs that it may not write are driven by others only")
            else:
                self._tell(_SIGN, "")

    def _prune_if_due(self) -> None:
        if time.monotonic() - self._pruned_at < _PRUNE_EVERY_S:
            return
        self._pruned_at = time.monotonic()
        self._told = {name: what for name, what in self._told.items() if name in self._jobs.open}
        collect_orphans(self._root.path)
        remove_old_beats(self._root.path)
        gone = prune(self._root.path)
        if gone:
            log(logging.INFO, "history_pruned", "old jobs were removed", jobs=len(gone))

    def _tell(self, name: str, what: str) -> None:
        """Log why a job waits, when that has changed."""
        if self._told.get(name, "") != what:
            self._told[name] = what
            if what:
                where = {"job": name} if name not in ("", _SIGN) else {}
                log(logging.INFO, "waits", printable(what), **where)
