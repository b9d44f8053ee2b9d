"""Every fault: its action, its conditions, and the longest it may delay a job."""

import contextlib
import enum
import json
import math
import random
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import redis

from pyrmute_tasks import (
    BrokerUnavailableError,
    ConfigurationError,
    JobLostError,
    MigrationError,
    NoWorkersError,
    OutputInUseError,
    ProcessDiedError,
    Settings,
    StorageUnreachableError,
    StoreUnavailableError,
)
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.jobs.folder import JobFolder, beside
from tests.chaos import storage
from tests.chaos.runs import (
    CHUNK,
    HOP,
    MANAGER,
    OTHER_MANAGER,
    Damage,
    Feed,
    Flights,
    Harm,
    Result,
    Run,
    Way,
)
from tests.conftest import wait_until
from tests.fleets import Fleet, RabbitMQ, Side, Worker
from tests.fleets.mounts import can_mount, own_mounts, with_tmpfs
from tests.fleets.namespaces import Link, TwoHosts, can_make_hosts

__all__ = ["DEEDS", "LONG", "SHORT", "STAGES", "Fault", "Scale", "Stage", "run_fault"]


class Fault(enum.StrEnum):
    """A fault of a fleet while it runs a job."""

    CHILD_KILLED = "child killed"
    WORKER_KILLED = "worker killed"
    ROLLING_DEPLOYMENT = "rolling deployment"
    WORKER_FROZEN = "worker frozen"
    WORKER_LATE = "worker after the job"
    WORKERS_GONE = "all workers gone"
    DELIVERED_TWICE = "delivered twice"
    MESSAGE_LOST = "message lost with worker"
    REDIS_RESTARTED = "Redis restarted"
    REDIS_SET_BACK = "Redis lost its last second"
    REDIS_EMPTIED = "Redis restarted empty"
    CONNECTION_CUT = "connection cut"
    CONNECTIONS_KILLED = "all connections killed, again and again"
    READONLY_SPELL = "Redis refuses writes for a while"
    HALF_OPEN_PRODUCER = "producer's connections half-open"
    HALF_OPEN_WORKERS = "workers' connections half-open"
    LOSSY_PRODUCER = "producer loses 30 % of packets"
    LOSSY_WORKERS = "workers lose 30 % of packets"
    CUT_OFF_WORKERS = "workers cut off for a while"
    BLACK_HOLE = "producer's large packets vanish"
    RABBITMQ_RESTARTED = "RabbitMQ restarted"
    PRODUCER_KILLED = "producer killed"
    POISON_EXITS = "poison: exits"
    POISON_ALLOCATES = "poison: allocates"
    POISON_LOOPS = "poison: loops"
    OTHER_CODE = "worker with other code"
    REDIS_FAR = "Redis 150 ms away"
    CONSUMERS_CANCELLED = "consumers cancelled"
    ATTEMPTS_GONE = "attempts' folder gone for a while"
    JOB_GONE = "job's folder gone for a while"
    SOURCE_GONE = "source gone for a while"
    STORAGE_UNMOUNTED = "storage unmounted for a while"
    STORAGE_FULL = "storage full for a while"
    STORAGE_READ_ONLY = "storage read-only for a while"
    STORAGE_SLOW = "storage slow for a while"
    STORAGE_ELSEWHERE = "worker with another root"
    STORAGE_HIDDEN = "storage hidden from one worker"


@dataclass(frozen=True)
class Scale:
    """The size of each fault.

    Attributes:
        deploys: How many workers a rolling deployment replaces.
        gone_s: How long all workers are gone.
        spell_s: How long a server is of no use.
    """

    deploys: int = 4
    gone_s: float = 5.0
    spell_s: float = 4.0


SHORT: Final = Scale()
LONG: Final = Scale(deploys=20, gone_s=20.0, spell_s=16.0)


@dataclass(frozen=True)
class Stage:
    """The surroundings that a fault needs.

    Attributes:
        harm: Done in a thread beside the job; None if all is set before it.
        limit_s: The longest stall that is tolerable.
        workers: How many are there from the beginning.
        options: Of `Settings`. The stalls that are promised are with default settings.
        is_supervised: Workers that end are started again.
        through_proxy: The producer has a way of its own to Redis.
        doubles_messages: Every message is published twice.
        ends_with: The errors of which the job must end with one; none if it must succeed.
        on_rabbitmq: It makes sense where messages go through RabbitMQ.
        on_redis: It makes sense where messages go through Redis.
        apart: Who is on a host of their own, away from the servers.
        delay_s: How long the producer's own way to Redis is, each way.
        ways: How records come to the workers.
        may_end_with: The errors of which the job may end with one, too. By reference it is
            finished by another run.
        says: In the message of its error, as a regular expression.
        manager: What workers run.
        mounts: The storage is a file system of its own; it needs root.
    """

    harm: Harm | None
    limit_s: float = 20.0
    workers: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    is_supervised: bool = False
    through_proxy: bool = False
    doubles_messages: bool = False
    ends_with: tuple[type[Exception], ...] = ()
    on_rabbitmq: bool = True
    on_redis: bool = True
    apart: Side | None = None
    delay_s: float = 0.0
    ways: tuple[Way, ...] = tuple(Way)
    may_end_with: tuple[type[Exception], ...] = ()
    says: str = ""
    manager: str = MANAGER
    mounts: bool = False

    @property
    def can_run(self) -> bool:
        """Whether this machine lets the surroundings be made."""
        return (self.apart is None or can_make_hosts()) and (not self.mounts or can_mount())

    @property
    def ends_early(self) -> bool:
        """Whether the job may end before all harm is done."""
        return bool(self.ends_with or self.may_end_with)


# A queue that is younger when RabbitMQ 3.10 is killed confirms nothing for ever after: the
# server has not yet written down who leads it, and no client can help that.
_OLD_ENOUGH_S: Final = 8.0


# --- harms ----------------------------------------------------------------------------------


def in_the_middle(run: Run) -> None:
    """Wait for a moment unrelated to the beginnings of chunks."""
    if not run.is_mixed:
        run.wait_for_deliveries(3)
        run.pause(run.random.uniform(0, 0.2))


def victim(run: Run) -> Worker:
    run.wait_until(lambda: run.fleet.living, "there is a worker")
    return run.random.choice(run.fleet.living)


def kill_child(run: Run) -> None:
    in_the_middle(run)
    worker = victim(run)
    run.begin_fault()
    worker.kill_child()


def kill_worker(run: Run) -> None:
    in_the_middle(run)
    worker = victim(run)
    run.begin_fault()
    worker.kill()


def deploy(run: Run) -> None:
    """Replace the oldest worker every second, or as soon as its successor is ready."""
    in_the_middle(run)
    for _ in range(run.deploys):
        at_least_until = time.monotonic() + 1.0
        victim(run)
        oldest = min(run.fleet.living, key=lambda worker: worker.started_at)
        run.begin_fault()
        replacement = run.fleet.launch_worker()
        oldest.ask_to_leave()
        run.fleet.wait_for(replacement)
        run.pause(max(0.0, at_least_until - time.monotonic()))


def freeze(run: Run) -> None:
    """Freeze a worker in the middle of a chunk, until others have settled its chunks."""
    in_the_middle(run)
    worker = victim(run)
    run.wait_until(lambda: _froze_in_chunk(run, worker), "a worker is frozen in a chunk")
    run.begin_fault()
    try:
        run.wait_until(
            lambda: worker.full_name not in run.fleet.known_workers(), "its heartbeat has ended"
        )
        run.wait_for_deliveries(10)  # its chunk cannot be missing any more
    finally:
        worker.thaw()
    run.wait_for_deliveries(10)


def _froze_in_chunk(run: Run, worker: Worker) -> bool:
    worker.freeze()
    if not worker.is_alive or worker.full_name in run.fleet.claiming_workers():
        return True
    worker.thaw()
    return False


def start_late(run: Run) -> None:
    with run.outage():
        run.pause(1.0)
        run.fleet.start_worker()


def take_all_workers(run: Run) -> None:
    in_the_middle(run)
    with run.outage(), run.fleet.without_workers():
        run.pause(run.gone_s)


def lose_message(run: Run) -> None:
    """Pop a message and die before it is recorded in `unacked`."""
    in_the_middle(run)
    worker = victim(run)
    with run.fleet.valkey.client() as client:
        queue = run.fleet.settings.queue
        run.wait_until(lambda: _pops(client, queue), "a message is popped")
    run.begin_fault()
    worker.kill()


def _pops(client: redis.Redis, queue: str) -> bool:
    try:
        return client.rpop(queue) is not None
    except redis.ResponseError:  # it refuses writes: another fault of the same schedule
        return False


def restart_redis(run: Run) -> None:
    in_the_middle(run)
    with run.outage():
        run.fleet.valkey.restart(down_s=2.0)


def set_redis_back(run: Run) -> None:
    in_the_middle(run)
    with run.outage():
        run.fleet.valkey.lose_power(down_s=2.0)


def empty_redis(run: Run) -> None:
    in_the_middle(run)
    with run.outage():
        run.fleet.valkey.restart(down_s=2.0, empty=True)


def cut_connection(run: Run) -> None:
    in_the_middle(run)
    with run.outage():
        run.fleet.proxy.cut()
        try:
            run.pause(3.0)
        finally:
            run.fleet.proxy.mend()


def kill_connections(run: Run) -> None:
    run.begin_fault()
    with contextlib.ExitStack() as stack:
        if run.fleet.rabbitmq is not None:
            stack.enter_context(run.fleet.rabbitmq.closing_connections(every_s=1.0))
        stack.enter_context(run.fleet.valkey.killing_connections(every_s=0.2))
        run.pause(run.spell_s)
    run.wait_for_deliveries(3)
    assert run.is_mixed or all(worker.is_alive for worker in run.fleet.workers)


def refuse_writes(run: Run) -> None:
    in_the_middle(run)
    for refusal in ("READONLY", "NOREPLICAS"):
        with run.outage(), run.fleet.valkey.refusing_writes(refusal):
            run.pause(run.spell_s / 2)
        run.wait_for_deliveries(3)
    assert run.is_mixed or all(worker.is_alive for worker in run.fleet.workers)


def swallow(run: Run) -> None:
    in_the_middle(run)
    run.begin_fault()
    link_of(run).swallow()
    run.wait_for_deliveries(10)


def lose_packets(run: Run) -> None:
    in_the_middle(run)
    run.begin_fault()
    link_of(run).loss = 0.3
    run.pause(run.spell_s)
    run.wait_for_deliveries(5)
    link_of(run).loss = 0.0


def cut_off(run: Run) -> None:
    in_the_middle(run)
    assert run.fleet.hosts is not None
    with run.outage(), run.fleet.hosts.link_down():
        run.pause(run.spell_s)
    run.wait_for_deliveries(5)


def hide_large_packets(run: Run) -> None:
    in_the_middle(run)
    run.begin_fault()
    all_sizes = link_of(run).largest_bytes
    link_of(run).largest_bytes = 600
    try:
        run.wait_until(lambda: False, "the job has ended")
    finally:
        link_of(run).largest_bytes = all_sizes


def link_of(run: Run) -> Link:
    assert run.fleet.hosts is not None
    return run.fleet.hosts.link


def restart_rabbitmq(run: Run) -> None:
    in_the_middle(run)
    rabbitmq = run.fleet.rabbitmq
    assert rabbitmq is not None
    run.wait_until(lambda: run.fleet.age_s > _OLD_ENOUGH_S, "its queue is old enough")
    with run.outage():
        run.random.choice((rabbitmq.kill, rabbitmq.stop))()
        rabbitmq.start()


def add_other_code(run: Run) -> None:
    in_the_middle(run)
    run.begin_fault()
    run.fleet.start_worker(manager=OTHER_MANAGER)
    run.wait_for_deliveries(30)


def cancel_consumers(run: Run) -> None:
    """Cancel the consumers of all workers, which still finish their chunks."""
    in_the_middle(run)
    run.begin_fault()
    with create_app(run.fleet.settings) as app:
        app.control.cancel_consumer(run.fleet.settings.queue, reply=True, timeout=5.0)
    run.wait_until(lambda: False, "the job has ended")


def be_far(run: Run) -> None:
    """Delay the connection all the time; opening connections takes seconds and does not count."""
    run.wait_for_deliveries(1)
    run.begin_fault()
    run.wait_for_deliveries(40)


def only_wait(run: Run) -> None:
    run.wait_for_deliveries(20)


# --- which fault is what --------------------------------------------------------------------

_SECRET: Final = "chaos" * 8
_RUN: Final = """
from pyrmute_tasks.cli.start import main
from tests.chaos.runs import short_ranges
with short_ranges():
    main()
"""
_POISON_CHUNK: Final = 16
_POISON_CHUNKS: Final = 5
_MEMORY: Final[dict[str, Any]] = {"memory_limit_bytes": 2 * 1024**3}
# Only what loops needs a limit of time: on a busy machine a good record may exceed it.
_TIME: Final[dict[str, Any]] = {"soft_time_limit_s": 0.5, "time_limit_s": 2.0}
_EXITS: Final = Stage(None, options=_MEMORY, ends_with=(ProcessDiedError,))
_LOOPS: Final = Stage(None, options=_MEMORY | _TIME, ends_with=(ProcessDiedError,))
# Its chunk is isolated as one that kills is, but its own error is what it raises.
_TOO_LARGE: Final = Stage(None, options=_MEMORY, ends_with=(MigrationError,))
DEEDS: Final[Mapping[Fault, tuple[str, str]]] = MappingProxyType(
    {
        Fault.POISON_EXITS: ("exit:3", "exit status 3"),
        Fault.POISON_ALLOCATES: ("allocate:4000000000", "MemoryError"),
        Fault.POISON_LOOPS: ("loop:", "time limit of 0.5 s"),
    }
)
_TTL_S: Final = 3.0
_HALF_OPEN_S: Final = 15.0
_GONE_S: Final = 5.0  # after which a job without workers ends


def _stored(harm: Harm, says: str = "", *, mounts: bool = False, limit_s: float = 20.0) -> Stage:
    """Return the surroundings of a fault of storage, with the reason if the job may end by it."""
    may_end_with = (ConfigurationError, OutputInUseError, StorageUnreachableError) if says else ()
    return Stage(
        harm,
        limit_s,
        ways=(Way.REFERENCE,),
        may_end_with=may_end_with,
        says=says,
        mounts=mounts,
        on_rabbitmq=False,  # messages have nothing to do with it
    )


STAGES: Final[Mapping[Fault, Stage]] = MappingProxyType(
    {
        Fault.CHILD_KILLED: Stage(kill_child, limit_s=3.0),
        Fault.WORKER_KILLED: Stage(kill_worker),
        Fault.ROLLING_DEPLOYMENT: Stage(deploy, limit_s=5.0 + CHUNK * 0.002),
        Fault.WORKER_FROZEN: Stage(freeze),
        Fault.WORKER_LATE: Stage(start_late, workers=0, options={"worker_wait_s": 60.0}),
        Fault.WORKERS_GONE: Stage(take_all_workers),
        Fault.DELIVERED_TWICE: Stage(only_wait, doubles_messages=True, limit_s=3.0),
        Fault.MESSAGE_LOST: Stage(lose_message, on_rabbitmq=False),
        Fault.REDIS_RESTARTED: Stage(restart_redis, is_supervised=True),
        Fault.REDIS_SET_BACK: Stage(set_redis_back, is_supervised=True),
        Fault.REDIS_EMPTIED: Stage(empty_redis, is_supervised=True, ends_with=(JobLostError,)),
        Fault.CONNECTION_CUT: Stage(cut_connection, through_proxy=True),
        Fault.CONNECTIONS_KILLED: Stage(kill_connections, limit_s=30.0),
        Fault.READONLY_SPELL: Stage(refuse_writes, limit_s=15.0),
        Fault.HALF_OPEN_PRODUCER: Stage(swallow, limit_s=_HALF_OPEN_S, apart=Side.PRODUCER),
        Fault.HALF_OPEN_WORKERS: Stage(swallow, limit_s=_HALF_OPEN_S, apart=Side.WORKERS),
        Fault.LOSSY_PRODUCER: Stage(lose_packets, limit_s=60.0, apart=Side.PRODUCER),
        Fault.LOSSY_WORKERS: Stage(lose_packets, limit_s=60.0, apart=Side.WORKERS),
        Fault.CUT_OFF_WORKERS: Stage(cut_off, limit_s=_HALF_OPEN_S, apart=Side.WORKERS),
        Fault.BLACK_HOLE: Stage(
            hide_large_packets,
            limit_s=20.0 + _HALF_OPEN_S,
            options={"outage_s": 20.0},
            # Whichever of the two it was waiting for.
            ends_with=(StoreUnavailableError, BrokerUnavailableError),
            apart=Side.PRODUCER,
        ),
        Fault.RABBITMQ_RESTARTED: Stage(restart_rabbitmq, is_supervised=True, on_redis=False),
        Fault.PRODUCER_KILLED: Stage(None, options={"job_ttl_s": _TTL_S}),
        Fault.POISON_EXITS: _EXITS,
        Fault.POISON_ALLOCATES: _TOO_LARGE,
        Fault.POISON_LOOPS: _LOOPS,
        Fault.OTHER_CODE: Stage(add_other_code, limit_s=3.0),
        Fault.REDIS_FAR: Stage(be_far, limit_s=5.0, through_proxy=True, delay_s=0.15),
        Fault.CONSUMERS_CANCELLED: Stage(
            cancel_consumers,
            limit_s=_GONE_S + 6.0,
            options={"outage_s": _GONE_S},
            ends_with=(NoWorkersError,),
            ways=(Way.PRODUCER,),  # a fleet with a secret has no remote control
        ),
        Fault.ATTEMPTS_GONE: _stored(storage.hide_attempts, "No such file or directory"),
        Fault.JOB_GONE: _stored(storage.hide_job, "No such file or directory"),
        Fault.SOURCE_GONE: _stored(storage.hide_source, "No such file or directory"),
        Fault.STORAGE_UNMOUNTED: _stored(
            storage.move_away, "No such file or directory|the directory of both", mounts=True
        ),
        Fault.STORAGE_FULL: _stored(storage.fill, "No space left on device", mounts=True),
        Fault.STORAGE_READ_ONLY: _stored(
            storage.make_read_only, "Read-only file system", mounts=True
        ),
        Fault.STORAGE_SLOW: replace(_stored(storage.slow_down), manager=storage.MANAGER),
        Fault.STORAGE_ELSEWHERE: _stored(storage.start_elsewhere, limit_s=5.0),
        Fault.STORAGE_HIDDEN: _stored(storage.lose_on_one_worker, mounts=True, limit_s=5.0),
    }
)


def run_fault(
    fault: Fault,
    directory: Path,
    flights: Flights,
    seed: int,
    *,
    scale: Scale = SHORT,
    rabbitmq: RabbitMQ | None = None,
    hosts: TwoHosts | None = None,
    way: Way = Way.PRODUCER,
) -> tuple[Result, list[str]]:
    """Run a job with a fault in it; return its result and the problems with it."""
    stage = STAGES[fault]
    choose = random.Random(seed)
    with _data_of(stage, directory) as data, ExitStack() as stack:
        fleet = Fleet(
            directory / "fleet",
            stage.manager,
            workers=stage.workers,
            settings=with_roots(Settings(**stage.options), way, data),
            is_supervised=stage.is_supervised,
            rabbitmq=rabbitmq,
            queue=f"chaos-{seed:x}",
            hosts=hosts,
            apart=() if stage.apart is None else (stage.apart,),
            delay_s=stage.delay_s,
        )
        stack.enter_context(fleet)
        if fault is Fault.PRODUCER_KILLED:
            return _kill_producer(fleet, data, flights, choose, way)
        if fault in DEEDS:
            return _poison(fault, fleet, data, flights, choose, way)
        run = Run(
            fleet,
            Feed(data / "in.jsonl", flights, choose.randrange(len(flights))),
            choose,
            deploys=scale.deploys,
            gone_s=scale.gone_s,
            spell_s=scale.spell_s,
            through_proxy=stage.through_proxy,
            doubles_messages=stage.doubles_messages,
            way=way,
        )
        result = run.execute(stage.harm)
    return result, problems(result, stage)


@contextlib.contextmanager
def _data_of(stage: Stage, directory: Path) -> Iterator[Path]:
    """Create the folder of source and target, on a file system of its own if it is to be one."""
    data = directory / "data"
    data.mkdir()
    with ExitStack() as stack:
        if stage.mounts:
            stack.enter_context(own_mounts())
            stack.enter_context(with_tmpfs(data, storage.SIZE_BYTES))
        yield data


def with_roots(settings: Settings, way: Way, data: Path) -> Settings:
    """Return the settings of a fleet that takes ranges in a folder, if it is to."""
    if way is Way.PRODUCER:
        return settings
    return replace(settings, roots=str(data), secret=_SECRET)


def problems(result: Result, stage: Stage) -> list[str]:
    """Return the problems of a result; empty if there are none."""
    found = []
    if result.damage != Damage():
        found.append(f"the output is not the sequential one: {result.damage}")
    allowed: tuple[type, ...] = stage.ends_with or (type(None), *stage.may_end_with)
    is_told = result.error is None or re.search(stage.says, str(result.error))
    if type(result.error) not in allowed or not is_told:
        found.append(f"the job ended with {result.error!r}")
    if result.error is None and result.is_cut_short:
        found.append("the job was over before the harm was done")
    if result.stall_s > stage.limit_s:
        found.append(f"it stalled for {result.stall_s:.1f} s, more than {stage.limit_s:.1f} s")
    return found


# --- faults that end their job --------------------------------------------------------------


def _poison(
    fault: Fault, fleet: Fleet, data: Path, flights: Flights, choose: random.Random, way: Way
) -> tuple[Result, list[str]]:
    """Run three jobs whose poisonous record comes first, in the middle and last."""
    last = _POISON_CHUNKS * _POISON_CHUNK - 1
    found: list[str] = []
    results = []
    for place in (0, choose.randrange(1, last), last):
        result, wrong = _poison_at(place, last, fault, fleet, data, flights, choose, way)
        results.append(result)
        found += [f"poison at {place} of {last}: {each}" for each in wrong]
    return max(results, key=lambda result: (result.damage != Damage(), result.stall_s)), found


def _poison_at(
    place: int,
    last: int,
    fault: Fault,
    fleet: Fleet,
    data: Path,
    flights: Flights,
    choose: random.Random,
    way: Way,
) -> tuple[Result, list[str]]:
    deed, how = DEEDS[fault]
    crashes = data / f"crashes-{place}"
    row = poisoned(flights.rows[0], deed, crashes)
    feed = Feed(data / "in.jsonl", flights, choose.randrange(len(flights)), {place: row})
    feed.grow(last + 1)
    run = Run(fleet, feed, choose, chunk_size=_POISON_CHUNK, way=way, resumes=False)
    result = run.execute(None)
    return result, problems(result, STAGES[fault]) + poison_problems(result, place, how, crashes)


def poisoned(row: bytes, deed: str, crashes: Path) -> bytes:
    """Return a row whose step fails by `deed`, and adds a line to the file `crashes`."""
    return json.dumps({**json.loads(row), "tailnum": f"{deed}|{crashes}"}).encode() + b"\n"


def poison_problems(result: Result, place: int, how: str, crashes: Path) -> list[str]:
    """Return the problems with the isolation of the record at `place`."""
    error = result.error
    found = []
    index = getattr(error, "record_index", None)
    cause = getattr(error, "__cause__", None)
    said = error.how if isinstance(error, ProcessDiedError) else type(cause).__name__
    if (index, said) != (place, how):
        found.append(f"the record is not named: {error!r}")
    if result.records != place:
        found.append(f"{result.records} records are there before it")
    died = len(crashes.read_text().splitlines())
    if died > math.ceil(math.log2(_POISON_CHUNK)) + 2:
        found.append(f"{died} processes died for it")
    return found


def _kill_producer(
    fleet: Fleet, data: Path, flights: Flights, choose: random.Random, way: Way
) -> tuple[Result, list[str]]:
    """Kill a producer in the middle of its job; the fleet must be able to run the next one.

    By reference that is the one that goes on with the job.
    """
    feed = Feed(data / "in.jsonl", flights, choose.randrange(len(flights)))
    feed.grow(400 * CHUNK)
    run = Run(fleet, feed, choose, way=way)
    kill_producer(fleet, feed.path, run.target, way)
    assert has_output(run.target), "the producer did not get as far as to be killed"
    found = []
    if run.target.exists():
        found.append("the killed producer has published its output")
    wait_until(lambda: not job_keys(fleet), "the job's keys have expired", _TTL_S + 5.0)
    if way is Way.PRODUCER:
        [partial] = partial_files(run.target)
        if not b"".join(feed.outputs(feed.count)).startswith(partial.read_bytes()):
            found.append("what the killed producer has written is not the beginning of its output")
        partial.unlink()
        run.feed = Feed(data / "in.jsonl", flights, choose.randrange(len(flights)))
        run.feed.grow(20 * CHUNK)
    run.set_pace(0.0)
    result = run.execute(None)
    if any(worker.starts > 1 or not worker.is_alive for worker in fleet.workers):
        found.append("a worker did not survive it")
    return result, found + problems(result, STAGES[Fault.PRODUCER_KILLED])


def kill_producer(fleet: Fleet, source: Path, target: Path, way: Way = Way.PRODUCER) -> None:
    """Start a job with a producer of its own, and kill it in the middle."""
    options = ["--model", HOP[0], "--from", HOP[1], "--to", HOP[2]]
    if way is Way.PRODUCER:
        options += ["--chunk-size", str(CHUNK), "--no-log"]
    else:
        options += ["--by-reference", "always"]
    command = [sys.executable, "-c", _RUN, "run", "--quiet", *options, str(source), str(target)]
    process = fleet.start_process("producer", command)
    wait_until(
        # It may end by itself, if it is started while another fault keeps it from beginning.
        lambda: has_output(target) or process.poll() is not None,
        "the producer has written",
    )
    process.send_signal(signal.SIGKILL)
    process.wait()


def partial_files(target: Path) -> list[Path]:
    """Return the partial files of runs that did not end well."""
    return list(target.parent.glob(f".{target.name}.*.partial"))


def has_output(target: Path) -> bool:
    """Whether a run has written something: with a log, something that is settled."""
    if beside(target).is_dir():
        return JobFolder(beside(target)).view().fold.ranges > 0
    return any(path.stat().st_size > 0 for path in partial_files(target))


def job_keys(fleet: Fleet) -> list[bytes]:
    """Return the keys of jobs in the store."""
    with fleet.valkey.client() as client:
        return list(client.scan_iter("pt:{*}:*"))
