"""Undocumented behaviour of Celery's worker that its heartbeat and chunk runner rely on."""

import inspect
from typing import Any, Final

import pytest
from celery.apps.worker import Worker
from celery.bootsteps import StartStopStep
from celery.concurrency.base import BasePool
from celery.concurrency.prefork import TaskPool
from celery.exceptions import CPendingDeprecationWarning, WorkerShutdown
from celery.utils.dispatch import Signal
from celery.utils.text import str_to_list
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.consumer import consumer as consumer_module
from celery.worker.request import Request

from tests.unit.canaries.celery_worker import app_of, facts
from tests.unit.canaries.memory_worker import STATUS
from tests.unit.canaries.table import internal

REQUEST_CLASS: Final = "when Celery tells an application of a child's death, by a signal"
shared: Any = state
as_list: Any = str_to_list


@internal(
    "celery",
    "`worker.state.reserved_requests`, `active_requests`",
    r"state\.reserved_requests",
    purpose="The heartbeat tells which tasks the worker has.",
    until="when Celery has a public list of a worker's tasks",
)
def check_requests() -> None:
    request = _request()
    state.task_reserved(request)
    assert request in state.reserved_requests
    state.task_accepted(request)
    assert request in state.active_requests
    state.task_ready(request)
    assert request not in {*state.reserved_requests, *state.active_requests}
    assert facts()["reserved"]


def _request() -> Any:
    return type("FakeRequest", (), {"id": "canary", "name": "canary"})()


@internal(
    "celery",
    "`worker.state.task_ready`",
    r"task_ready",
    purpose="Takes a task off the worker's lists, before it is rejected.",
    until=REQUEST_CLASS,
)
def check_task_ready() -> None:
    request = _request()
    state.task_reserved(request)
    state.task_ready(request)
    assert request not in state.reserved_requests
    assert request.id not in state.requests
    state.task_ready(request)  # twice, as when `reject` follows


@internal(
    "celery",
    "`worker.state.should_stop`, `maybe_shutdown`",
    r"should_stop|maybe_shutdown",
    purpose="Ends the worker with a status, from the heartbeat's thread; pauses look at it.",
    until="when a worker can be stopped from a thread",
)
def check_should_stop() -> None:
    state.maybe_shutdown()
    shared.should_stop = STATUS
    try:
        with pytest.raises(WorkerShutdown) as caught:
            state.maybe_shutdown()
    finally:
        shared.should_stop = None
    assert caught.value.code == STATUS
    assert facts()["exitcode"] == STATUS


@internal(
    "celery",
    "`Request.on_failure`, `Request.args`",
    r"def on_failure",
    purpose="Called in the main process when a child has died, with `WorkerLostError`, maybe "
    "wrapped in an object with `exc`, so that the collector is notified of the crash at once.",
    until=REQUEST_CLASS,
)
def check_on_failure() -> None:
    assert facts()["lost"] is True
    assert facts()["lost_args"] == [1, "a"]
    assert list(inspect.signature(Request.on_failure).parameters) == [
        "self",
        "exc_info",
        "send_failed_event",
        "return_ok",
    ]


@internal(
    "celery",
    "`Request.on_timeout`",
    r"def on_timeout",
    purpose="Called when a child is killed at the hard time limit, so that the collector is "
    "notified at once.",
    until=REQUEST_CLASS,
)
def check_on_timeout() -> None:
    assert facts()["timeout"] == 0.3


@internal(
    "celery",
    "`Request.reject(requeue=True)`",
    r"self\.reject\(requeue",
    purpose="Returns a task to the broker, if the store cannot be told of a child's death.",
    until=REQUEST_CLASS,
)
def check_reject() -> None:
    rejected: list[bool] = []
    kind: Any = Request
    request = kind.__new__(kind)
    request._on_reject = lambda *settings: rejected.append(settings[-1])
    request._connection_errors = ()
    request._eventer = None
    request.acknowledged = False
    request.reject(requeue=True)
    assert rejected == [True]


@internal(
    "celery",
    "`TaskPool._pool._pool`",
    r"\._pool\._pool",
    purpose="The children's process ids, to kill those that are frozen.",
    until="when Celery does so itself, or has a public list",
)
def check_pool() -> None:
    assert len(facts()["pids"]) == 1
    assert isinstance(facts()["pids"][0], int)


@internal(
    "celery",
    "`TaskPool.maintain_pool`",
    r"maintain_pool",
    purpose="Replaces dead children every quarter of a second instead of every five.",
    until="when this interval is a setting",
)
def check_maintain_pool() -> None:
    assert callable(BasePool.maintain_pool)
    assert facts()["maintains"] is True
    assert "self.maintain_pool = P.maintain_pool" in inspect.getsource(TaskPool.on_start)


@internal(
    "celery",
    "`apps.worker.Worker.setup_instance`, `pool_cls`; `Celery.Worker`, `subclass_with_self`",
    r"def setup_instance|subclass_with_self",
    purpose="A worker ends at once if its options name another pool or queue.",
    until="when Celery can restrict a worker's options",
)
def check_setup_instance() -> None:
    assert facts()["pool_cls"] == "prefork"
    assert facts()["queues"] == "celery"
    assert facts()["app_of_class"] is True
    kind: Any = app_of().Worker
    assert issubclass(kind, Worker)


@internal(
    "celery",
    "`utils.text.str_to_list`",
    r"str_to_list",
    purpose="Reads the options `-Q` and `-X` as Celery does.",
    until="when the check of these options goes",
)
def check_str_to_list() -> None:
    assert as_list("a,b") == ["a", "b"]
    assert as_list(["a"]) == ["a"]
    assert as_list(None) is None


@internal(
    "celery",
    "`bin.celery.celery`: `params[0]` is the application; `envvar` of the options",
    r"celery\.bin\.celery",
    purpose="Runs Celery's command line for our application, with its exit status and without its "
    "environment variables (`APP`, `BROKER_URL`…).",
    until="when `Celery.start` returns the status and ignores the environment",
)
def check_command_line() -> None:
    from celery.bin.celery import celery as celery_command  # slow

    command: Any = celery_command
    assert command.params[0].name == "app"
    names = {option.envvar for option in command.params}
    assert {"APP", "BROKER_URL"} <= names


@internal(
    "celery",
    "`bin.worker.worker`: its context's `obj` is a `bin.base.CLIContext`; `bin.base` goes without "
    "pygments",
    r"celery\.bin\.(worker|base)",
    purpose="Runs the command `worker` without importing all others and their plugins, which takes "
    "longer than the rest of Celery, nor the colours that these print with.",
    until="when Celery imports its commands lazily",
)
def check_worker_command() -> None:
    from celery.bin import base  # slow
    from celery.bin.base import CLIContext  # slow
    from celery.bin.worker import worker  # slow

    command: Any = worker
    assert {"hostname", "concurrency", "loglevel", "pool"} <= {p.name for p in command.params}
    assert "except ImportError:\n    def highlight(" in inspect.getsource(base)
    assert set(inspect.signature(CLIContext).parameters) == {"app", "no_color", "workdir", "quiet"}
    source = inspect.getsource(command.callback)
    assert "app = ctx.obj.app" in source
    assert "ctx.exit(worker.exitcode)" in source


@internal(
    "celery",
    "`Consumer` steps: `parent.hub`, `parent.pool`",
    r"parent\.hub",
    purpose="`Housekeeping` sets timers of the event loop after each connection.",
    until="when the rows about timers and the pool have gone",
)
def check_steps() -> None:
    assert "self.hub = hub" in inspect.getsource(Consumer.__init__)
    assert "self.pool = pool" in inspect.getsource(Consumer.__init__)
    assert callable(StartStopStep.start)


@internal(
    "celery",
    "`CPendingDeprecationWarning` at each lost connection (filtered for the whole process)",
    r"CPendingDeprecationWarning",
    purpose="The warning is about a setting that is chosen on purpose; it would be logged at each "
    "outage.",
    until="with Celery 6, which changes the setting's default",
)
def check_warning() -> None:
    assert issubclass(CPendingDeprecationWarning, PendingDeprecationWarning)
    source = inspect.getsource(consumer_module)
    assert "warnings.warn(CANCEL_TASKS_BY_DEFAULT, CPendingDeprecationWarning)" in source


@internal(
    "celery",
    "`utils.dispatch.Signal`",
    r"celery\.utils\.dispatch",
    purpose="`record_failed` is a signal like those of `celery.signals`, which are made of it.",
    until="when Celery documents how to make a signal",
)
def check_signal() -> None:
    heard: list[Any] = []

    def broken(**_: Any) -> None:
        raise LookupError

    def good(record: int, **_: Any) -> None:
        heard.append(record)

    signal: Any = Signal(name="canary", providing_args=["record"])
    signal.connect(broken)
    assert signal.connect(good) is good  # it decorates
    signal.send(sender=object(), record=7)
    assert heard == [7]


@internal(
    "celery",
    "`Worker.on_before_init` is called after `import_modules` has been sent",
    r"hooks\.load\(\)",
    purpose="A manager is imported when Celery's support of Django has set it up, on that signal.",
    until="when Celery has a public signal between that and forking children",
)
def check_load_after_imports() -> None:
    assert facts()["imported_before_init"]
