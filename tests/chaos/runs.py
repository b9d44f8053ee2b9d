"""A job that is harmed while it runs, and its result.

Through the producer, its input is a file of flights that grows before its reader for as long as
harm is done. By reference, it is a file that is long enough, whose step is slow until the harm is
done. So a job lasts as long as its faults do, however slow the machine is.
"""

import enum
import functools
import json
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from pyrmute_tasks import Migrator
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.engine import chunk_sizes
from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkSettled,
    ChunkSubmitted,
    Event,
    Observer,
)
from pyrmute_tasks.registry import load_attribute
from tests.chaos.slow_flights import PACE
from tests.conftest import ROOT
from tests.fleets import Fleet, Side

MANAGER: Final = "tests.chaos.slow_flights:manager"
OTHER_MANAGER: Final = "tests.chaos.other_flights:manager"
HOP: Final = ("Flight", "1.0.0", "3.0.0")
CHUNK: Final = 50  # rows; at 2 ms each a chunk takes a tenth of a second

_RANGE: Final = 8  # rows of the first ranges; later ones take a tenth of a second
_RANGE_BYTES: Final = _RANGE * 380
_SLOW_S: Final = 0.02
_ROWS: Final = 12_000  # by reference: with two workers they last for two minutes
_AHEAD: Final = 24 * CHUNK  # more than a window and what the reader buffers
_POLL_S: Final = 0.01
_PATIENCE_S: Final = 90.0
_SAMPLE: Final = ROOT / "examples" / "data" / "flights-sample.jsonl"


class Way(enum.StrEnum):
    """The way in which a file's records come to the workers."""

    PRODUCER = "producer"
    REFERENCE = "reference"


# --- the flights ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Flights:
    """Published rows, and the lines that the plain sequential run makes of them."""

    rows: Sequence[bytes]
    outputs: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.rows)


@functools.cache
def load_flights() -> Flights:
    """Return the shipped sample, which has all rare cases."""
    rows = _SAMPLE.read_bytes().splitlines(keepends=True)
    manager: Any = load_attribute(f"{ROOT / 'examples' / 'flights.py'}:manager")
    models = (manager.migrate(json.loads(row), *HOP) for row in rows)
    return Flights(rows, [model.model_dump_json().encode() + b"\n" for model in models])


class Feed:
    """A file of flights that grows ahead of its reader.

    Args:
        path: The file.
        flights: What is repeated in it.
        offset: Which row of them comes first.
        poison: Rows to put in the place of those, by their place in the file.
    """

    def __init__(
        self, path: Path, flights: Flights, offset: int, poison: dict[int, bytes] | None = None
    ) -> None:
        self.path = path
        self.count = 0
        self._flights = flights
        self._offset = offset
        self._poison = poison or {}
        path.write_bytes(b"")

    def grow(self, count: int) -> None:
        """Let the file hold at least `count` rows."""
        if count > self.count:
            places = range(self.count, count)
            with self.path.open("ab") as file:
                file.write(b"".join(self._poison.get(n) or self._row(n) for n in places))
            self.count = count

    def outputs(self, count: int) -> list[bytes]:
        """Return the outputs of the first `count` rows."""
        size = len(self._flights)
        return [self._flights.outputs[(self._offset + place) % size] for place in range(count)]

    def _row(self, place: int) -> bytes:
        return self._flights.rows[(self._offset + place) % len(self._flights)]


# --- what came of it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """Differences of an output from the right one; all 0 if it is right.

    Attributes:
        lost: Lines that should be there and are not.
        doubled: Lines that are there once more than they should be.
        out_of_order: Lines that stand before one that should come first.
        wrong_bytes: Bytes that are not those of the right output.
    """

    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    wrong_bytes: int = 0

    @classmethod
    def of(cls, got: bytes, wanted: bytes) -> "Damage":
        if got == wanted:
            return cls()
        lines, right = got.splitlines(keepends=True), wanted.splitlines(keepends=True)
        missing = Counter(right) - Counter(lines)
        surplus = Counter(lines) - Counter(right)
        known = set(right)
        differing = sum(a != b for a, b in zip(got, wanted, strict=False))
        return cls(
            lost=missing.total(),
            doubled=sum(count for line, count in surplus.items() if line in known),
            out_of_order=_descents(lines, right),
            wrong_bytes=differing + abs(len(got) - len(wanted)),
        )


def _descents(lines: list[bytes], right: list[bytes]) -> int:
    places: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for place, line in enumerate(right):
        places[line].append(place)
    found = [places[line].popleft() for line in lines if places[line]]
    return sum(later < earlier for earlier, later in pairwise(found))


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        damage: How the output differs from the right one, up to the error if there is one.
        error: What the job raised.
        records: Records delivered.
        seconds: How long the job took.
        stall_s: The longest time without a delivery from the first fault on. The time when
            a fault was such that nothing could be delivered does not count.
        outage_s: That time.
        restarts: Workers that ended without having been asked to, and were started again.
        leaving_s: The longest time that a worker took to leave when it was asked to.
        is_cut_short: The job was over before all harm was done.
        is_resumed: The job ended with the error, and its next run finished it.
    """

    damage: Damage
    error: Exception | None
    records: int
    seconds: float
    stall_s: float
    outage_s: float
    restarts: int
    leaving_s: float
    is_cut_short: bool
    is_resumed: bool = False


class JobHasEndedError(Exception):
    """The job ended before the fault."""


# --- running --------------------------------------------------------------------------------

Harm = Callable[["Run"], None]


@dataclass
class Run:
    """One job over a fleet.

    Args:
        fleet: Its workers and servers.
        feed: Its input.
        random: Chooses victims.
        deploys: How many workers are replaced in a rolling deployment.
        gone_s: How long all workers are gone.
        spell_s: How long a server is of no use.
        through_proxy: The producer reaches Valkey through the fleet's proxy.
        doubles_messages: Every message is published twice.
        chunk_size: Records a chunk.
        outage_s: How patient the producer is, if not as the workers are.
        is_mixed: Several faults happen at the same time, whenever they are due.
        way: How its records come to the workers. By reference it has a log.
        resumes: A job by reference that ended with an error is finished by another run.
    """

    fleet: Fleet
    feed: Feed
    random: random.Random
    deploys: int = 4
    gone_s: float = 5.0
    spell_s: float = 4.0
    through_proxy: bool = False
    doubles_messages: bool = False
    chunk_size: int = CHUNK
    outage_s: float | None = None
    is_mixed: bool = False
    way: Way = Way.PRODUCER
    resumes: bool = True
    delivered: int = 0
    submitted: int = 0
    settled_by: set[str] = field(default_factory=set)
    _began: float = 0.0
    _ended: float = 0.0
    _deliveries: list[float] = field(default_factory=list)
    _faults: list[float] = field(default_factory=list)
    _outages: list[tuple[float, float]] = field(default_factory=list)
    _harm_is_done: threading.Event = field(default_factory=threading.Event)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _ranges: ExitStack = field(default_factory=ExitStack)  # short ones, while harm is done
    _harm_error: BaseException | None = None
    _is_cut_short: bool = False

    # --- for harms --------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until `condition` holds; raise if the job ends first."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if self._is_over.is_set():
                raise JobHasEndedError(what)
            assert time.monotonic() < deadline, f"timed out after {_PATIENCE_S:.0f} s: {what}"
            time.sleep(_POLL_S)

    def pause(self, seconds: float) -> None:
        """Wait for a time that is part of a fault; raise if the job ends first."""
        if self._is_over.wait(seconds):
            raise JobHasEndedError("a fault has lasted")

    def wait_for_deliveries(self, count: int) -> None:
        """Wait until `count` more chunks have been delivered."""
        wanted = self.delivered + count
        self.wait_until(lambda: self.delivered >= wanted, f"{count} chunks more are delivered")

    def begin_fault(self) -> None:
        """Mark the beginning of a fault: from now on stalls count."""
        self._faults.append(time.monotonic())

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Mark the block as a fault during which nothing can be delivered."""
        self.begin_fault()
        began = time.monotonic()
        try:
            yield
        finally:
            self._outages.append((began, time.monotonic()))

    # --- the job ----------------------------------------------------------------------------

    def observe(self, event: Event) -> None:
        """Record the job's events; an observer."""
        if isinstance(event, ChunkSubmitted):
            self.submitted = event.start + event.count
            if self.way is Way.PRODUCER and not self._harm_is_done.is_set():
                self.feed.grow(self.submitted + _AHEAD)
        elif isinstance(event, ChunkSettled):
            self.settled_by.add(event.worker.rpartition("-")[0])  # without its token
        elif isinstance(event, ChunkDelivered):
            self._deliveries.append(time.monotonic())
            self.delivered += 1

    def execute(self, harm: Harm | None) -> Result:
        """Run the job while `harm` is done to it; return its result.

        Without harm the job is as long as its feed is already.
        """
        if harm is None:
            self._harm_is_done.set()
        elif self.way is Way.REFERENCE:
            self.feed.grow(_ROWS)
            self.set_pace(_SLOW_S)
        else:
            self.feed.grow(_AHEAD)
        target = self.target
        if self.way is Way.REFERENCE:
            self._ranges.enter_context(short_ranges())
        self._began = time.monotonic()
        thread = threading.Thread(target=self._do, args=(harm,), name="harm")
        thread.start()
        try:
            error = self._migrate(target, self.observe)
        finally:
            self._ended = time.monotonic()
            self._is_over.set()
            thread.join()
            self._ranges.close()
        if self._harm_error is not None:
            raise self._harm_error
        is_resumed = error is not None and self._goes_on
        if is_resumed:
            self._finish(target)
        return self._result(target, error, is_resumed=is_resumed)

    @property
    def target(self) -> Path:
        """The output."""
        return self.feed.path.with_name("out.jsonl")

    @property
    def _goes_on(self) -> bool:
        return self.way is Way.REFERENCE and self.resumes

    def set_pace(self, seconds: float) -> None:
        """Tell the fleet's workers how long the step is to take."""
        pace = self.fleet.directory / PACE
        new = pace.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(pace)

    def _finish(self, target: Path) -> None:
        """Let another run finish the job, as ``--resume`` does."""
        target.with_name(f"{target.name}.partial").unlink(missing_ok=True)
        again = self._migrate(target)
        assert again is None, f"resuming ended with {again!r}"

    def _do(self, harm: Harm | None) -> None:
        try:
            if harm is not None:
                harm(self)
        except JobHasEndedError:
            self._is_cut_short = True
        except BaseException as error:
            self._harm_error = error
        finally:
            self._harm_is_done.set()
            if harm is not None:
                self._ranges.close()
                self.set_pace(0.0)

    def _migrate(self, target: Path, *observers: Observer) -> Exception | None:
        settings = self.fleet.producer_settings(through_proxy=self.through_proxy)
        if self.outage_s is not None:
            settings = replace(settings, outage_s=self.outage_s)
        with ExitStack() as stack:
            stack.enter_context(self.fleet.place_of(Side.PRODUCER))
            if self.doubles_messages:
                stack.enter_context(_doubled_messages())
            options: dict[str, Any] = {"chunk_size": self.chunk_size, "log": False}  # it grows
            if self.way is Way.REFERENCE:
                options = {"by_reference": "always", "resume": self._goes_on}
                options["restart"] = not self._goes_on
            migrator = stack.enter_context(Migrator(MANAGER, settings=settings))
            try:
                migrator.migrate_file(
                    self.feed.path, target, *HOP, keep_partial=True, observers=observers, **options
                )
            except Exception as error:
                return error
        return None

    def _result(self, target: Path, error: Exception | None, *, is_resumed: bool) -> Result:
        if error is None or is_resumed:
            got, count = target.read_bytes(), self.feed.count
        else:
            # The lines before the error; how many these must be, its own test says.
            got = target.with_name(f"{target.name}.partial").read_bytes()
            count = got.count(b"\n")
        damage = Damage.of(got, b"".join(self.feed.outputs(count)))
        if damage == Damage():
            for path in (target, self.feed.path):
                path.unlink(missing_ok=True)  # they are large, and tests are many
        workers = self.fleet.workers
        leaving = [worker.left_after_s for worker in workers if worker.left_after_s is not None]
        return Result(
            damage,
            error,
            got.count(b"\n"),
            self._ended - self._began,
            self._longest_stall(),
            sum(end - begin for begin, end in self._outages),
            sum(worker.starts - 1 for worker in workers),
            max(leaving, default=0.0),
            self._is_cut_short,
            is_resumed,
        )

    def _longest_stall(self) -> float:
        start = min(self._faults, default=self._began)
        times = [start, *(at for at in self._deliveries if at > start), self._ended]
        gaps = pairwise(times)
        return max(later - earlier - self._excused(earlier, later) for earlier, later in gaps)

    def _excused(self, earlier: float, later: float) -> float:
        """Return how much of a time was an outage; outages may overlap."""
        excused, until = 0.0, earlier
        for begin, end in sorted(self._outages):
            excused += max(0.0, min(end, later) - max(begin, until))
            until = max(until, end)
        return excused


@contextmanager
def short_ranges(seconds: float = 0.1, size_bytes: int = _RANGE_BYTES) -> Iterator[None]:
    """Cut files into ranges of so many seconds of work, the first ones of so many bytes."""
    with ExitStack() as stack:
        for name in ("_FIRST_RANGE_BYTES", "_LEAST_RANGE_BYTES"):
            stack.enter_context(patch.object(chunk_sizes, name, size_bytes))
        stack.enter_context(patch.object(chunk_sizes, "_TARGET_S", seconds))
        stack.enter_context(patch.object(chunk_sizes.RangeSizer, "_least_share", size_bytes))
        yield


@contextmanager
def _doubled_messages() -> Iterator[None]:
    publish = Broker.publish

    def publish_twice(self: Broker, messages: Sequence[Any]) -> None:
        publish(self, [message for message in messages for _ in range(2)])

    with patch.object(Broker, "publish", publish_twice):
        yield
