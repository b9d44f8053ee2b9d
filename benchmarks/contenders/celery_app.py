"""What people write today: pyrmute in a Celery task, chunks as JSON, results in Redis.

Workers import this by name; `benchmarks.contenders.celery_fleet` starts them.
"""

import os
from typing import Any, Final

from celery import Celery

from benchmarks.workloads import Workload, pyrmute_manager

SERVER: Final = "BENCHMARK_SERVER"
WORKLOAD: Final = "BENCHMARK_WORKLOAD"

app = Celery("plain", broker=os.environ[SERVER], backend=os.environ[SERVER])

_manager: Final = pyrmute_manager(os.environ[WORKLOAD])
_hop: Final = Workload(os.environ[WORKLOAD]).hop


@app.task
def migrate(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Migrate and validate."""
    return [model.model_dump(mode="json") for model in _manager.migrate_batch(rows, *_hop)]


@app.task
def migrate_raw(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Migrate only."""
    data: list[dict[str, Any]] = _manager.migrate_batch_data(rows, *_hop)
    return data
