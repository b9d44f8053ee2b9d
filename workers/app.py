"""The target of ``celery -A workers.app worker``, set up by ``PYRMUTE_TASKS_*`` variables."""

import os

from pyrmute_tasks.distributed import create_worker_app
from pyrmute_tasks.settings import Settings

app = create_worker_app(Settings.from_env(os.environ))
