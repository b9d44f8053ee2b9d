# Above 400 lines: one life from taking the job over to publishing it.
"""An output with a log: a run that was killed at any time can go on.

What comes of the source goes to the job's folder beside the target, with an entry in the job's log
for each range that is settled; see ``docs/decisions/0033-one-log-both-ways.md``. `LineFeed` and
`RangeFeed` fill it, through the producer and by reference.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pyrmute_tasks.engine.stopping import check_stop
from pyrmute_tasks.errors import (
    ConfigurationError,
    JobError,
    JobExistsError,
    JobNotFoundError,
    OutputInUseError,
)
from pyrmute_tasks.io.earlier_runs import LogOptions, earlier_job, refuse_changed, refuse_other
from pyrmute_tasks.io.job_targets import JobTarget
from pyrmute_tasks.io.logged_rejects import Restored, decode_rejects
from pyrmute_tasks.io.output_file import cut_to_whole_lines, keep_partial_file
from pyrmute_tasks.io.output_lock import OutputLock
from pyrmute_tasks.io.output_place import output_errors
from pyrmute_tasks.io.partial_outputs import copy_beginning, link_stream
from pyrmute_tasks.io.passing_faults import PatientStorage, when_back
from pyrmute_tasks.io.retried_job import (
    RetriedJob,
    confirm_retried,
    replace_retried,
    settle_retry,
)
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import Note, Piece, Range, Settled
from pyrmute_tasks.jobs.fold import Fold, Span
from pyrmute_tasks.jobs.folder import JobFolder, beside, discard, remove_leftovers
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.log import LogWriter
from pyrmute_tasks.jobs.output import Output
from pyrmute_tasks.jobs.publish import backup_path, publish
from pyrmute_tasks.jobs.publish_file import JoinedFile
from pyrmute_tasks.jobs.spec import Spec

__all__ = ["DrivenJob", "JobOutput"]

_WORTH_KEEPING_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class DrivenJob:
    """A submitted job, for one epoch.

    Attributes:
        folder: The job.
        lease: The right to drive it; its taker also lets go of it.
        deciding: Entered while it is logged that the output will appear; see `publish`.
    """

    folder: JobFolder
    lease: Lease
    deciding: Callable[[], AbstractContextManager[None]] = nullcontext


# Above 250 lines: as above.
class JobOutput:
    """An output that appears when it is whole, written with a log of what is done.

    A context manager: entering takes the output's lock and the job's lease. Leaving it without
    `commit` keeps the job if it ran long enough.

    Args:
        target: Where the output appears.
        spec: The spec of the job.
        options: What becomes of an earlier run.
        overwrite: Replace a target that exists.
        hold: Prove the output in place of publishing it.
        backup: Keep a target that is replaced.
        keep_partial: Keep what was written when the job fails.
        retried: The published job whose rejects this one retries; None for another one.
        driven: The submitted job that this epoch drives: its folder is kept whatever happens, and
            of a published one the history. None for a run.
        is_private: Nobody else may look into the job's folder; workers run as the same user.

    Raises:
        ConfigurationError: If the target exists and must not be replaced.

    Attributes:
        kept_path: Where what was written has been kept, once that is known; else None.
        backup_path: Where the target that was replaced has been kept; else None.
        has_told_rejects: Whether an earlier run of the job may have published the file of rejects.
        must_keep: Whether all work is done, and a target is there that must not be replaced.
    """

    folder: JobFolder

    def __init__(
        self,
        target: JobTarget,
        spec: Spec,
        options: LogOptions,
        *,
        overwrite: bool = True,
        hold: bool = False,
        backup: bool = False,
        keep_partial: bool = False,
        retried: RetriedJob | None = None,
        driven: DrivenJob | None = None,
        is_private: bool = True,
    ) -> None:
        self.kept_path: Path | None = None
        self.backup_path: Path | None = None
        self._target = target
        self._spec = spec
        self._options = options
        self._overwrite = overwrite
        self._hold = hold
        self._backup = backup
        self._keep_partial = keep_partial
        self._is_private = is_private
        self._retried = retried
        self._driven = driven
        if driven is not None:
            self._path = driven.folder.path
        else:
            self._path = beside(target.path) if retried is None else retried.path
        epoch = driven.lease.epoch if driven is not None else 0
        self._lock = OutputLock(target.path, spec.job, epoch)
        self._pid = os.getpid()
        self._began = time.monotonic()
        self._lease: Lease | None = None  # none, too, if the job has ended already
        self._settled: list[Span] = []  # by earlier runs
        self._joined: JoinedFile | None = None
        self._end: Range | None = None
        self._tail: list[Piece] = []  # outputs of the chunk in which the job ends
        self._is_committed = self._is_held = self.must_keep = False
        self.has_told_rejects: bool = self._look_ahead()

    def _look_ahead(self) -> bool:
        """Check the target; return whether an earlier run of the job may have published rejects."""
        if self._driven is not None:  # what must not be replaced is found out at its end
            self._target.check(overwrite=True)
            return self._driven.folder.has_told_rejects
        published = has_told = False
        if self._options.resume and self._path.is_dir():
            with output_errors(self._target.name):
                folder = JobFolder(self._path)
                published = folder.view().publishing is not None
                has_told = published or folder.has_told_rejects
        self._target.check(overwrite=self._overwrite or self._hold or published)
        return has_told

    def __enter__(self) -> Self:
        """Take the lock and the lease; create the job, or find out how far it came.

        Raises:
            OutputInUseError: If another run is writing this output.
            JobExistsError: If there is a log of an earlier run, and nobody said what to do.
            JobChangedError: If source, code or options are not those of that run.
            ConfigurationError: If the folder cannot be written.
        """
        self._began = time.monotonic()
        with output_errors(self._target.name):
            self._lock.acquire()
            try:
                with self.writing():
                    self._open()
            except BaseException:
                if self._lease is not None and self._driven is None:
                    self._lease.log.close()
                self._lock.release()
                raise
        return self

    def _open(self) -> None:
        if self._driven is not None:
            self.folder, self._lease = self._driven.folder, self._driven.lease
            self.folder.remove_orphans(self._lease)
            publication = self._target.publication(self.folder, None)
            with contextlib.suppress(FileNotFoundError):  # tried again when it is published
                publication.remove_temps(keep=publication.temp(self._lease))
            self._settled = list(self.fold.spans())
            return
        remove_leftovers(self._path)
        name, options = self._target.name, self._options
        if self._retried is None:
            settle_retry(self._target.path, name, restart=options.restart)
        earlier = earlier_job(self._path, name, options)
        if earlier is None:
            try:
                self.folder = JobFolder.create(self._path, self._spec, is_private=self._is_private)
                self._take()
            except JobExistsError:
                raise
            except BaseException:  # also if interrupted while it was created
                with contextlib.suppress(OSError, JobError):
                    discard(self._path)
                raise
        else:
            self.folder = earlier
            refuse_other(earlier.spec, self._spec, options)
            if not earlier.has_succeeded():  # or killed between the end and the discarding
                self._take()
        self._settled = list(self.fold.spans())

    def _take(self) -> None:
        self.folder.storage = PatientStorage(self._path)
        self._lease = self.folder.take(this_process(), self._spec.fingerprint)
        self.folder.remove_orphans(self._lease)
        if self._retried is not None:
            self._retried.take_over(self.folder, self._lease)

    # --- what earlier runs have done --------------------------------------------------------

    @property
    def fold(self) -> Fold:
        """The ranges that are settled."""
        return self._lease.fold if self._lease is not None else self.folder.view().fold

    @property
    def is_fresh(self) -> bool:
        """Whether no earlier run has settled anything."""
        return not self._settled

    def restored(self) -> Iterator[Restored]:
        """Yield what earlier runs have settled, in source order.

        Raises:
            JobLogError: If the description of a reject is damaged.
        """
        for span in self._settled:
            data = self.folder.storage.read(*span.rejects) if span.rejects is not None else b""
            yield Restored(span, *decode_rejects(data))

    # --- writing ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Raise the system's errors as errors that name the output, or its new holder."""
        with output_errors(self._target.name):
            try:
                yield
            except (OSError, JobNotFoundError):
                self._lock.refuse_other()
                raise

    @property
    def log(self) -> LogWriter:
        """The job's log.

        Raises:
            OutputInUseError: If another run has taken the output over.
        """
        assert self._lease is not None
        self._lock.check()
        return self._lease.log

    def settle(self, entry: Settled, rejects: bytes) -> None:
        """Log that a range is settled; becomes durable within about a second.

        Args:
            entry: The range.
            rejects: Its rejects, from `encode_rejects`.

        Raises:
            ConfigurationError: If they cannot be written, or another run has taken the output over.
        """
        with self.writing():
            log = self.log
            described = log.put_rejects(rejects) if rejects else None
            log.settle(entry._replace(rejects=described))

    def commit_if_due(self) -> None:
        """Make the entries of the last second durable.

        Raises:
            ConfigurationError: If they cannot be written, or another run has taken the output over.
        """
        if self._lease is not None:
            with self.writing():
                self.log.commit_if_due()

    def ends_at(self, place: Range, tail: Iterable[Piece] = ()) -> None:
        """Note the chunk in which the job ends, and its outputs before that."""
        self._end = place
        self._tail += tail

    def join(self, piece: Piece, *, lines: int | None = None) -> None:
        """Append a piece to the file that will be the output, in source order.

        It is joined at the end instead if the pieces of earlier runs stand before it.

        Args:
            piece: A piece of one of the job's files.
            lines: How many of its lines count, as the job ends inside of it; None for all.

        Raises:
            ConfigurationError: If it cannot be read or written, or is not whole.
        """
        with self.writing():
            if lines is not None:
                piece = when_back(partial(self.folder.first_lines, piece, lines))
            if self._end is not None:
                self._tail.append(piece)
            if self._settled or self._hold or self._lease is None:
                return
            if self._joined is None:
                temp = self._target.publication(self.folder, None).temp(self._lease)
                self._joined = when_back(partial(self._target.join, temp))
            if self._joined is not None:
                self._lock.check()
                when_back(partial(self.folder.copy, piece, self._joined.append))
                self._joined.sync_ahead(piece.length)

    def note_rejects(self) -> None:
        """Note that the file of rejects is about to be published; resumed runs replace it then."""
        if self._lease is not None:
            with self.writing():
                self.folder.tell_rejects()

    def commit(self) -> None:
        """Prove the output, and give it its name unless it is held.

        Raises:
            JobChangedError: If the source was changed while it was read.
            ProofError: If the output is not whole.
            ConfigurationError: If it cannot be written, or must not be any more.
        """
        if self._lease is None:
            self._is_committed = True
            return
        with self.writing():
            self.check_sources()
            self._lock.confirm()
            output = Output(self.folder, check_stop)
            if self._hold:
                self._lease.log.commit()
                output.prove()
                if self._driven is None:
                    self._lease.let_go("its output is whole, and held", Note.HELD)
                self._is_held = True
                return
            target, overwrite = self._target, self._overwrite
            if self._retried is not None:
                self._retried.confirm()
            if self._driven is not None:
                confirm_retried(self.folder, self._lease.view, target)
            if not overwrite and os.path.lexists(target.path):
                self.must_keep = True  # all work is done
            publication = target.publication(self.folder, self._joined)
            publish(
                output,
                self._lease,
                publication,
                overwrite=overwrite,
                backup=self._backup,
                deciding=nullcontext if self._driven is None else self._driven.deciding,
            )
            self._is_committed = True
            kept = backup_path(target.path, self.folder.spec.job)
            self.backup_path = kept if self._backup and kept.exists() else None

    def check_sources(self) -> None:
        """Check that all source files are as they were when the job began.

        Raises:
            JobChangedError: If one is not.
            ConfigurationError: If one cannot be read any more.
        """
        refuse_changed(self.folder.spec)

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
            if self._is_committed and self._driven is None:
                with contextlib.suppress(OSError, JobError):  # the next run removes it
                    self._finish()
            elif self._lease is not None and not self._is_held and self._driven is None:
                self._leave(self._lease)
        finally:
            if self._joined is not None:
                self._joined.close()
                if self._driven is not None and not self._is_committed:
                    with contextlib.suppress(OSError):  # beside the target; joined again later
                        self._joined.path.unlink()
            self._lock.release()
        if self._is_committed and self._driven is not None:  # may take long; users go on meanwhile
            with contextlib.suppress(OSError, JobError):
                self.folder.keep_history()

    def _finish(self) -> None:
        """Keep what tells of rejects."""
        if self._retried is not None:
            replace_retried(self.folder, self._retried.folder.path)
        elif self._options.log:
            self.folder.finish()
        else:
            self.folder.discard()

    def _leave(self, lease: Lease) -> None:
        """Let go of the job, and discard it if there is little in it."""
        with contextlib.suppress(OSError, JobError):  # what is not committed will be done again
            lease.let_go("the run ended before the end of its source")
        try:
            self._lock.confirm()
        except (OSError, OutputInUseError, ConfigurationError):
            return  # it is another run's by now
        is_long = time.monotonic() - self._began >= _WORTH_KEEPING_S
        is_worth = is_long and lease.fold.ranges > 0
        has_failed = self._retried is not None and self._end is not None  # with code to be mended
        keeps = self.must_keep or (not has_failed and (self._options.resume or is_worth))
        keeps = keeps and self._options.log and lease.view.ended is None  # or it is published
        try:
            if self._keep_partial:
                with output_errors(self._target.name):
                    self._keep_outputs(lease)
        finally:
            if not keeps:
                # What ended the run may be that the folder is gone, or cannot be written.
                with contextlib.suppress(OSError, JobNotFoundError):
                    self.folder.discard()

    def _keep_outputs(self, lease: Lease) -> None:
        """Keep what was written as ``<target>.partial``: all before the end of the job."""
        stream = self.folder.path / f"stream.{lease.epoch}"
        kept = self._lock.path_of("partial")
        try:
            if self._joined is not None:
                self._joined.path.replace(kept)
            elif not (self.is_fresh and link_stream(stream, kept)):
                copy_beginning(self.folder, self.fold, self._end, self._tail, kept)
            descriptor = os.open(kept, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._target.prepare(descriptor)
                cut_to_whole_lines(descriptor)
            finally:
                os.close(descriptor)
            self.kept_path = keep_partial_file(kept, self._target.path, self._lock.token)
        except BaseException:
            with contextlib.suppress(OSError):
                kept.unlink()
            raise
