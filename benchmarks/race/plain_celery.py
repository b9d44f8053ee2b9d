"""What people write today: pyrmute in a Celery task, chunks as JSON, results in Redis."""

import os
from typing import Any

import pyrmute
from celery import Celery

from benchmarks.race import small

app = Celery("plain", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True)
manager = small.register(pyrmute.ModelManager())


@app.task
def migrate(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Migrate and validate."""
    models = manager.migrate_batch(rows, *small.HOP)
    return [model.model_dump(mode="json") for model in models]


@app.task
def migrate_raw(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Migrate only."""
    migrated: list[dict[str, Any]] = manager.migrate_batch_data(rows, *small.HOP)
    return migrated
