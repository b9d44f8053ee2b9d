"""A broker, a store and workers that live in one process and in simulated time.

The store does what the scripts in `pyrmute_tasks.distributed.store` do, step for step; the
workers do what `distributed.worker.chunk_runner` and Celery do. Time passes only while the
executor asks the store or the broker for something: then the fleet goes on by itself. What
may go wrong in a real fleet is a `Harm`, and `Fleet.suffer` does it.
"""

import enum
import heapq
import itertools
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyrmute_tasks.distributed.producer.broker import Message
from pyrmute_tasks.distributed.protocol import (
    Arrivals,
    Claim,
    ClaimInfo,
    ClaimState,
    Decline,
    Survey,
    WorkerInfo,
)
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.engine.chunks import (
    Chunk,
    Outcome,
    decode_records,
    encode_outcome,
    encode_packed,
)
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import BrokerUnavailableError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import (
    Compression,
    FrameKind,
    decode_frame,
    encode_frame,
    pack,
    pack_record,
)

__all__ = [
    "End",
    "Fleet",
    "Harm",
    "HarmKind",
    "HungError",
    "SimulatedSurveyor",
    "Work",
    "chunk_of",
    "migrated",
    "spec_of",
]

CODE: Final = "the right code"
OTHER_CODE: Final = "other code"
SETTINGS: Final = Settings(code_wait_s=15.0, soft_time_limit_s=400.0, time_limit_s=460.0)

_PREFETCH: Final = 2  # messages that a worker has for each of its slots
_CALL_S: Final = 0.001  # what a call of the executor takes
_START_S: Final = 0.01  # from a free slot to the claim
_NOTICE_DEATH_S: Final = 0.25
_DECLINE_PAUSE_S: Final = 0.5
_RESTART_S: Final = 2.0
_MOST_DEATHS: Final = 40
_PATIENCE_S: Final = 30.0  # without harm and without any chunk coming nearer to its end
_STUCK_PATIENCE_S: Final = 100.0  # a child that hangs is found by how long others take


class HungError(AssertionError):
    """A healthy worker exists, and nothing has moved for too long."""


# --- the records ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """The records of a job, and their effects on the processes that run them.

    Attributes:
        sizes: Records in each chunk.
        seconds: How long chunks take, in turn.
        bad: Records that fail.
        poison: Records that end the process that runs them.
        kills_hosts: Poison ends the whole worker, not only its child.
        poison_first: Poison acts although a bad record stands before it in the same part:
            a plan may run its first step over many records before the second.
        skips: Records that fail are skipped.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...] = (0.1,)
    bad: frozenset[int] = frozenset()
    poison: frozenset[int] = frozenset()
    kills_hosts: bool = False
    poison_first: bool = False
    skips: bool = False

    @property
    def total(self) -> int:
        return sum(self.sizes)

    def records(self, index: int) -> range:
        """The records of a chunk."""
        start = sum(self.sizes[:index])
        return range(start, start + self.sizes[index])

    def killer(self, records: range) -> int | None:
        """The record among these that kills its process."""
        killer = min((n for n in self.poison if n in records), default=None)
        first_bad = self.first_bad(records)
        goes_on = self.poison_first or self.skips
        if killer is None or first_bad is None or goes_on or killer <= first_bad:
            return killer
        return None

    def first_bad(self, records: range) -> int | None:
        return min((n for n in self.bad if n in records), default=None)


def migrated(records: Iterable[int]) -> list[dict[str, int]]:
    """Return the migrated records."""
    return [{"n": n, "twice": 2 * n} for n in records]


def chunk_of(work: Work, index: int) -> Chunk[bytes]:
    """A chunk as the producer submits it."""
    records = work.records(index)
    payload = [pack_record({"n": n}) for n in records]
    return encode_packed(Chunk(index, records.start, len(payload), payload), Compression.NONE)


def spec_of(job: str, *, skips: bool = False) -> JobSpec:
    return JobSpec(job, "Thing", "1.0.0", "2.0.0", FrameKind.OBJECTS, CODE, skips=skips)


def _run(work: Work, index: int, frame: bytes, start: int, seconds: float, worker: str) -> bytes:
    """Return the outcome of a part, as a worker writes it."""
    inputs = [record["n"] for record in decode_records(decode_frame(frame))]
    assert inputs == list(range(start, start + len(inputs)))
    bad = [n for n in inputs if n in work.bad]
    if bad and not work.skips:
        del bad[1:]
        inputs = inputs[: bad[0] - start + 1]
    done = [n for n in inputs if n not in bad]
    failures = tuple(
        RecordFailure(n, Stage.STEP, "1.0.0 → 2.0.0", ValueError(f"bad {n}"), worker=worker)
        for n in bad
    )
    outputs = encode_frame(FrameKind.OBJECTS, len(done), pack(migrated(done)))
    return encode_outcome(Outcome(index, len(done), outputs, failures, seconds, worker))


# --- time -----------------------------------------------------------------------------------


class _Clock:
    """Simulated seconds, and the events scheduled at them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = itertools.count()

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._ids), do))

    def next_before(self, end: float) -> bool:
        """Go to the next event and run it; False if there is none by `end`."""
        if not self._events or self._events[0][0] > end:
            return False
        when, _, do = heapq.heappop(self._events)
        self.now = max(self.now, when)
        do()
        return True


# --- the store ------------------------------------------------------------------------------


@dataclass
class _Keys:
    """The keys of one job; an empty one does not exist."""

    job: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, bytes] = field(default_factory=dict)
    claims: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    out: dict[str, bytes] = field(default_factory=dict)
    done: deque[str] = field(default_factory=deque)


class SimulatedStore:
    """A `JobStore`, and the store as workers use it."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self._jobs: defaultdict[str, _Keys] = defaultdict(_Keys)
        self._beats: dict[str, tuple[float, int, frozenset[str]]] = {}
        self.notices_to_lose = 0
        self.unwanted_from = sys.maxsize  # index of the first chunk that was cancelled
        self.settled: Counter[str] = Counter()  # how often an outcome was accepted, by part

    # What a test may ask

    def left_of(self, job: str) -> dict[str, Any]:
        """Return the store's keys of a job."""
        return {key: value for key, value in vars(self._jobs[job]).items() if value}

    def chunks_of(self, job: str) -> set[int]:
        """Return the chunks whose inputs are in the store."""
        return {_chunk(part) for part in self._jobs[job].inputs}

    def outcomes_of(self, job: str) -> set[int]:
        """Return the chunks whose outcomes are in the store."""
        return {_chunk(part) for part in self._jobs[job].out}

    def lose_notice(self, pick: int) -> None:
        """Lose a notice: a waiting one, or else the next one."""
        waiting = [keys.done for keys in self._jobs.values() if keys.done]
        if waiting:
            del waiting[0][pick % len(waiting[0])]
        else:
            self.notices_to_lose += 1

    def forget_everything(self) -> None:
        """Restart the store without its data."""
        self._jobs.clear()

    # The producer's side

    def check(self) -> None:
        pass

    def open_job(self, spec: JobSpec) -> int:
        self._fleet.call()
        self._jobs[spec.id].job["spec"] = spec.to_wire()
        return 0

    def touch_job(self, job: str) -> bool:
        self._fleet.call()
        return bool(self._jobs[job].job)

    def stop_job(self, job: str, first: int, pending: Iterable[str]) -> None:
        self._fleet.call()
        for part in pending:
            self._jobs[job].inputs.pop(part, None)
        self._jobs[job].job["stop"] = first

    def end_job(self, job: str) -> None:
        self._fleet.call()
        self._jobs.pop(job, None)

    def put_parts(self, job: str, frames: Iterable[tuple[str, bytes]], gone: str = "") -> None:
        self._fleet.call()
        inputs = self._jobs[job].inputs
        inputs.pop(gone, None)
        for part, frame in frames:
            whole = part.partition(":")[0]
            assert part == whole or whole not in inputs, "a chunk and its halves would both run"
            assert _chunk(part) < self.unwanted_from, "nobody wants it any more"
            inputs[part] = frame

    def take(self, job: str, *, wait_s: float, forget: Iterable[str] = ()) -> Arrivals:
        self._fleet.call()
        keys = self._jobs[job]
        for part in forget:
            keys.out.pop(part, None)
        if wait_s > 0:
            self._fleet.wait(wait_s, lambda: bool(keys.done))
        notices = list(keys.done)
        keys.done.clear()
        crashes = [notice[1:].partition(" ") for notice in notices if notice[0] == "!"]
        declines = [Decline(*notice[1:].split(" ", 3)) for notice in notices if notice[0] == "?"]
        settled = [notice for notice in notices if notice[0] not in "!?"]
        arrived = Arrivals([], [(part, how) for part, _, how in crashes], declines)
        arrived.outcomes.extend((part, keys.out[part]) for part in settled if part in keys.out)
        return arrived

    def read_outcomes(self, job: str, parts: Collection[str]) -> list[tuple[str, bytes]]:
        if parts:
            self._fleet.call()
        return [(part, data) for part, data in self._jobs[job].out.items() if part in parts]

    def survey(self, job: str, waiting: int | None = None, *, is_busy: bool = False) -> Survey:
        keys = self._jobs[job]
        now = int(self._fleet.now)
        claims = {
            part: ClaimInfo(worker, task, now - when, when)
            for part, (when, task, worker) in keys.claims.items()
        }
        return Survey(bool(keys.job), waiting, claims, self._living(), list(keys.out))

    def restore_parts(self, job: str, frames: Iterable[tuple[str, bytes]]) -> None:
        self._fleet.call()
        keys = self._jobs[job]
        for part, frame in frames:
            keys.claims.pop(part, None)
            if part not in keys.out:
                keys.inputs.setdefault(part, frame)

    def rejected_workers(self) -> str:
        return ""

    def workers(self) -> list[WorkerInfo]:
        self._fleet.call()
        return self._living()

    def _living(self) -> list[WorkerInfo]:
        now = self._fleet.now
        found = [
            WorkerInfo(name, slots, running, now - seen)
            for name, (seen, slots, running) in self._beats.items()
        ]
        return [info for info in found if info.is_fresh]

    # The worker's side

    def claim(self, job: str, part: str, task: str, worker: str) -> Claim:
        keys = self._jobs[job]
        if "spec" not in keys.job:
            return Claim(ClaimState.GONE)
        if "stop" in keys.job and _chunk(part) >= keys.job["stop"]:
            return Claim(ClaimState.STOPPED)
        if part not in keys.inputs:
            return Claim(ClaimState.SETTLED)
        assert _chunk(part) < self.unwanted_from, "it would run although nobody wants it"
        keys.claims[part] = (int(self._fleet.now), task, worker)
        return Claim(ClaimState.CLAIMED, keys.job["spec"], keys.inputs[part])

    def settle(self, job: str, part: str, outcome: bytes) -> bool:
        keys = self._jobs[job]
        if keys.inputs.pop(part, None) is None:
            return False
        keys.claims.pop(part, None)
        keys.out[part] = outcome
        self._push(keys, part)
        self.settled[part] += 1
        self._fleet.moved()
        return True

    def note_crash(self, job: str, part: str, how: str) -> None:
        self._tell(job, part, f"!{part} {how}")

    def decline(self, job: str, part: str, task: str, worker: str, code: str) -> bool:
        return self._tell(job, part, f"?{part} {task} {worker} {code}")

    def beat(self, worker: str, slots: int, running: Iterable[str]) -> None:
        self._beats[worker] = (self._fleet.now, slots, frozenset(running))

    def leave(self, worker: str) -> None:
        self._beats.pop(worker, None)

    def _tell(self, job: str, part: str, notice: str) -> bool:
        keys = self._jobs[job]
        if part not in keys.inputs:
            return False
        self._push(keys, notice)
        return True

    def _push(self, keys: _Keys, notice: str) -> None:
        if self.notices_to_lose:
            self.notices_to_lose -= 1
            self._fleet.moved()
        else:
            keys.done.append(notice)


def _chunk(part: str) -> int:
    return int(part.partition(":")[0])


# --- the broker -----------------------------------------------------------------------------


_OTHER: Final = TaskArguments("other", "0", 0, CODE)


class SimulatedBroker:
    """A `TaskBroker`: one queue, first in, first out."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self.queue: deque[Message] = deque()
        self.published: list[Message] = []
        self.away_until = 0.0
        self.silent_s = 0.0  # how long it takes until it is clear that it is away
        self.publish_twice = 0  # times that an error comes although all were delivered
        self.others_wait = 0  # messages of other jobs, of which there are always more
        self._waylaid: deque[float | None] = deque()
        self._lost: set[int] = set()

    def check(self) -> None:
        pass

    def publish(self, messages: Sequence[Message]) -> None:
        self._fleet.call()
        away_s = max(0.0, self.away_until - self._fleet.now)
        self._fleet.wait(min(away_s, SETTINGS.outage_s), lambda: False)
        if away_s > SETTINGS.outage_s:
            raise BrokerUnavailableError("it is away")
        if self.publish_twice:
            self.publish_twice -= 1
            self._put(messages)
            self._fleet.wait(1.0, lambda: False)
        self._put(messages)
        self.published.extend(messages)

    def lose(self, chunk: int) -> None:
        """Lose the first message of a chunk."""
        self._lost.add(chunk)

    def _put(self, messages: Sequence[Message]) -> None:
        for message in messages:
            chunk = _chunk(message.arguments.part)
            if chunk in self._lost:
                self._lost.remove(chunk)
                continue
            self.queue.append(message)
            if self._waylaid:
                self._fleet.moved()
                self.waylay(len(self.queue) - 1, self._waylaid.popleft())

    def waylay(self, pick: int, seconds: float | None) -> None:
        """Delay a waiting message, or else the next one; None loses it."""
        if not self.queue:
            self._waylaid.append(seconds)
            return
        message = self.queue[pick % len(self.queue)]
        self.queue.remove(message)
        if seconds is not None:
            self._fleet.later(seconds, lambda: self.queue.append(message))

    def queue_depth(self) -> int | None:
        return None if self._fleet.now < self.away_until else self._length()

    def _length(self) -> int:
        return len(self.queue) + self.others_wait

    def revoke(self, tasks: Iterable[str]) -> None:
        self._fleet.call()
        for worker in self._fleet.workers:
            worker.revoked.update(tasks)


class SimulatedSurveyor:
    """A `Surveyor` whose survey shows its moment of request and arrives a moment later."""

    def __init__(self, fleet: "Fleet", job: str) -> None:
        self._fleet = fleet
        self._job = job
        self._is_asking = False
        self._survey: Survey | None = None

    def begin(self) -> None:
        pass

    def end(self) -> None:
        pass

    def request(self, *, is_busy: bool) -> bool:
        if self._is_asking:
            return False
        self._is_asking = True
        waiting = self._fleet.broker.queue_depth()
        answers_in_s = _CALL_S if waiting is not None else self._fleet.broker.silent_s

        def ask() -> None:
            self._survey = self._fleet.store.survey(self._job, waiting)

        self._fleet.later(answers_in_s, ask)
        return True

    def report(self) -> Survey | None:
        survey, self._survey = self._survey, None
        if survey is not None:
            self._is_asking = False
        return survey


# --- workers --------------------------------------------------------------------------------


class End(enum.Enum):
    """How a process ended during a part, as the collector may see it."""

    DIED = "died"  # it was told of
    VANISHED = "vanished"  # with its worker, or its worker was frozen


@dataclass(eq=False)
class _TaskRun:
    """A message in a worker's hands."""

    message: Message
    records: range = range(0)  # empty until it has been claimed
    frame: bytes = b""
    is_started: bool = False  # otherwise it waits in the main process
    is_dead: bool = False
    is_stuck: bool = False

    @property
    def job(self) -> str:
        return self.message.arguments.job

    @property
    def part(self) -> str:
        return self.message.arguments.part

    @property
    def start(self) -> int:
        return self.message.arguments.start

    @property
    def is_alive(self) -> bool:
        """Whether it is claimed, and neither dead nor stuck."""
        return bool(self.records) and not self.is_dead and not self.is_stuck


class SimulatedWorker:
    """A worker's main process and its children."""

    def __init__(self, fleet: "Fleet", name: str, slots: int, code: str) -> None:
        self._fleet = fleet
        self.name = name
        self.slots = slots
        self.code = code
        self.runs: list[_TaskRun] = []
        self.revoked: set[str] = set()
        self.is_alive = True
        self.is_leaving = False
        self._frozen_until = 0.0
        self._declined: set[str] = set()
        self._beat()

    @property
    def is_frozen(self) -> bool:
        return self._fleet.now < self._frozen_until

    @property
    def is_healthy(self) -> bool:
        """Whether it will run its messages."""
        stuck = sum(run.is_stuck for run in self.runs)
        is_up = self.is_alive and not self.is_leaving and not self.is_frozen
        return is_up and stuck < self.slots and self.code == CODE

    def wants_more(self) -> bool:
        is_up = self.is_alive and not self.is_leaving and not self.is_frozen
        return is_up and len(self.runs) < _PREFETCH * self.slots

    def take(self, message: Message) -> None:
        """Take a message from the queue, which no longer holds it."""
        if message.task not in self.revoked:
            self.runs.append(_TaskRun(message))
            self._start_next()

    def be_busy(self, seconds: float) -> None:
        """Occupy all slots with other jobs' messages for a time."""
        others = [
            _TaskRun(Message(f"other-{n}", _OTHER, ""), is_started=n < self.slots)
            for n in range(_PREFETCH * self.slots)
        ]
        self.runs += others

        def be_free() -> None:
            self.runs = [run for run in self.runs if run not in others]

        self._fleet.later(seconds, be_free)

    def _start_next(self) -> None:
        free = self.slots - sum(run.is_started for run in self.runs)
        for run in [run for run in self.runs if not run.is_started][:free]:
            run.is_started = True
            self._later(_START_S, run, self._claim)

    def _later(self, seconds: float, run: _TaskRun | None, do: Callable[[Any], None]) -> None:
        """Schedule an action for a run, or for its thaw, unless worker or run have ended."""

        def event() -> None:
            if not self.is_alive or (run is not None and run not in self.runs):
                return
            if self.is_frozen:
                self._fleet.later(self._frozen_until - self._fleet.now, event)
            else:
                do(run)

        self._fleet.later(seconds, event)

    def _beat(self, _: object = None) -> None:
        slots = 0 if self.is_leaving else self.slots
        self._fleet.store.beat(self.name, slots, [run.message.task for run in self.runs])
        self._later(SETTINGS.heartbeat_s, None, self._beat)

    # --- a run ------------------------------------------------------------------------------

    def _claim(self, run: _TaskRun) -> None:
        if run.job in self._declined:
            self._decline(run)
            return
        claim = self._fleet.store.claim(run.job, run.part, run.message.task, self.name)
        if claim.state is not ClaimState.CLAIMED:
            self._end(run)
            return
        run.frame = bytes(claim.frame)
        run.records = range(run.start, run.start + decode_frame(claim.frame).count)
        if JobSpec.from_wire(claim.spec).fingerprint != self.code:
            # Its claim stays. If its notice is lost and it goes, that looks like a death.
            self._fleet.note_end(run.records, End.VANISHED)
            self._declined.add(run.job)
            self._decline(run)
            return
        self._later(self._fleet.seconds_of(_chunk(run.part)), run, self._finish)
        self._fleet.begun(self, run)

    def _decline(self, run: _TaskRun) -> None:
        store = self._fleet.store
        wanted = store.decline(run.job, run.part, run.message.task, self.name, self.code)
        self._later(_DECLINE_PAUSE_S if wanted else 0.0, run, self._end)

    def _finish(self, run: _TaskRun) -> None:
        if not run.is_alive:
            return
        work = self._fleet.work
        killer = work.killer(run.records)
        if killer is not None:
            self._fleet.count_killed(killer)
            if work.kills_hosts:
                self.kill()
            else:
                self.kill_child(run)
            return
        index = _chunk(run.part)
        seconds = self._fleet.seconds_of(index)
        outcome = _run(work, index, run.frame, run.start, seconds, self.name)
        self._fleet.store.settle(run.job, run.part, outcome)
        self._end(run)

    def _end(self, run: _TaskRun) -> None:
        self.runs.remove(run)
        if self.is_leaving:
            self._leave_if_idle()
        else:
            self._start_next()

    # --- what goes wrong --------------------------------------------------------------------

    def kill_child(self, run: _TaskRun, *, is_told: bool = True) -> None:
        """Kill a child, which the main process reports a moment later."""
        run.is_dead = True
        self._fleet.note_end(run.records, End.DIED)
        self._later(_NOTICE_DEATH_S, run, self._note_crash if is_told else self._end)

    def _note_crash(self, run: _TaskRun) -> None:
        self._fleet.store.note_crash(run.job, run.part, "signal 9 (SIGKILL)")
        self._end(run)

    def get_stuck(self, run: _TaskRun) -> None:
        """Let a run hang until its time limit."""
        run.is_stuck = True
        self._fleet.heal()
        self._later(SETTINGS.soft_time_limit_s, run, self._give_up)

    def _give_up(self, run: _TaskRun) -> None:
        self._fleet.note_end(run.records, End.DIED)
        self._note_crash(run)

    def kill(self) -> list[Message]:
        """Kill the worker, as with SIGKILL or its host; return the messages lost with it."""
        self.is_alive = False
        for run in self.runs:
            self._fleet.note_end(run.records, End.VANISHED)
        self._fleet.heal()
        return [run.message for run in self.runs]

    def freeze(self, seconds: float) -> None:
        self._frozen_until = max(self._frozen_until, self._fleet.now + seconds)
        for run in self.runs:
            self._fleet.note_end(run.records, End.VANISHED)
        self._fleet.heal()
        # Before anything else that it does then: its heartbeat is a thread of its own.
        self._later(seconds, None, self._beat)

    def leave(self) -> None:
        """Ask the worker to leave, as SIGTERM does: it finishes what runs and returns the rest."""
        self.is_leaving = True
        self._leave_if_idle()
        self._fleet.heal()

    def _leave_if_idle(self) -> None:
        if not any(run.is_started for run in self.runs):
            self._fleet.broker.queue.extendleft(run.message for run in self.runs)
            self.is_alive = False
            self._fleet.store.leave(self.name)


# --- the fleet ------------------------------------------------------------------------------


class HarmKind(enum.Enum):
    """The kind of a fault."""

    DROP = "a message that waits is lost, as if who popped it had died"
    DUPLICATE = "a message is delivered once more, however old it is"
    DELAY = "a message leaves the queue and comes back later"
    KILL_CHILD = "a child is killed and its worker tells"
    KILL_CHILD_UNTOLD = "a child is killed, and telling of it fails"
    KILL = "a worker is killed, and its messages are lost"
    KILL_AND_RESTORE = "a worker is killed, and its messages come back later"
    FREEZE = "a worker stands still for a while"
    LEAVE = "a worker shuts down"
    JOIN = "a worker comes"
    JOIN_OTHER = "a worker with other code comes"
    LOSE_NOTICE = "a notice to the collector is lost"
    PUBLISH_TWICE = "publishing fails after all was delivered"
    BROKER_AWAY = "the broker is away for a while"
    GET_STUCK = "a child hangs"


@dataclass(frozen=True, slots=True)
class Harm:
    """A fault; `pick` chooses its target."""

    kind: HarmKind
    pick: int = 0
    seconds: float = 0.0


class Fleet:
    """Everything outside the executor: broker, store, workers and clock.

    Args:
        work: The records of the job that is to come.
        slots: Of each worker that is there at the beginning.
        heals: Whether a new worker comes when no healthy one is left.
    """

    def __init__(self, work: Work, slots: Sequence[int] = (1,), *, heals: bool = True) -> None:
        self.work = work
        self.heals = heals
        self._clock = _Clock()
        self._names = itertools.count(1)
        self._turn = 0
        self._waited_s = 0.0  # without anything that moved
        self._moved_at = 0.0
        self._patience_s = _PATIENCE_S
        self._stuck_chunks: set[int] = set()
        self._harms_to_come: deque[Harm] = deque()
        self.ends: defaultdict[int, list[End]] = defaultdict(list)
        self.killed_by: Counter[int] = Counter()
        self.store = SimulatedStore(self)
        self.broker = SimulatedBroker(self)
        self.workers: list[SimulatedWorker] = []
        for number in slots:
            self.join(number)

    @property
    def now(self) -> float:
        return self._clock.now

    def clock(self) -> float:
        """The executor's clock."""
        return self._clock.now

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        self._clock.later(seconds, do)

    def be_patient(self, seconds: float) -> None:
        """Set the time after which the job counts as hung."""
        self._patience_s = seconds

    def join(self, slots: int = 1, code: str = CODE) -> None:
        self.workers = [worker for worker in self.workers if worker.is_alive]
        self.workers.append(SimulatedWorker(self, f"w{next(self._names)}", slots, code))

    def heal(self) -> None:
        """Replace lost workers, as deployments do."""

        def replace_workers() -> None:
            if not any(worker.is_healthy for worker in self.workers):
                self.join()

        if self.heals:
            self.later(_RESTART_S, replace_workers)

    def seconds_of(self, chunk: int) -> float:
        return self.work.seconds[chunk % len(self.work.seconds)]

    def note_end(self, records: range, end: End) -> None:
        for record in records:
            self.ends[record].append(end)

    def count_killed(self, killer: int) -> None:
        """Count a process killed by a record.

        Raises:
            HungError: If it does so again and again.
        """
        self.killed_by[killer] += 1
        if self.killed_by[killer] > _MOST_DEATHS:
            raise HungError(f"{_MOST_DEATHS} processes died of one record")
        self.moved()

    # --- time passes ------------------------------------------------------------------------

    def call(self) -> None:
        """Let the fleet go on for the short time of an executor's call."""
        self.advance(_CALL_S)

    def advance(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        self._hand_out()
        while not until():
            if not self._clock.next_before(end):
                self._clock.now = end
                return
            self._hand_out()

    def wait(self, seconds: float, until: Callable[[], bool]) -> None:
        """Let the fleet go on while a caller waits.

        The patience begins again with harm that was put off.

        Raises:
            HungError: If nothing moved while they waited.
        """
        began = self.now
        self.advance(seconds, until)
        self._waited_s += self.now - max(began, self._moved_at)
        if self._waited_s > self._patience_s:
            raise HungError(f"nothing has moved for {self._waited_s:.0f} s of waiting")

    def moved(self) -> None:
        self._moved_at = self.now  # perhaps in the midst of a wait
        self._waited_s = 0.0

    def _hand_out(self) -> None:
        """Give waiting messages to workers with free slots, in turn."""
        queue = self.broker.queue
        while queue and self.now >= self.broker.away_until:
            self._turn += 1
            ready = [worker for worker in self.workers if worker.wants_more()]
            if not ready:
                return
            ready[self._turn % len(ready)].take(queue.popleft())

    # --- what goes wrong --------------------------------------------------------------------

    def suffer(self, harm: Harm) -> None:
        """Apply a fault, if it has a target."""
        self.moved()
        _HARMS[harm.kind](self, harm)

    def _drop(self, harm: Harm) -> None:
        self.broker.waylay(harm.pick, None)

    def _duplicate(self, harm: Harm) -> None:
        if self.broker.published:
            again = self.broker.published[-1 - harm.pick % len(self.broker.published)]
            self.later(harm.seconds, lambda: self.broker.queue.append(again))

    def _delay(self, harm: Harm) -> None:
        self.broker.waylay(harm.pick, harm.seconds)

    def _hurt_a_run(self, harm: Harm) -> None:
        """Apply a fault to a run, or else to the next one."""
        runs = [
            (worker, run)
            for worker in self.workers
            if worker.is_alive and not worker.is_frozen and worker.code == CODE
            for run in worker.runs
            if run.is_alive
        ]
        if runs:
            self._hurt(*runs[harm.pick % len(runs)], harm)
        else:
            self._harms_to_come.append(harm)

    def begun(self, worker: SimulatedWorker, run: _TaskRun) -> None:
        """Record that a worker has claimed a part and runs it."""
        if self._harms_to_come:
            self._hurt(worker, run, self._harms_to_come.popleft())

    def _hurt(self, worker: SimulatedWorker, run: _TaskRun, harm: Harm) -> None:
        self.moved()
        if harm.kind is not HarmKind.GET_STUCK:
            worker.kill_child(run, is_told=harm.kind is HarmKind.KILL_CHILD)
            return
        # Only once a chunk: its second delivery is to make up for it. And not before there
        # is anything to compare with.
        chunk = _chunk(run.part)
        if self.store.settled and chunk not in self._stuck_chunks:
            self._stuck_chunks.add(chunk)
            self._patience_s = _PATIENCE_S + _STUCK_PATIENCE_S
            worker.get_stuck(run)

    def _worker(self, harm: Harm) -> SimulatedWorker | None:
        alive = [worker for worker in self.workers if worker.is_alive]
        return alive[harm.pick % len(alive)] if alive else None

    def _kill(self, harm: Harm) -> None:
        worker = self._worker(harm)
        if worker is not None:
            worker.kill()

    def _kill_and_restore(self, harm: Harm) -> None:
        worker = self._worker(harm)
        if worker is not None:
            messages = worker.kill()
            self.later(harm.seconds, lambda: self.broker.queue.extend(messages))

    def _freeze(self, harm: Harm) -> None:
        worker = self._worker(harm)
        if worker is not None:
            worker.freeze(harm.seconds)

    def _leave(self, harm: Harm) -> None:
        worker = self._worker(harm)
        if worker is not None:
            worker.leave()

    def _join(self, harm: Harm) -> None:
        self.join(1 + harm.pick % 2)

    def _join_other(self, harm: Harm) -> None:
        self.join(1 + harm.pick % 2, OTHER_CODE)

    def _lose_notice(self, harm: Harm) -> None:
        self.store.lose_notice(harm.pick)

    def _publish_twice(self, harm: Harm) -> None:
        self.broker.publish_twice = 1

    def _broker_away(self, harm: Harm) -> None:
        self.broker.away_until = max(self.broker.away_until, self.now + harm.seconds)


_HARMS: Final[dict[HarmKind, Callable[[Fleet, Harm], None]]] = {
    HarmKind.DROP: Fleet._drop,
    HarmKind.DUPLICATE: Fleet._duplicate,
    HarmKind.DELAY: Fleet._delay,
    HarmKind.KILL_CHILD: Fleet._hurt_a_run,
    HarmKind.KILL: Fleet._kill,
    HarmKind.KILL_AND_RESTORE: Fleet._kill_and_restore,
    HarmKind.FREEZE: Fleet._freeze,
    HarmKind.LEAVE: Fleet._leave,
    HarmKind.JOIN: Fleet._join,
    HarmKind.JOIN_OTHER: Fleet._join_other,
    HarmKind.LOSE_NOTICE: Fleet._lose_notice,
    HarmKind.PUBLISH_TWICE: Fleet._publish_twice,
    HarmKind.BROKER_AWAY: Fleet._broker_away,
    HarmKind.KILL_CHILD_UNTOLD: Fleet._hurt_a_run,
    HarmKind.GET_STUCK: Fleet._hurt_a_run,
}
