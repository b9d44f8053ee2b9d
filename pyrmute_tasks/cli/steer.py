"""`pyrmute-tasks pause`, `resume`, `cancel` and `set`: steer a submitted job."""

import contextlib
import math
from typing import Any, Final

import click

from pyrmute_tasks.cli.errors import errors_printed, usage_checked
from pyrmute_tasks.cli.options import (
    MANAGER_HELP,
    WithOptions,
    check_name,
    job_argument,
    jobs_option,
)
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import root_of
from pyrmute_tasks.pyrmute_adapter import load_manager
from pyrmute_tasks.service import steering
from pyrmute_tasks.service.steering import NO_BOUND, Limits

__all__ = ["cancel_command", "pause_command", "resume_command", "set_command"]

_steered: Final = WithOptions(
    job_argument,
    jobs_option,
    click.option("--why", default="", metavar="TEXT", help="Why, for people; it is logged."),
)


def _rate(text: str) -> float | str:
    return _bound(text, float)


def _window(text: str) -> float | str:
    return _bound(text, int)


def _bound(text: str, kind: type[int] | type[float]) -> float | str:
    """Return a number, or ``none`` for 0 and ``none``: no bound.

    Raises:
        click.BadParameter: If it is something else.
    """
    if text == NO_BOUND:
        return NO_BOUND
    with contextlib.suppress(ValueError):
        found = kind(text)
        if 0 <= found < math.inf:
            return found or NO_BOUND
    raise click.BadParameter(f"{text!r} is neither a number of 0 or more nor {NO_BOUND}")


@click.command("pause")
@_steered
def pause_command(job: str, jobs_root: str | None, why: str) -> None:
    """Pause a job, within seconds, until somebody resumes it.

    JOB is an id, its beginning, or a name. What is under way is withdrawn, and done again later.

    Exit status: 0 for success, 1 if that cannot be, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        folder = _found(job, jobs_root)
        steering.pause(folder, why)
        click.echo(f"job {folder.spec.job} will pause")


@click.command("resume")
@_steered
@click.option("--manager", help=MANAGER_HELP, callback=check_name)
@click.option("--accept-code", is_flag=True, help="Go on with today's models and steps.")
def resume_command(
    job: str, jobs_root: str | None, why: str, manager: str | None, accept_code: bool
) -> None:
    """Resume a job that is paused, was suspended, or has failed.

    JOB is an id, its beginning, or a name. What is settled stays settled. With --manager, today's
    models and steps are compared with those of the job; if they differ, --accept-code goes on with
    today's, which workers must have, too. --accept-code alone takes the manager that the job names.

    Exit status: 0 for success, 1 if that cannot be, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        folder = _found(job, jobs_root)
        terms = folder.spec.terms
        if accept_code and manager is None and terms is not None:
            manager = terms.manager
        loaded = load_manager(manager) if manager else None
        code = steering.code_of(loaded, folder) if loaded is not None else None
        steering.resume(folder, why, code=code, accept_code=accept_code)
        click.echo(f"job {folder.spec.job} will go on")


@click.command("cancel")
@_steered
def cancel_command(job: str, jobs_root: str | None, why: str) -> None:
    """Cancel a job: what it has written is removed, its history stays.

    JOB is an id, its beginning, or a name. What it has written is removed.

    Exit status: 0 for success, 1 if that cannot be, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        folder = _found(job, jobs_root)
        steering.cancel(folder, why)
        click.echo(f"job {folder.spec.job} will be cancelled")


@click.command("set")
@_steered
@click.option("--max-rate", type=_rate, metavar="N", help="Records a second, at most; or none.")
@click.option("--window", type=_window, metavar="N", help="Chunks in flight, at most; or none.")
@click.option(
    "--max-errors",
    metavar="N|SHARE",
    help="Records that may be skipped: a number, a share as 0.1%, or none for no limit.",
)
def set_command(job: str, jobs_root: str | None, why: str, **limits: Any) -> None:
    """Change the limits of a job, also while it runs.

    JOB is an id, its beginning, or a name. Limits that are not named stay as they are.

    Exit status: 0 for success, 1 if that cannot be, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        with usage_checked():
            wanted = Limits(**limits)
        folder = _found(job, jobs_root)
        steering.set_limits(folder, wanted, why)
        click.echo(f"job {folder.spec.job} has other limits from now on")


def _found(job: str, jobs_root: str | None) -> JobFolder:
    with usage_checked():
        root = root_of(jobs_root)
    return root.find(job)
