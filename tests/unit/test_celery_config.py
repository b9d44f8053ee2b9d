"""Celery's settings that a project may choose, those it may not, and logging."""

import subprocess
import sys
from typing import Any

import pytest
from celery import Celery

from pyrmute_tasks import ConfigurationError, Settings
from pyrmute_tasks.celery_config import OURS
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.worker.service import create_worker_app

MANAGER = "tests.people:manager"
# What this library sets and a project may set otherwise.
CHOICES = {
    "worker_hijack_root_logger",
    "worker_send_task_events",
    "worker_soft_shutdown_timeout",
}
CELERYS = {str(name) for name in Celery(set_as_current=False).conf.keys()}  # noqa: SIM118  # conf reads nothing before
REFUSED = [(name, why) for why, names in OURS.items() for name in names]


@pytest.mark.parametrize(("name", "why"), REFUSED, ids=[name for name, _ in REFUSED])
def test_setting_that_breaks_a_promise_is_refused_with_the_reason(name: str, why: str) -> None:
    assert name in CELERYS
    with pytest.raises(ConfigurationError, match=f"must not set {name}: {why[:30]}"):
        Settings(celery_config={name: 1})


@pytest.mark.parametrize("url", ["redis://h/0", "amqp://h/"])
def test_every_setting_of_ours_is_refused_or_a_choice(url: str) -> None:
    plain: Any = Celery(set_as_current=False).conf
    ours: Any = create_app(Settings(broker_url=url, store_url="redis://h/0")).conf
    changed = {name for name in CELERYS if plain[name] != ours[name]}
    refused = {name for name, _ in REFUSED}
    assert changed - refused == CHOICES & changed
    assert {"broker_url", "task_acks_late", "worker_send_task_events"} <= changed


def test_settings_reach_producers_and_workers_also_through_the_environment() -> None:
    config = {"worker_max_tasks_per_child": 7, "worker_send_task_events": False}
    settings = Settings(manager=MANAGER, celery_config=config)
    env = settings.to_env()
    assert env["PYRMUTE_TASKS_CELERY_CONFIG"] == (
        '{"worker_max_tasks_per_child": 7, "worker_send_task_events": false}'
    )
    assert Settings.from_env(env) == settings
    assert hash(Settings.from_env(env)) == hash(settings)
    for app in (create_app(settings), create_worker_app(settings)):
        conf: Any = app.conf
        assert (conf.worker_max_tasks_per_child, conf.worker_send_task_events) == (7, False)


def test_events_are_on_by_default() -> None:
    conf: Any = create_worker_app(Settings(manager=MANAGER)).conf
    assert conf.worker_send_task_events is True


def test_remote_control_can_be_turned_off_and_not_on() -> None:
    def is_on(**options: Any) -> bool:
        app: Any = create_worker_app(Settings(manager=MANAGER, **options))
        return bool(app.conf.worker_enable_remote_control)

    assert is_on()
    assert not is_on(celery_config={"worker_enable_remote_control": False})
    secret = "s" * 40
    assert not is_on(secret=secret, celery_config={"worker_enable_remote_control": True})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"worker_max_task_per_child": 7}, "worker_max_task_per_child, which Celery has not"),
        ({"CELERYD_MAX_TASKS_PER_CHILD": 7}, "in lower case"),
    ],
)
def test_unknown_setting_is_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_app(Settings(celery_config=config))


def test_setting_must_be_plain_json() -> None:
    with pytest.raises(ConfigurationError, match="must be plain JSON"):
        Settings(celery_config={"worker_max_tasks_per_child": object()})
    for text in ("7", "{", "[]"):
        with pytest.raises(
            ConfigurationError, match="CELERY_CONFIG must be a mapping; as text a JSON"
        ):
            Settings.from_env({"PYRMUTE_TASKS_CELERY_CONFIG": text})


WARN = """
import logging
from pyrmute_tasks.logs import log
log(logging.WARNING, "tested", "nobody asked for this")
logging.basicConfig(format="asked: %(message)s")
log(logging.WARNING, "tested", "somebody asked for this")
"""


def test_nothing_is_logged_unless_the_program_logs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WARN], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "asked: somebody asked for this\n"


IN_DJANGO = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "nowhere"
from celery import _state
from pyrmute_tasks import Settings
from pyrmute_tasks.distributed.app import create_app
before = list(sys.path)
create_app(Settings())
assert sys.path == before
assert _state.default_app is None
"""


def test_producer_leaves_a_django_project_alone() -> None:
    subprocess.run([sys.executable, "-c", IN_DJANGO], check=True, timeout=60)


def test_passwords_among_celerys_settings_are_not_shown() -> None:
    settings = Settings(celery_config={"redis_password": "hidden", "worker_concurrency": 2})
    assert "celery_config={'redis_password': Ellipsis, 'worker_concurrency': Ellipsis}" in repr(
        settings
    )


def test_settings_keep_a_copy_of_celerys() -> None:
    config: dict[str, Any] = {"worker_max_tasks_per_child": 7}
    settings = Settings(celery_config=config)
    config["task_always_eager"] = True
    assert settings.celery_config == {"worker_max_tasks_per_child": 7}


def test_names_of_celerys_settings_are_text() -> None:
    with pytest.raises(ConfigurationError, match="names as keys, as text, not int"):
        Settings(celery_config={1: 2})  # type: ignore[dict-item]  # on purpose
