"""The long form: every fault several times, then random schedules of several at a time.

    python -m tests.chaos.schedules [--seed S] [--runs 3] [--schedules 50] [--faults NAME …]
                                    [--way producer|reference]
    python -m tests.chaos.schedules --flights [--kills 30] [--rows N]

Half of the runs go through the producer, half by reference; `--way` selects one. With `--flights`
it is the year of flights instead, see `tests/chaos/year.py`.

Ends with a table, and with status 1 if any run has a problem. What a run
did wrong is printed with its seed, and its files are kept. Schedule number n of seed s is
schedule number 0 of seed s + n with its `--way`, so that one can be run again by itself.
"""

import argparse
import faulthandler
import logging
import random
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyrmute_tasks import JobLostError, Settings
from tests.chaos import faults, year
from tests.chaos.faults import LONG, STAGES, Fault, run_fault, with_roots
from tests.chaos.runs import CHUNK, MANAGER, Damage, Feed, JobHasEndedError, Result, Run, Way
from tests.chaos.runs import load_flights as load
from tests.chaos.submitted import run_submitted
from tests.conftest import strip_settings
from tests.fleets import Fleet, RabbitMQ, find_server
from tests.fleets.namespaces import FAR, TwoHosts

HANG_S: Final = 300.0
STALL_S: Final = 20.0  # for each fault of a schedule, since they may follow each other

_POISONS: Final = (Fault.POISON_EXITS, Fault.POISON_ALLOCATES, Fault.POISON_LOOPS)
_ENDINGS: Final = (Fault.REDIS_EMPTIED, *_POISONS)
_ALONE: Final = (Fault.REDIS_FAR, Fault.CONSUMERS_CANCELLED)
_MIXABLE: Final = tuple(
    fault
    for fault in Fault
    if fault not in (*_ENDINGS, *_ALONE)
    and STAGES[fault].apart is None
    and STAGES[fault].manager == MANAGER
    and not (STAGES[fault].mounts or STAGES[fault].may_end_with)
)
_LIMITS: Final[dict[str, Any]] = {
    "worker_wait_s": 60.0,
    "soft_time_limit_s": 1.0,
    "time_limit_s": 3.0,
    "memory_limit_bytes": 2 * 1024**3,
}


@dataclass(frozen=True)
class Schedule:
    """Faults of one job, most of them at times of their own.

    Attributes:
        way: How records come to the workers.
        on_rabbitmq: Messages go through RabbitMQ.
        faults: Each with the second after the job's begin when it is due.
        ending: A fault that ends the job, after the others or among them.
        poison_at: Index of the record that kills its process, if that is the ending.
    """

    way: Way
    on_rabbitmq: bool
    faults: tuple[tuple[Fault, float], ...]
    ending: Fault | None
    poison_at: int

    @classmethod
    def draw(cls, choose: random.Random, way: Way, *, has_rabbitmq: bool) -> "Schedule":
        on_rabbitmq = choose.random() < 0.3 and has_rabbitmq
        fit = [fault for fault in _MIXABLE if _fits(fault, on_rabbitmq, way)]
        drawn = choose.sample(fit, choose.randint(1, 4))
        ending = choose.choice(_ENDINGS) if choose.random() < 0.25 else None
        times = tuple((fault, round(choose.uniform(0.5, 6.0), 1)) for fault in drawn)
        # By reference a row takes ten times as long.
        poison_at = choose.randrange(500, 4000) // (10 if way is Way.REFERENCE else 1)
        return cls(way, on_rabbitmq, times, ending, poison_at)

    def __str__(self) -> str:
        told = [f"{fault} at {at:.1f} s" for fault, at in self.faults]
        if self.ending in _POISONS:
            told.append(f"{self.ending} at record {self.poison_at}")
        elif self.ending:
            told.append(f"then {self.ending}")
        broker = "RabbitMQ" if self.on_rabbitmq else "Redis"
        return f"{broker}{_told(self.way)}: {', '.join(told)}"

    def includes(self, fault: Fault) -> bool:
        return fault in dict(self.faults)


def _told(way: Way) -> str:
    return ", by reference" if way is Way.REFERENCE else ""


def _fits(fault: Fault, on_rabbitmq: bool, way: Way) -> bool:
    if way not in STAGES[fault].ways:
        return False
    return STAGES[fault].on_rabbitmq if on_rabbitmq else STAGES[fault].on_redis


# --- one schedule ---------------------------------------------------------------------------


def run_schedule(schedule: Schedule, directory: Path, seed: int) -> tuple[Result, list[str]]:
    """Run a job with a schedule's faults in it; return its result and its problems."""
    choose = random.Random(seed)
    flights = load()
    data = directory / "data"
    data.mkdir()
    crashes = data / "crashes"
    poison = {}
    if schedule.ending in _POISONS:
        deed, _ = faults.DEEDS[schedule.ending]
        poison[schedule.poison_at] = faults.poisoned(flights.rows[0], deed, crashes)
    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitMQ()) if schedule.on_rabbitmq else None
        fleet = Fleet(
            directory / "fleet",
            MANAGER,
            workers=0 if schedule.includes(Fault.WORKER_LATE) else 2,
            settings=with_roots(Settings(**_LIMITS), schedule.way, data),
            is_supervised=True,
            rabbitmq=rabbitmq,
        )
        stack.enter_context(fleet)
        run = Run(
            fleet,
            Feed(data / "in.jsonl", flights, choose.randrange(len(flights)), poison),
            choose,
            deploys=3,
            gone_s=8.0,
            through_proxy=schedule.includes(Fault.CONNECTION_CUT),
            doubles_messages=schedule.includes(Fault.DELIVERED_TWICE),
            is_mixed=True,
            way=schedule.way,
            resumes=schedule.ending not in _POISONS,
        )
        result = run.execute(lambda run: _do_all(run, schedule, data))
    return result, _problems(result, schedule)


def _do_all(run: Run, schedule: Schedule, data: Path) -> None:
    """Do all harm of a schedule, each in a thread of its own."""
    errors: list[BaseException] = []

    def do(fault: Fault, at_s: float) -> None:
        try:
            run.pause(at_s)
            _do(fault, run, data)
        except BaseException as error:
            errors.append(error)

    run.begin_fault()
    if schedule.includes(Fault.WORKER_LATE):
        _start_late(run)
    threads = [threading.Thread(target=do, args=each) for each in schedule.faults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if schedule.ending is None or not isinstance(error, JobHasEndedError):
            raise error
    if schedule.ending is Fault.REDIS_EMPTIED:
        faults.empty_redis(run)
    elif schedule.ending is not None:
        run.wait_until(lambda: False, "the poison has ended the job")


def _do(fault: Fault, run: Run, data: Path) -> None:
    if fault is Fault.PRODUCER_KILLED:
        _kill_another_producer(run, data)
    elif fault not in (Fault.WORKER_LATE, Fault.DELIVERED_TWICE):
        harm = STAGES[fault].harm
        assert harm is not None
        harm(run)


def _start_late(run: Run) -> None:
    with run.outage():
        run.pause(1.0)
        for worker in [run.fleet.launch_worker() for _ in range(2)]:
            run.fleet.wait_for(worker)


def _kill_another_producer(run: Run, data: Path) -> None:
    """Kill the producer of another job on the same fleet, which must not affect this one."""
    other = data / "other"
    other.mkdir()
    feed = Feed(other / "in.jsonl", load(), 0)
    feed.grow(400 * CHUNK)
    faults.kill_producer(run.fleet, feed.path, other / "out.jsonl", run.way)


def _problems(result: Result, schedule: Schedule) -> list[str]:
    found = []
    if result.damage != Damage():
        found.append(f"the output is not the sequential one: {result.damage}")
    wanted: tuple[type[Exception], ...] = ()
    if schedule.ending is not None:
        is_poison = schedule.ending in _POISONS
        wanted = STAGES[schedule.ending].ends_with if is_poison else (JobLostError,)
    if type(result.error) not in (wanted or (type(None),)):
        found.append(f"the job ended with {result.error!r}")
    elif schedule.ending in _POISONS:
        named = getattr(result.error, "record_index", None)
        if (named, result.records) != (schedule.poison_at, schedule.poison_at):
            found.append(f"record {named} is named, and {result.records} are before it")
    if not wanted and result.is_cut_short:
        found.append("the job was over before the harm was done")
    limit_s = STALL_S * (len(schedule.faults) + 1)
    if result.stall_s > limit_s:
        found.append(f"it stalled for {result.stall_s:.1f} s, more than {limit_s:.1f} s")
    return found


# --- all of them ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One run of the long form.

    Attributes:
        row: Where it counts in the table.
        seed: Of its choices.
        way: How records come to the workers.
        fault: The fault; None for a random schedule.
        on_rabbitmq: Messages go through RabbitMQ; a schedule decides that itself.
        has_rabbitmq: There is one on this machine.
    """

    row: str
    seed: int
    way: Way
    fault: Fault | None = None
    on_rabbitmq: bool = False
    has_rabbitmq: bool = False


@dataclass(frozen=True)
class Told:
    """The result of a task.

    Attributes:
        text: What it did.
        result: None if it came to nothing.
        problems: What is wrong with that.
        files: What it left behind, if anything is wrong.
    """

    text: str
    result: Result | None
    problems: tuple[str, ...]
    files: str = ""

    @property
    def summary(self) -> str:
        result = self.result
        if result is None:
            return "no result"
        told = [f"{result.records} records", f"longest stall {result.stall_s:.1f} s"]
        if result.is_resumed:
            told.append(f"resumed after {type(result.error).__name__}")
        if result.outage_s:
            told.append(f"beside {result.outage_s:.1f} s of outage")
        if result.restarts:
            told.append(f"workers started again: {result.restarts}")
        if result.leaving_s:
            told.append(f"asked to leave, a worker took up to {result.leaving_s:.1f} s")
        return ", ".join(told)


class HangError(BaseException):
    """A run takes much longer than any should."""


def run_task(task: Task) -> Told:
    """Run a task in this process."""
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    text = task.row
    try:
        with _alarm(directory), _log_to(directory / "producer.log"):
            if task.fault is None:
                choose = random.Random(task.seed)
                schedule = Schedule.draw(choose, task.way, has_rabbitmq=task.has_rabbitmq)
                text = str(schedule)
                result, problems = run_schedule(schedule, directory, task.seed)
            else:
                result, problems = _run_single(task, directory)
    except (Exception, HangError) as error:
        return Told(text, None, (f"{type(error).__name__}: {error}",), str(directory))
    if problems:
        return Told(text, result, tuple(problems), str(directory))
    shutil.rmtree(directory)
    return Told(text, result, ())


def _run_single(task: Task, directory: Path) -> tuple[Result, list[str]]:
    assert task.fault is not None
    with ExitStack() as stack:
        is_apart = STAGES[task.fault].apart is not None
        hosts = stack.enter_context(TwoHosts()) if is_apart else None
        server = RabbitMQ(FAR) if is_apart else RabbitMQ()
        rabbitmq = stack.enter_context(server) if task.on_rabbitmq else None
        return run_fault(
            task.fault,
            directory,
            load(),
            task.seed,
            scale=LONG,
            rabbitmq=rabbitmq,
            hosts=hosts,
            way=task.way,
        )


@contextmanager
def _alarm(directory: Path) -> Iterator[None]:
    """Interrupt a hanging run, and print its stacks."""

    def interrupt(*_: object) -> None:
        with (directory / "hang.txt").open("w") as file:
            faulthandler.dump_traceback(file)
        raise HangError(f"no result after {HANG_S:.0f} s")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def tasks(options: argparse.Namespace, *, has_rabbitmq: bool) -> list[Task]:
    """Return everything that is to be run."""
    choose = random.Random(options.seed)
    found = []
    for fault in options.faults:
        stage = STAGES[fault]
        if not stage.can_run:
            print(f"left out, no namespaces can be made here: {fault}", flush=True)
            continue
        brokers = [False] * stage.on_redis
        brokers += [True] * (stage.on_rabbitmq and has_rabbitmq)
        for on_rabbitmq in brokers:
            row = f"{fault}, on RabbitMQ" if on_rabbitmq else str(fault)
            for way in _ways(options.runs, options.way, choose):
                seed = choose.getrandbits(32)  # drawn for all, so that ways change no seed
                if way in stage.ways:
                    found.append(Task(f"{row}{_told(way)}", seed, way, fault, on_rabbitmq))
    for number, way in enumerate(_ways(options.schedules, options.way, None)):
        row = f"random schedules{_told(way)}"
        found.append(Task(row, options.seed + number, way, has_rabbitmq=has_rabbitmq))
    return found


def _ways(runs: int, only: Way | None, choose: random.Random | None) -> list[Way]:
    """Return the way of each run: one of them, or both in turn from a first one that is drawn."""
    if only is not None:
        return [only] * runs
    ways = list(Way)
    first = choose.randrange(len(ways)) if choose is not None else 0
    return [ways[(first + number) % len(ways)] for number in range(runs)]


# --- the table ------------------------------------------------------------------------------

_COLUMNS: Final = ("runs", "lost", "doubled", "out of order", "wrong bytes", "longest stall")


def table(told: dict[str, list[Told]]) -> str:
    """Return the results of all runs as a table."""
    width = max(map(len, told), default=0)
    lines = [f"{'fault':<{width}}  " + "  ".join(_COLUMNS)]
    for row, runs in told.items():
        results = [run.result for run in runs if run.result is not None]
        damages = [result.damage for result in results]
        values = [
            len(runs),
            sum(damage.lost for damage in damages),
            sum(damage.doubled for damage in damages),
            sum(damage.out_of_order for damage in damages),
            sum(damage.wrong_bytes for damage in damages),
            f"{max((result.stall_s for result in results), default=0.0):.1f} s",
        ]
        cells = [f"{value:>{len(title)}}" for value, title in zip(values, _COLUMNS, strict=True)]
        wrong = sum(bool(run.problems) for run in runs)
        lines.append(f"{row:<{width}}  " + "  ".join(cells) + (f"  {wrong} WRONG" * bool(wrong)))
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break a fleet on purpose, again and again.")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    parser.add_argument("--runs", type=int, default=3, help="of every fault")
    parser.add_argument("--schedules", type=int, default=50, help="of several faults at a time")
    parser.add_argument("--faults", nargs="*", type=_fault, default=list(Fault), metavar="NAME")
    parser.add_argument("--way", type=Way, choices=list(Way), help="of all records, not half each")
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at a time")
    parser.add_argument("--flights", action="store_true", help="the year of flights instead")
    parser.add_argument("--service", action="store_true", help="submitted jobs instead")
    parser.add_argument("--moments", type=int, default=20, help="at which these are harmed")
    parser.add_argument("--published", type=Path, help="their archive")
    parser.add_argument("--kills", type=int, default=30, help="of the year of flights, each way")
    parser.add_argument("--rows", type=int, help="of the year of flights, if not all")
    return parser.parse_args()


def _fault(name: str) -> Fault:
    try:
        return Fault[name.upper()]
    except KeyError:
        names = ", ".join(fault.name.lower() for fault in Fault)
        raise argparse.ArgumentTypeError(f"there is {names}") from None


def main() -> None:
    options = _parse()
    strip_settings()
    if options.flights:
        sys.exit(
            year.main(options.published, options.seed, options.kills, options.rows, options.way)
        )
    if options.service:
        run_submitted(options.moments, options.seed)
        return
    has_rabbitmq = find_server() is not None and shutil.which("epmd") is not None
    print(f"seed {options.seed}{'' if has_rabbitmq else '; no RabbitMQ is installed'}", flush=True)
    began = time.monotonic()
    todo = tasks(options, has_rabbitmq=has_rabbitmq)
    told: dict[str, list[Told]] = defaultdict(list, {task.row: [] for task in todo})
    with ProcessPoolExecutor(options.jobs) as pool:
        futures: dict[Any, Task] = {pool.submit(run_task, task): task for task in todo}
        for number, future in enumerate(as_completed(futures), start=1):
            task, one = futures[future], future.result()
            told[task.row].append(one)
            print(f"{number}/{len(todo)} seed {task.seed}: {one.text}: {one.summary}", flush=True)
            for problem in one.problems:
                print(f"  WRONG: {problem}; see {one.files}", flush=True)
    print(f"\n{table(told)}\n\n{time.monotonic() - began:.0f} s, seed {options.seed}")
    sys.exit(any(one.problems for runs in told.values() for one in runs))


if __name__ == "__main__":
    main()
