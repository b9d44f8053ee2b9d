"""The runs of an audit, their processes, and the causes their differences point to.

Each run after the first changes one thing only, so the runs that differ point to the cause:

| run | process | hash seed | order |
|---|---|---|---|
| reference | first | 1 | as in the source |
| again | the same, a second later | 1 | each record twice in a row |
| fresh | another | 1 | as in the source |
| seed | another | 2 | as in the source |
| order | another | 1 | reversed |
| chunks | the same | 1 | every second chunk of seven |
"""

import contextlib
import enum
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, Final, Self

from pyrmute_tasks.audit.child import NO_STAGE, PROGRESS, Answer, Request
from pyrmute_tasks.audit.passes import Spot, Tally
from pyrmute_tasks.audit.report import Cause
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.errors import JobError

__all__ = ["PROCESSES", "RUNS", "Deadline", "Evidence", "cause_of", "examine", "try_out"]

PROCESSES: Final = 4
RUNS: Final = 7  # the most: the reference, twice again, and one of each other

_PAUSE_S: Final = 1.1  # lets a clock read to the second move on
_CHUNK_SIZE: Final = 7
_SEED: Final = 1
_OTHER_SEED: Final = 2
_PROGRAM: Final = "from pyrmute_tasks.audit.child import main; main()"


class Run(enum.Enum):
    """A kind of run, by what differs from the reference run."""

    AGAIN = enum.auto()
    FRESH = enum.auto()
    SEED = enum.auto()
    ORDER = enum.auto()


@dataclass(frozen=True, slots=True)
class Evidence:
    """The combined results of all runs.

    Attributes:
        reference: The first process' answer.
        differing: For each spot, the runs in which outputs differ, and the records.
        skipped: Runs of a record that were not compared to their end.
    """

    reference: Answer
    differing: dict[Spot, dict[Run, Tally]]
    skipped: int


class Deadline:
    """A time limit for all runs together.

    Args:
        timeout_s: The limit.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return max(0.0, self._ends - time.monotonic())


def cause_of(runs: frozenset[Run]) -> Cause:
    """Return the likely cause of differences in `runs`."""
    if Run.FRESH in runs:
        return Cause.NOT_DETERMINISTIC if Run.AGAIN in runs else Cause.PROCESS
    if Run.AGAIN in runs or Run.ORDER in runs:
        return Cause.STATE
    return Cause.PROCESS


def examine(request: Request, stages: tuple[str, ...], deadline: Deadline) -> Evidence:
    """Run a sample in several processes.

    Args:
        request: The work; its passes and its reference are set here.
        stages: The names of the stages, for errors.
        deadline: The time limit.

    Raises:
        JobError: If a process is killed, cannot import the manager, or takes too long.
    """
    count = len(request.records)
    straight = tuple(range(count))
    twice = tuple(index for index in straight for _ in range(2))
    every_second = tuple(index for index in straight if index // _CHUNK_SIZE % 2)
    with _Children(stages, deadline) as children:
        first = replace(request, passes=(twice,), pause_s=_PAUSE_S)
        reference = children.ask(first, _SEED)
        plain = replace(request, passes=(straight,), reference=reference.reference)
        turned = replace(plain, passes=(straight[::-1], every_second))
        seeded = replace(plain, other_seed=True)
        asked = [(plain, _SEED), (seeded, _OTHER_SEED), (turned, _SEED)]
        answers = children.ask_all(asked)
    differing: dict[Spot, dict[Run, Tally]] = {}
    for run, answer in zip(Run, [reference, *answers], strict=True):
        for tallies in answer.differing:
            for spot, tally in tallies.items():
                known = differing.setdefault(spot, {}).setdefault(run, tally)
                known.records |= tally.records
    return Evidence(reference, differing, sum(answer.skipped for answer in [reference, *answers]))


def try_out(request: Request, stages: tuple[str, ...], deadline: Deadline) -> Answer:
    """Run lines in a process of their own.

    Args:
        request: The lines.
        stages: The names of the stages, for errors.
        deadline: The time limit.

    Raises:
        JobError: If the process is killed, cannot import the manager, or takes too long.
    """
    with _Children(stages, deadline, "dry run") as children:
        return children.ask(request, _SEED)


# --- processes ----------------------------------------------------------------------------


class _Children:
    """Starts child processes, and kills the remaining ones when the context ends."""

    def __init__(self, stages: tuple[str, ...], deadline: Deadline, called: str = "audit") -> None:
        self._stages = stages
        self._called = called
        self._deadline = deadline
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def ask_all(self, asked: list[tuple[Request, int]]) -> list[Answer]:
        with ThreadPoolExecutor(min(len(asked), usable_cpus())) as pool:
            futures = [pool.submit(self.ask, request, seed) for request, seed in asked]
            try:
                return [future.result() for future in futures]
            except BaseException:  # interrupted or failed: end the others, which the pool awaits
                self._kill()
                raise

    def ask(self, request: Request, seed: int) -> Answer:
        life, held = os.pipe()
        with tempfile.TemporaryFile() as progress:
            progress.truncate(PROGRESS.size)
            try:
                process = self._start(seed, life, progress)
                answer = self._talk(process, request, progress)
            finally:
                os.close(life)
                os.close(held)
        if answer.error:
            raise JobError(f"a process of the {self._called} failed: {answer.error}")
        return answer

    def _start(self, seed: int, life: int, progress: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(seed),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        handles = (life, progress.fileno())
        # -P: a module in the current directory must not shadow the standard library.
        command = [sys.executable, "-P", "-c", _PROGRAM, *map(str, handles)]
        with self._lock:
            if self._is_over:
                raise JobError(f"the {self._called} was stopped")
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=handles,
                start_new_session=True,  # Ctrl-C goes to the parent only, which ends this
            )
            self._running.add(process)
        return process

    def _talk(
        self, process: subprocess.Popen[bytes], request: Request, progress: IO[bytes]
    ) -> Answer:
        try:
            text, _ = process.communicate(pickle.dumps(request), timeout=self._deadline.left_s)
        except subprocess.TimeoutExpired:
            raise JobError(
                f"the {self._called} took longer than {self._deadline.timeout_s:g} s; it was at "
                f"{self._place(request, progress)}. Try fewer records, or allow more time"
            ) from None
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)
        try:
            answer: Answer = pickle.loads(text)  # noqa: S301  # from our own child, over a private pipe
        except (EOFError, pickle.UnpicklingError):  # no answer, or a part of one
            raise JobError(
                f"{self._place(request, progress)} ended its process "
                f"({_exit_reason(process.returncode)}); look for a step that calls os._exit or "
                "needs more memory than there is"
            ) from None
        return answer

    def _place(self, request: Request, progress: IO[bytes]) -> str:
        progress.seek(0)
        index, stage = PROGRESS.unpack(progress.read(PROGRESS.size))
        if not (request.positions or request.places) or not self._stages:
            return "its beginning"
        if request.places:
            record = f"the record at {request.places[index]}"
        else:
            record = f"record {request.positions[index]}"
        return record if stage == NO_STAGE else f"{self._stages[stage]} of {record}"

    def _kill(self) -> None:
        with self._lock:
            self._is_over = True
            running = list(self._running)
        for process in running:
            _kill(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The whole session: a step may have started processes that still run.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _exit_reason(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
