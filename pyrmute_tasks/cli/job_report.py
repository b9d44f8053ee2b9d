"""`pyrmute-tasks report` and `rejects`: tell what a job has done, and which records it left out."""

import time
from itertools import islice

import click

from pyrmute_tasks.cli.errors import errors_printed
from pyrmute_tasks.cli.found_jobs import found_job
from pyrmute_tasks.cli.options import job_argument, jobs_option
from pyrmute_tasks.cli.report_text import report_lines
from pyrmute_tasks.cli.screen import columns_of, json_of, styled
from pyrmute_tasks.io.rejects import rejects_to_lines
from pyrmute_tasks.service.history import report_of
from pyrmute_tasks.service.rejects import rejects_of

__all__ = ["rejects_command", "report_command"]


@click.command("report")
@job_argument
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def report_command(job: str, jobs_root: str | None, as_json: bool) -> None:
    """Report what a job has done, so far or in the end.

    JOB is an id, its beginning, or a name; or the target of a run in the foreground. The
    report tells the code that it ran with, its epochs, what failed and where first, what held it up
    and why, wishes, crashes that it survived, its rate over time, and the output's digest.

    Exit status: 0 for success, 1 if there is no such job, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        report = report_of(found_job(job, jobs_root))
        if as_json:
            click.echo(json_of(report.as_fields()))
            return
        click.echo(styled("\n".join(report_lines(report, time.time(), columns_of()))))


@click.command("rejects")
@job_argument
@jobs_option
@click.option("--limit", type=click.IntRange(min=0), help="Write the first N only.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines, as is done anyway.")
def rejects_command(job: str, jobs_root: str | None, limit: int | None, as_json: bool) -> None:
    """Write the records that a job has rejected, so far or in the end, as JSON lines.

    JOB is an id, its beginning, or a name; or the target of a run in the foreground. The lines are
    those of a file of rejects, without the records. While something before a record is not done,
    its index and line are null.

    Exit status: 0 for success, 1 if there is no such job, 2 for wrong usage.
    """
    del as_json
    with errors_printed(include_records=False):
        for reject in islice(rejects_of(found_job(job, jobs_root)), limit):
            click.echo(rejects_to_lines([reject]), nl=False)
