"""Where the three processes of a job spend their time.

    python -m benchmarks.profile_run small [--records 1000000] [--kind lines] [--chunk-size 100]

Runs one job and samples, with py-spy, the process that produces and collects, a worker's main
process and that worker's child. Each sample counts for what its innermost known frame does.
A round trip to the store is the store's, also while its answer is awaited; waiting is for the
next task or outcome. py-spy has to be allowed to look into processes that it did not start: be
root, or set `kernel.yama.ptrace_scope` to 0.
"""

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import inputs, processes
from benchmarks.contenders.contest import WORKERS
from benchmarks.contenders.fleet import our_fleet
from benchmarks.workloads import NAMES, Workload
from pyrmute_tasks import Migrator

RESULTS: Final = inputs.CACHE / "profile.json"

_RATE: Final = 250  # samples a second
_ATTACH_TIMEOUT_S: Final = 30.0
_FRAMES: Final = 12
_PROCESSES: Final = ("producer and collector", "worker, main", "worker, child")

WAITING: Final = "waiting"
OTHER: Final = "other"
CATEGORIES: Final = (
    "decoding JSON",
    "steps",
    "validation",
    "serialisation",
    "splitting and joining lines",
    "garbage collection",
    "files",
    "frames and outcomes",
    "store",
    "broker",
    "Celery and kombu",
    "pool of the worker",
    "window and bookkeeping",
    "imports",
    OTHER,
    WAITING,
)

_RULES: Final = [
    (category, re.compile(pattern))
    for category, pattern in (
        # What a frame does, as "function (path:line)"; the first rule that fits. Innermost
        # frames are asked first: a rule for a caller is for what nothing inside it is known for.
        (WAITING, r"\b_worker \(.*concurrent/futures"),  # whoever lets the disk begin, for more
        (WAITING, r"\bConnection\._recv \(.*billiard/"),  # a child, for a task
        (WAITING, r"\b(poll|select|wait|_wait_for_tstate_lock|run_job) \("),
        ("imports", r"(<module>|\b_find_and_load|\b_load_unlocked) \("),
        ("garbage collection", r"plans/garbage_collection\.py"),
        ("decoding JSON", r"\bJSONDecoder\.|\bloads \(.*/json/"),
        # One frame decodes, validates and writes each record; what it calls in C shows as it.
        ("generated: decode, validate, write", r"\bmigrate_(one|many) \(.*pyrmute-tasks: "),
        ("splitting and joining lines", r"\bmigrate_lines \(.*/plan\.py"),
        ("steps", r"(examples|workloads)/[a-z_]+\.py"),
        ("serialisation", r"\b(pack_record|join_packed|pack|unpack|pack_each|decode_records) \("),
        ("frames and outcomes", r"(wire/frames|engine/chunks)\.py"),
        ("validation", r"local/batches\.py"),
        ("files", r"pyrmute_tasks/io/jsonl\.py"),
        ("store", r"distributed/(store|redis_retry)\.py"),
        ("pool of the worker", r"/billiard/|/celery/concurrency/"),
        ("broker", r"/kombu/transport/|/kombu/utils/eventio"),
        ("broker", r"producer/broker\.py"),
        ("Celery and kombu", r"/(celery|kombu|vine|amqp)/"),
        ("window and bookkeeping", r"pyrmute_tasks/|profile_run\.py"),
    )
]

_TAKES: Final = re.compile(r"\btake \(.*distributed/store/producer_side\.py")
_READS: Final = re.compile(r"\b(read\w*|recv\w*) \(.*/redis/")

Job = Callable[[Migrator], None]

Stack = tuple[str, ...]
"""Frames from the outermost to the innermost, as "function (path:line)"."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a process spent its time.

    Attributes:
        process: What it is called.
        shares: Category → share of the job's time.
        frames: The innermost frames that were found most, and their shares.
    """

    process: str
    shares: dict[str, float]
    frames: dict[str, float]


def main() -> None:
    options = _parse()
    if options.job:
        run_job(options)
        return
    told, profiles = profile(sys.argv[1:])
    print(
        f"{options.workload}, {options.kind}: {told['records']:,} records in "
        f"{told['seconds']:.2f} s while being sampled\n"
    )
    print("\n".join(_table(profiles)))
    report = {"job": told, "processes": [_as_json(one) for one in profiles]}
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Profile the processes of one job.")
    parser.add_argument("workload", choices=NAMES, nargs="?", default="small")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=["lines", "objects", "raw"], default="lines")
    parser.add_argument("--chunk-size", type=int)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the job, in a process of its own -------------------------------------------------------


def run_job(options: argparse.Namespace) -> None:
    """Start a fleet, tell who is there, and run the job when told to on stdin."""
    workload = Workload(options.workload)
    run = {"lines": _lines, "objects": _objects, "raw": _raw}[options.kind](workload, options)
    with our_fleet(workload, WORKERS) as fleet:
        main_pid = fleet.workers[0]
        print(json.dumps([main_pid, *processes.children_of(main_pid)]), flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        run(fleet.migrator)
        seconds = time.perf_counter() - began
        print(json.dumps({"records": options.records, "seconds": seconds}), flush=True)
        sys.stdin.readline()


def _lines(workload: Workload, options: argparse.Namespace) -> Job:
    source, size = inputs.source_of(workload.name, options.records), options.chunk_size

    def run(migrator: Migrator) -> None:
        with tempfile.TemporaryDirectory() as name:
            target = Path(name) / "output.jsonl"
            migrator.migrate_file(source, target, *workload.hop, chunk_size=size)

    return run


def _objects(workload: Workload, options: argparse.Namespace) -> Job:
    rows = _rows(workload, options.records)
    return lambda migrator: _take_all(
        migrator.migrate_batch_streaming(rows, *workload.hop, options.chunk_size)
    )


def _raw(workload: Workload, options: argparse.Namespace) -> Job:
    rows = _rows(workload, options.records)
    return lambda migrator: _take_all(
        migrator.migrate_batch_data_streaming(rows, *workload.hop, options.chunk_size)
    )


def _rows(workload: Workload, records: int) -> list[dict[str, Any]]:
    with inputs.source_of(workload.name, records).open("rb") as lines:
        return [json.loads(line) for line in lines]


def _take_all(outputs: Iterable[object]) -> None:
    for _ in outputs:
        pass


# --- sampling -------------------------------------------------------------------------------


def profile(arguments: list[str]) -> tuple[dict[str, Any], list[Profile]]:
    """Run the job that the arguments describe, and sample it.

    Args:
        arguments: Those of this program.

    Returns:
        What the job told, and the profile of each process.
    """
    command = [sys.executable, "-m", "benchmarks.profile_run", *arguments, "--job"]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=inputs.ROOT
        ) as job,
    ):
        assert job.stdin is not None
        assert job.stdout is not None
        pids = [job.pid, *json.loads(job.stdout.readline())]
        files = [Path(name) / f"{pid}.raw" for pid in pids]
        with contextlib.ExitStack() as stack:
            spies = [
                stack.enter_context(_spy(pid, file)) for pid, file in zip(pids, files, strict=True)
            ]
            print("go", file=job.stdin, flush=True)
            told = json.loads(job.stdout.readline())
            for spy in spies:
                spy.send_signal(signal.SIGINT)  # then it writes what it has seen
        print("done", file=job.stdin, flush=True)
        found = [
            _profile_of(process, list(_read(file)), told["seconds"])
            for process, file in zip(_PROCESSES, files, strict=True)
        ]
    return told, found


@contextlib.contextmanager
def _spy(pid: int, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Sample a process until the spy is interrupted; leaving waits for what it writes."""
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid)]
    options = ["--format", "raw", "--rate", str(_RATE), "--idle", "--threads", "--full-filenames"]
    with subprocess.Popen(
        [*command, *options, "--output", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as spy:
        assert spy.stdout is not None
        said = ""
        for line in spy.stdout:
            said += line
            if "Sampling process" in line:
                break
        else:
            sys.exit(f"py-spy cannot look into process {pid}:\n{said}")
        yield spy
        spy.communicate(timeout=_ATTACH_TIMEOUT_S)


def _read(file: Path) -> Iterator[tuple[Stack, int]]:
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        yield tuple(stack.split(";")), int(count)


# --- reckoning --------------------------------------------------------------------------------


def _profile_of(process: str, samples: Iterable[tuple[Stack, int]], seconds: float) -> Profile:
    """Return a process's profile; shares are of the job's time.

    It waits when it does nothing else: of what was sampled before the job began and after it
    had ended, that is nearly all.
    """
    spent: Counter[str] = Counter()
    frames: Counter[str] = Counter()
    for (_, *stack), count in samples:  # the outermost is the thread
        category = category_of(stack)
        if category != WAITING:
            spent[category] += count
            frames[_short(stack[-1])] += count
    total = max(seconds * _RATE, 1)
    spent[WAITING] = max(0, round(total) - spent.total())
    return Profile(
        process,
        {name: spent[name] / total for name in CATEGORIES if spent[name]},
        {frame: count / total for frame, count in frames.most_common(_FRAMES)},
    )


def category_of(stack: Iterable[str]) -> str:
    """Return what a stack was doing.

    Args:
        stack: Frames from the outermost to the innermost.
    """
    frames = list(stack)
    if not frames:
        return WAITING  # a thread that has only just begun, or is about to end
    if _READS.search(frames[-1]) and any(map(_TAKES.search, frames)):
        return WAITING  # the collector, for an outcome
    for frame in reversed(frames):
        for category, pattern in _RULES:
            if pattern.search(frame):
                return category
    return OTHER


def _short(frame: str) -> str:
    """Leave out of a frame's path what is this machine's own."""
    return re.sub(r"\(.*/(?=[^/]+/[^/]+$)", "(", frame)


def _table(profiles: list[Profile]) -> Iterator[str]:
    yield f"{'share of the time of the job':<28}" + "".join(
        f"{one.process:>26}" for one in profiles
    )
    for category in CATEGORIES:
        shares = [one.shares.get(category, 0.0) for one in profiles]
        if any(shares):
            yield f"{category:<28}" + "".join(f"{share:>26.1%}" for share in shares)
    for one in profiles:
        yield f"\n{one.process}: innermost frames"
        for frame, share in one.frames.items():
            yield f"  {share:>6.1%}  {frame}"


def _as_json(one: Profile) -> dict[str, Any]:
    return {"process": one.process, "shares": one.shares, "frames": one.frames}


if __name__ == "__main__":
    main()
