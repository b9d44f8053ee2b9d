"""Tests see no settings of whoever runs them, and read nothing outside the repository."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, strip_settings

STEERING = {
    "PYRMUTE_TASKS_QUEUE": "somebody-elses",
    "PYRMUTE_TASKS_NONSENSE": "1",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
    "CELERY_CONFIG_MODULE": "absent",
    "BROKER_URL": "redis://127.0.0.1:1/0",
    "APP": "absent",
}
OUTSIDE = re.compile(r"ROOT\.parent|\bshared/|/home/|expanduser|Path\.home")


def names_of_settings() -> set[str]:
    return {name for name in os.environ if name.startswith(("PYRMUTE_TASKS_", "CELERY_"))}


def test_environment_has_no_settings() -> None:
    assert names_of_settings() == set()
    assert not STEERING.keys() & os.environ.keys()


def test_settings_are_removed_from_the_environment() -> None:
    this = f"{ROOT / 'tests/unit/test_environment.py'}::{test_environment_has_no_settings.__name__}"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this],
        cwd=ROOT,
        env=os.environ | STEERING,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_stripped_settings_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRMUTE_TASKS_QUEUE", "mine")
    monkeypatch.setenv("HARMLESS", "mine")
    assert strip_settings() == {"PYRMUTE_TASKS_QUEUE": "mine"}
    assert os.environ["HARMLESS"] == "mine"


def test_nothing_outside_of_the_repository_is_read() -> None:
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "test_environment.py"]
    assert [str(path) for path in files if OUTSIDE.search(path.read_text())] == []


def test_groups_of_tests_reach_xdist(request: pytest.FixtureRequest) -> None:
    """Otherwise every process would silently start every fleet."""
    if getattr(request.config.option, "loadgroup", False):
        assert request.node.nodeid.endswith("@tests/unit/test_environment.py")
