"""A Celery worker without a server, for the rows of several modules."""

import json
import subprocess
import sys
from functools import cache
from typing import Any

from celery import Celery

from tests.conftest import ROOT


@cache
def facts() -> dict[str, Any]:
    """Return the facts that a worker recorded in one run."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.unit.canaries.memory_worker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def app_of(**conf: Any) -> Any:
    """Return an application with a broker in memory."""
    made: Any = Celery("canaries", broker="memory://", set_as_current=False)
    made.conf.update(conf)
    return made
