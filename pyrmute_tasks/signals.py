"""Signals of workers, for programs that watch them: error trackers, exporters.

Importing this module imports Celery. Connect in a module that the worker imports: that of its
manager, one named by ``celery_config={"imports": [...]}``, or the one that ``celery -A`` names.

Example:
    ```python
    from pyrmute_tasks.signals import BadRecord, record_failed

    @record_failed.connect
    def count(record: BadRecord, **_: object) -> None:
        FAILED.labels(record.model, record.stage).inc()
    ```
"""

from pyrmute_tasks.distributed.worker.bad_records import EVENT, BadRecord, record_failed

__all__ = ["EVENT", "BadRecord", "record_failed"]
