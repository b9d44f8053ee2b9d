"""The worker's side of the store: claiming and settling parts, notices, heartbeats."""

import time
from collections.abc import Iterable
from typing import Any

from pyrmute_tasks.distributed.internals.redis_client import ScriptNotLoadedError
from pyrmute_tasks.distributed.protocol import (
    Claim,
    ClaimState,
    Decline,
    Rejection,
    claimant,
    crash_notice,
    decline_notice,
    pack_heartbeat,
    rejection_notice,
)
from pyrmute_tasks.distributed.store.connection import StoreConnection
from pyrmute_tasks.distributed.store.keys import job_key, workers_key
from pyrmute_tasks.distributed.store.scripts import load_script
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.signing import Sealed

__all__ = ["WorkerStore"]


class WorkerStore(StoreConnection):
    """The store as workers use it.

    Args:
        settings: Its URL, and the queue.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._ahead_s: float | None = None  # the store's clock, less this process's
        self._claim = self._redis.register_script(load_script("claim"))
        self._settle = self._redis.register_script(load_script("settle"))
        self._note = self._redis.register_script(load_script("note"))
        self._beat = self._redis.register_script(load_script("beat"))

    def claim(self, job: str, part: str, task: str, worker: str) -> Claim:
        """Claim a task's part, to work on it.

        Raises:
            SignatureError: If its job's spec or its input has no valid signature.
        """
        keys = [job_key(job, name) for name in ("job", "in", "claims")]
        index = part.partition(":")[0]
        sealed = self._signer.seal(Sealed.CLAIM, job, part, claimant(task, worker))
        try:
            answer, frame = self._claim_once(keys, [part, index, sealed])
        except ScriptNotLoadedError:
            self._redis.script_load(self._claim.script)
            answer, frame = self._claim_once(keys, [part, index, sealed])
        state = ClaimState(answer[0].decode())
        if state is not ClaimState.CLAIMED:
            return Claim(state)
        if frame is None:  # somebody has settled it between the two
            return Claim(ClaimState.SETTLED)
        return Claim(
            state,
            self._signer.open(Sealed.SPEC, job, "", answer[1]),
            self._signer.view(Sealed.FRAME, job, part, frame),
        )

    def _claim_once(self, keys: list[str], args: list[str | bytes]) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipe:
            # A script object would ask in a round trip of its own whether it is loaded.
            pipe.evalsha(self._claim.sha, len(keys), *keys, *args)
            pipe.hget(keys[1], args[0])
            return pipe.execute()

    def settle(self, job: str, part: str, outcome: bytes) -> bool:
        """Store a part's outcome; False if it is settled or not wanted any more."""
        keys = [job_key(job, name) for name in ("job", "in", "out", "done", "claims")]
        sealed = self._signer.seal(Sealed.OUTCOME, job, part, outcome)
        return bool(self._settle(keys=keys, args=[part, sealed]))

    def note_crash(self, job: str, part: str, how: str, task: str = "") -> None:
        """Notify the collector that a process died running a task's part."""
        self._tell(job, part, crash_notice(part, task, how))

    def reject(self, job: str, part: str, task: str, why: str) -> None:
        """Notify the collector that a part's input has no valid signature."""
        self._tell(job, part, rejection_notice(Rejection(part, why, task)))

    def decline(self, job: str, part: str, task: str, worker: str, code: str) -> bool:
        """Notify the collector that a worker declines a part; False if it is no longer wanted."""
        return self._tell(job, part, decline_notice(Decline(part, task, worker, code)))

    def _tell(self, job: str, part: str, notice: str) -> bool:
        sealed = self._signer.seal(Sealed.NOTICE, job, "", notice.encode())
        return bool(
            self._note(keys=[job_key(job, "in"), job_key(job, "done")], args=[part, sealed])
        )

    def beat(self, worker: str, slots: int, running: Iterable[str] = ()) -> None:
        """Send a heartbeat, with the tasks that the worker runs."""
        every_s = float(self._settings.heartbeat_s)
        queue = self._settings.queue
        seen_at = self._now() if self._signer.is_on else None
        has_roots = bool(self._settings.roots)
        told = pack_heartbeat(slots, running, every_s, seen_at, has_roots=has_roots)
        sealed = self._signer.seal(Sealed.HEARTBEAT, queue, worker, told)
        seen: Any = self._beat(keys=[workers_key(queue)], args=[worker, sealed])
        self._ahead_s = float(seen) - time.monotonic()

    def _now(self) -> float:
        """Return the store's clock, without asking for it each time."""
        if self._ahead_s is None:
            seconds, micros = self._redis.time()
            self._ahead_s = seconds + micros / 1e6 - time.monotonic()
        return self._ahead_s + time.monotonic()

    def leave(self, worker: str) -> None:
        """Deregister a worker."""
        self._redis.hdel(workers_key(self._settings.queue), worker)
