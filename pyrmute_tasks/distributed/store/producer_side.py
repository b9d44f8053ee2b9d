"""The producer's side of the store: jobs, their parts and outcomes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from pyrmute_tasks.distributed.internals.redis_client import is_out_of_memory
from pyrmute_tasks.distributed.protocol import (
    Arrivals,
    ClaimInfo,
    Outcomes,
    Rejection,
    Survey,
    read_claim,
    sort_notice,
    split_claim,
    tells_of_outcome,
)
from pyrmute_tasks.distributed.queue_depth import queue_lists
from pyrmute_tasks.distributed.store.connection import warn_rejected
from pyrmute_tasks.distributed.store.fleet import FleetStore
from pyrmute_tasks.distributed.store.keys import JOB_KEYS, job_key, jobs_key, workers_key
from pyrmute_tasks.distributed.store.scripts import load_script
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import SignatureError
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.signing import Sealed

__all__ = ["ProducerStore"]

_FORGET_JOB_S: Final = 5  # it says twice in this time that it is there
_TAKE_AT_MOST: Final = 1024  # the largest window
_READ_AT_MOST_BYTES: Final = 2 * 1024 * 1024


@dataclass(slots=True)
class _SignedJob:
    """The producer's own copy of its job's signed facts, which cannot be forged in the store.

    Attributes:
        spec: The job's sealed spec.
        stop: Index of the first discarded chunk; empty if there is none.
        rejections: Outcomes without a valid signature, and are not reported yet.
    """

    spec: bytes
    stop: str = ""
    rejections: list[Rejection] = field(default_factory=list)


class ProducerStore(FleetStore):
    """The store as producers and collectors use it.

    Args:
        settings: Its URL, and the expiry of keys.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._ttl_ms = int(settings.job_ttl_s * 1000)
        self._signed_jobs: dict[str, _SignedJob] = {}
        self._told: dict[str, set[bytes]] = {}  # by job: notices that came, so none counts twice
        self._queue_lists = queue_lists(settings)
        restore = "restore_signed" if self._signer.is_on else "restore"
        self._restore = self._redis.register_script(load_script(restore))
        self._stop = self._redis.register_script(load_script("stop"))

    # --- sending ------------------------------------------------------------------------------

    def open_job(self, spec: JobSpec) -> int:
        """Register a job for workers; return the number of other jobs on the queue."""
        sealed = self._signer.seal(Sealed.SPEC, spec.id, "", spec.to_wire())
        if self._signer.is_on:
            self._signed_jobs[spec.id] = _SignedJob(sealed)
        self._told[spec.id] = set()
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(job_key(spec.id, "job"), "spec", sealed)
            self._touch(pipe, spec.id)
            self._share(pipe, spec.id, is_busy=True)
            return int(pipe.execute()[-1])

    def put_parts(self, job: str, frames: Iterable[tuple[str, bytes]], gone: str = "") -> None:
        """Store the inputs of parts, replacing the part `gone` if given."""
        with self._redis.pipeline(transaction=bool(gone)) as pipe:
            if gone:
                pipe.hdel(job_key(job, "in"), gone)
            for key, frame in frames:
                sealed = self._signer.seal(Sealed.FRAME, job, key, frame)
                pipe.hset(job_key(job, "in"), key, sealed)
            pipe.pexpire(job_key(job, "in"), self._ttl_ms)  # it may be new; others are not
            pipe.execute()

    def restore_parts(self, job: str, frames: Iterable[tuple[str, bytes]]) -> None:
        """Delete the claims of parts, and store inputs that are missing and not settled.

        A server that was restarted from its files may have lost its last second. With a
        secret, the inputs, the spec and the stop mark replace what may have been altered.
        """
        keys = [job_key(job, name) for name in ("in", "claims", "out", "job")]
        known = self._signed_jobs.get(job)
        own: list[bytes | str] = [known.spec, known.stop] if known is not None else []
        with self._redis.pipeline(transaction=False) as pipe:
            for part, frame in frames:
                sealed = self._signer.seal(Sealed.FRAME, job, part, frame)
                self._restore(keys=keys, args=[part, sealed, *own], client=pipe)
            self._touch(pipe, job)
            pipe.execute()

    def survey(self, job: str, waiting: int | None = None, *, is_busy: bool = False) -> Survey:
        """Survey a job and its fleet in one round trip, and extend the expiry of the job's keys.

        In this order, since the fleet goes on meanwhile: a message leaves the queue, is claimed
        by a worker that beats, and what has no claim any more has an outcome.

        Args:
            job: The job's id.
            waiting: How many tasks wait in the queue, if that is not in this database.
            is_busy: The job has chunks under way, and counts for the other jobs of the queue.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            self._touch(pipe, job)
            for name in self._queue_lists:
                pipe.llen(name)
            pipe.hgetall(job_key(job, "claims"))
            pipe.hgetall(workers_key(self._settings.queue))
            pipe.hkeys(job_key(job, "out"))
            self._share(pipe, job, is_busy)
            now, is_known, *answers = pipe.execute()
        if not is_known and is_busy:  # it has ended meanwhile, and counted itself again
            self._redis.zrem(jobs_key(self._settings.queue), job)
        *lengths, claims, beats, settled, others = answers[len(JOB_KEYS) - 1 :]
        return Survey(
            bool(is_known),
            sum(lengths) if self._queue_lists else waiting,
            self._read_claims(job, claims, now[0]),
            self._read_beats(beats, now),
            [field.decode(errors="replace") for field in settled],
            int(others),
        )

    def _read_claims(self, job: str, claims: dict[bytes, bytes], now: int) -> dict[str, ClaimInfo]:
        found = {}
        garbled = 0
        for key, value in claims.items():
            try:
                part = key.decode()
                when, sealed = split_claim(value)
                who = self._signer.open(Sealed.CLAIM, job, part, sealed)
                found[part] = read_claim(when, who, now)
            except (SignatureError, ValueError):
                garbled += 1
        self._tell_garbled("claim", garbled, job=job)
        return found

    def touch_job(self, job: str) -> bool:
        """Extend the expiry of a job's keys; False if the job is gone."""
        with self._redis.pipeline(transaction=False) as pipe:
            self._touch(pipe, job)
            return bool(pipe.execute()[0])

    def _share(self, pipe: Any, job: str, is_busy: bool) -> None:
        # With its text, once a second: by its hash it could be unknown, which is a round trip.
        key = jobs_key(self._settings.queue)
        pipe.eval(load_script("share"), 1, key, job, _FORGET_JOB_S, int(is_busy))

    def _touch(self, pipe: Any, job: str) -> None:
        for part in JOB_KEYS:
            pipe.pexpire(job_key(job, part), self._ttl_ms)

    def take(self, job: str, *, wait_s: float, forget: Iterable[str] = ()) -> Arrivals:
        """Return the notices and outcomes that have arrived, waiting for a first one.

        Outcomes stay in the store until they are named in `forget`: an answer that is lost
        on its way can be asked for again with `read_outcomes`.

        Args:
            job: The job's id.
            wait_s: Wait at most this long for a first one; 0 looks and returns.
            forget: Parts whose outcomes have been received and may go.
        """
        done = job_key(job, "done")
        with self._redis.pipeline(transaction=False) as pipe:
            fields = list(forget)
            if fields:
                pipe.hdel(job_key(job, "out"), *fields)
            if wait_s > 0:
                pipe.blpop([done], timeout=wait_s)
            pipe.lpop(done, _TAKE_AT_MOST)  # the server gets to it when the wait is over
            *_, first, more = (None, *pipe.execute())
        notices: list[bytes] = [first[1]] if wait_s > 0 and first else []
        settled: list[tuple[str, int]] = []
        arrived = Arrivals([], [], [])
        garbled = 0
        for notice in notices + (more or []):
            try:
                told = self._opened(job, notice)
                if self._is_new(job, told):
                    sort_notice(told.decode(), settled, arrived)
            except (SignatureError, ValueError):
                garbled += 1
        self._tell_garbled("notice", garbled, job=job)
        known = set(fields)  # they were read with a survey, before their notices came
        arrived.outcomes.extend(self._read(job, [each for each in settled if each[0] not in known]))
        if (signed := self._signed_jobs.get(job)) is not None:
            arrived.rejections.extend(signed.rejections)
            signed.rejections.clear()
        return arrived

    def _opened(self, job: str, notice: bytes) -> bytes:
        """Return a notice without its signature.

        Raises:
            SignatureError: If it has no valid signature.
        """
        # That an outcome is there need not be signed: the outcome is.
        if job not in self._signed_jobs or tells_of_outcome(notice):
            return notice
        return self._signer.open(Sealed.NOTICE, job, "", notice)

    def _is_new(self, job: str, told: bytes) -> bool:
        """Return whether a notice arrived for the first time.

        A worker that lost the answer notifies again, and one death must not count as two.
        """
        known = self._told.get(job)
        if known is None or tells_of_outcome(told):
            return True
        is_new = told not in known
        known.add(told)
        return is_new

    def read_outcomes(self, job: str, parts: Collection[str]) -> Outcomes:
        """Return the outcomes of parts reported by a survey, whose notices may be lost."""
        # Their sizes are not known, and there are few: they are read one by one.
        return self._read(job, [(part, _READ_AT_MOST_BYTES) for part in parts])

    def _read(self, job: str, sizes: list[tuple[str, int]]) -> Outcomes:
        """Read the outcomes of parts of known sizes.

        The server puts a whole answer together before it is on its way, so an answer must
        not hold a whole window.
        """
        found: list[tuple[str, bytes | memoryview]] = []
        keys: list[str] = []
        size_bytes = 0
        for place, (key, size) in enumerate(sizes, start=1):
            keys.append(key)
            size_bytes += size
            if size_bytes >= _READ_AT_MOST_BYTES or place == len(sizes):
                values: list[Any] = self._redis.hmget(job_key(job, "out"), keys)
                pairs = [pair for pair in zip(keys, values, strict=True) if pair[1] is not None]
                found += self._believed(job, pairs) if self._signer.is_on else pairs
                keys, size_bytes = [], 0
        return found

    def _believed(self, job: str, outcomes: list[tuple[str, bytes]]) -> Outcomes:
        """Return the outcomes with valid signatures, and handle the others."""
        known = self._signed_jobs.get(job)
        believed: list[tuple[str, bytes | memoryview]] = []
        for part, sealed in outcomes:
            try:
                believed.append((part, self._signer.view(Sealed.OUTCOME, job, part, sealed)))
            except SignatureError as error:
                warn_rejected("outcome", str(error), job=job, part=part)
                self._redis.hdel(job_key(job, "out"), part)
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
            self._redis.hdel(job_key(job, "in"), *fields)
        try:
            self._stop(keys=[job_key(job, "job")], args=[str(first)])
        except redis.ResponseError as error:
            # A full store takes no mark; without their inputs the chunks are declined too.
            if not is_out_of_memory(error):
                raise

    def end_job(self, job: str) -> None:
        """Remove all keys of a job; workers decline its queued chunks from now on."""
        self._signed_jobs.pop(job, None)
        self._told.pop(job, None)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(*(job_key(job, part) for part in JOB_KEYS))
            pipe.zrem(jobs_key(self._settings.queue), job)
            pipe.execute()
