"""Faults of storage that may pass: a network file system that is away for a moment."""

import errno
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from pyrmute_tasks.engine.stopping import current_stop
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.logs import log

__all__ = ["PASSING", "WAIT_S", "PatientStorage", "when_back"]

Result = TypeVar("Result")

WAIT_S: Final = 10.0
"""How long a fault may last; somebody waits for the run, so it is less than workers wait."""

PASSING: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT})
"""What is answered in place of a file while its storage is away."""

_TRY_EVERY_S: Final = 0.1


def when_back(call: Callable[[], Result]) -> Result:
    """Call something, and again for up to `WAIT_S` while storage is away.

    Args:
        call: What must have no effect if it fails.

    Raises:
        OSError: If it fails otherwise, or for longer.
        JobStopped: If another thread stops the job meanwhile.
    """
    stop, deadline = current_stop(), 0.0
    while True:
        try:
            return call()
        except OSError as error:
            now = time.monotonic()
            if error.errno not in PASSING or (deadline and now >= deadline):
                raise
            if not deadline:
                deadline = now + WAIT_S
                told = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
                why = f"storage is away, and is waited for up to {WAIT_S:.0f} s: {told}"
                log(logging.WARNING, "storage_away", why)
        if stop is not None:
            stop.check()
        time.sleep(_TRY_EVERY_S)


class PatientStorage(FolderStorage):
    """A job's files, whose names are asked for again while storage is away.

    A log is dead once its look for a newer one has failed.
    """

    def names(self, folder: str = "", /) -> list[str]:
        """List a directory."""
        return when_back(partial(super().names, folder))
