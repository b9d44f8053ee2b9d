"""The target ``celery -A pyrmute_tasks.worker``: created once, on first use."""

import subprocess
import sys

import pytest
from celery.app.utils import find_app

from tests.conftest import ROOT

MANAGER = f"{ROOT}/examples/guide/users.py:manager"
LOOK = """
import os
os.environ["PYRMUTE_TASKS_NONSENSE"] = "x"
import pyrmute_tasks, pyrmute_tasks.worker as module
assert not hasattr(module, "apps")
del os.environ["PYRMUTE_TASKS_NONSENSE"]
os.environ.update(PYRMUTE_TASKS_MANAGER={manager!r}, PYRMUTE_TASKS_QUEUE="own")
from celery.app.utils import find_app
for target in ("pyrmute_tasks.worker", "pyrmute_tasks.worker:app", "workers.app"):
    assert find_app(target) is module.app
print(module.app.queue)
"""


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_app_is_made_once_from_the_environment_of_that_moment() -> None:
    result = run(LOOK.format(manager=MANAGER))
    assert (result.returncode, result.stdout) == (0, "own\n"), result.stderr


def test_error_in_the_environment_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRMUTE_TASKS_QUEU", "typo")
    with pytest.raises(SystemExit, match="error: there is no setting PYRMUTE_TASKS_QUEU"):
        find_app("pyrmute_tasks.worker")


CHANGES = """
import os, warnings
import billiard.pool
from celery import signals
os.environ["PYRMUTE_TASKS_MANAGER"] = {manager!r}

def process():
    connected = [
        len(signal.receivers)
        for signal in (signals.worker_init, signals.worker_ready, signals.worker_shutting_down,
                       signals.worker_shutdown)
    ]
    texts = [text.pattern for _, text, *_ in warnings.filters if text is not None]
    limit = billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT
    return limit, connected, "Pydantic serializer warnings" in texts

before = process()
from pyrmute_tasks.worker import app
app.finalize()
assert process() == before, (before, process())
worker = app.Worker(pool="prefork", concurrency=1, loglevel="CRITICAL")
limit, connected, is_hidden = process()
assert (limit, is_hidden) == (10, True), process()
assert [now - then for now, then in zip(connected, before[1])] == [1, 1, 1, 1], connected
print("as it should be")
"""


def test_only_a_worker_changes_its_process() -> None:
    result = run(CHANGES.format(manager=MANAGER))
    assert (result.returncode, result.stdout) == (0, "as it should be\n"), result.stderr


OTHER_WORKER = """
import os
os.environ["PYRMUTE_TASKS_MANAGER"] = {manager!r}
from celery import signals
from pyrmute_tasks.worker import app
called = []
life = app.life
for name in ("about_to_fork", "became_ready", "began_leaving", "ended"):
    setattr(life, name, lambda *_, name=name: called.append(name))
worker = app.Worker(pool="prefork", concurrency=1, loglevel="CRITICAL", hostname="ours@host")
assert called == ["about_to_fork"], called

class Other:
    hostname = "other@host"
    app = None

for signal in (signals.worker_init, signals.worker_ready, signals.worker_shutdown):
    signal.send(sender=Other())
signals.worker_shutting_down.send(sender="other@host")
assert called == ["about_to_fork"], called
signals.worker_shutting_down.send(sender="ours@host")
signals.worker_shutdown.send(sender=worker)
assert called[1:] == ["began_leaving", "ended"], called
print("as it should be")
"""


def test_signals_of_other_workers_are_ignored() -> None:
    result = run(OTHER_WORKER.format(manager=MANAGER))
    assert (result.returncode, result.stdout) == (0, "as it should be\n"), result.stderr
