"""``celery -A pyrmute_tasks.worker``: made from the environment when it is asked for, once."""

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
