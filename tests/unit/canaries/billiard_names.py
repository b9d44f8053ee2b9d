"""Undocumented behaviour of billiard and `multiprocessing` that workers rely on."""

import multiprocessing
import multiprocessing.process
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import billiard
import billiard.common
import billiard.einfo
import billiard.pool
import pytest
from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError

from pyrmute_tasks.distributed.internals.billiard_pool import (
    END_SIGNALS,
    SOFT_LIMIT_SIGNAL,
    allow_processes,
    crash_description,
)
from tests.unit.canaries.table import internal

WAIT_S: Final = 30.0

shared: Any = billiard.pool
signals: Any = billiard.common
einfo: Any = billiard.einfo


@internal(
    "billiard",
    "`pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT` (set for the whole process)",
    r"GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT",
    purpose="A child that ends waits 1 s for its last result to be read, and not 30 s: our results "
    "are in the store.",
    until="when billiard's limit is an option of the pool",
)
def check_retry_limit() -> None:
    looks: list[int] = []

    class Counter:
        @property
        def value(self) -> int:
            looks.append(1)
            return 0

    worker: Any = billiard.pool.Worker.__new__(billiard.pool.Worker)
    worker.on_ready_counter = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT", 3)
        patch.setattr(shared, "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL", 0)
        assert worker._ensure_messages_consumed(completed=1) is False
    assert len(looks) == 3


@internal(
    "billiard",
    "the text of `WorkerLostError`: `signal 9 (SIGKILL)`, `exitcode 3`",
    r"signal \(\\d\+\)",
    purpose="How a child died, for the failure of the record that killed it.",
    until="when the error has the status as an attribute",
)
def check_lost_text() -> None:
    with billiard.Pool(1, lost_worker_timeout=0.1) as pool:
        for kill, told in (
            ((os._exit, (3,)), "exit status 3"),
            ((_kill_self, ()), "signal 9 (SIGKILL)"),
        ):
            with pytest.raises((WorkerLostError, einfo.ExceptionWithTraceback)) as caught:
                pool.apply_async(*kill).get(WAIT_S)
            assert crash_description(caught.value) == told
    assert crash_description(ValueError("signal 9 (SIGKILL)")) is None


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@internal(
    "billiard",
    "`ExceptionWithTraceback.exc`",
    r'getattr\(error, "exc"',
    purpose="What `Request.on_failure` is given may be wrapped in it.",
    until="with `Request.on_failure`",
)
def check_wrapped() -> None:
    error = WorkerLostError("told")
    assert getattr(einfo.ExceptionWithTraceback(error, ""), "exc", None) is error
    try:
        raise error
    except WorkerLostError:
        info = einfo.ExceptionInfo()
    assert getattr(info.exception, "exc", info.exception) is error


@internal(
    "billiard",
    "`SIGUSR1` at the soft time limit, handled in the child",
    r"signal\.SIGUSR1",
    purpose="The child's handler is replaced: billiard's raises what a step may catch.",
    until="when Celery has a hook for the soft limit",
)
def check_soft_limit() -> None:
    assert shared.SIG_SOFT_TIMEOUT == SOFT_LIMIT_SIGNAL
    with billiard.Pool(1, soft_timeout=60) as pool:
        assert pool.apply_async(_soft_limit).get(WAIT_S) == "SoftTimeLimitExceeded"


def _soft_limit() -> str:
    try:
        os.kill(os.getpid(), SOFT_LIMIT_SIGNAL)
        signal.sigtimedwait([], 1)
    except SoftTimeLimitExceeded as error:
        return type(error).__name__
    return "nothing"


@internal(
    "billiard",
    "handlers of `SIGTERM`, `SIGHUP` and `SIGQUIT` in the child are functions that exit",
    r"END_SIGNALS: Final",
    purpose="They are called after the running chunk has been interrupted: their `SystemExit` must "
    "not look like the step's.",
    until="when Celery has a hook for a child's end",
)
def check_termination() -> None:
    with billiard.Pool(1) as pool:
        found = pool.apply_async(_terminations).get(WAIT_S)
    assert found["SIGTERM"] == -(256 - signal.SIGTERM)


def _terminations() -> dict[str, int]:
    found = {}
    for number in END_SIGNALS:
        handler: Any = signal.getsignal(number)
        if not callable(handler) or isinstance(handler, signal.Handlers):
            continue
        try:
            handler(number, None)
        except SystemExit as ended:
            found[number.name] = ended.code
        signals._should_have_exited[0] = False
        signal.signal(number, handler)
    return found  # type: ignore[return-value]  # these are numbers


@internal(
    "billiard",
    '`current_process()._config["daemon"]`',
    r'_config\["daemon"\]',
    purpose="A child of the pool no longer passes for a daemon, since steps may start processes.",
    until="when the pool has an option for it",
)
def check_daemon() -> None:
    with billiard.Pool(1) as pool:
        assert pool.apply_async(_is_daemon, (False,)).get(WAIT_S) is True
        assert pool.apply_async(_is_daemon, (True,)).get(WAIT_S) is False


def _is_daemon(is_allowed: bool) -> bool:
    if is_allowed:
        allow_processes()
    return bool(billiard.current_process().daemon)


@internal(
    "python",
    "`multiprocessing.process._current_process`",
    r"library\._current_process",
    purpose="Steps may start processes: billiard puts its own object there, a daemon, and "
    "`multiprocessing` lets daemons have no children.",
    until="when billiard leaves it alone",
)
def check_current_process() -> None:
    assert vars(multiprocessing.process)["_current_process"] is multiprocessing.current_process()
    with billiard.Pool(1) as pool:
        before = pool.apply_async(_start_child, (multiprocessing.Process, False)).get(WAIT_S)
        assert before == "AssertionError"
        assert pool.apply_async(_start_child, (multiprocessing.Process, True)).get(WAIT_S) == "0"


def _start_child(kind: Callable[..., Any], is_allowed: bool) -> str:
    if is_allowed:
        allow_processes()
    try:
        child = kind(target=SimpleNamespace)
        child.start()
        child.join()
    except Exception as error:
        return type(error).__name__
    return str(child.exitcode)
