"""A step of a known duration that records who began when."""

import os
import time
from pathlib import Path

from pydantic import BaseModel

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("Work", "1.0.0")
class WorkV1(BaseModel):
    job: str
    log: str
    seconds: float


@manager.model("Work", "2.0.0")
class WorkV2(WorkV1):
    done: bool


@manager.migration("Work", "1.0.0", "2.0.0")
def do(data: ModelData) -> ModelData:
    """Record the beginning, in one write, so that lines of several processes stay whole."""
    log = os.open(data["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(log, f"{data['job']}\n".encode())
    finally:
        os.close(log)
    time.sleep(data["seconds"])
    return {**data, "done": True}


def begun(log: Path) -> list[str]:
    """Return the jobs whose steps have begun, in order."""
    return log.read_text().splitlines() if log.exists() else []
