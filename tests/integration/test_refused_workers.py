"""Workers that a server refuses, or with impossible options, end with one sentence."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from pyrmute_tasks import Settings
from pyrmute_tasks.distributed.app import create_app
from tests.conftest import ROOT
from tests.fleets import Fleet, RabbitMQ, private_fleet, rabbitmq_fleet

SECRET = "s3cr3t-w0rd"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with private_fleet("tests.people:manager", worker_wait_s=1.5) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def rabbit(rabbitmq: RabbitMQ) -> Iterator[Fleet]:
    with rabbitmq_fleet(rabbitmq, 0) as fleet:
        yield fleet


def run_worker(
    settings: Settings, *options: str, timeout_s: float = 25
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pyrmute_tasks", "worker", "--concurrency", "1"]
    return subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env=os.environ | settings.to_env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def with_login(url: str, login: str) -> str:
    if url.startswith("unix"):
        user, _, password = login.partition(":")
        return f"{url}?username={quote(user)}&password={quote(password)}"
    return re.sub("//.*@", f"//{login}@", url)


def check_refused(done: "subprocess.CompletedProcess[str]", told: str) -> None:
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert len(re.findall(told, output)) == 1, output
    assert "Traceback" not in output
    assert SECRET not in output


# --- options ------------------------------------------------------------------------------


@pytest.mark.slow  # without a process in tests/unit/test_worker_options.py
def test_other_pool_is_refused(fleet: Fleet) -> None:
    done = run_worker(fleet.settings, "--", "--pool=threads")
    assert done.returncode == 1
    assert done.stderr.count("error: workers need --pool=prefork") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name",
    ["PYRMUTE_TASKS_CELERY_CONFIG", pytest.param("DJANGO_SETTINGS_MODULE", marks=pytest.mark.slow)],
)
def test_module_that_cannot_be_imported_is_named(
    fleet: Fleet, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fleet.settings
    if name == "DJANGO_SETTINGS_MODULE":
        monkeypatch.setenv(name, "no_such_module.settings")
    else:
        settings = replace(settings, celery_config={"imports": ["no_such_module"]})
    done = run_worker(settings)
    check_refused(
        done, "error: the worker cannot import a configured module: No module named 'no_su"
    )


@pytest.mark.slow  # without a process in tests/unit/test_worker_options.py
def test_other_queue_is_refused(fleet: Fleet) -> None:
    done = run_worker(fleet.settings, "--", "-Q", "pyrmute-tasks,other")
    assert done.returncode == 1
    assert "error: this worker is for queue 'pyrmute-tasks' and no other" in done.stderr
    assert "Traceback" not in done.stderr


# --- Redis --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["broker_url", pytest.param("store_url", marks=pytest.mark.slow)])
def test_wrong_password_of_redis_ends_the_worker(fleet: Fleet, place: str) -> None:
    url = with_login(getattr(fleet.settings, place), f"nobody:{SECRET}")
    changed: dict[str, Any] = {place: url}
    done = run_worker(replace(fleet.settings, **changed))
    check_refused(done, "refused the user or the password")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["broker", "store"])
def test_lost_rights_on_redis_end_the_worker(fleet: Fleet, place: str) -> None:
    server = getattr(fleet, place)
    server.execute_command("ACL", "SETUSER", "worker", "on", f">{SECRET}", "~*", "&*", "+@all")
    url = with_login(getattr(fleet.settings, f"{place}_url"), f"worker:{SECRET}")
    changed: dict[str, Any] = {f"{place}_url": url}
    settings, fleet.settings = fleet.settings, replace(fleet.settings, **changed)
    try:
        worker = fleet.start_worker()
    finally:
        fleet.settings = settings
    server.execute_command("ACL", "SETUSER", "worker", "-@all")
    assert worker.wait(10) == 1, worker.log
    assert len(re.findall("refused what the user wants to do", worker.log)) == 1
    assert SECRET not in worker.log


# --- RabbitMQ -----------------------------------------------------------------------------


@pytest.mark.slow
def test_wrong_password_of_rabbitmq_ends_the_worker(rabbit: Fleet) -> None:
    url = with_login(rabbit.settings.broker_url, f"nobody:{SECRET}")
    done = run_worker(replace(rabbit.settings, broker_url=url))
    check_refused(done, "refused the user, the password or what the user wants to do")


@pytest.mark.slow
def test_unknown_virtual_host_ends_the_worker(rabbit: Fleet) -> None:
    url = rabbit.settings.broker_url.rstrip("/") + "/nowhere"
    done = run_worker(replace(rabbit.settings, broker_url=url))
    check_refused(done, "refused the user, or has no such virtual host")


@pytest.mark.slow
def test_queue_of_another_kind_ends_the_worker(rabbit: Fleet) -> None:
    settings = replace(rabbit.settings, queue="classic")
    with create_app(settings).connection_for_write() as connection:
        connection.default_channel.queue_declare(queue="classic", durable=True, auto_delete=False)
    check_refused(run_worker(settings), "refused the queue, which is of another kind")
