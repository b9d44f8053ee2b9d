"""What Celery does not document, and workers and producers rely on."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

import pytest
from celery import Celery
from celery.apps.worker import Worker
from celery.bootsteps import StartStopStep
from celery.concurrency.base import BasePool
from celery.concurrency.prefork import TaskPool
from celery.exceptions import CPendingDeprecationWarning, WorkerShutdown
from celery.loaders.app import AppLoader
from celery.utils.text import str_to_list
from celery.worker import control as control_module
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.consumer import consumer as consumer_module
from celery.worker.request import Request

from tests.conftest import ROOT, strip_settings
from tests.unit.canaries.memory_worker import STATUS
from tests.unit.canaries.table import internal

CONSUMER_CLASS: Final = "when Celery can check a message before it uses it"
REQUEST_CLASS: Final = "when Celery tells an application of a child's death, by a signal"
ENVIRONMENT: Final = "when Celery can be told to ignore the environment"

shared: Any = state
control: Any = control_module
as_list: Any = str_to_list


@cache
def facts() -> dict[str, Any]:
    """What a worker did that ran without a server."""
    strip_settings()
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.canaries.memory_worker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def app_of(**conf: Any) -> Any:
    made: Any = Celery("canaries", broker="memory://", set_as_current=False)
    made.conf.update(conf)
    return made


# --- the consumer -------------------------------------------------------------------------


@internal(
    "celery",
    "`Consumer.create_task_handler`",
    r"def create_task_handler",
    purpose="Its result is called with every message: ours rejects bad messages before Celery sees "
    "them, since many would end the worker.",
    until=CONSUMER_CLASS,
)
def check_task_handler() -> None:
    assert "create_task_handler" in facts()["hooks"]
    assert facts()["headers"]["task"] in ("die", "sleep")


@internal(
    "celery",
    "headers and body of a task message: `stamps`, `stamped_headers`, `timelimit`, `argsrepr`",
    r'headers\.get\("stamps"\)',
    purpose="The message filter accepts only the values that a producer's Celery writes.",
    until=CONSUMER_CLASS,
)
def check_message() -> None:
    headers, (args, kwargs, embed) = facts()["headers"], facts()["body"]
    assert headers["stamps"] in (None, {}, [])
    assert headers["stamped_headers"] in (None, {}, [])
    assert headers["timelimit"] in (None, [None, None])
    assert headers["argsrepr"] == "shown"
    assert type(headers["retries"]) is int
    assert [headers[name] for name in ("eta", "expires", "group", "parent_id")] == [None] * 4
    assert (args, kwargs) == ([1, "a"], {})
    assert not any(embed.values())


@internal(
    "celery",
    "`Consumer.on_ready`",
    r"def on_ready",
    purpose="Tells whether the broker accepted the worker once, which decides whether a refusal is "
    "final.",
    until=CONSUMER_CLASS,
)
def check_on_ready() -> None:
    assert facts()["hooks"].count("on_ready") == 1
    assert facts()["hooks"][0] == "ensure_connected"


@internal(
    "celery",
    "`Consumer.ensure_connected`, `first_connection_attempt`",
    r"def ensure_connected|first_connection_attempt",
    purpose="Replaced, for shorter pauses between connection attempts than Celery's 30 s.",
    until="when Celery has settings for these pauses",
)
def check_ensure_connected() -> None:
    assert "ensure_connected" in facts()["hooks"]
    assert facts()["first_attempts"][0] is True
    assert facts()["first_attempts"][-1] is False
    text = inspect.getsource(Consumer.ensure_connected)
    assert "callback=maybe_shutdown" in text


@internal(
    "celery",
    "`Consumer.on_connection_error_before_connected`, `on_connection_error_after_connected`",
    r"def on_connection_error_(before|after)_connected",
    purpose="Called with each connection error: a broker's refusal ends the worker instead of "
    "being retried for ever.",
    until="when Celery tells refusals from outages",
)
def check_connection_errors() -> None:
    called: list[tuple[str, Exception]] = []
    error = ConnectionRefusedError()

    def fail(*_: Any) -> None:
        raise error

    def noted(when: str) -> Callable[[Exception], None]:
        def note(raised: Exception) -> None:
            called.append((when, raised))
            shared.should_stop = STATUS

        return note

    kind: Any = Consumer
    for is_connected in (False, True):
        consumer: Any = kind.__new__(kind)
        consumer.__dict__.update(
            app=app_of(),
            restart_count=0,
            _restart_state=SimpleNamespace(step=lambda: None),
            connection=object() if is_connected else None,
            first_connection_attempt=False,
            blueprint=SimpleNamespace(state=0, start=fail, restart=lambda _: None),
            connection_errors=(ConnectionError,),
            channel_errors=(),
            on_connection_error_before_connected=noted("before"),
            on_connection_error_after_connected=noted("after"),
            on_close=lambda: None,
        )
        try:
            with pytest.raises(WorkerShutdown):
                consumer.start()
        finally:
            shared.should_stop = None
    assert called == [("before", error), ("after", error)]


@internal(
    "celery",
    "`Consumer.add_task_queue`",
    r"def add_task_queue",
    purpose="Called by the remote command `add_consumer`; ours serves no queue but the worker's.",
    until="when Celery can restrict a worker's queues",
)
def check_add_task_queue() -> None:
    command: Any = control.add_consumer
    asked: list[str] = []
    consumer = SimpleNamespace(
        call_soon=lambda function, *args: function(*args),
        add_task_queue=lambda queue, *_, **__: asked.append(queue),
    )
    command(SimpleNamespace(consumer=consumer), "other")
    assert asked == ["other"]


@internal(
    "celery",
    "`Consumer.Blueprint.default_steps`",
    r"default_steps",
    purpose="Steps are left out by the ends of their names: `DelayedDelivery`, which makes 28 "
    "queues on RabbitMQ, and with a secret `Mingle`, `Gossip` and `Control`.",
    until="when each of these has a setting",
)
def check_default_steps() -> None:
    kind: Any = Consumer
    steps = kind.Blueprint.default_steps
    for name in ("DelayedDelivery", "Mingle", "Gossip", "Control", "Tasks"):
        assert len([step for step in steps if step.endswith(f":{name}")]) == 1, name
    fewer: Any = type("Fewer", (kind.Blueprint,), {"default_steps": [steps[0]]})
    assert list(fewer().types) == [steps[0]]


@internal(
    "celery",
    "`worker_ready` is sent by the consumer: `sender.app`, `.hostname`, `.controller.concurrency`",
    r"sender\.controller",
    purpose="The heartbeat's name and number of slots.",
    until="when the signal documents its sender",
)
def check_ready_sender() -> None:
    hostname, concurrency = facts()["ready_sender"]
    assert hostname.startswith("celery@")
    assert concurrency == 1
    assert facts()["signals"] == ["init", "ready", "shutdown"]


# --- the worker's state -------------------------------------------------------------------


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
    "wrapped in an object with `exc`: the collector is told at once.",
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
    purpose="Called when a child is killed at the hard time limit: the collector is told at once.",
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


# --- the worker's main process ------------------------------------------------------------


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


# --- the application ----------------------------------------------------------------------


@internal(
    "celery",
    "`Celery.current_worker_task`",
    r"current_worker_task",
    purpose="None: a task that is sent inside another application's task must not inherit its ids.",
    until="when `send_task` can be told so",
)
def check_current_worker_task() -> None:
    class Alone(Celery):
        current_worker_task = None

    for kind, inherited in ((Celery, "outer"), (Alone, None)):
        app: Any = kind("canaries", broker="memory://", set_as_current=False)
        assert _parent_inside_a_task(app) == inherited


def _parent_inside_a_task(app: Any) -> str | None:
    def outer(task: Any) -> Any:
        return _sent_parent(app)

    task = app.task(name="outer", bind=True)(outer)
    return str(found) if (found := task.apply(task_id="outer").get()) is not None else None


def _sent_parent(app: Any) -> Any:
    with app.connection_for_write() as connection:
        queue = app.amqp.queues["celery"](connection.default_channel)
        queue.declare()
        queue.purge()
        app.send_task("inner", connection=connection)
        message = queue.get(no_ack=True)
        return message.headers["parent_id"]


@internal(
    "celery",
    "`AppLoader.read_configuration`",
    r"def read_configuration",
    purpose="Replaced, so that `CELERY_CONFIG_MODULE` configures nothing.",
    until=ENVIRONMENT,
)
def check_read_configuration() -> None:
    class Loader(AppLoader):
        def read_configuration(self, env: str = "") -> dict[str, Any]:
            return {"task_default_queue": "from the loader"}

    made: Any = Celery("canaries", loader=Loader, set_as_current=False)
    assert made.conf.task_default_queue == "from the loader"


@internal(
    "celery",
    '`Celery.backend_cls = "disabled://"`',
    r"backend_cls",
    purpose="No result backend, whatever `CELERY_RESULT_BACKEND` says.",
    until=ENVIRONMENT,
)
def check_backend_cls() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_RESULT_BACKEND", "cache+memory://")
        for url, kind in ((None, "CacheBackend"), ("disabled://", "DisabledBackend")):
            made = app_of()
            made.backend_cls = url
            assert type(made.backend).__name__ == kind


@internal(
    "celery",
    "`Celery.connection_for_read`, `connection_for_write`: `url` before the environment",
    r"def connection_for_(read|write)",
    purpose="Connections lead to the broker of the settings, whatever `CELERY_BROKER_URL` says.",
    until=ENVIRONMENT,
)
def check_connections() -> None:
    class Fixed(Celery):
        def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
            return super().connection_for_write(url or "memory://ours", **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_BROKER_URL", "memory://theirs")
        made: Any = Fixed("canaries", set_as_current=False)
        assert made.connection_for_write().hostname == "ours"
        with made.pool.acquire() as connection:  # the pool asks for one as well
            assert connection.hostname == "ours"
        assert made.connection_for_read().hostname == "theirs"


@internal(
    "celery",
    "`amqp.queues.consume_from`, `select_add`",
    r"consume_from|select_add",
    purpose="Whether a worker still serves its queue; serving it again after `cancel_consumer`.",
    until="when Celery tells what a worker consumes",
)
def check_queues() -> None:
    queues = app_of().amqp.queues
    assert list(queues.consume_from) == ["celery"]
    queues.select("celery")
    queues.deselect("celery")
    assert list(queues.consume_from) == []
    queues.select_add(queues["celery"])
    assert list(queues.consume_from) == ["celery"]


@internal(
    "celery",
    "`send_task` passes `producer` and `confirm_timeout` to `Producer.publish`",
    r"confirm_timeout=",
    purpose="A broker that does not confirm a task is given up after 5 s.",
    until="when it is documented",
)
def check_send_task() -> None:
    sent: list[dict[str, Any]] = []
    made = app_of()
    with made.connection_for_write() as connection:
        producer = made.amqp.Producer(connection, auto_declare=False)
        producer.publish = lambda *_, **options: sent.append(options)
        made.send_task("inner", producer=producer, retry=False, confirm_timeout=5.0, argsrepr="a")
    assert sent[0]["confirm_timeout"] == 5.0
    assert sent[0]["retry"] is False
    assert sent[0]["headers"]["argsrepr"] == "a"


@internal(
    "celery",
    "remote command `revoke`: its arguments, over the mailbox `conf.control_exchange`",
    r'abcast\("revoke"',
    purpose="Asks workers to skip tasks, in one message that is not retried.",
    until="when `Control.revoke` can be told not to retry",
)
def check_revoke() -> None:
    made = app_of()
    sent: list[Any] = []
    made.control.broadcast = lambda command, **options: sent.append((command, options))
    made.control.revoke(["a"], terminate=False)
    command, options = sent[0]
    assert command == "revoke"
    assert options["arguments"].items() >= {"task_id": ["a"], "terminate": False}.items()
    assert made.control.mailbox.namespace == made.conf.control_exchange
    assert made.control.mailbox.type == "fanout"
