"""The target of ``celery -A workers.app worker``, set up by ``PYRMUTE_TASKS_*`` variables."""

import os

from pyrmute_tasks.distributed.worker.service import create_worker_app
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.settings import Settings

try:
    app = create_worker_app(Settings.from_env(os.environ))
except ConfigurationError as error:
    # Celery shows any `Exception` that is raised here as its usage and a traceback.
    raise SystemExit(f"error: {error}") from None
