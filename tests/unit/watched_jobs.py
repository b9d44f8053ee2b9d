"""Folders of submitted jobs, with real leases and logs, for tests of what is seen of them."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.io.logged_rejects import encode_rejects
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import Ended, JobResult, Note, Noted, Piece, Publishing, Settled
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.lease import Lease, take
from pyrmute_tasks.jobs.log import log_name
from pyrmute_tasks.jobs.now import NOW, Now, write_now
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.want import WANT, Want, write_want
from pyrmute_tasks.ranges.frames import Place
from pyrmute_tasks.service.beats import beat

SOURCE_BYTES = 1000
RANGE_BYTES = 10


@dataclass
class WatchedJob:
    """A job in a jobs root, which a test drives; its clock stands unless the test moves it."""

    folder: JobFolder
    clock: float = field(default_factory=lambda: float(math.ceil(time.time())))
    lease: Lease | None = None
    _done: int = field(default=0)

    @classmethod
    def submitted(cls, root: Path, job: str = "a1b2c3d4", **terms: Any) -> "WatchedJob":
        root.mkdir(exist_ok=True)
        spec = _spec(job, root.parent / f"{job}.jsonl", Terms(**terms))
        return cls(JobsRoot(root).create(spec, Want()))

    @classmethod
    def beside(cls, target: Path) -> "WatchedJob":
        """Return the job of a run in the foreground."""
        return cls(JobFolder.create(beside(target), _spec("f0f0f0f0", target, None)))

    def taken(self, **holder: Any) -> "WatchedJob":
        """Let a driver take the job: this process, unless the holder differs."""
        who = {**this_process(), **holder}
        storage = self.folder.storage
        self.lease = take(storage, who, "f00d", now=self.now, monotonic=lambda: 0.0)
        return self

    def now(self) -> float:
        return self.clock

    def later(self, seconds: float) -> "WatchedJob":
        self.clock += seconds
        return self

    def log(self, *entries: Any) -> "WatchedJob":
        assert self.lease is not None
        for entry in entries:
            self.lease.log.log(entry)
        self.lease.log.commit()
        return self

    def settle(self, ranges: int = 1, at: int | None = None) -> "WatchedJob":
        """Settle ranges of ten records, a byte each, behind those before, or elsewhere."""
        assert self.lease is not None
        start = self._done if at is None else at
        put = Piece(f"stream.{self.lease.epoch}", 0, 5)
        for begin in range(start, start + ranges * RANGE_BYTES, RANGE_BYTES):
            end = begin + RANGE_BYTES
            self.lease.log.settle(Settled(0, begin, end, 10, 10, put=put, worker="w1"))
            self._done = max(self._done, end)
        self.lease.log.commit()
        return self

    def reject(self, errors: Sequence[Exception], at: int | None = None) -> "WatchedJob":
        """Settle a range of ten records whose first ones were rejected, in step or validation."""
        assert self.lease is not None
        start = self._done if at is None else at
        steps = [
            (Stage.STEP, "1.0.0 → 2.0.0") if isinstance(each, KeyError) else (Stage.VALIDATE, "")
            for each in errors
        ]
        failures = [
            RecordFailure.of(index, stage, step, error)
            for index, (error, (stage, step)) in enumerate(zip(errors, steps, strict=True))
        ]
        places = [Place(index, index, start + index, 1, "5e") for index in range(len(errors))]
        piece = self.lease.log.put_rejects(encode_rejects(failures, places))
        count, end = len(errors), start + RANGE_BYTES
        put = Piece(f"stream.{self.lease.epoch}", 0, 5)
        entry = Settled(0, start, end, 10, 10 - count, count, put=put, rejects=piece)
        self.lease.log.settle(entry)
        self.lease.log.commit()
        self._done = max(self._done, end)
        return self

    def let_go(self, why: str, note: Note = Note.STOPPED) -> "WatchedJob":
        assert self.lease is not None
        self.lease.let_go(why, note)
        return self

    def note(self, note: Note, why: str) -> "WatchedJob":
        return self.log(Noted(note, why))

    def ended(self, result: JobResult, why: str = "") -> "WatchedJob":
        assert self.lease is not None
        fold = self.lease.fold
        if result in (JobResult.SUCCEEDED, JobResult.SUCCEEDED_WITH_REJECTS):
            self.log(Publishing(123, "d19e57", ".tmp"))
        self.log(Ended(result, fold.records, fold.outputs, fold.rejected, why))
        self.lease.log.close()
        return self

    def wish(self, wish: Wish = Wish.RUN, **others: Any) -> "WatchedJob":
        want = Want(wish, who="ann@host", at=self.clock + 0.5, **others)
        write_want(self.folder.storage, want)
        os.utime(self.folder.path / WANT, (want.at, want.at))
        return self

    def obey(self, wish: Wish, **others: Any) -> "WatchedJob":
        """Wish, and let the driver log that it obeys."""
        want = Want(wish, who="ann@host", at=self.clock, **others)
        write_want(self.folder.storage, want)
        return self.log(want.as_entry())

    def tells(self, **now: Any) -> "WatchedJob":
        """Let the driver tell what it sees, by this host's real clock."""
        assert self.lease is not None
        given = Now(epoch=self.lease.epoch, at=time.time(), total_bytes=SOURCE_BYTES)
        write_now(self.folder.path, replace(given, **now))
        return self

    def tended(self, silent_s: float = 0.0, queue: str = "", host: str = "c1") -> "WatchedJob":
        """Let a coordinator have looked at the jobs root."""
        root, then = self.folder.path.parent, self.clock - silent_s
        beat(root, host, queue)
        for path in root.glob(f".coordinator.{host}*"):
            os.utime(path, (then, then))
        return self

    def silent(self, seconds: float) -> "WatchedJob":
        """Let nothing of the driver be newer than that."""
        assert self.lease is not None
        then = self.clock - seconds
        for name in (log_name(self.lease.epoch), NOW):
            if (self.folder.path / name).exists():
                os.utime(self.folder.path / name, (then, then))
        return self


def _spec(job: str, target: Path, terms: Terms | None) -> Spec:
    source = target.parent / "in.jsonl"
    if not source.exists():
        source.write_bytes(b"0123456789" * (SOURCE_BYTES // 10))
    return Spec(
        job,
        (SourceFile.of(source),),
        str(target),
        ("User", "1.0.0", "3.0.0"),
        "f00d",
        options={"on_error": "skip"},
        created_at=time.time(),
        created_by="ann@host",
        terms=terms,
    )
