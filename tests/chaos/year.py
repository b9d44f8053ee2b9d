"""The year of flights, killed at random points again and again, and resumed: the loop's bytes.

    make chaos CHAOS="--flights --published FLIGHTS.csv.zip [--kills 30] [--rows N]"

A kill is of the producer's process group, of all workers, of the server with all that it holds, or
of all three at once. The published rows are no part of the repository: ``--published`` says where
their archive is, which ``examples/data/README.md`` describes.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from pyrmute_tasks import JobNotFoundError, Settings, Window
from pyrmute_tasks.jobs.entries import Settled
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.log import COMMIT_EVERY_S, History
from pyrmute_tasks.registry import load_attribute
from tests.chaos.counted_flights import STEPS
from tests.chaos.runs import HOP, Damage, Way
from tests.conftest import ROOT
from tests.fleets import Fleet
from tests.fleets.processes import kill_group

__all__ = ["Year", "main"]


_MANAGER: Final = "tests.chaos.counted_flights:manager"
_SECRET: Final = "year" * 8
_WORKERS: Final = 2
_UP_TO: Final = 0.9  # of the source: what comes later may be over before it is killed
_PATIENCE_S: Final = 600.0
_CHUNK: Final = 500  # through the producer; by reference ranges take a second
_LOST: Final = "no longer knows job"


class Year:
    """The rows, and what a loop makes of them.

    Args:
        published: The published rows.
        folder: Where they are written.
        rows: How many, if not all.
    """

    def __init__(self, published: Path, folder: Path, rows: int | None = None) -> None:
        self.source = folder / "flights.jsonl"
        convert: Any = load_attribute(f"{ROOT / 'examples' / 'convert_flights.py'}:convert")
        self.rows: int = convert(published, self.source, rows)

    @cached_property
    def expected(self) -> Path:
        """The output of a loop, computed once."""
        path = self.source.with_name("expected.jsonl")
        manager: Any = load_attribute(f"{ROOT / 'examples' / 'flights.py'}:manager")
        with self.source.open("rb") as rows, path.open("wb") as file:
            for row in rows:
                model = manager.migrate(json.loads(row), *HOP)
                file.write(model.model_dump_json().encode() + b"\n")
        return path


@dataclass
class KilledRun:
    """A run of the year that is killed again and again.

    Args:
        year: Its rows.
        folder: Where it writes.
        way: How rows come to the workers.
        random: Chooses points and kinds.

    Attributes:
        kinds: How often each kind of kill was done.
        problems: What was wrong.
        redone: Rows that were run again.
        most_redone: What the dearest kill cost, as a part of what one may.
    """

    year: Year
    folder: Path
    way: Way
    random: random.Random
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    redone: int = 0
    most_redone: float = 0.0
    _pace: "_Pace" = field(init=False)
    _producer: "subprocess.Popen[bytes] | None" = None
    _before: "_Settled | None" = None
    _counted: int = 0  # kills whose cost is known
    _redone: int = 0  # rows that were run again since the beginning
    _earlier: int = 0  # rows that were run before it
    _logged: int = 0  # bytes of the producers' log that are those of earlier ones

    def execute(self, kills: int) -> None:
        """Kill the run so often, let it come to its end, and look at what it did."""
        data = self.folder / "data"
        data.mkdir(parents=True)
        self.target = data / "out.jsonl"
        roots = os.pathsep.join([str(data), str(self.year.source.parent)])
        fleet = Fleet(
            self.folder / "fleet",
            _MANAGER,
            workers=_WORKERS,
            settings=Settings(secret=_SECRET, roots=roots),
            is_supervised=True,
        )
        with fleet, _Pace(fleet) as self._pace:
            while self.kinds.total() < kills and not self.problems:
                self._run_once(fleet, kills - self.kinds.total())

    def _run_once(self, fleet: Fleet, kills: int) -> None:
        """Run it from its beginning to its end; it may be there before the last kill."""
        self.target.unlink(missing_ok=True)
        self._producer = self._before = None
        self._earlier = _steps(fleet)
        size = self.year.source.stat().st_size
        for point in sorted(self.random.uniform(0.0, _UP_TO) * size for _ in range(kills)):
            if not self._runs_up_to(fleet, point):
                break
            time.sleep(self.random.uniform(0.0, COMMIT_EVERY_S))
            self._kill(fleet)
        self._finish(fleet)
        self._count(fleet, self.year.rows)
        self.redone += self._redone
        self._redone = 0
        self._judge()

    def _count(self, fleet: Fleet, settled: int) -> None:
        """Compare what the kills since the last time have cost with what they may."""
        redone = _steps(fleet) - self._earlier - settled
        kills = self.kinds.total() - self._counted
        if kills and self._before is not None:
            late = self._before.window + self._pace.most
            part = (redone - self._redone) / kills / late
            self.most_redone = max(self.most_redone, part)
        self._redone, self._counted = redone, self._counted + kills

    def _runs_up_to(self, fleet: Fleet, point: float) -> bool:
        """Wait until so many bytes are settled; False if the run is through before that."""
        deadline = time.monotonic() + _PATIENCE_S
        while _settled_bytes(self.target) < point:
            assert time.monotonic() < deadline, f"{point:.0f} bytes are not settled"
            if self._producer is None or self._producer.poll() is not None:
                if self._producer is not None and self._producer.returncode == 0:
                    return False
                self._start(fleet)
            time.sleep(0.05)
        if self._producer is None:
            self._start(fleet)
        return True

    def _start(self, fleet: Fleet) -> None:
        """Start the producer, which goes on where the last one was killed."""
        if self._producer is not None and not self._has_lost_job(fleet):
            self.problems.append(f"a run ended with {self._said(fleet)[-1000:]}")
        self._look(fleet)
        self._logged += len(self._said(fleet))
        hop = ["--model", HOP[0], "--from", HOP[1], "--to", HOP[2]]
        way = ["--chunk-size", str(_CHUNK)]
        if self.way is Way.REFERENCE:
            way = ["--by-reference", "always"]
        command = [sys.executable, "-m", "pyrmute_tasks", "run", "--quiet", "--resume", *hop, *way]
        broker = ["--broker", fleet.settings.broker_url]
        files = [str(self.year.source), str(self.target)]
        self._producer = fleet.start_process("producer", [*command, *broker, *files])

    def _said(self, fleet: Fleet) -> str:
        log = fleet.directory / "producer.log"
        return log.read_bytes()[self._logged :].decode("ascii", "replace") if log.exists() else ""

    def _has_lost_job(self, fleet: Fleet) -> bool:
        return _LOST in self._said(fleet)

    def _kill(self, fleet: Fleet) -> None:
        fewest = min(self.kinds[kind] for kind in _KILLS)
        kind = self.random.choice([kind for kind in _KILLS if self.kinds[kind] == fewest])
        kill = _KILLS[kind]
        self.kinds[kind] += 1
        assert self._producer is not None
        kill(fleet, self._producer)
        if self._producer.returncode == -signal.SIGKILL:
            self._producer = None

    def _look(self, fleet: Fleet) -> None:
        """Check, while nobody drives the job, that what was settled is as it was."""
        if not beside(self.target).is_dir():
            return
        found = _Settled.of(self.target)
        if self._before is not None:
            self.problems += self._before.lost_in(found)
        self._before = found
        self._count(fleet, found.fold.records)

    def _finish(self, fleet: Fleet) -> None:
        """Let the run come to its end."""
        while True:
            if self._producer is None or self._producer.poll() not in (None, 0):
                self._start(fleet)
            assert self._producer is not None
            self._producer.wait(_PATIENCE_S)
            if self._producer.returncode == 0:
                return
            if not self._has_lost_job(fleet):
                self.problems.append(f"the last run ended with {self._said(fleet)[-1000:]}")
                return

    def _judge(self) -> None:
        if self.problems:
            return
        if _digest(self.target) != _digest(self.year.expected):
            right, got = self.year.expected.read_bytes(), self.target.read_bytes()
            self.problems.append(f"the output is not the loop's: {Damage.of(got, right)}")
        left = {path.name for path in self.target.parent.iterdir()} - {self.target.name}
        if left:
            self.problems.append(f"left behind: {sorted(left)}")
        if self.most_redone > 1:
            self.problems.append(f"a kill cost {self.most_redone:.2f} of what it may")


class _Pace:
    """The most rows that the workers ran between two commits, in a block.

    A kill costs at most so many, which are settled and not yet committed, beside a window.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.most = 0
        self._fleet = fleet
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="pace")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        seen: deque[tuple[float, int]] = deque()
        while not self._stop.wait(COMMIT_EVERY_S / 20):
            now, steps = time.monotonic(), _steps(self._fleet)
            seen.append((now, steps))
            # A commit is due with the first chunk that comes a second after the last one.
            while now - seen[0][0] > 1.5 * COMMIT_EVERY_S:
                seen.popleft()
            self.most = max(self.most, steps - seen[0][1])


# --- kills ----------------------------------------------------------------------------------


def _kill_producer(fleet: Fleet, producer: "subprocess.Popen[bytes]") -> None:
    kill_group(producer, signal.SIGKILL)
    producer.wait()


def _kill_workers(fleet: Fleet, producer: "subprocess.Popen[bytes]") -> None:
    for worker in fleet.living:
        worker.kill()


def _empty_server(fleet: Fleet, producer: "subprocess.Popen[bytes]") -> None:
    fleet.valkey.restart(down_s=0.0, empty=True)


def _kill_all(fleet: Fleet, producer: "subprocess.Popen[bytes]") -> None:
    _kill_producer(fleet, producer)
    _kill_workers(fleet, producer)
    _empty_server(fleet, producer)


_KILLS: Final[dict[str, Callable[[Fleet, "subprocess.Popen[bytes]"], None]]] = {
    "producer": _kill_producer,
    "workers": _kill_workers,
    "server emptied": _empty_server,
    "all at once": _kill_all,
}


# --- what is settled ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Settled:
    """What is settled.

    Attributes:
        fold: The intervals of the source.
        files: Inode, time and size of the files that hold its outputs.
        window: Rows of a window of the largest ranges.
    """

    fold: Fold
    files: dict[str, tuple[int, int, int]]
    window: int

    @classmethod
    def of(cls, target: Path) -> "_Settled":
        folder = beside(target)
        entries = _entries(target)
        names = {entry.put.name for entry in entries if entry.put is not None}
        stats = {name: (folder / name).stat() for name in names}
        files = {n: (each.st_ino, each.st_mtime_ns, each.st_size) for n, each in stats.items()}
        largest = max([_CHUNK, *(entry.records for entry in entries)])
        return cls(
            JobFolder(folder).view().fold, files, Window.for_slots(_WORKERS).chunks * largest
        )

    def lost_in(self, later: "_Settled") -> Iterator[str]:
        """Yield what is not there any more, or was written again."""
        for span in self.fold.spans():
            if not later.fold.is_settled([span.range]):
                yield f"{span.range} was settled, and is not any more"
        for name, stat in self.files.items():
            if later.files.get(name) != stat:
                yield f"{name} was settled, and was written again"


def _entries(target: Path) -> list[Settled]:
    history = History(JobFolder(beside(target)).storage)
    return [logged.entry for logged in history if isinstance(logged.entry, Settled)]


def _settled_bytes(target: Path) -> int:
    try:
        spans = JobFolder(beside(target)).view().fold.spans()
    except JobNotFoundError:  # not yet, or not any more
        return 0
    return sum(span.range.end - span.range.start for span in spans)


def _steps(fleet: Fleet) -> int:
    path = fleet.directory / STEPS
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


# --- both ways ------------------------------------------------------------------------------


def main(published: Path | None, seed: int, kills: int, rows: int | None, only: Way | None) -> int:
    """Run the year each way; return the exit status."""
    if published is None or not published.exists():
        print("skipped: the published flights are not there; --published names their archive")
        return 0
    status = 0
    folder = Path(tempfile.mkdtemp(prefix="year-"))
    year = Year(published, folder, rows)
    print(f"seed {seed}: {year.rows} flights, {kills} kills each way", flush=True)
    _ = year.expected
    for way in [only] if only else list(Way):
        began = time.monotonic()
        run = KilledRun(year, folder / way, way, random.Random(seed))
        run.execute(kills)
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(run.kinds.items()))
        print(
            f"{way}: {run.kinds.total()} kills ({told}); {run.redone} rows done again, by one kill "
            f"up to {run.most_redone:.2f} of what one may cost; {time.monotonic() - began:.0f} s",
            flush=True,
        )
        for problem in run.problems:
            print(f"  WRONG: {problem}; see {folder}", flush=True)
            status = 1
    if not status:
        shutil.rmtree(folder)
    return status
