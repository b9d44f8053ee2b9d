"""Signals to a worker's child, and steps with handlers of their own."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from pyrmute_tasks.distributed.worker.runner_source import RunnerSource
from pyrmute_tasks.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """Handlers like the pool's in its children; records which were called."""
    called: list[int] = []
    numbers = (*SIGNALS, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    for number in SIGNALS:
        signal.signal(number, lambda number, _: called.append(number))
    yield called
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def source_of_runners() -> RunnerSource:
    source = RunnerSource(Settings(manager="tests.people:manager"))
    source.load()
    return source


def test_handlers_that_a_step_installs_last_for_its_chunk_only(ended: list[int]) -> None:
    source = source_of_runners()
    runner = source()
    for number in (*SIGNALS, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    assert source() is runner
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    assert ended == list(SIGNALS)
    assert callable(signal.getsignal(signal.SIGUSR1))


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGUSR1])
def test_fork_of_a_step_ends_by_a_signal_however_early(
    ended: list[int], number: signal.Signals
) -> None:
    """A pool that a step has forked waits for its processes after SIGTERM, whatever they do."""
    runner = source_of_runners()()
    runner._is_running = True  # as while the step runs
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                time.sleep(5)
            os._exit(0)
        os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == number
    runner._is_running = False
    assert ended == []
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {number}


def test_fork_keeps_a_handler_of_its_step(ended: list[int]) -> None:
    source_of_runners()()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        os._exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN)
    assert os.waitpid(pid, 0)[1] == 0
