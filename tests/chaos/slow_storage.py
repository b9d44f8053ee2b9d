"""The slow flights on a worker whose storage takes its time, while a file says so."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.chaos.slow_flights import manager

__all__ = ["SLOW", "manager"]

SLOW: Final = "slow-storage"
SYNC_S: Final = 2.0

_sync = os.fsync


def sync_slowly(descriptor: int) -> None:
    if (Path(tempfile.gettempdir()) / SLOW).exists():
        time.sleep(SYNC_S)
    _sync(descriptor)


os.fsync = sync_slowly  # type: ignore[assignment]  # of descriptors only
