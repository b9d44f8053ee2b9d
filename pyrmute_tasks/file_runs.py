"""Runs of files: through the producer or by reference, into a file or a folder of parts."""

import enum
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pyrmute_tasks.engine.job import Job
from pyrmute_tasks.errors import ConfigurationError, StorageUnreachableError
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.job_folder import JobFolder
from pyrmute_tasks.io.jsonl import JsonlSink, JsonlSource, check_source
from pyrmute_tasks.io.output_file import OutputFile, OutputStream, open_output
from pyrmute_tasks.io.output_parts import OutputParts, is_parts
from pyrmute_tasks.io.output_place import check_output
from pyrmute_tasks.io.range_source import RangeSink, RangeSource, find_sources
from pyrmute_tasks.logs import log
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.frames import MAX_FRAME_BYTES, Frame

__all__ = ["ByReference", "FileOptions", "FileRun", "Jobs", "RangeFleet"]

_LEAST_BYTES: Final = 1024 * 1024  # less is one chunk, and syncing it would cost more than it saves


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
    """What a run of files is to do.

    Attributes:
        source: The file; by reference also a folder or a pattern.
        target: The file, or a folder of parts.
        chunk_size: Records a chunk; None for the default.
        overwrite: Replace a target that exists.
        keep_partial: Keep what was written when the job fails.
        by_reference: Which way to go.
        max_line_bytes: Longest line by reference; None for the longest that can travel.
    """

    source: str | os.PathLike[str]
    target: str | os.PathLike[str]
    chunk_size: int | None = None
    overwrite: bool = True
    keep_partial: bool = False
    by_reference: ByReference = ByReference.AUTO
    max_line_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.max_line_bytes is not None and self.max_line_bytes < 1:
            raise ConfigurationError(f"max_line_bytes must be 1 or more, not {self.max_line_bytes}")


class RangeFleet(Protocol):
    """What a run needs to know of its fleet; see `Session`."""

    def allow(self, folders: Iterable[Path]) -> None:
        """Let the workers of an embedded fleet read and write in folders."""

    def takes_ranges(self) -> bool:
        """Return whether workers take ranges by reference, as far as one can tell from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Starts the jobs of a run.

    Attributes:
        settings: Settings of the fleet.
        hooks: The manager's hooks.
        window_bytes: Size of a job's window.
        is_embedded: The fleet is started for this.
        new_id: Returns a new job's id.
        fleet: Returns the fleet, started.
        start: Returns the job of a source, a sink and an id, to be entered. What it is given as
            `check` is called about every second, and may raise.
    """

    settings: Settings
    hooks: HookSet
    window_bytes: int
    is_embedded: bool
    new_id: Callable[[], str]
    fleet: Callable[[], RangeFleet]
    start: Callable[..., Job[bytes, Frame, Any]]


class FileRun:
    """One run of files.

    Args:
        options: What to do.
        jobs: Starts its jobs.

    Attributes:
        job_id: Id of its job, the last one if it took two.
        kept_path: Where a partial output was kept; None if none was.
    """

    def __init__(self, options: FileOptions, jobs: Jobs) -> None:
        self._options = options
        self._jobs = jobs
        self.job_id = jobs.new_id()
        self.kept_path: Path | None = None
        self._names = find_sources(options.source)
        self._into_parts = is_parts(options.target)
        # What the producer cannot do: it sends one file into one file.
        self._must_refer = self._into_parts or self._names != [os.fspath(options.source)]

    def run(self) -> None:
        """Run it; what came of it is in the job's report.

        Raises:
            PyrmuteTasksError: If it cannot be run.
        """
        size_bytes = sum(map(check_source, self._names))
        output = self._output()
        why_not = self._why_not(output)
        if why_not and self._is_forced:
            what = (
                "several files, or a folder of parts, go"
                if self._must_refer
                else "this run cannot go"
            )
            raise ConfigurationError(f"{what} by reference{' only' * self._must_refer}: {why_not}")
        may_refer = not why_not and (self._is_forced or size_bytes >= _LEAST_BYTES)
        try:
            # The output first: if another run has it, no fleet is started.
            with output:
                if isinstance(output, OutputStream) or not (may_refer and self._takes_ranges()):
                    self._through_producer(output)
                else:
                    self._by_reference(output)
        finally:
            self.kept_path = output.kept_path

    # --- which way --------------------------------------------------------------------------

    def _output(self) -> OutputFile | OutputStream | OutputParts:
        options = self._options
        if self._into_parts:
            return OutputParts(
                options.target, self.job_id, sources=self._names, overwrite=options.overwrite
            )
        for name in self._names[1:]:
            check_output(options.target, source=name, overwrite=options.overwrite)
        return open_output(
            options.target,
            job=self.job_id,
            source=self._names[0],
            overwrite=options.overwrite,
            keep_partial=options.keep_partial,
        )

    @property
    def _is_forced(self) -> bool:
        return self._must_refer or self._options.by_reference is ByReference.ALWAYS

    def _why_not(self, output: OutputFile | OutputStream | OutputParts) -> str:
        """Say why nothing of this can go by reference; empty if it can."""
        options, settings = self._options, self._jobs.settings
        if options.by_reference is ByReference.NEVER:
            return "--by-reference is never"
        if options.chunk_size is not None:
            return "a chunk size counts records, and nobody has counted those of a range of bytes"
        if isinstance(output, OutputStream):
            return f"{os.fspath(options.target)} is a pipe or a device"
        if not (self._jobs.is_embedded or settings.roots_file or settings.secret):
            return (
                "workers need --root DIR and, as this producer, a secret in PYRMUTE_TASKS_SECRET, "
                "which is not set here"
            )
        return ""

    def _takes_ranges(self) -> bool:
        return self._is_forced or self._jobs.is_embedded or self._jobs.fleet().takes_ranges()

    # --- both ways --------------------------------------------------------------------------

    def _through_producer(self, output: OutputFile | OutputStream | OutputParts) -> None:
        assert not isinstance(output, OutputParts)
        jobs, options = self._jobs, self._options
        lines = JsonlSource(
            options.source, options.chunk_size, jobs.window_bytes, jobs.settings.compression
        )
        with jobs.start(lines, JsonlSink(jobs.hooks), self.job_id) as job:
            for outcome in job.outcomes():
                if outcome.count:  # an empty frame may hold no lines
                    output.write(outcome.outputs.payload)
            if job.report.failure is None:
                output.commit()

    def _by_reference(self, output: OutputFile | OutputParts) -> None:
        jobs, longest = self._jobs, self._options.max_line_bytes
        is_private = jobs.is_embedded or bool(jobs.settings.roots_file)
        with JobFolder(output.attempts_path, is_private=is_private) as folder:
            source = RangeSource(self._names, folder.path, folder.nonce, longest or MAX_FRAME_BYTES)
            jobs.fleet().allow([folder.path.parent, *source.folders])
            job = jobs.start(source, RangeSink(jobs.hooks), self.job_id, check=source.check)
            try:
                with job:
                    for outcome in job.outcomes():
                        for piece in outcome.outputs:
                            output.add(folder, piece)
                    source.check_all()
                    if job.report.failure is None:
                        output.commit()
            except StorageUnreachableError as error:
                if self._is_forced or job.report.chunks_by_worker:
                    raise
                log(logging.WARNING, "not_by_reference", f"through the producer instead: {error}")
            else:
                return
        self.job_id = jobs.new_id()
        self._through_producer(output)
