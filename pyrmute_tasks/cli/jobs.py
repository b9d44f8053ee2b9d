"""`pyrmute-tasks publish`, `verify` and `discard`: work on jobs that runs have left."""

import sys
from typing import Final

import click

from pyrmute_tasks.cli.errors import FINISHED_WITH_REJECTS, errors_printed, tell
from pyrmute_tasks.cli.options import WithOptions, jobs_option
from pyrmute_tasks.io.kept_jobs import ProvenJob, discard_job, publish_job, verify_job

__all__ = ["discard_command", "publish_command", "verify_command"]

_output: Final = WithOptions(
    click.argument("name", metavar="OUT|JOB", type=click.Path()), jobs_option
)


@click.command("publish")
@_output
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--backup", is_flag=True, help="Keep the OUT that is replaced, as OUT.JOB.backup.")
@click.option("--why", default="", metavar="TEXT", help="Why, for people; it is logged.")
def publish_command(
    name: str, jobs_root: str | None, overwrite: bool, backup: bool, why: str
) -> None:
    """Publish the output of a run or job with --hold.

    OUT names the job by its target, or is the job's own folder; JOB is the id or the name of one
    that was submitted with --hold. The output is proven once more. No manager, no fleet and no
    source is needed, and no coordinator. Who did it, where, when and why is in the job's log.

    Exit status: 0 for success, 1 for failure, 2 for wrong usage, 3 if records were rejected.
    """
    with errors_printed(include_records=False):
        done = publish_job(name, overwrite=overwrite, backup=backup, jobs=jobs_root, why=why)
        click.echo(f"published {done.target}: {_counted(done)}")
        if done.backup:
            click.echo(f"backup    {done.backup}")
        if done.proof.rejected:
            sys.exit(FINISHED_WITH_REJECTS)


@click.command("verify")
@_output
def verify_command(name: str, jobs_root: str | None) -> None:
    """Prove again that an output is whole, and compare it with its digests.

    OUT names the job by its target, or is the job's own folder: of a run with --hold, or of one
    with rejects; JOB is the id or the name of one that was submitted. Its ranges must cover the
    source without a gap, the records read must be those written and rejected, and every byte must
    be what was written.

    Exit status: 0 if all is proven, 1 if not, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        done = verify_job(name, jobs=jobs_root)
        where = "is whole" if done.is_published else "can be published, and is whole"
        click.echo(f"{done.target} {where}: {_counted(done)}; all digests agree")


@click.command("discard")
@_output
@click.option("--why", default="", metavar="TEXT", help="Why, for people; noted of submitted jobs.")
def discard_command(name: str, jobs_root: str | None, why: str) -> None:
    """Remove a job, or what runs have left beside an output; outputs stay.

    OUT names the jobs by their target, or is the folder of one; JOB is the id or the name of one
    that was submitted, of which the history is removed, too: only who discarded it, where, when and
    why is noted, for 30 days. One that is driven is refused.

    Exit status: 0 for success, 1 for failure, 2 for wrong usage.
    """
    with errors_printed(include_records=False):
        for path in discard_job(name, jobs=jobs_root, why=why):
            tell(f"discarded {path}")


def _counted(done: ProvenJob) -> str:
    proof = done.proof
    told = f"{proof.outputs:,} of {proof.records:,} records in {proof.length:,} bytes"
    return f"{told}, {proof.rejected:,} rejected" if proof.rejected else told
