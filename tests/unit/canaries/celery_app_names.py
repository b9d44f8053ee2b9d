"""Undocumented behaviour of Celery's application that producers and workers rely on."""

from typing import Any, Final

import pytest
from celery import Celery
from celery.loaders.app import AppLoader

from tests.unit.canaries.celery_worker import app_of
from tests.unit.canaries.table import internal

ENVIRONMENT: Final = "when Celery can be told to ignore the environment"


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
    r'send_command\("revoke"',
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


@internal(
    "celery",
    "the text of `Celery.loader_cls`",
    r"loader = f",
    purpose="With `DJANGO_SETTINGS_MODULE` set, Celery looks at the text of an application's "
    "loader: one that is given as a class ends every producer and worker of a Django project.",
    until="when Celery's support of Django takes classes",
)
def check_loader_by_name() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_SETTINGS_MODULE", "nowhere")
        patch.syspath_prepend(".")
        with pytest.raises(AttributeError, match="lower"):
            Celery("canaries", loader=AppLoader, set_as_current=False)
        name = f"{AppLoader.__module__}:{AppLoader.__name__}"
        made: Any = Celery("canaries", loader=name, set_as_current=False)
        assert type(made.loader) is AppLoader
