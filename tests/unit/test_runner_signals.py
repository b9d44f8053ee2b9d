"""Signals that reach a worker's child, and steps that want them for themselves."""

import os
import signal
from collections.abc import Iterator

import pytest

from pyrmute_tasks.distributed.worker.runner_source import RunnerSource
from pyrmute_tasks.settings import Settings
from tests.people import manager

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """Handlers as the pool has them in its children; tells which were called."""
    called: list[int] = []
    numbers = (*SIGNALS, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    for number in SIGNALS:
        signal.signal(number, lambda number, _: called.append(number))
    yield called
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_handlers_that_a_step_installs_last_for_its_chunk_only(ended: list[int]) -> None:
    source = RunnerSource(manager, Settings())
    runner = source()
    for number in (*SIGNALS, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    assert source() is runner
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    assert ended == list(SIGNALS)
    assert callable(signal.getsignal(signal.SIGUSR1))
