"""The target of ``celery -A workers.app worker``: `pyrmute_tasks.worker`, made at import."""

from pyrmute_tasks.worker import app

__all__ = ["app"]
