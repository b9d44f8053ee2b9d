# Above 400 lines: writing, resuming and publishing share the job and its lock.
"""An output with a log: a run that was killed at any time can go on.

It stands where `OutputFile` does. What is delivered goes to the job's folder beside the target,
with an entry in the job's log; see ``docs/decisions/0030-resuming-runs.md``.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pyrmute_tasks.engine.pipeline import ChunkResult
from pyrmute_tasks.errors import (
    ConfigurationError,
    JobChangedError,
    JobError,
    JobNotFoundError,
    OutputInUseError,
)
from pyrmute_tasks.io.earlier_runs import (
    LogOptions,
    earlier_job,
    end_of_prefix,
    has_succeeded,
    refuse_other,
)
from pyrmute_tasks.io.jsonl import JsonlSource, Position, source_errors
from pyrmute_tasks.io.open_files import SourceFile as OpenedSource
from pyrmute_tasks.io.open_files import TargetFile
from pyrmute_tasks.io.output_file import cut_to_whole_lines, keep_partial_file, take_after
from pyrmute_tasks.io.output_lock import OutputLock
from pyrmute_tasks.io.output_place import Place, check_output, output_errors
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import Range, Settled
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.folder import JobFolder, beside, remove_leftovers
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.publish import Output, digest_of, publish
from pyrmute_tasks.jobs.spec import SourceFile, Spec, differences
from pyrmute_tasks.jobs.storage import NO_LINKS
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.wire.frames import Frame

__all__ = ["LoggedOutput", "logged_output"]

_WORTH_KEEPING_S: Final = 10.0
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def logged_output(
    source: OpenedSource,
    target: TargetFile,
    lines: JsonlSource,
    options: LogOptions,
    *,
    job: str,
    plan: MigrationPlan,
    policy: Mapping[str, str | int | bool | None],
    overwrite: bool = True,
    keep_partial: bool = False,
) -> "LoggedOutput | None":
    """Return the output of a run with a log; None for a run without.

    Args:
        source: What is read.
        target: Where to write.
        lines: What reads the source.
        options: What becomes of an earlier run.
        job: The run's id, which becomes the job's if it begins here.
        plan: The migration.
        policy: The options that decide what is written.
        overwrite: Replace a file that exists.
        keep_partial: Keep what was written when the run fails.

    Raises:
        ConfigurationError: If it cannot be written or must not be, or what was asked for needs a
            log that this run cannot have.
    """
    if not isinstance(source, (str, os.PathLike)) or not isinstance(target, (str, os.PathLike)):
        options.refuse_streams()
        return None
    place = check_output(target, source=source, overwrite=overwrite or options.resume)
    if place.is_stream:
        options.refuse_streams()
    if place.is_stream or not options.log:
        return None
    names = (plan.name, str(plan.from_version), str(plan.to_version))
    me = this_process()
    with source_errors(source):
        found = SourceFile.of(source)
    spec = Spec(
        job,
        (found,),
        str(place.path),
        names,
        plan.fingerprint,
        json.dumps(plan.fingerprint_tree.to_dict()),
        policy,
        # The limit of records is one of the options, so another limit is another job.
        only=(Range(0, 0, lines.size_bytes),) if lines.limit and lines.size_bytes else (),
        created_at=time.time(),
        created_by=f"{me['who']}@{me['host']}",
    )
    return LoggedOutput(
        target, place, lines, spec, options, overwrite=overwrite, keep_partial=keep_partial
    )


# Above 250 lines: one life from taking the job over to publishing it.
class LoggedOutput:
    """A file that appears when it is whole, written with a log of what is done; a context manager.

    Entering takes the output's lock and the job's lease, and sets the source to where an earlier
    run of the job came. Leaving it without `commit` keeps the job if it ran long enough.

    Args:
        target: The file, as the user named it.
        place: Where it is.
        source: The file that is read.
        spec: What the job is.
        options: What becomes of an earlier run.
        overwrite: Replace a file that exists.
        keep_partial: Keep what was written when the job fails.

    Raises:
        ConfigurationError: If the target exists and must not be replaced.

    Attributes:
        kept_path: Where what was written has been kept, once that is known; else None.
        is_whole: Whether an earlier run has done all but publishing, or that, too.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        place: Place,
        source: JsonlSource,
        spec: Spec,
        options: LogOptions,
        *,
        overwrite: bool = True,
        keep_partial: bool = False,
    ) -> None:
        self.kept_path: Path | None = None
        self._target, self._place = target, place
        self._source = source
        self._spec = spec
        self._options = options
        self._overwrite = overwrite
        self._keep_partial = keep_partial
        self._lock = OutputLock(place.path, spec.job)
        self._path = beside(place.path)
        self._pid = os.getpid()
        self._began = time.monotonic()
        self._lease: Lease | None = None  # none, too, if the job has ended already
        self._at = Position()  # up to where it is settled
        self._began_at = Position()
        self._is_committed = self._must_keep = False
        self.is_whole: bool = self._look_ahead()

    def _look_ahead(self) -> bool:
        """Find out whether the target may be there because an earlier run has published it."""
        published = is_whole = False
        if self._options.resume and self._path.is_dir():
            with output_errors(self._target):
                folder = JobFolder(self._path)
                view = folder.view()
                published = view.publishing is not None
                is_whole = view.fold.is_settled(folder.spec.wanted)
        check_output(self._target, overwrite=self._overwrite or published)
        return is_whole

    def __enter__(self) -> Self:
        """Take the lock and the lease; create the job, or find out how far it came.

        Raises:
            OutputInUseError: If another run is writing this output.
            JobExistsError: If there is a log of an earlier run, and nobody said what to do.
            JobChangedError: If source, code or options are not those of that run.
            ConfigurationError: If the folder cannot be written.
        """
        self._began = time.monotonic()
        with output_errors(self._target):
            self._lock.acquire()
            try:
                with self._writing():
                    self._open()
            except BaseException:
                if self._lease is not None:
                    self._lease.log.close()
                self._lock.release()
                raise
        return self

    def _open(self) -> None:
        remove_leftovers(self._path)
        code = self._spec.fingerprint
        earlier = earlier_job(self._path, self._target, self._options)
        if earlier is None:
            self._folder = JobFolder.create(self._path, self._spec)
            try:
                self._lease = self._folder.take(this_process(), code)
            except BaseException:
                with contextlib.suppress(OSError, JobError):
                    self._folder.discard()
                raise
            return
        self._folder = earlier
        refuse_other(earlier.spec, self._spec, self._options)
        if not has_succeeded(earlier):  # or killed between the end and the discarding
            self._lease = earlier.take(this_process(), code)
        self._at = self._began_at = end_of_prefix(self._fold, earlier.spec.wanted)
        self._source.begin_at(self._at)

    # --- what earlier runs have done --------------------------------------------------------

    @property
    def restored_outputs(self) -> int:
        """Records that earlier runs have written."""
        return self._fold.outputs if self._began_at.byte else 0

    def restored_rejects(self) -> Iterator[bytes]:
        """Yield the rejects of earlier runs, in input order; to be asked before the first chunk."""
        if not self._began_at.byte:
            return
        for span in self._fold.rejected_spans():
            if span.rejects is not None:
                yield self._folder.storage.read(*span.rejects)

    @property
    def _fold(self) -> Fold:
        return self._lease.fold if self._lease is not None else self._folder.view().fold

    # --- writing ----------------------------------------------------------------------------

    def deliver(self, result: ChunkResult[Frame], rejects: bytes) -> None:
        """Write a chunk's outputs and rejects, and log that it is settled.

        The chunk in which the job ends is written, but not settled.

        Args:
            result: The chunk's results.
            rejects: Its rejects, as `rejects_to_log` makes them.

        Raises:
            ConfigurationError: If they cannot be written, or another run has taken the output over.
        """
        assert self._lease is not None
        assert result.chunk.origin is not None
        self._lock.check()
        log = self._lease.log
        with self._writing():
            data = result.outputs.payload if result.count else b""
            put = log.put(data) if result.count else None
            if result.failure is not None:
                return
            described = log.put_rejects(rejects) if rejects else None
            end = Position.behind(result.chunk, result.chunk.origin)
            if end.byte > self._folder.spec.sources[0].size_bytes:
                self._check_source()  # it grows, perhaps for ever
            self._settle(
                end,
                Settled(
                    0,
                    self._at.byte,
                    end.byte,
                    result.chunk.count,
                    result.count,
                    len(result.rejects),
                    put,
                    digest_of(data) if put else "",
                    described,
                ),
            )
            log.commit_if_due()

    def _settle(self, end: Position, entry: Settled) -> None:
        assert self._lease is not None
        self._lease.log.settle(entry._replace(lines=end.line - self._at.line))
        self._at = end

    def commit(self) -> None:
        """Prove the output, and give it its name.

        Raises:
            JobChangedError: If the source was changed while it was read.
            ProofError: If the output is not whole.
            ConfigurationError: If it cannot be written, or must not be any more.
        """
        if self._lease is None:
            self._is_committed = True
            return
        with self._writing():
            self._check_source()
            size_bytes = sum(each.end for each in self._folder.spec.wanted)
            if self._at.byte < size_bytes:  # blank lines at the end
                end = self._source.position._replace(byte=size_bytes)
                self._settle(end, Settled(0, self._at.byte, size_bytes, 0, 0))
            self._lock.confirm()
            path, overwrite = self._place.path, self._overwrite
            if not overwrite and os.path.lexists(path):
                self._must_keep = True  # all work is done
            output = Output(self._folder)
            publish(output, self._lease, path, overwrite=overwrite, prepare=self._prepare)
            self._is_committed = True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise the system's errors as errors that name the output, or say that it was lost."""
        with output_errors(self._target):
            try:
                yield
            except (OSError, JobNotFoundError):
                self._lock.confirm()
                raise

    def _check_source(self) -> None:
        spec = self._folder.spec
        with source_errors(spec.sources[0].path):
            now = replace(spec, sources=(SourceFile.of(spec.sources[0].path),))
        changed = differences(spec, now)
        if changed:
            raise JobChangedError(f"the source was changed while it was read: {changed[0]}")

    def _prepare(self, descriptor: int) -> None:
        if self._place.found is not None:
            take_after(descriptor, self._place.found, self._target)

    # --- the end ----------------------------------------------------------------------------

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return  # a fork owns nothing
        try:
            if self._is_committed:
                with contextlib.suppress(OSError):  # the next run removes it
                    self._folder.discard()
            elif self._lease is not None:
                self._leave(self._lease)
        finally:
            self._lock.release()

    def _leave(self, lease: Lease) -> None:
        """Let go of the job, and discard it if there is little in it."""
        with contextlib.suppress(OSError, JobError):  # what is not committed will be done again
            lease.let_go("the run ended before the end of its source")
        try:
            self._lock.confirm()
        except (OutputInUseError, ConfigurationError):
            return  # it is another run's by now
        ran_s = time.monotonic() - self._began
        keeps = self._must_keep or self._options.resume or ran_s >= _WORTH_KEEPING_S
        keeps = keeps and lease.view.ended is None  # it is published
        try:
            if self._keep_partial:
                with output_errors(self._target):
                    self._keep_outputs(f"stream.{lease.epoch}")
        finally:
            if not keeps:
                self._folder.discard()

    def _keep_outputs(self, stream: str) -> None:
        """Keep what was written as ``<target>.partial``."""
        partial = self._lock.path_of("partial")
        try:
            if self._began_at.byte or not _linked(self._folder.path / stream, partial):
                _copy_outputs(self._folder, stream, partial)
            descriptor = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._prepare(descriptor)
                cut_to_whole_lines(descriptor)
            finally:
                os.close(descriptor)
            self.kept_path = keep_partial_file(partial, self._place.path, self._lock.token)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


def _copy_outputs(folder: JobFolder, stream: str, partial: Path) -> None:
    """Write the settled ranges, and of the last stream what stands behind them."""
    descriptor = os.open(partial, _CREATE, 0o666)
    with open(descriptor, "ab") as file:
        output = Output(folder)
        output.join(descriptor)
        puts = (entry.put for _, entry in output.ranges())
        ends = (put.offset + put.length for put in puts if put and put.name == stream)
        with contextlib.suppress(FileNotFoundError), (folder.path / stream).open("rb") as rest:
            rest.seek(max(ends, default=0))
            shutil.copyfileobj(rest, file)


def _linked(stream: Path, partial: Path) -> bool:
    """Give a stream a second name; False if there is none, or the file system has no links."""
    try:
        os.link(stream, partial, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True
