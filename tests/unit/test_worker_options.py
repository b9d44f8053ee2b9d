"""Options of a Celery worker with which it cannot run chunks."""

import importlib
import sys

import pytest

from pyrmute_tasks import Settings
from pyrmute_tasks.distributed.internals.celery_worker import WorkerOptions, _hidden
from pyrmute_tasks.distributed.worker.heartbeat import Heartbeat
from pyrmute_tasks.distributed.worker.service import WorkerLife


def check(*, is_prefork: bool = True, queues: str = "", excluded: str = "") -> None:
    settings = Settings(queue="ours")
    life = WorkerLife(settings, Heartbeat(settings, lambda: True))
    life.check_options(
        WorkerOptions(is_prefork, frozenset(queues.split()), frozenset(excluded.split()))
    )


def test_other_pool_is_refused() -> None:
    with pytest.raises(SystemExit, match="workers need --pool=prefork"):
        check(is_prefork=False)


@pytest.mark.parametrize(
    ("queues", "excluded"), [("other", ""), ("ours other", ""), ("", "ours")], ids=str
)
def test_other_queue_is_refused(queues: str, excluded: str) -> None:
    with pytest.raises(SystemExit, match="this worker is for queue 'ours' and no other"):
        check(queues=queues, excluded=excluded)


def test_own_queue_is_accepted() -> None:
    check(queues="ours")


def test_hidden_library_is_missed_for_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with _hidden("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    with _hidden("sys"):
        assert importlib.import_module("sys") is sys
    assert importlib.import_module("colorsys").rgb_to_hsv
