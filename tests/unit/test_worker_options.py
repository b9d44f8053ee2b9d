"""Options of a Celery worker with which it could run no chunks."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyrmute_tasks.distributed.worker.service import ChunkWorker


def set_up(pool: str = "prefork", **options: Any) -> None:
    worker = SimpleNamespace(pool_cls=pool, app=SimpleNamespace(queue="ours"))
    ChunkWorker.setup_instance(cast("ChunkWorker", worker), **options)


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent", "eventlet"])
def test_other_pool_is_refused(pool: str) -> None:
    with pytest.raises(SystemExit, match="workers need --pool=prefork"):
        set_up(pool)


@pytest.mark.parametrize(
    "options",
    [
        {"queues": "other"},
        {"queues": "ours,other"},
        {"queues": ["other"]},
        {"exclude_queues": "ours"},
    ],
    ids=str,
)
def test_other_queue_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match="this worker is for queue 'ours' and no other"):
        set_up(**options)


def test_what_it_can_work_with_is_not_refused() -> None:
    with pytest.raises(TypeError, match="super"):  # it goes on to Celery's own
        set_up(queues="ours")
