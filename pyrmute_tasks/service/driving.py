"""Driving one submitted job for one epoch, without any of its users' code."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pyrmute_tasks.engine.error_policy import ErrorHandling
from pyrmute_tasks.engine.job import Job, Source
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pipeline import Sink
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.engine.stopping import JobStopped, check_stop, stoppable
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import (
    LeaseLostError,
    PyrmuteTasksError,
)
from pyrmute_tasks.file_runs import FileRun, Jobs
from pyrmute_tasks.fleet_jobs import JobParts, start_job
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.earlier_runs import source_change
from pyrmute_tasks.io.job_output import DrivenJob
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.entries import Ended, JobResult, Note
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.now import remove_now
from pyrmute_tasks.jobs.pruning import clear
from pyrmute_tasks.jobs.spec import Spec
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.want import Want, locked, read_submitted, unknown_wish
from pyrmute_tasks.logs import log
from pyrmute_tasks.plans.migration import DescribedMigration, Migration
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.service.epoch_options import holds_output, options_of
from pyrmute_tasks.service.epoch_watch import Board, EpochWatch
from pyrmute_tasks.service.troubles import trouble_of
from pyrmute_tasks.service.turns import WEIGHTS, Act, Ending, Kind, Turn, by_whom, ending_of
from pyrmute_tasks.settings import compression_of
from pyrmute_tasks.wire.frames import FrameKind

if TYPE_CHECKING:
    from pyrmute_tasks.distributed.producer.session import Session

__all__ = ["Epoch", "take_epoch"]

_NOTES: Final = {Kind.HELD: Note.HELD, Kind.SUSPENDED: Note.SUSPENDED}


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of a job, which this process may drive.

    Attributes:
        driven: The job, and the right to drive it.
        want: What its users want.
        board: What is seen of it.
        watch: What ends it before its time.
        settled_before: How many ranges earlier epochs have settled.
    """

    driven: DrivenJob
    want: Want
    board: Board
    watch: EpochWatch
    settled_before: int

    @property
    def spec(self) -> Spec:
        """The job's spec."""
        return self.driven.folder.spec

    @property
    def terms(self) -> Terms:
        """The job's terms."""
        return self.spec.terms or Terms()

    @property
    def lease(self) -> Lease:
        """The right to drive it."""
        return self.driven.lease

    # --- from beginning to end --------------------------------------------------------------

    def carry_out(self, turn: Turn, session: Callable[[], "Session"]) -> Ending:
        """Do with the job what was decided, and let go of it.

        Args:
            turn: What was decided.
            session: Returns the connections to the fleet.

        Returns:
            How the epoch has ended.

        Raises:
            JobError: If another process drives the job now, or its log cannot be used.
            OSError: If that cannot be written.
        """
        ending = self._ending_of(turn, session)
        if ending.kind is Kind.LOST:
            self.lease.log.close()
            return ending
        try:
            if turn.act is Act.GIVE_UP:
                with locked(self.driven.folder.path):  # a `resume` is obeyed, or comes later
                    ending = self._unless_wished(ending)
                    self._let_go(ending)
            else:
                self._let_go(ending)
        except LeaseLostError as error:
            return Ending(Kind.LOST, str(error))
        finally:
            self.lease.log.close()
        return ending

    def _ending_of(self, turn: Turn, session: Callable[[], "Session"]) -> Ending:
        match turn.act:
            case Act.CANCEL if self.lease.view.publishing is None:  # else it may be there by now
                return Ending(Kind.CANCELLED, turn.why, self.want)
            case Act.PAUSE:
                return Ending(Kind.PAUSED, turn.why, self.want)
            case Act.GIVE_UP:
                return Ending(Kind.FAILED, turn.why)
            case Act.SUSPEND:
                return Ending(Kind.SUSPENDED, turn.why)
            case _:
                return self._driven(session)

    def _unless_wished(self, ending: Ending) -> Ending:
        """Return another ending if users want something else since this one was decided."""
        found = read_submitted(self.driven.folder.storage, self.want)
        if found.problem:  # they may want something else
            return Ending(Kind.TURN_OVER, unknown_wish(found.problem))
        if found.want == self.want:
            return ending
        asked = ending_of(self.want, found.want, self.lease.view)
        return asked or Ending(Kind.CHANGED, by_whom("resumed", found.want), found.want)

    def _let_go(self, ending: Ending) -> None:
        """Log how the epoch has ended, and give the job back."""
        lease, folder = self.lease, self.driven.folder
        if ending.kind.ends_job:
            remove_now(folder.path)  # else it saves those who list jobs from reading the whole log
        if ending.kind is Kind.PUBLISHED:
            return  # all is logged
        if ending.want is not None and not ending.want.is_obeyed(lease.view.wished):
            lease.log.log(ending.want.as_entry())
        if ending.kind is Kind.SUSPENDED:
            self.watch.log_wait()
        if ending.kind in (Kind.FAILED, Kind.CANCELLED):
            is_cancelled = ending.kind is Kind.CANCELLED
            result = JobResult.CANCELLED if is_cancelled else JobResult.FAILED
            fold = lease.fold
            counts = (fold.records, fold.outputs, fold.rejected)
            lease.log.log(Ended(result, *counts, ending.why))
            lease.let_go(ending.why)
            if is_cancelled:
                self._remove_all_but_history()
            return
        lease.let_go(ending.why, _NOTES.get(ending.kind, Note.STOPPED))

    def _remove_all_but_history(self) -> None:
        folder = self.driven.folder
        try:
            for path in folder.path.glob("rejects.*"):
                path.unlink(missing_ok=True)
            clear(folder)
        except (OSError, PyrmuteTasksError) as error:
            log(
                logging.WARNING,
                "job_left",
                "not all files of a cancelled job could be removed",
                job=self.spec.job,
                error=type(error).__name__,
            )

    # --- driving ----------------------------------------------------------------------------

    def _driven(self, session: Callable[[], "Session"]) -> Ending:
        """Drive the job to its end, or until something ends the epoch."""
        run: FileRun | None = None
        try:
            change = source_change(self.spec)
            if change is not None:
                return Ending(Kind.FAILED, f"the source was changed: {change}")
            with self.watch, stoppable(self.watch.stop):
                check_stop()
                run = FileRun(
                    options_of(self.spec, self.terms, self.want, self.lease.fold),
                    self._jobs(session()),
                    replace(self.driven, deciding=self.watch.deciding),
                )
                run.run()
            return self._finished(run.report)
        except JobStopped:
            return self.watch.ending or Ending(Kind.TURN_OVER, "its driver was stopped")
        except LeaseLostError as error:
            return Ending(Kind.LOST, str(error))
        except Exception as error:  # whatever it is: others must be driven, and this one again
            if self.lease.view.state.has_ended:
                return Ending(Kind.PUBLISHED)  # what failed came after its end
            return trouble_of(self.spec, error, must_keep=run is not None and run.must_keep)

    def _finished(self, report: JobReport) -> Ending:
        failure = report.failure
        if failure is not None:
            place = f"{failure.source} (record {failure.index:,})" if failure.source else ""
            told = f"{place or f'record {failure.index:,}'}: {failure.describe()}"
            if report.exceeded:
                told = f"{report.exceeded}; the last one: {told}"
            return Ending(Kind.FAILED, told)
        if holds_output(self.terms, self.want):
            return Ending(Kind.HELD, "its output is whole, and held")
        return Ending(Kind.PUBLISHED)

    def _jobs(self, session: "Session") -> Jobs:
        want, spec = self.want, self.spec
        window = Window(chunks=want.window) if want.window else None
        migration = DescribedMigration.of(spec.plan, want.code or spec.code)
        return Jobs(
            settings=session.settings,
            hooks=HookSet(),
            window_bytes=(window or Window()).size_bytes,
            compression=compression_of(session.settings),
            is_embedded=session.fleet is not None,
            migration=migration,
            model=None,
            new_run=self._new_run,
            fleet=lambda: session,
            start=partial(self._start, session, migration, window),
        )

    def _new_run(self) -> Run:
        return Run(f"{self.spec.job}.{self.lease.epoch}", [self.board])

    def _start(
        self,
        session: "Session",
        migration: Migration,
        window: Window | None,
        source: Source[bytes],
        sink: Sink[Any, Any],
        run: Run,
        errors: ErrorHandling,
        check: Callable[[], None] = lambda: None,
        **others: Any,
    ) -> Job[bytes, Any, Any]:
        """Return the job of this epoch; see `Jobs.start`."""
        is_range = source.kind is FrameKind.RANGES
        self.board.way = "by reference" if is_range else "through the coordinator"
        retry = self.terms.retry
        parts = JobParts(
            migration=migration,
            source=source,
            sink=sink,
            run=run,
            errors=errors,
            retry=None if retry is None else Retry.from_wire(retry),
            check=partial(self._check, check),
            window=window,
            weight=WEIGHTS[self.terms.priority],
            **others,
        )
        job = start_job(session, parts)
        self.board.follow(job)
        return job

    def _check(self, check: Callable[[], None]) -> None:
        check()
        self.watch.log_changes()


def take_epoch(folder: JobFolder, want: Want, after: int) -> Epoch:
    """Take the lease of a job, and log the wish that is obeyed.

    Args:
        folder: The job.
        want: What its users want.
        after: The newest epoch that was seen.

    Raises:
        LeaseLostError: If another process was quicker.
        JobError: If the job has ended for ever, or its log is damaged.
        OSError: If that cannot be written.
    """
    spec = folder.spec
    code = want.fingerprint or spec.fingerprint
    lease = folder.take(this_process(), code, after=after)
    try:
        if not want.is_obeyed(lease.view.wished):
            lease.log.log(want.as_entry())
            lease.log.commit()
    except BaseException:
        lease.log.close()
        raise
    driven, board = DrivenJob(folder, lease), Board()
    watch = EpochWatch(driven, want, board)
    return Epoch(driven, want, board, watch, lease.fold.ranges)
