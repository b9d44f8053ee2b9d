"""Chunks in a fork of this process, which may end, hang or take too long."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.local.forked import DoneExecutor, run_forked
from pyrmute_tasks.wire.frames import FrameKind, encode_frame
from tests.conftest import descendants

CHUNKS = [Chunk(index, 2 * index, 2, b"payload") for index in range(3)]


def migrated(chunk: Chunk[bytes]) -> Outcome[bytes]:
    text = f"{chunk.index} by {os.getpid()}\n".encode() * chunk.count
    return Outcome(chunk.index, chunk.count, encode_frame(FrameKind.LINES, chunk.count, text))


def test_outcomes_come_from_one_other_process() -> None:
    before = descendants(os.getpid())
    outcomes = run_forked(CHUNKS, migrated, 30.0)
    assert outcomes is not None
    assert sorted(outcomes) == [0, 1, 2]
    texts = [bytes(outcomes[index].outputs.payload).decode().split() for index in range(3)]
    assert [text[0] for text in texts] == ["0", "1", "2"]
    (child,) = {text[2] for text in texts}
    assert int(child) != os.getpid()
    assert set(descendants(os.getpid())) <= set(before)


def test_nothing_is_run_behind_a_failure_that_ends_the_job() -> None:
    def fail(chunk: Chunk[bytes]) -> Outcome[bytes]:
        failure = RecordFailure.of(chunk.start, Stage.STEP, "", ValueError("x"))
        frame = encode_frame(FrameKind.LINES, 0, b"")
        return Outcome(chunk.index, 0, frame, (failure,), is_final=True)

    outcomes = run_forked(CHUNKS, fail, 30.0)
    assert outcomes is not None
    assert list(outcomes) == [0]
    assert outcomes[0].failures[0].index == 0


def kill(_: Chunk[bytes]) -> Outcome[bytes]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def leave(_: Chunk[bytes]) -> Outcome[bytes]:
    os._exit(0)


def give_up(_: Chunk[bytes]) -> Outcome[bytes]:
    sys.exit(3)


def hang(_: Chunk[bytes]) -> Outcome[bytes]:
    time.sleep(60)
    raise AssertionError


def run_out(_: Chunk[bytes]) -> Outcome[bytes]:
    raise MemoryError


@pytest.mark.parametrize("step", [kill, give_up, hang, run_out])
def test_fork_that_comes_to_nothing(step: Callable[[Chunk[bytes]], Outcome[bytes]]) -> None:
    before = descendants(os.getpid())
    began = time.monotonic()
    assert run_forked(CHUNKS, step, 0.5) is None
    assert time.monotonic() - began < 30
    assert set(descendants(os.getpid())) <= set(before)


def test_fork_that_leaves_early_has_not_done_all() -> None:
    """A step that calls ``os._exit(0)`` looks like success to whoever asks for the status only."""
    assert run_forked(CHUNKS, leave, 30.0) is None


@pytest.mark.parametrize("ends", [False, True])
def test_forks_of_a_step_write_no_outcomes(ends: bool) -> None:
    def fork(chunk: Chunk[bytes]) -> Outcome[bytes]:
        child = os.fork() if chunk.index == 1 else 1
        if not child and ends:
            sys.exit(0)
        return migrated(chunk)

    outcomes = run_forked(CHUNKS, fork, 30.0)
    assert outcomes is not None
    assert sorted(outcomes) == [0, 1, 2]
    texts = [bytes(outcomes[index].outputs.payload).decode().split() for index in range(3)]
    assert len({text[2] for text in texts}) == 1


MAY_FORK = """
import signal, threading
from pyrmute_tasks.local.forked import may_fork

print(may_fork())
before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(may_fork())
signal.signal(signal.SIGCHLD, before)
ended = threading.Event()
thread = threading.Thread(target=ended.wait)
thread.start()
print(may_fork())
ended.set()
thread.join()
print(may_fork())
"""


def test_process_with_threads_or_unseen_children_does_not_fork() -> None:
    """A process of its own answers: that of the tests may have threads of other tests."""
    done = subprocess.run(
        [sys.executable, "-c", MAY_FORK], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "False", "False", "True"]


def test_done_executor_hands_out_what_was_submitted() -> None:
    outcomes = run_forked(CHUNKS, migrated, 30.0)
    assert outcomes is not None
    executor = DoneExecutor({index: outcomes[index] for index in (0, 1)})
    for chunk in CHUNKS:
        executor.submit(chunk)
    executor.cancel(1)
    assert [outcome.index for outcome in executor.collect(wait=True)] == [0]
    assert list(executor.collect(wait=False)) == []
