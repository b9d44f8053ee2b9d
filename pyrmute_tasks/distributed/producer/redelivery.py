"""Deliveries of chunks: their holders, lost ones, and halving of those that kill workers.

Redis as a broker is not at-least-once, and no setting makes it so: the collector owns
delivery. It remembers what it has sent and compares that with what the store knows: which
worker claimed what, which workers live, and whether the queue is empty. This module decides
and touches neither broker nor store, so that its rules are tested without either.

A chunk travels as one part. When parts keep ending the processes that run them, the chunk
is halved until one record is left, which is the failure: at most ⌈log₂ n⌉ + 2 processes
die for it.
"""

import enum
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pyrmute_tasks.distributed.producer.parts import AfterCrash, Ignored, Part, Resend, Settled
from pyrmute_tasks.distributed.protocol import TOO_LARGE, ClaimInfo
from pyrmute_tasks.engine.chunk_parts import (
    given_up_outcome,
    join_failures,
    join_frames,
    split_chunk,
)
from pyrmute_tasks.engine.chunks import Chunk, Outcome, check_outcome
from pyrmute_tasks.errors import ProcessDiedError, SignatureError
from pyrmute_tasks.hooks import HookCounts
from pyrmute_tasks.wire.frames import Frame, FrameKind

__all__ = ["Deliveries", "FleetSnapshot", "Loss"]

_DEATHS_OF_A_HALF: Final = 1
_OVERTAKEN_S: Final = 5.0
_EMPTY_S: Final = 2.0
_MOST_DOUBLINGS: Final = 6
_UNCLAIMED_S: Final = 15.0  # doubled with every time it is sent: a long queue is no loss
_SLOW_S: Final = 60.0
_SLOW_FACTOR: Final = 10
_SAMPLES: Final = 1000
_DISAPPEARANCES: Final = 3  # of workers; a rolling deployment may take two with the same record
_MOST_REJECTIONS: Final = 5  # of what somebody else wrote to the store
_LOST_CLAIMS: Final = 10  # connections that are cut come to that, and are no record's fault


class Loss(enum.Enum):
    """The reason why a part will not be settled."""

    WORKER_GONE = "its worker disappeared"
    CLAIM_LOST = "it was begun again and again and came to nothing"
    UNCLAIMED = "nobody took it"
    SLOW = "it takes much longer than others"


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The state of the fleet at one moment, from store and broker.

    Attributes:
        claims: The claims of parts.
        running: The workers whose heartbeat is fresh, and the tasks they have: those that
            run, and those that wait at the worker for one of these to end.
        queue_is_empty: No message waits in the queue.
        leaving: The workers of these that are shutting down.
        any_idle: Some worker has nothing to do.
        unseen_s: A claim older than this shows in its worker's heartbeat.
    """

    claims: Mapping[str, ClaimInfo]
    running: Mapping[str, Collection[str]]
    queue_is_empty: bool
    leaving: Collection[str] = ()
    any_idle: bool = True
    unseen_s: float = 3.0

    def shows(self, claim: ClaimInfo) -> bool:
        """Whether the claimant runs it, or claimed it too recently for its heartbeat to show."""
        running = self.running.get(claim.worker)
        return running is not None and (claim.age_s <= self.unseen_s or claim.task in running)


@dataclass(slots=True)
class _Assembly:
    """The parts of one chunk, in order, and their outcomes so far."""

    parts: list[Part]
    outcomes: dict[str, Outcome[Frame]] = field(default_factory=dict)


# Above 250 lines: everything that can happen to a part changes the same table.
class Deliveries:
    """The parts that have been sent and not settled.

    Args:
        skips: Whether the parts behind a record that failed are wanted, too.
    """

    def __init__(self, *, skips: bool = False) -> None:
        self._skips = skips
        self._parts: dict[str, Part] = {}
        self._chunks: dict[int, _Assembly] = {}
        self._empty_since: float | None = None
        self._latest_settled_at = 0.0  # the latest send time among settled parts
        self._sent = 0
        self._latest_taken = -1  # the latest order among parts that were claimed or settled
        self._oldest_running = 0  # the first order among those that run; past all if none does
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, key: object) -> bool:
        return key in self._parts

    @property
    def keys(self) -> list[str]:
        """The keys of all parts under way."""
        return list(self._parts)

    @property
    def tasks(self) -> dict[str, tuple[str, int]]:
        """The latest task of each part under way, and the number of its sends."""
        parts = self._parts.values()
        return {part.key: (part.task, part.sends) for part in parts if part.sends}

    def add(self, chunk: Chunk[bytes]) -> Part:
        """Add a new chunk, as one part."""
        part = Part(str(chunk.index), chunk)
        self._parts[part.key] = part
        self._chunks[chunk.index] = _Assembly([part])
        return part

    def send(self, part: Part, job: str, now: float) -> None:
        """Record that a part is sent now, as a task of its own."""
        part.sends += 1
        part.sent_at = now
        part.order = self._sent
        self._sent += 1
        part.task = f"{job}-{part.key}-{part.sends}"

    def declined(self, key: str, task: str) -> Part | None:
        """Return the part to resend after a worker declined it; None for an earlier task's."""
        part = self._parts.get(key)
        return part if part is not None and part.task == task else None

    def rejected(self, key: str, task: str) -> Part | None:
        """Handle a part whose input (of `task`) or outcome (of no task) has no valid signature.

        Returns:
            The part to resend, if it is under way and has not been resent meanwhile.

        Raises:
            SignatureError: If it has been rejected too often.
        """
        part = self._parts.get(key)
        if part is None or task not in ("", part.task):
            return None
        part.rejections += 1
        if part.rejections > _MOST_REJECTIONS:
            raise SignatureError(f"{part.rejections} times")
        return part

    def drop(self, first: int) -> list[Part]:
        """Remove the chunks from index `first` on; return their parts still under way."""
        dropped = [part for part in self._parts.values() if part.chunk.index >= first]
        for part in dropped:
            del self._parts[part.key]
            self._chunks.pop(part.chunk.index, None)
        return dropped

    def settle(self, key: str, outcome: Outcome[Frame]) -> Outcome[Frame] | None:
        """Record a part's outcome; return its chunk's outcome once complete.

        Repeated ones and those of unknown parts are ignored.

        Raises:
            FrameError: If it is not about the part's records.
        """
        part = self._parts.get(key)
        if part is None:
            return None
        check_outcome(outcome, part.chunk)
        del self._parts[key]
        self._latest_settled_at = max(self._latest_settled_at, part.sent_at)
        self._latest_taken = max(self._latest_taken, part.order)
        self._seconds.append(outcome.seconds)
        return self._complete(part, outcome)

    def _complete(self, part: Part, outcome: Outcome[Frame]) -> Outcome[Frame] | None:
        index = part.chunk.index
        assembly = self._chunks[index]
        if len(assembly.parts) == 1:
            del self._chunks[index]
            return outcome
        assembly.outcomes[part.key] = outcome
        known: list[Outcome[Frame]] = []
        for sibling in assembly.parts:
            found = assembly.outcomes.get(sibling.key)
            if found is None:
                return None
            known.append(found)
            if found.ends_early(sibling.chunk) or (found.failures and not self._skips):
                break
        for sibling in assembly.parts:
            self._parts.pop(sibling.key, None)
        del self._chunks[index]
        return _joined(index, known)

    def crashed(self, key: str, how: str) -> AfterCrash:
        """Decide about a part whose process died."""
        part = self._parts.get(key)
        if part is None:
            return Ignored()
        if how == TOO_LARGE and (halved := self._halve(part, part.may_kill)):
            return halved  # no process died of it
        part.crashes.append(how)
        if len(part.crashes) < part.may_kill:
            return Resend((part,))
        if halved := self._halve(part, _DEATHS_OF_A_HALF):
            return halved
        if len(part.crashes) == len(part.gone) < _DISAPPEARANCES:
            return Resend((part,))
        return self._give_up(part)

    def disappeared(self, part: Part, worker: str) -> AfterCrash:
        """Decide about a part claimed by a worker that is gone; otherwise like `crashed`.

        It may not be the record's fault, so a single record is suspected only after
        several. If it comes back it was out of reach, and nothing has died.
        """
        part.gone.append(worker)
        return self.crashed(part.key, Loss.WORKER_GONE.value)

    def came_to_nothing(self, part: Part) -> AfterCrash:
        """Decide about a part claimed but not settled by a living worker; otherwise like `crashed`.

        Its task was cancelled from outside, as a rule, and so it is sent again; but not
        without end, however it comes about.
        """
        part.lost_claims += 1
        if part.lost_claims <= _LOST_CLAIMS:
            return Resend((part,))
        return self.crashed(part.key, Loss.CLAIM_LOST.value)

    def _give_up(self, part: Part) -> Settled:
        del self._parts[part.key]
        error = ProcessDiedError(part.crashes[-1], len(part.crashes))
        outcome = given_up_outcome(part.chunk, error)
        return Settled(part.key, self._complete(part, outcome))

    def _halve(self, part: Part, may_kill: int) -> Resend | None:
        """Send the halves of a part instead; None if it holds one record."""
        chunk = part.chunk
        halves = [
            Part(f"{half.index}:{half.start}+{half.count}", half, may_kill)
            for half in split_chunk(chunk)
        ]
        if not halves:
            return None
        del self._parts[part.key]
        siblings = self._chunks[chunk.index].parts
        at = siblings.index(part)
        siblings[at : at + 1] = halves
        self._parts.update((half.key, half) for half in halves)
        return Resend(tuple(halves), replaced=part.key)

    # --- what is lost ---------------------------------------------------------------------

    def lost(self, now: float, seen: "FleetSnapshot") -> Iterable[tuple[Part, Loss]]:
        """Return the parts that will not be settled, and the reasons.

        Args:
            now: When `seen` was requested; parts sent since do not show in it.
            seen: The state of the fleet.
        """
        self._note(now, seen)
        holders = {task: name for name, tasks in seen.running.items() for task in tasks}
        for part in list(self._parts.values()):
            if not part.sends or part.sent_at > now:
                continue
            claim = seen.claims.get(part.key)
            if claim is not None and claim.task != part.task and not seen.shows(claim):
                claim = None  # of an earlier delivery, which came late and to nothing
            if claim is None:
                if self._is_overdue(part, now, seen, holders.get(part.task)):
                    yield part, Loss.UNCLAIMED
            elif claim.worker not in seen.running:
                yield part, Loss.WORKER_GONE
            elif not seen.shows(claim):
                yield part, Loss.CLAIM_LOST
            elif self._is_slow(part, claim.age_s):
                yield part, Loss.SLOW

    def _note(self, now: float, seen: FleetSnapshot) -> None:
        if not seen.queue_is_empty or not seen.running:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        for part in self._parts.values():
            for worker in [worker for worker in part.gone if worker in seen.running]:
                part.gone.remove(worker)
                part.crashes.remove(Loss.WORKER_GONE.value)
        taken = [(self._parts[key], claim) for key, claim in seen.claims.items() if key in self]
        latest = [(part.order, claim) for part, claim in taken if claim.task == part.task]
        running = [order for order, claim in latest if seen.shows(claim)]
        self._oldest_running = min(running, default=self._sent)
        self._latest_taken = max([self._latest_taken, *(order for order, _ in latest)])

    def _is_overdue(
        self, part: Part, now: float, seen: "FleetSnapshot", holder: str | None
    ) -> bool:
        """Return whether to resend a part that no worker has begun, though `holder` may have it."""
        if holder in seen.leaving:
            return True  # it would give the message back only at its end
        if holder is not None and not seen.any_idle:
            return False
        # Other jobs may keep the queue full for hours, and nothing tells what is in it. But it is
        # first in, first out: behind parts that run, and before any other was taken, one waits
        # for its turn.
        if self._oldest_running < part.order > self._latest_taken:
            part.turn_at = now
        waited_s = now - max(part.sent_at, part.turn_at)
        patience_s = _UNCLAIMED_S * 2 ** min(part.sends - 1, _MOST_DOUBLINGS)
        return self._is_forgotten(part, now) or (bool(seen.running) and waited_s >= patience_s)

    def _is_forgotten(self, part: Part, now: float) -> bool:
        """Return whether a part is unclaimed for longer than it should be."""
        empty_for = now - self._empty_since if self._empty_since is not None else 0.0
        if empty_for >= _EMPTY_S and now - part.sent_at >= _EMPTY_S:
            return True
        # The queue is first in, first out: what was sent later has been settled already.
        return self._latest_settled_at - part.sent_at >= _OVERTAKEN_S

    def _is_slow(self, part: Part, running_s: float) -> bool:
        if part.backed_up or running_s < _SLOW_S or not self._seconds:
            return False
        # Also correct with few samples: then the slowest of them decides.
        usual = sorted(self._seconds)[int(0.99 * len(self._seconds))]
        part.backed_up = running_s > max(_SLOW_S, _SLOW_FACTOR * usual)
        return part.backed_up


def _joined(index: int, outcomes: list[Outcome[Frame]]) -> Outcome[Frame]:
    """Return the chunk's outcome, joined from its parts' outcomes up to a failure."""
    kinds = {outcome.outputs.kind for outcome in outcomes}
    kind = FrameKind.RANGES if FrameKind.RANGES in kinds else outcomes[0].outputs.kind
    frame = join_frames(kind, [outcome.outputs for outcome in outcomes])
    counts = HookCounts()
    for outcome in outcomes:
        if outcome.counts is not None:
            counts.migrations.update(outcome.counts.migrations)
            counts.errors.update(outcome.counts.errors)
    failures = join_failures(outcomes)
    last = outcomes[-1]
    seconds = sum(outcome.seconds for outcome in outcomes)
    size_bytes = max(len(frame.payload), sum(outcome.size_bytes for outcome in outcomes))
    return Outcome(
        index,
        frame.count,
        frame,
        failures,
        seconds,
        last.worker,
        counts,
        size_bytes,
        last.is_final,
    )
