"""`pyrmute-tasks jobs`: lists submitted jobs in a table."""

import time
from typing import Final

import click

from pyrmute_tasks.cli.errors import errors_printed, tell, usage_checked
from pyrmute_tasks.cli.job_text import job_table
from pyrmute_tasks.cli.options import jobs_option
from pyrmute_tasks.cli.screen import columns_of, json_of, styled
from pyrmute_tasks.engine.counted import counted
from pyrmute_tasks.errors import printable
from pyrmute_tasks.jobs.root import root_of
from pyrmute_tasks.jobs.states import ShownState
from pyrmute_tasks.service.listing import ALL_STATES, list_jobs

__all__ = ["jobs_command"]

_MOST_ENDED: Final = 20
_MOST_UNREADABLE: Final = 5


@click.command("jobs")
@jobs_option
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in ShownState]),
    metavar="STATE",
    help="Only jobs in this state, as running or 'succeeded with rejects'; repeatable.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=_MOST_ENDED,
    show_default=True,
    help="How many of the jobs that have ended to show, the latest first.",
)
@click.option("--all", "is_all", is_flag=True, help="Show all that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object a line.")
def jobs_command(
    jobs_root: str | None, states: tuple[str, ...], limit: int, is_all: bool, as_json: bool
) -> None:
    """List the submitted jobs, the newest first, and why they wait or have ended.

    Exit status: 0 for success, 1 for failure, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        with usage_checked():
            root = root_of(jobs_root)
        wanted = frozenset(map(ShownState, states)) or ALL_STATES
        found = list_jobs(root, states=wanted, most_ended=None if is_all else limit)
        if as_json:
            for job in found.jobs:
                click.echo(json_of(job.as_fields()))
        elif found.jobs:
            table = job_table(found.jobs, time.time(), columns_of())
            click.echo(styled("\n".join(table)))
        else:
            tell(f"there are no such jobs in {root.path}" if states else f"no jobs in {root.path}")
        if found.left_out and not as_json:
            tell(f"{counted(found.left_out, 'more job')} ended before these: --all shows all")
        for name, why in list(found.unreadable.items())[:_MOST_UNREADABLE]:
            tell(f"job {printable(name)} cannot be read: {why}")
