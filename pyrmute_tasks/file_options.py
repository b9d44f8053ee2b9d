"""Options of a run of files."""

import enum
import os
from dataclasses import dataclass
from typing import TypeGuard

from pyrmute_tasks.engine.error_policy import RAISING, ErrorHandling
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.log_options import WITH_LOG, LogOptions
from pyrmute_tasks.io.open_files import SourceFile, TargetFile
from pyrmute_tasks.io.retried_job import RetriedJob

__all__ = ["ByReference", "FileOptions", "is_path"]


class ByReference(enum.StrEnum):
    """Whether workers read and write files themselves, or records travel through the producer."""

    AUTO = "auto"  # if workers can, and the file is not small
    ALWAYS = "always"
    NEVER = "never"

    @classmethod
    def _missing_(cls, value: object) -> "ByReference":
        raise ConfigurationError(f"by_reference must be auto, always or never, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """Options of a run of files.

    Attributes:
        source: The file, or an open one; by reference also a folder or a pattern.
        target: The file, an open one, or a folder of parts.
        chunk_size: Records a chunk; None for the default.
        limit: The most records to migrate, the first ones; None for all.
        overwrite: Replace a target that exists.
        hold: Prove the output, and leave publishing it to a later call.
        backup: Keep a target that is replaced.
        keep_partial: Keep what was written when the job fails.
        by_reference: Which way to go.
        max_line_bytes: Longest line by reference; None for the longest that can travel.
        errors: What becomes of records that fail.
        rejects: A file for those that are skipped; None for none.
        rejects_with_records: Write the records to it.
        retried: The published job whose rejects are retried; None for another run.
        log: Whether the run keeps a log, and what becomes of an earlier one.
        pace: How fast it may go; a greatest rate makes small chunks, through the producer if both
            ways are open.
    """

    source: SourceFile
    target: TargetFile
    chunk_size: int | None = None
    limit: int | None = None
    overwrite: bool = True
    hold: bool = False
    backup: bool = False
    keep_partial: bool = False
    by_reference: ByReference = ByReference.AUTO
    max_line_bytes: int | None = None
    errors: ErrorHandling = RAISING
    rejects: str | os.PathLike[str] | None = None
    rejects_with_records: bool = False
    retried: RetriedJob | None = None
    log: LogOptions = WITH_LOG
    pace: Pace = FULL_SPEED

    def __post_init__(self) -> None:
        if self.max_line_bytes is not None and self.max_line_bytes < 1:
            raise ConfigurationError(f"max_line_bytes must be 1 or more, not {self.max_line_bytes}")
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise ConfigurationError(f"limit must be 1 record or more, not {self.limit!r}")
        is_folder = is_path(self.target) and os.fspath(self.target).endswith("/")
        if self.excludes_ranges and (is_folder or self.by_reference is ByReference.ALWAYS):
            what = "a folder of parts can only go" if is_folder else "this run cannot go"
            how = ", but" if is_folder else ":"
            raise ConfigurationError(f"{what} by reference{how} {self.excludes_ranges}")
        if (self.hold or self.backup) and not self.log.log:
            raise ConfigurationError(
                "what is held, or replaces a file that is kept, has a log: leave out --no-log"
            )

    @property
    def excludes_ranges(self) -> str:
        """Which option excludes going by reference, in words; empty if none does."""
        if self.by_reference is ByReference.NEVER:
            return "by_reference is never"
        if self.chunk_size is not None:
            return "a chunk size counts records, and nobody has counted those of a range of bytes"
        if self.limit is not None:
            return "a limit counts records, and nobody has counted those of a range of bytes"
        return ""

    def refuse_streams(self) -> None:
        """Refuse what needs a log where there is none.

        Raises:
            ConfigurationError: If this was asked for.
        """
        self.log.refuse_streams()
        if self.hold or self.backup:
            raise ConfigurationError(
                "only a run from files to a file or a folder can be held or keep what it replaces: "
                "leave out --hold and --backup"
            )

    def of_result(self) -> dict[str, str | int | bool | None]:
        """Return the options that decide what a run writes; it is resumed with the same ones."""
        policy, rejects = self.errors.policy, self.rejects
        return {
            "on_error": policy.on_error.value,
            "max_errors": policy.max_errors,
            "max_crashes": policy.max_crashes,
            "rejects": None if rejects is None else os.path.abspath(rejects),
            "rejects_with_records": self.rejects_with_records,
            "max_line_bytes": self.max_line_bytes,
            "limit": self.limit,
        }


def is_path(file: SourceFile | TargetFile) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether a file is given by its path, and not open."""
    return isinstance(file, (str, os.PathLike))
