"""A submitted job and the processes around it, which go on step by step, on command.

Everything is real but the clocks, the fleet, the watch's thread, and that what a process has not
synced is its own: lost or torn when it dies. Each call to the job's storage is a step.
"""

import json
import random
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from pyrmute_tasks.engine.stopping import check_stop
from pyrmute_tasks.errors import BrokerUnavailableError
from pyrmute_tasks.file_options import FileOptions
from pyrmute_tasks.io.job_output import DrivenJob
from pyrmute_tasks.io.job_targets import target_of
from pyrmute_tasks.jobs.entries import Range, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease, take
from pyrmute_tasks.jobs.log import epochs
from pyrmute_tasks.jobs.output import Output, digest_of
from pyrmute_tasks.jobs.publish import publish
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.storage import FolderStorage, OpenFile
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.want import CHANGES, WANT, Want, locked
from pyrmute_tasks.service import driving, epoch_watch, steering, watched_jobs
from pyrmute_tasks.service.driving import Epoch
from tests.unit.stepped_threads import FOR_EVER, Died, SteppedThread

JOB: Final = "a1b2c3d4"
RANGE_BYTES: Final = 10
RANGES: Final = 4


class Process(SteppedThread):
    """A process, whose calls to the storage happen on command.

    Args:
        world: What it shares with the others.
        number: Its number, from which follow its user and how far its clock is off.
    """

    def __init__(self, world: "World", number: int) -> None:
        super().__init__()
        self.world = world
        self.user = f"user{number}@host{number}"
        self.skew_s = (0.0, 90.0, -90.0)[number % 3]
        self.folder = SteppedFolder(world)
        self.rng = random.Random(number)
        self.waits_for_lock = False
        self.fate = ""  # what happens to the epoch that it drives
        self.asks = ""  # what its user asks for
        self.epoch: Epoch | None = None

    def step(self, steps: int) -> None:
        """Do some calls to the storage, unless it waits for a lock."""
        if self.is_busy:
            self.go_on(steps)

    def finish(self) -> None:
        """Do all of the work; who has a lock that it waits for goes on meanwhile."""
        for _ in range(1000):
            if not self.is_busy:
                return
            self.go_on(FOR_EVER)
            if self.waits_for_lock:
                for other in self.world.processes:
                    if other is not self:
                        other.step(1)
        raise AssertionError("it waits for ever")

    def die(self) -> None:
        """End at once, unless it has ended."""
        if self.is_alive:
            self.end()
        self.epoch = None

    def wait_for_lock(self) -> None:
        """Stop here until the others have gone on; in the process's own thread."""
        self.waits_for_lock = True
        self.stop()
        self.waits_for_lock = False
        if not self.is_alive:
            raise Died

    def go_on(self, steps: int) -> None:
        """Let it work, as the process that asks for clocks and names meanwhile."""
        before, self.world.current = self.world.current, self
        try:
            super().go_on(steps)
        finally:
            self.world.current = before


@dataclass
class Written:
    """Wishes that were written, and what there was then.

    Attributes:
        want: The wishes.
        newest: The newest epoch then.
        since: The newest epoch when the job was first kept from running; as long as it is.
        entries: How many bytes the logs had.
    """

    want: Want
    newest: int
    since: int
    entries: int


@dataclass
class World:
    """What all processes share: the job, the clock, and what is known from outside."""

    holds: bool = False
    clock: float = 1_700_000_000.0
    current: Process | None = None
    processes: list[Process] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    is_torn: bool = False
    was_torn_while_driven: bool = False  # since the last wish: its driver may not have seen it
    was_published_by_hand: bool = False

    def __post_init__(self) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="steering-")
        base = Path(self.temporary.name)
        source = base / "in.jsonl"
        source.write_bytes(b"012345678\n" * RANGES)
        (base / "jobs").mkdir()
        self.root = JobsRoot(base / "jobs")
        self.target = base / "out.jsonl"
        spec = Spec(
            JOB,
            (SourceFile.of(source),),
            str(self.target),
            ("User", "1.0.0", "3.0.0"),
            "f00d",
            options={"on_error": "skip"},
            created_at=self.clock,
            created_by="ann@host",
            terms=Terms(hold=self.holds, give_up_s=1e6),
        )
        first = Want(who="ann@host", at=self.clock)
        self.folder = self.root.create(spec, first)
        self.written.append(Written(first, 0, 0, 0))

    def now(self) -> float:
        """Return the time, by the clock of the process that asks."""
        return self.clock + (self.current.skew_s if self.current is not None else 0.0)

    def pause(self) -> None:
        """End a step of the process that calls; of the test's own calls nothing."""
        if self.current is not None and self.current.is_calling:
            self.current.pause()

    def sleep(self, _: float) -> None:
        assert self.current is not None
        self.current.wait_for_lock()

    def holder(self) -> Mapping[str, str | int]:
        """Return the process that asks as a holder of a lease, on a host of its own."""
        assert self.current is not None
        who, _, host = self.current.user.partition("@")
        return {"host": host, "who": who, "place": host, "pid": 7, "started": "1"}

    def newest(self) -> int:
        return max(epochs(self.folder.storage), default=0)

    def log_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.path.glob("log.*"))

    def note_written(self) -> None:
        """Note the wishes that have just been written."""
        want = Want.of(json.loads((self.folder.path / WANT).read_bytes()))
        before, newest = self.written[-1], self.newest()
        if self.current is not None and not self.is_torn:
            check_kept(before.want, want, self.current.asks)
        is_kept = want.wish in KEEPS
        since = before.since if is_kept and before.want.wish in KEEPS else newest
        self.written.append(Written(want, newest, since, self.log_bytes()))
        self.is_torn = self.was_torn_while_driven = self.was_published_by_hand = False

    def tear(self, data: bytes | None) -> None:
        """Leave something unusable in place of the wishes; None for nothing at all."""
        path = self.folder.path / WANT
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        self.is_torn = True
        if any(process.is_busy for process in self.processes):
            self.was_torn_while_driven = True


KEEPS: Final = (Wish.PAUSE, Wish.CANCEL)


def check_kept(before: Want, now: Want, asked: str) -> None:
    """Check that a user has changed nothing but what it asked for."""
    if asked == "limit":
        assert now.wish is before.wish
    else:
        for name in (*CHANGES, "code"):
            assert getattr(now, name) == getattr(before, name)


class SteppedFolder(JobFolder):
    """The job's folder, as one process sees it."""

    def __init__(self, world: World) -> None:
        super().__init__(world.folder.path)
        self.world = world
        self.storage = SteppedStorage(world)

    def take(
        self, holder: Mapping[str, str | int], code: str, *, after: int | None = None
    ) -> Lease:
        end = self.end()
        if end is not None and self.has_ended_for_ever():
            return super().take(holder, code, after=after)  # which refuses it
        now, monotonic = self.world.now, lambda: self.world.clock
        return take(self.storage, holder, code, after=after, now=now, monotonic=monotonic)


class SteppedStorage(FolderStorage):
    """A job's files; each call is a step."""

    def __init__(self, world: World) -> None:
        super().__init__(world.folder.path)
        self.world = world

    def create(self, name: str, /) -> OpenFile:
        self.world.pause()
        file = super().create(name)
        return SteppedFile(self.world, file)

    def read(self, name: str, start: int = 0, length: int | None = None, /) -> bytes:
        self.world.pause()
        return super().read(name, start, length)

    def size(self, name: str, /) -> int:
        self.world.pause()
        return super().size(name)

    def sync(self, name: str, /) -> None:
        self.world.pause()

    def link(self, name: str, new: str, /) -> None:
        self.world.pause()
        super().link(name, new)

    def replace(self, name: str, new: str, /) -> None:
        self.world.pause()
        super().replace(name, new)
        if new == WANT:
            self.world.note_written()

    def remove(self, name: str, /) -> None:
        self.world.pause()
        super().remove(name)

    def names(self, folder: str = "", /) -> list[str]:
        self.world.pause()
        return super().names(folder)

    def sync_folder(self, folder: str = "", /) -> None:
        self.world.pause()


class SteppedFile(OpenFile):
    """A file whose appended bytes are its process's own until they are synced."""

    def __init__(self, world: World, file: OpenFile) -> None:
        super().__init__(file._descriptor)
        self.world = world
        self.own = b""

    def append(self, data: bytes | memoryview, /) -> None:
        self.world.pause()
        self.own += bytes(data)

    def sync(self) -> None:
        self.world.pause()
        self._write(self.own)

    def close(self) -> None:
        process = self.world.current
        if self.own and process is not None and not process.is_alive:
            cut = process.rng.randrange(len(self.own) + 1)
            self.own = self.own[:cut] + bytes(process.rng.choice((0, 0, 9)))
        self._write(self.own)
        super().close()

    def _write(self, data: bytes) -> None:
        if data:
            super().append(data)
            self.own = b""


class RunWithoutFleet:
    """A run of an epoch that settles the ranges itself, and publishes as a real one does."""

    must_keep = False

    def __init__(self, options: FileOptions, _: object, driven: DrivenJob) -> None:
        self.options, self.driven = options, driven
        self.report = SimpleNamespace(failure=None, exceeded="")

    def run(self) -> None:
        driven = self.driven
        lease, folder = driven.lease, driven.folder
        assert isinstance(folder, SteppedFolder)
        world, watch = folder.world, driven.deciding.__self__  # type: ignore[attr-defined]  # of it
        process = world.current
        assert process is not None
        process.world.pause()  # that a fleet is asked takes time
        for unit in units(lease, folder.spec):
            check_stop()
            watch.log_changes()
            fate, process.fate = process.fate, ""
            if fate == "fail":
                self.report.failure = SimpleNamespace(source="", index=0, describe=lambda: "bad")
                lease.log.commit()
                return
            if fate == "suspend":
                raise BrokerUnavailableError("the broker is away")
            data = b"%d by %d\n" % (unit.start, lease.epoch)
            put = lease.log.put(data)
            lease.log.settle(Settled(*unit, 1, 1, put=put, digest=digest_of(data)))
            if fate != "lazy":
                lease.log.commit()
        watch.log_changes()  # a fleet is waited for, also for the last outcome
        check_stop()
        if self.options.hold:
            lease.log.commit()
            return
        publish(
            Output(folder),
            lease,
            target_of(folder.spec).publication(folder, None),
            deciding=driven.deciding,
        )


def units(lease: Lease, spec: Spec) -> list[Range]:
    """Return the parts of a range's size that are not settled yet."""
    return [
        Range(gap.file, start, start + RANGE_BYTES)
        for gap in lease.fold.gaps(spec.wanted)
        for start in range(gap.start, gap.end, RANGE_BYTES)
    ]


class NoThread:
    """In place of a watch's thread, whose looks are on command."""

    def __init__(self, **_: Any) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Do nothing."""

    def join(self, _: float) -> None:
        """Do nothing."""


def replaced_by(world: World) -> list[tuple[object, str, object]]:
    """Return what is not real around a job: owner, name, and what is there instead."""
    clocks = SimpleNamespace(
        time=world.now,
        monotonic=lambda: world.clock,
        sleep=world.sleep,
        time_ns=lambda: 0,  # a folder's time of change is never trusted
    )
    threads = SimpleNamespace(Thread=NoThread, Lock=threading.Lock, Event=threading.Event)
    # Who holds a lock is not frozen until others give it up: the last change would stand.
    patient = SimpleNamespace(time=world.now, monotonic=lambda: 0.0, sleep=world.sleep)
    return [
        *((module, "time", clocks) for module in (watched_jobs, epoch_watch)),
        (import_module(locked.__module__), "time", patient),
        (epoch_watch, "threading", threads),
        (steering, "this_user", lambda: world.current.user if world.current else "test@host"),
        (driving, "this_process", world.holder),
        (driving, "FileRun", RunWithoutFleet),
        (Epoch, "_jobs", lambda *_: None),
    ]
