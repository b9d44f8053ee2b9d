"""The manager of `tests.people`, in a module that watches for records that fail."""

import os
from pathlib import Path
from typing import Final

from pyrmute_tasks.signals import BadRecord, record_failed
from tests.people import manager

__all__ = ["manager"]

LOG: Final = "WATCHED_PEOPLE_LOG"


@record_failed.connect  # type: ignore[untyped-decorator]  # a signal of Celery's
def note(record: BadRecord, **_: object) -> None:
    """Append the announcement of a failed record to the file that the environment names."""
    line = (record.job, record.index, record.stage.value, record.step, record.description)
    with Path(os.environ[LOG]).open("a") as file:
        file.write(f"{line!r} {type(record.error).__name__}\n")
    raise RuntimeError("a receiver that fails does no harm")
