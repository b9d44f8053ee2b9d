"""Whether a run keeps a log, and what becomes of the one that an earlier run has left."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.output_place import check_output, is_parts, parts_path
from pyrmute_tasks.jobs.names import beside

__all__ = ["WITH_LOG", "LogOptions", "kept_job", "real_target"]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What becomes of the log of an earlier run, and whether this one has one.

    Attributes:
        resume: Go on with an earlier run; begin if there is none.
        restart: Discard it.
        accept_code: Go on although models or steps have changed.
        log: Keep a log.

    Raises:
        ConfigurationError: If these contradict each other.
    """

    resume: bool = False
    restart: bool = False
    accept_code: bool = False
    log: bool = True

    def __post_init__(self) -> None:
        if self.resume and self.restart:
            raise ConfigurationError("resume and restart exclude each other: go on, or begin again")
        if self.accept_code and not self.resume:
            raise ConfigurationError(
                "accept_code is for a run that goes on: add --resume (resume=True in Python)"
            )
        if self.resume and not self.log:
            raise ConfigurationError("a run without a log cannot resume another one")

    def refuse_streams(self) -> None:
        """Refuse `resume` and `restart` for outputs that have no log.

        Raises:
            ConfigurationError: If one of them is set.
        """
        if self.resume or self.restart:
            raise ConfigurationError(
                "only a run from a file to a file has a log that can be resumed; a pipe, a device "
                "or an open file has none: leave out --resume and --restart"
            )


WITH_LOG: Final = LogOptions()
"""A log is kept, and that of an earlier run is refused."""


def kept_job(target: str | os.PathLike[str]) -> Path | None:
    """Return where an earlier run to a target has left its log or rejects; None if nowhere."""
    try:
        path = beside(real_target(target))
    except ConfigurationError:
        return None
    return path if path.is_dir() else None


def real_target(target: str | os.PathLike[str]) -> Path:
    """Return a target without links.

    Raises:
        ConfigurationError: If it cannot be written to.
    """
    return parts_path(target) if is_parts(target) else check_output(target).path
