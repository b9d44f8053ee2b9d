"""The claim-check store: chunks and outcomes in Redis or Valkey.

Every key of a job holds the job's id as its hash tag, so a cluster keeps them together and
the scripts may touch them all. They expire `job_ttl_s` after the producer last touched
them; the producer does so for as long as it lives.

=========================  ====  ========================================================
key                        type  holds
=========================  ====  ========================================================
``pt:{<job>}:job``         hash  ``spec``: the `JobSpec`; ``stop``: index of the first
                                 chunk nobody wants any more. Its absence ends the job.
``pt:{<job>}:in``          hash  part → frame. A field means: not settled.
``pt:{<job>}:claims``      hash  part → worker that has taken it, and when.
``pt:{<job>}:out``         hash  part → outcome, until the collector has it.
``pt:{<job>}:done``        list  notices the collector blocks on: ``<part> <bytes>`` if a part
                                 was settled, with the size of its outcome,
                                 ``!<part> <task> <how>`` if its process died,
                                 ``?<part> <task> <worker> <code>`` if a worker with other
                                 code declined it, or ``~<part> <task> <why>`` if its input is
                                 not signed as it must be.
``pt:workers:<queue>``     hash  worker → when it last said that it lives, and what it runs.
=========================  ====  ========================================================

A part is a chunk, or a piece of one that was cut because it kills processes; its key begins
with the chunk's index. Settling is one script: it removes the part's input, and only who
removed it may store the outcome. So the first outcome wins, and later ones, outcomes of
cancelled parts and those of jobs that are gone are all dropped by the same rule.

With a secret, all but ``stop`` and the notice that a part was settled is sealed; see `signing`.
Those two can only delay: a part that is sent again puts the job's hash right, and an outcome is
believed for its own signature.
"""

import hashlib
import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from pyrmute_tasks.distributed.protocol import (
    Arrivals,
    Claim,
    ClaimInfo,
    ClaimState,
    Rejection,
    WorkerInfo,
    read_heartbeat,
    sort_notice,
)
from pyrmute_tasks.distributed.redis_retry import TimedRetry
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import FrameError, SignatureError, StoreUnavailableError
from pyrmute_tasks.logs import hide_password, log
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import pack
from pyrmute_tasks.wire.signing import SECRET_VARIABLE, Sealed

__all__ = ["Store", "is_full"]

# The frame is read beside it, in the same round trip: through a script it would be copied
# twice more.
_CLAIM: Final = """
local job = redis.call('HMGET', KEYS[1], 'spec', 'stop')
if not job[1] then return {'gone'} end
if job[2] and tonumber(ARGV[2]) >= tonumber(job[2]) then return {'stopped'} end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'settled'} end
local claim = redis.call('TIME')[1] .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[3], ARGV[1], claim)
local ttl = redis.call('PTTL', KEYS[1])
if ttl > 0 then redis.call('PEXPIRE', KEYS[3], ttl) end
return {'claimed', job[1]}
"""

_CLAIM_SHA: Final = hashlib.sha1(_CLAIM.encode(), usedforsecurity=False).hexdigest()

_SETTLE: Final = """
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('RPUSH', KEYS[4], ARGV[1] .. ' ' .. #ARGV[2])
local ttl = redis.call('PTTL', KEYS[1])
if ttl > 0 then
  redis.call('PEXPIRE', KEYS[3], ttl)
  redis.call('PEXPIRE', KEYS[4], ttl)
end
return 1
"""

_NOTE: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
local ttl = redis.call('PTTL', KEYS[1])
if ttl > 0 then redis.call('PEXPIRE', KEYS[2], ttl) end
return 1
"""

_RESTORE: Final = """
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
"""

_RESTORE_SIGNED: Final = """
if redis.call('EXISTS', KEYS[4]) == 1 then
  redis.call('HSET', KEYS[4], 'spec', ARGV[3])
  redis.call('HDEL', KEYS[4], 'stop')
  if ARGV[4] ~= '' then redis.call('HSET', KEYS[4], 'stop', ARGV[4]) end
end
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""

# A job that has ended must not come back as a key that never expires.
_STOP: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'stop', ARGV[1])
return 1
"""

_BEAT: Final = """
local now = redis.call('TIME')
local seen = now[1] .. '.' .. string.format('%06d', now[2])
redis.call('HSET', KEYS[1], ARGV[1], seen .. ' ' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], 86400)
return seen
"""


@dataclass(slots=True)
class _SignedJob:
    """What the producer knows of its own job, whatever others make of it in the store.

    Attributes:
        spec: The job's sealed spec.
        stop: Index of the first chunk nobody wants any more; empty if all are wanted.
        rejections: Outcomes that were not signed as they must be, and are not told yet.
        notices: Those that came, so that none counts twice.
    """

    spec: bytes
    stop: str = ""
    rejections: list[Rejection] = field(default_factory=list)
    notices: set[bytes] = field(default_factory=set)


_PARTS: Final = ("job", "in", "claims", "out", "done")
_CONNECT_TIMEOUT_S: Final = 3.0
_SOCKET_TIMEOUT_S: Final = 30.0  # also for sending one value, however large
_READ_BYTES: Final = 256 * 1024  # the library's 64 KiB costs four times the system calls
_FORGET_WORKER_S: Final = 3600.0
_TAKE_AT_MOST: Final = 1024  # the largest window
_READ_AT_MOST_BYTES: Final = 2 * 1024 * 1024


class Store:
    """The store as producers, collectors and workers use it.

    Safe to share between threads, not between processes.

    Args:
        settings: Where it is, and how long keys live.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ttl_ms = int(settings.job_ttl_s * 1000)
        self._signer = settings.signer
        self._signed_jobs: dict[str, _SignedJob] = {}
        self._rejected_workers: dict[bytes, str] = {}  # that live, and why they do not count
        self._ahead_s: float | None = None  # the store's clock, less this process's
        self._patience = TimedRetry(settings.outage_s)
        self._redis: redis.Redis = redis.Redis.from_url(
            settings.redis_store_url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_read_size=_READ_BYTES,
            **_tcp_options(settings.redis_store_url),
            # Every call here may be repeated: see the module's rule for settling.
            retry=self._patience,
        )
        self._settle = self._redis.register_script(_SETTLE)
        self._beat = self._redis.register_script(_BEAT)
        self._note = self._redis.register_script(_NOTE)
        self._restore = self._redis.register_script(
            _RESTORE_SIGNED if self._signer.is_on else _RESTORE
        )
        self._stop = self._redis.register_script(_STOP)

    def check(self) -> None:
        """Try the store once.

        Raises:
            StoreUnavailableError: If it does not answer.
        """
        url = hide_password(self._settings.redis_store_url)
        once = redis.Redis.from_url(
            self._settings.redis_store_url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            once.ping()
        except redis.AuthenticationError:
            raise StoreUnavailableError(
                f"the store at {url} refused the user or the password; correct them in the URL"
            ) from None
        except redis.RedisError as error:
            raise StoreUnavailableError(
                f"no store answers at {url} ({_reason(error)}); start a Redis or Valkey server "
                "there or correct the URL"
            ) from None
        finally:
            once.close()

    def give_up(self) -> None:
        """Try no call again from now on: the server has been left, or ended, on purpose."""
        self._patience.give_up()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    # --- the producer's side --------------------------------------------------------------

    def open_job(self, spec: JobSpec) -> None:
        """Make a job known to workers."""
        sealed = self._signer.seal(Sealed.SPEC, spec.id, "", spec.to_wire())
        if self._signer.is_on:
            self._signed_jobs[spec.id] = _SignedJob(sealed)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(_key(spec.id, "job"), "spec", sealed)
            self._touch(pipe, spec.id)
            pipe.execute()

    def put_parts(self, job: str, frames: Iterable[tuple[str, bytes]], gone: str = "") -> None:
        """Store the inputs of parts, in place of the part `gone` if one is named."""
        with self._redis.pipeline(transaction=bool(gone)) as pipe:
            if gone:
                pipe.hdel(_key(job, "in"), gone)
            for key, frame in frames:
                sealed = self._signer.seal(Sealed.FRAME, job, key, frame)
                pipe.hset(_key(job, "in"), key, sealed)
            pipe.pexpire(_key(job, "in"), self._ttl_ms)  # it may be new; others are not
            pipe.execute()

    def restore_parts(self, job: str, frames: Iterable[tuple[str, bytes]]) -> None:
        """Forget who has taken parts, and store inputs that are missing and not settled.

        A server that was restarted from its files may have lost its last second. With a
        secret, the inputs, the spec and the stop mark replace what may have been altered.
        """
        keys = [_key(job, name) for name in ("in", "claims", "out", "job")]
        known = self._signed_jobs.get(job)
        own: list[bytes | str] = [known.spec, known.stop] if known is not None else []
        with self._redis.pipeline(transaction=False) as pipe:
            for part, frame in frames:
                sealed = self._signer.seal(Sealed.FRAME, job, part, frame)
                self._restore(keys=keys, args=[part, sealed, *own], client=pipe)
            self._touch(pipe, job)
            pipe.execute()

    def claims(self, job: str) -> dict[str, ClaimInfo]:
        """Return who has taken which parts."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(_key(job, "claims"))
            (seconds, _), claims = pipe.execute()
        found = {}
        for key, value in claims.items():
            try:
                part = key.decode()
                when, _, sealed = value.partition(b" ")
                claimant = self._signer.open(Sealed.CLAIM, job, part, sealed).decode()
                task, worker = claimant.split(" ", 1)
                found[part] = ClaimInfo(worker, task, seconds - int(when))
            except (SignatureError, ValueError):
                _ignored("claim", job=job)
        return found

    def touch_job(self, job: str) -> bool:
        """Renew the life of a job's keys; False if the job is gone."""
        with self._redis.pipeline(transaction=False) as pipe:
            self._touch(pipe, job)
            return bool(pipe.execute()[0])

    def _touch(self, pipe: Any, job: str) -> None:
        for part in _PARTS:
            pipe.pexpire(_key(job, part), self._ttl_ms)

    def take(self, job: str, *, wait_s: float, forget: Iterable[str] = ()) -> Arrivals:
        """Return what has arrived, waiting for a first notice.

        Outcomes stay in the store until they are named in `forget`: an answer that is lost
        on its way can be asked for again with `look_for_outcomes`.

        Args:
            job: The job's id.
            wait_s: Wait at most this long for a first one; 0 looks and returns.
            forget: Parts whose outcomes have been received and may go.
        """
        done = _key(job, "done")
        with self._redis.pipeline(transaction=False) as pipe:
            fields = list(forget)
            if fields:
                pipe.hdel(_key(job, "out"), *fields)
            if wait_s > 0:
                pipe.blpop([done], timeout=wait_s)
            pipe.lpop(done, _TAKE_AT_MOST)  # the server gets to it when the wait is over
            *_, first, more = (None, *pipe.execute())
        notices: list[bytes] = [first[1]] if wait_s > 0 and first else []
        settled: list[tuple[str, int]] = []
        arrived = Arrivals([], [], [])
        for notice in notices + (more or []):
            try:
                sort_notice(self._opened(job, notice), settled, arrived)
            except (SignatureError, ValueError):
                _ignored("notice", job=job)
        arrived.outcomes.extend(self._read(job, settled))
        if (known := self._signed_jobs.get(job)) is not None:
            arrived.rejections.extend(known.rejections)
            known.rejections.clear()
        return arrived

    def _opened(self, job: str, notice: bytes) -> str:
        """Return a notice as text.

        Raises:
            SignatureError: If it is not signed as it must be, or came before.
        """
        known = self._signed_jobs.get(job)
        if known is None or notice[:1].isdigit():  # then an outcome tells, not the notice
            return notice.decode()
        told = self._signer.open(Sealed.NOTICE, job, "", notice)
        if told in known.notices:
            raise SignatureError("it was told before")
        known.notices.add(told)
        return told.decode()

    def look_for_outcomes(self, job: str, known: Collection[str] = ()) -> list[tuple[str, bytes]]:
        """Return the outcomes in the store, also those whose notice was lost.

        Args:
            job: The job's id.
            known: Parts whose outcomes have been received.
        """
        fields: list[Any] = self._redis.hkeys(_key(job, "out"))
        keys = [field.decode(errors="replace") for field in fields]
        # Their sizes are not known, and there are few: they are read one by one.
        return self._read(job, [(key, _READ_AT_MOST_BYTES) for key in keys if key not in known])

    def _read(self, job: str, sizes: list[tuple[str, int]]) -> list[tuple[str, bytes]]:
        """Read the outcomes of parts, of which the sizes are given.

        The server puts a whole answer together before it is on its way, so an answer must
        not hold a whole window.
        """
        found: list[tuple[str, bytes]] = []
        keys: list[str] = []
        size_bytes = 0
        for place, (key, size) in enumerate(sizes, start=1):
            keys.append(key)
            size_bytes += size
            if size_bytes >= _READ_AT_MOST_BYTES or place == len(sizes):
                values: list[Any] = self._redis.hmget(_key(job, "out"), keys)
                pairs = [pair for pair in zip(keys, values, strict=True) if pair[1] is not None]
                found += self._believed(job, pairs) if self._signer.is_on else pairs
                keys, size_bytes = [], 0
        return found

    def _believed(self, job: str, outcomes: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Return the outcomes that workers signed, and see to the others."""
        known = self._signed_jobs.get(job)
        believed = []
        for part, sealed in outcomes:
            try:
                believed.append((part, self._signer.open(Sealed.OUTCOME, job, part, sealed)))
            except SignatureError as error:
                _rejected("outcome", str(error), job=job, part=part)
                self._redis.hdel(_key(job, "out"), part)
                if known is not None:
                    known.rejections.append(Rejection(part, f"its outcome: {error}"))
        return believed

    def stop_job(self, job: str, first: int, pending: Iterable[str]) -> None:
        """Mark the chunks from `first` on as unwanted and drop the inputs of parts `pending`.

        Sets nothing for a job that has ended.
        """
        fields = list(pending)
        if job in self._signed_jobs:
            self._signed_jobs[job].stop = str(first)
        if fields:
            self._redis.hdel(_key(job, "in"), *fields)
        try:
            self._stop(keys=[_key(job, "job")], args=[str(first)])
        except redis.ResponseError as error:
            # A full store takes no mark; without their inputs the chunks are declined too.
            if not is_full(error):
                raise

    def end_job(self, job: str) -> None:
        """Remove everything of a job; its chunks still queued are declined from now on."""
        self._signed_jobs.pop(job, None)
        self._redis.delete(*(_key(job, part) for part in _PARTS))

    def workers(self) -> list[WorkerInfo]:
        """Return the workers of the queue whose heartbeat is fresh."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(_workers_key(self._settings.queue))
            (seconds, micros), beats = pipe.execute()
        now = seconds + micros / 1e6
        found, gone = [], []
        rejected: dict[bytes, str] = {}
        for name, value in beats.items():
            try:
                info = read_heartbeat(name, self._opened_beat(name, value), now)
            except SignatureError as error:
                rejected[name] = str(error)
                if name not in self._rejected_workers:
                    _rejected("heartbeat", str(error), queue=self._settings.queue)
                continue
            except (FrameError, LookupError, TypeError, ValueError):
                _ignored("heartbeat", queue=self._settings.queue)
                continue
            if info.is_fresh:
                found.append(info)
            elif info.silent_s > _FORGET_WORKER_S:
                gone.append(name)
        self._rejected_workers = rejected
        if gone:  # killed, so that they did not say goodbye
            self._redis.hdel(_workers_key(self._settings.queue), *gone)
        return found

    def _opened_beat(self, name: bytes, value: bytes) -> bytes:
        seen, _, sealed = value.partition(b" ")
        worker = name.decode(errors="replace")
        told = self._signer.open(Sealed.HEARTBEAT, self._settings.queue, worker, sealed)
        return b" ".join((seen, told))

    def rejected_workers(self) -> str:
        """Say why workers that were there at the last look do not count; empty if all do."""
        if not self._rejected_workers:
            return ""
        why = ", ".join(sorted(set(self._rejected_workers.values())))
        return (
            f"{len(self._rejected_workers)} did, but their heartbeats were rejected ({why}): give "
            f"producers and workers the same {SECRET_VARIABLE}"
        )

    # --- the worker's side ----------------------------------------------------------------

    def claim(self, job: str, part: str, task: str, worker: str) -> Claim:
        """Take a part that a task brought, to work on it.

        Raises:
            SignatureError: If its job's spec or its input is not signed as it must be.
        """
        keys = [_key(job, name) for name in ("job", "in", "claims")]
        index = part.partition(":")[0]
        claimant = self._signer.seal(Sealed.CLAIM, job, part, f"{task} {worker}".encode())
        try:
            answer, frame = self._claim_once(keys, [part, index, claimant])
        except NoScriptError:
            self._redis.script_load(_CLAIM)
            answer, frame = self._claim_once(keys, [part, index, claimant])
        state = ClaimState(answer[0].decode())
        if state is not ClaimState.CLAIMED:
            return Claim(state)
        if frame is None:  # somebody has settled it between the two
            return Claim(ClaimState.SETTLED)
        return Claim(
            state,
            self._signer.open(Sealed.SPEC, job, "", answer[1]),
            self._signer.open(Sealed.FRAME, job, part, frame),
        )

    def _claim_once(self, keys: list[str], args: list[str | bytes]) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipe:
            # A script object would ask in a round trip of its own whether it is loaded.
            pipe.evalsha(_CLAIM_SHA, len(keys), *keys, *args)
            pipe.hget(keys[1], args[0])
            return pipe.execute()

    def settle(self, job: str, part: str, outcome: bytes) -> bool:
        """Store a part's outcome; False if it was settled or is not wanted any more."""
        keys = [_key(job, name) for name in ("job", "in", "out", "done", "claims")]
        sealed = self._signer.seal(Sealed.OUTCOME, job, part, outcome)
        return bool(self._settle(keys=keys, args=[part, sealed]))

    def note_crash(self, job: str, part: str, how: str, task: str = "") -> None:
        """Tell the collector that a process died that ran a part, which a task brought."""
        self._tell(job, part, f"!{part} {task or '-'} {how}")

    def reject(self, job: str, part: str, task: str, why: str) -> None:
        """Tell the collector that a part's input is not signed as it must be."""
        self._tell(job, part, f"~{part} {task} {why}")

    def decline(self, job: str, part: str, task: str, worker: str, code: str) -> bool:
        """Tell the collector that a worker does not take a part; False if nobody wants it."""
        return self._tell(job, part, f"?{part} {task} {worker} {code}")

    def _tell(self, job: str, part: str, notice: str) -> bool:
        sealed = self._signer.seal(Sealed.NOTICE, job, "", notice.encode())
        return bool(self._note(keys=[_key(job, "in"), _key(job, "done")], args=[part, sealed]))

    def beat(self, worker: str, slots: int, running: Iterable[str] = ()) -> None:
        """Say that a worker lives, and which tasks it runs."""
        every_s = float(self._settings.heartbeat_s)
        queue = self._settings.queue
        told: dict[str, Any] = {"slots": slots, "running": list(running), "every_s": every_s}
        if self._signer.is_on:
            told["seen"] = self._now()
        sealed = self._signer.seal(Sealed.HEARTBEAT, queue, worker, pack(told))
        seen: Any = self._beat(keys=[_workers_key(queue)], args=[worker, sealed])
        self._ahead_s = float(seen) - time.monotonic()

    def _now(self) -> float:
        """Return what the store's clock shows, without asking for it each time."""
        if self._ahead_s is None:
            seconds, micros = self._redis.time()
            self._ahead_s = seconds + micros / 1e6 - time.monotonic()
        return self._ahead_s + time.monotonic()

    def leave(self, worker: str) -> None:
        """Say that a worker goes."""
        self._redis.hdel(_workers_key(self._settings.queue), worker)


def _ignored(what: str, **where: str) -> None:
    # Not what it says: it is not from a worker of ours.
    log(logging.WARNING, "store_garbled", f"a {what} cannot be read and is ignored", **where)


def _rejected(what: str, why: str, **where: str) -> None:
    log(logging.WARNING, "signature_rejected", f"a {what} is rejected: {why}", **where)


def is_full(error: Exception) -> bool:
    """Say whether a command was refused because the store has no memory left."""
    return isinstance(error, redis.OutOfMemoryError) or "OOM command not allowed" in str(error)


def _key(job: str, part: str) -> str:
    return f"pt:{{{job}}}:{part}"


def _workers_key(queue: str) -> str:
    return f"pt:workers:{queue}"


def _tcp_options(url: str) -> dict[str, bool]:
    return {} if url.startswith("unix://") else {"socket_keepalive": True}


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
