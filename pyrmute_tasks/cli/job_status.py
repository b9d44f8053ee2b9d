"""`pyrmute-tasks status` and `watch`: show how far jobs are, once or until they have ended."""

import math
import sys
import time
from collections.abc import Sequence
from typing import Final

import click

from pyrmute_tasks.cli.errors import FINISHED_WITH_REJECTS, errors_printed, tell
from pyrmute_tasks.cli.found_jobs import found_job
from pyrmute_tasks.cli.job_text import job_head, job_page, progress_line
from pyrmute_tasks.cli.options import POSITIVE, job_argument, jobs_option
from pyrmute_tasks.cli.screen import Redrawn, columns_of, is_terminal, json_of, styled
from pyrmute_tasks.jobs.states import ShownState
from pyrmute_tasks.service.status import JobStatus, JobWatch, status_of

__all__ = ["exit_status", "status_command", "watch_command"]

_REDRAW_S: Final = 1.0
_LINE_EVERY_S: Final = 30.0
_INTERRUPTED: Final = 130
_json_option: Final = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


@click.command("status")
@job_argument
@jobs_option
@_json_option
def status_command(job: str, jobs_root: str | None, as_json: bool) -> None:
    """Show how far a job is, who drives it, and why it waits.

    JOB is an id, its beginning, or a name; or the target of a run in the foreground.

    Exit status: 0 for success, 1 if there is no such job, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        status = status_of(found_job(job, jobs_root))
        if as_json:
            click.echo(json_of(status.as_fields()))
            return
        click.echo(styled("\n".join(job_page(status, columns_of()))))


@click.command("watch")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@jobs_option
@click.option(
    "--every",
    "every_s",
    type=POSITIVE,
    metavar="SECONDS",
    help="Write a line every so often. [default: 30, and whenever a state or reason changes]",
)
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object a line.")
def watch_command(
    jobs: tuple[str, ...], jobs_root: str | None, every_s: float | None, as_json: bool
) -> None:
    """Watch jobs until they have ended, or hold their output.

    JOB is an id, its beginning, or a name; or the target of a run in the foreground. In a terminal
    the jobs are redrawn every second, elsewhere there is a line from time to time. Ctrl-C ends the
    watching, and nothing else.

    Exit status: 0 for success, 1 if a job has failed or was cancelled, 2 for wrong usage, 3 if
    records were rejected.
    """
    with errors_printed(include_records=False):
        watches = [JobWatch(found_job(job, jobs_root)) for job in dict.fromkeys(jobs)]
        is_drawn = is_terminal() and every_s is None and not as_json
        screen = _Drawn() if is_drawn else _Lines(every_s or _LINE_EVERY_S, as_json=as_json)
        try:
            sys.exit(_watched(watches, screen))
        except KeyboardInterrupt:
            tell("no longer watched; nothing else has ended")
            sys.exit(_INTERRUPTED)


def exit_status(jobs: Sequence[JobStatus]) -> int:
    """Return the exit status that tells how jobs have ended, as that of a run."""
    states = {job.state for job in jobs}
    if states & {ShownState.FAILED, ShownState.CANCELLED}:
        return 1
    return FINISHED_WITH_REJECTS if any(job.rejected for job in jobs) else 0


def _watched(watches: Sequence[JobWatch], screen: "_Drawn | _Lines") -> int:
    """Show jobs until none of them goes on; return the exit status."""
    while True:
        jobs = [watch.look() for watch in watches]
        is_over = all(job.has_ended or job.is_held for job in jobs)
        screen.show(jobs)
        if is_over:
            return exit_status(jobs)
        time.sleep(_REDRAW_S)


class _Drawn:
    """Draws jobs over each other in a terminal."""

    def __init__(self) -> None:
        self._redrawn = Redrawn()

    def show(self, jobs: Sequence[JobStatus]) -> None:
        width, lines = columns_of(), []
        for job in jobs:
            lines += job_head(job, width)
        self._redrawn.show(lines[:-1])


class _Lines:
    """Writes a line about each job from time to time, and when something has changed."""

    def __init__(self, every_s: float, *, as_json: bool) -> None:
        self._every_s = every_s
        self._as_json = as_json
        self._told: dict[str, tuple[str, float]] = {}

    def show(self, jobs: Sequence[JobStatus]) -> None:
        now = time.monotonic()
        for job in jobs:
            kind = f"{job.state} {''.join(filter(str.isalpha, job.reason))}"  # without numbers
            before, at = self._told.get(job.job, ("", -math.inf))
            is_due = not job.has_ended and now - at >= self._every_s
            if kind == before and not is_due:
                continue
            self._told[job.job] = kind, now
            told = json_of(job.as_fields()) if self._as_json else progress_line(job)
            click.echo(told)
