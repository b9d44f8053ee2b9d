"""The claim-check store: chunks and outcomes in Redis or Valkey.

Every key of a job holds the job's id as its hash tag, so a cluster keeps them together and
the scripts may touch them all. They expire `job_ttl_s` after the producer last touched
them; the producer does so for as long as it lives.

=========================  ====  ========================================================
key                        type  holds
=========================  ====  ========================================================
``pt:{<job>}:job``         hash  ``spec``: the `JobSpec`; ``stop``: index of the first
                                 chunk nobody wants any more. Its absence ends the job.
``pt:{<job>}:in``          hash  chunk index → frame. A field means: not settled.
``pt:{<job>}:out``         hash  chunk index → outcome, until the collector has it.
``pt:{<job>}:done``        list  indices of settled chunks; the collector blocks on it.
``pt:workers:<queue>``     hash  worker → when it last said that it lives, and its slots.
=========================  ====  ========================================================

Settling is one script: it removes the chunk's input, and only who removed it may store the
outcome. So the first outcome wins, and later ones, outcomes of cancelled chunks and those
of jobs that are gone are all dropped by the same rule.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from pyrmute_tasks.codec import pack, unpack
from pyrmute_tasks.errors import StoreUnavailableError
from pyrmute_tasks.jobs import JobSpec
from pyrmute_tasks.observability import hide_password
from pyrmute_tasks.settings import Settings

__all__ = ["Claim", "ClaimState", "Store", "WorkerInfo", "is_full"]

_CLAIM: Final = """
local job = redis.call('HMGET', KEYS[1], 'spec', 'stop')
if not job[1] then return {'gone'} end
if job[2] and tonumber(ARGV[1]) >= tonumber(job[2]) then return {'stopped'} end
local frame = redis.call('HGET', KEYS[2], ARGV[1])
if not frame then return {'settled'} end
return {'claimed', job[1], frame}
"""

_SETTLE: Final = """
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('RPUSH', KEYS[4], ARGV[1])
local ttl = redis.call('PTTL', KEYS[1])
if ttl > 0 then
  redis.call('PEXPIRE', KEYS[3], ttl)
  redis.call('PEXPIRE', KEYS[4], ttl)
end
return 1
"""

_BEAT: Final = """
local now = redis.call('TIME')
local seen = now[1] .. '.' .. string.format('%06d', now[2])
redis.call('HSET', KEYS[1], ARGV[1], seen .. ' ' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], 86400)
"""

_CONNECT_TIMEOUT_S: Final = 3.0
_SOCKET_TIMEOUT_S: Final = 30.0
_BACKOFF_CAP_S: Final = 1.0
_TAKE_AT_MOST: Final = 1024  # the largest window


class ClaimState(enum.StrEnum):
    """What a worker learns when it asks for a chunk."""

    CLAIMED = "claimed"
    SETTLED = "settled"  # another delivery of it was faster, or it was cancelled
    STOPPED = "stopped"  # the job failed at an earlier chunk
    GONE = "gone"  # the job has ended


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim; spec and frame only with `ClaimState.CLAIMED`."""

    state: ClaimState
    spec: bytes = b""
    frame: bytes = b""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as its heartbeat tells.

    Attributes:
        name: Its Celery node name and process id.
        slots: How many chunks it runs at a time.
        silent_s: Seconds since it last said that it lives, by the store's clock.
    """

    name: str
    slots: int
    silent_s: float


class Store:
    """The store as producers, collectors and workers use it.

    Safe to share between threads, not between processes.

    Args:
        settings: Where it is, and how long keys live.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ttl_ms = int(settings.job_ttl_s * 1000)
        self._redis: redis.Redis = redis.Redis.from_url(
            settings.redis_store_url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            **_tcp_options(settings.redis_store_url),
            # Every call here may be repeated: see the module's rule for settling.
            retry=Retry(ExponentialBackoff(_BACKOFF_CAP_S, 0.05), _retries(settings.outage_s)),
        )
        self._claim = self._redis.register_script(_CLAIM)
        self._settle = self._redis.register_script(_SETTLE)
        self._beat = self._redis.register_script(_BEAT)

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
            retry=Retry(ExponentialBackoff(), 0),
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

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    # --- the producer's side --------------------------------------------------------------

    def open_job(self, spec: JobSpec) -> None:
        """Make a job known to workers."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(_key(spec.id, "job"), "spec", spec.to_wire())
            self._touch(pipe, spec.id)
            pipe.execute()

    def put_chunks(self, job: str, frames: Iterable[tuple[int, bytes]]) -> None:
        """Store the inputs of chunks."""
        with self._redis.pipeline(transaction=False) as pipe:
            for index, frame in frames:
                pipe.hset(_key(job, "in"), str(index), frame)
            self._touch(pipe, job)
            pipe.execute()

    def touch_job(self, job: str) -> bool:
        """Renew the life of a job's keys; False if the job is gone."""
        with self._redis.pipeline(transaction=False) as pipe:
            self._touch(pipe, job)
            return bool(pipe.execute()[0])

    def _touch(self, pipe: Any, job: str) -> None:
        for part in ("job", "in", "out", "done"):
            pipe.pexpire(_key(job, part), self._ttl_ms)

    def take_outcomes(
        self, job: str, *, wait_s: float, forget: Iterable[int] = ()
    ) -> list[tuple[int, bytes]]:
        """Return the outcomes that have arrived, waiting for a first one.

        They stay in the store until they are named in `forget`: an answer that is lost on
        its way can be asked for again with `look_for_outcomes`.

        Args:
            job: The job's id.
            wait_s: Wait at most this long for a first one; 0 looks and returns.
            forget: Chunks whose outcomes have been received and may go.
        """
        done = _key(job, "done")
        first: list[Any] = []
        if wait_s > 0:
            popped = self._redis.blpop([done], timeout=wait_s)
            if popped is None:
                return []
            first = [popped[1]]
        with self._redis.pipeline(transaction=False) as pipe:
            self._forget(pipe, job, forget)
            pipe.lpop(done, _TAKE_AT_MOST)
            more = pipe.execute()[-1] or []
        return self._read(job, [int(index) for index in first + more])

    def look_for_outcomes(self, job: str) -> list[tuple[int, bytes]]:
        """Return every outcome in the store, also those whose notice was lost."""
        return self._read(job, [int(index) for index in self._redis.hkeys(_key(job, "out"))])

    def _read(self, job: str, indices: list[int]) -> list[tuple[int, bytes]]:
        if not indices:
            return []
        values: list[Any] = self._redis.hmget(_key(job, "out"), [str(index) for index in indices])
        return [
            (index, value)
            for index, value in zip(indices, values, strict=True)
            if value is not None
        ]

    def _forget(self, pipe: Any, job: str, indices: Iterable[int]) -> None:
        fields = [str(index) for index in indices]
        if fields:
            pipe.hdel(_key(job, "out"), *fields)

    def stop_job(self, job: str, first: int, pending: Iterable[int]) -> None:
        """Mark the chunks from `first` on as unwanted and drop the inputs of `pending`."""
        fields = [str(index) for index in pending]
        if fields:
            self._redis.hdel(_key(job, "in"), *fields)
        try:
            self._redis.hset(_key(job, "job"), "stop", str(first))
        except redis.ResponseError as error:
            # A full store takes no mark; without their inputs the chunks are declined too.
            if not is_full(error):
                raise

    def end_job(self, job: str) -> None:
        """Remove everything of a job; its chunks still queued are declined from now on."""
        self._redis.delete(*(_key(job, part) for part in ("job", "in", "out", "done")))

    def workers(self) -> list[WorkerInfo]:
        """Return the workers of the queue whose heartbeat is fresh."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(_workers_key(self._settings.queue))
            (seconds, micros), beats = pipe.execute()
        now = seconds + micros / 1e6
        found = []
        for name, value in beats.items():
            seen, _, packed = value.partition(b" ")
            info = WorkerInfo(name.decode(), int(unpack(packed)["slots"]), now - float(seen))
            if info.silent_s < 3 * self._settings.heartbeat_s:
                found.append(info)
        return found

    # --- the worker's side ----------------------------------------------------------------

    def claim(self, job: str, chunk: int) -> Claim:
        """Ask for a chunk to work on."""
        answer = self._claim(keys=[_key(job, "job"), _key(job, "in")], args=[chunk])
        return Claim(ClaimState(answer[0].decode()), *answer[1:])

    def settle(self, job: str, chunk: int, outcome: bytes) -> bool:
        """Store a chunk's outcome; False if it was settled or is not wanted any more."""
        keys = [_key(job, part) for part in ("job", "in", "out", "done")]
        return bool(self._settle(keys=keys, args=[chunk, outcome]))

    def beat(self, worker: str, slots: int) -> None:
        """Say that a worker lives."""
        self._beat(keys=[_workers_key(self._settings.queue)], args=[worker, pack({"slots": slots})])

    def leave(self, worker: str) -> None:
        """Say that a worker goes."""
        self._redis.hdel(_workers_key(self._settings.queue), worker)


def is_full(error: Exception) -> bool:
    """Say whether a command was refused because the store has no memory left."""
    return isinstance(error, redis.OutOfMemoryError) or "OOM command not allowed" in str(error)


def _key(job: str, part: str) -> str:
    return f"pt:{{{job}}}:{part}"


def _workers_key(queue: str) -> str:
    return f"pt:workers:{queue}"


def _tcp_options(url: str) -> dict[str, bool]:
    return {} if url.startswith("unix://") else {"socket_keepalive": True}


def _retries(outage_s: float) -> int:
    # The backoff reaches its cap of 1 s after five tries, so later tries count seconds.
    return int(outage_s / _BACKOFF_CAP_S) + 5


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
