"""The worker for Celery's own command line: ``celery -A pyrmute_tasks.worker worker``.

``PYRMUTE_TASKS_*`` variables say which migrations it runs and where its broker is. They are read
when Celery asks for `app`, so importing this module needs none of them.
"""

import os
from functools import cache

from pyrmute_tasks.distributed.app import FleetApp
from pyrmute_tasks.distributed.worker.service import create_worker_app
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.settings import Settings

__all__ = ["app"]

app: FleetApp  # made by `__getattr__`


def __getattr__(name: str) -> object:
    if name == "app":
        return _create_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache  # a second application would be a second worker
def _create_app() -> object:
    try:
        return create_worker_app(Settings.from_env(os.environ))
    except ConfigurationError as error:
        # Celery shows any `Exception` that is raised here as its usage and a traceback.
        raise SystemExit(f"error: {error}") from None
