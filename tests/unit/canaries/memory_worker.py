"""Runs a Celery worker without a server and prints its observations, as JSON.

Its broker is a queue in its own memory. One task ends its child, another one exceeds its time
limit, then the worker is told to stop.
"""

import json
import os
import time
from typing import Any, Final

from billiard.exceptions import WorkerLostError
from billiard.pool import TERMINATE
from celery import Celery
from celery.apps.worker import Worker
from celery.signals import import_modules, worker_init, worker_ready, worker_shutdown
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request

FACTS: Final[dict[str, Any]] = {"signals": [], "hooks": []}
STATUS: Final = 7

shared: Any = state
base_consumer: Any = Consumer
base_worker: Any = Worker


class WatchedRequest(Request):
    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if self.name == "die":
            FACTS["lost"] = isinstance(error, WorkerLostError)
            FACTS["lost_text"] = str(error)
            FACTS["lost_args"] = list(self.args)
        result = super().on_failure(exc_info, send_failed_event, return_ok)
        stop_when_done()
        return result

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        if not soft:
            FACTS["timeout"] = timeout
            stop_when_done()


def stop_when_done() -> None:
    if {"lost", "timeout"} <= FACTS.keys():
        shared.should_stop = STATUS


class WatchedConsumer(base_consumer):  # type: ignore[misc]  # it is a class
    def ensure_connected(self, conn: Any) -> Any:
        FACTS["hooks"].append("ensure_connected")
        attempts = FACTS.setdefault("first_attempts", [])
        attempts.append(self.first_connection_attempt)
        return super().ensure_connected(conn)

    def on_ready(self) -> None:
        FACTS["hooks"].append("on_ready")
        super().on_ready()
        FACTS["pids"] = [child.pid for child in self.pool._pool._pool]
        FACTS["maintains"] = callable(self.pool.maintain_pool)
        self.app.send_task("die", args=(1, "a"), argsrepr="shown")
        self.app.send_task("sleep", task_id="slow")

    def stop(self) -> None:
        super().stop()
        queues = self.task_consumer.channel._active_queues
        FACTS["after_stop"] = {
            "queues": list(queues),
            "pool_ends": self.pool._pool._state == TERMINATE,
        }

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        FACTS["hooks"].append("create_task_handler")
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> Any:
            FACTS.setdefault("headers", message.headers)
            FACTS.setdefault("body", message.payload)
            result = handle(message)
            FACTS.setdefault("reserved", [each.id for each in {*state.reserved_requests}])
            return result

        return on_message


class WatchedWorker(base_worker):  # type: ignore[misc]  # it is a class
    def on_before_init(self, **options: Any) -> None:
        FACTS["imported_before_init"] = "imports" in FACTS
        super().on_before_init(**options)

    def setup_instance(self, queues: Any = None, **options: Any) -> None:
        FACTS["pool_cls"] = self.pool_cls
        FACTS["queues"] = queues
        super().setup_instance(queues=queues, **options)


def main() -> None:
    app: Any = Celery("canaries", broker="memory://", set_as_current=False)
    app.conf.update(
        worker_consumer=WatchedConsumer,
        broker_connection_retry_on_startup=True,
        task_ignore_result=True,
        task_acks_late=True,
        worker_lost_wait=0.1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    import_modules.connect(on_import_signal, weak=False)
    worker_init.connect(on_init_signal, weak=False)
    worker_ready.connect(on_ready_signal, weak=False)
    worker_shutdown.connect(on_shutdown_signal, weak=False)

    def die(*_: Any) -> None:
        os._exit(3)

    def sleep() -> None:
        time.sleep(60)

    app.task(name="sleep", time_limit=0.3)(sleep).Request = WatchedRequest
    app.task(name="die")(die).Request = WatchedRequest
    kind = app.subclass_with_self(WatchedWorker)
    FACTS["app_of_class"] = kind.app is app
    worker = kind(pool="prefork", concurrency=1, queues="celery", loglevel="CRITICAL", quiet=True)
    worker.start()
    FACTS["exitcode"] = worker.exitcode
    print(json.dumps(FACTS, default=str), flush=True)


def on_import_signal(**_: Any) -> None:
    FACTS["imports"] = True


def on_init_signal(sender: Any, **_: Any) -> None:
    FACTS["signals"].append("init")
    FACTS["init_sender_is_worker"] = isinstance(sender, WatchedWorker)


def on_shutdown_signal(sender: Any, **_: Any) -> None:
    FACTS["signals"].append("shutdown")
    FACTS["shutdown_sender_is_worker"] = isinstance(sender, WatchedWorker)


def on_ready_signal(sender: Any, **_: Any) -> None:
    FACTS["signals"].append("ready")
    FACTS["ready_sender"] = [sender.hostname, sender.controller.concurrency]


if __name__ == "__main__":
    main()
