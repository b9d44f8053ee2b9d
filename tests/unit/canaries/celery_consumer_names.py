"""Undocumented behaviour of Celery's consumer that the message filter relies on."""

import inspect
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest
from celery.apps import worker as apps_worker
from celery.exceptions import WorkerShutdown
from celery.signals import worker_shutting_down
from celery.worker import control as control_module
from celery.worker import state
from celery.worker.consumer import Consumer

from tests.unit.canaries.celery_worker import app_of, facts
from tests.unit.canaries.memory_worker import STATUS
from tests.unit.canaries.table import internal

CONSUMER_CLASS: Final = "when Celery can check a message before it uses it"
shared: Any = state
control: Any = control_module
worker_module: Any = apps_worker


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
    "a consumer is stopped once, at the worker's end and before the pool; `task_consumer`",
    r"task_consumer",
    purpose="A message that the worker has asked for and no longer wants goes back to the queue "
    "while its last chunks run.",
    until="when kombu puts back what arrives after its consumers have ended",
)
def check_stop() -> None:
    assert facts()["after_stop"] == {"queues": [], "pool_ends": False}


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


@internal(
    "celery",
    "`worker_init`, `worker_shutdown` are sent by the worker, `worker_shutting_down` by its name",
    r"worker_shutting_down\.connect",
    purpose="Receivers ignore the signals of other workers.",
    until="when the signals document their senders",
)
def check_senders() -> None:
    assert facts()["init_sender_is_worker"] is True
    assert facts()["shutdown_sender_is_worker"] is True
    senders: list[str] = []
    worker_shutting_down.connect(receiver := lambda sender, **_: senders.append(sender))
    before = signal.getsignal(signal.SIGTERM)
    try:
        worker = SimpleNamespace(hostname="ours@host")
        worker_module._shutdown_handler(worker, sig="SIGTERM", how="Warm", verbose=False)
        handler: Any = signal.getsignal(signal.SIGTERM)
        handler(signal.SIGTERM, None)
    finally:
        signal.signal(signal.SIGTERM, before)
        shared.should_stop = None
        worker_shutting_down.disconnect(receiver)
    assert senders == ["ours@host"]
