"""`pyrmute-tasks retry`: runs again what a run has rejected."""

import os
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from pyrmute_tasks.cli.errors import (
    FINISHED_WITH_REJECTS,
    errors_printed,
    show_warnings,
    tell,
    usage_checked,
)
from pyrmute_tasks.cli.interrupts import Interrupts
from pyrmute_tasks.cli.options import (
    BROKER_HELP,
    POSITIVE,
    QUEUE_HELP,
    RETRY_OPTIONS,
    SHOWN_OPTIONS,
    STORE_HELP,
    WAITING_OPTIONS,
    WithOptions,
    check_fleet,
    import_retried,
    jobs_option,
    manager_option,
    overridden,
    retry_of,
)
from pyrmute_tasks.cli.run_report import ReportOptions, print_report
from pyrmute_tasks.cli.shown import shown
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.engine.error_policy import ErrorPolicy
from pyrmute_tasks.engine.progress import ProgressOptions
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.log_options import kept_job
from pyrmute_tasks.io.output_place import is_stream
from pyrmute_tasks.io.rejects import check_asked_for
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.settings import Settings

__all__ = ["retry_command"]


@click.command("retry")
@click.argument("target", metavar="OUT|JOB", type=click.Path())
@jobs_option
@manager_option
@click.option(
    "--workers", type=click.IntRange(min=1), help="Worker processes to start. [default: CPUs]"
)
@click.option(
    "--broker",
    envvar="PYRMUTE_TASKS_BROKER_URL",
    help=BROKER_HELP + " Its workers need --root.",
)
@click.option("--store", help=STORE_HELP)
@click.option("--queue", help=QUEUE_HELP)
@WithOptions(*WAITING_OPTIONS, *RETRY_OPTIONS)
@click.option("--rejects", type=click.Path(), help="File for what is rejected again.")
@click.option(
    "--rejects-with-records", is_flag=True, help="Write the records themselves there, too."
)
@click.option(
    "--max-errors",
    metavar="N|SHARE",
    help="Most records to reject again. [default: as many as there are]",
)
@click.option(
    "--accept-code",
    is_flag=True,
    help="Keep what had passed, whatever today's code would make of it.",
)
@click.option("--restart", is_flag=True, help="Begin again with a retry that was killed.")
@click.option(
    "--hold", is_flag=True, help="Prove the output, and leave it to `pyrmute-tasks publish OUT`."
)
@click.option("--backup", is_flag=True, help="Keep the OUT that is replaced, as OUT.JOB.backup.")
@click.option("--include-records", is_flag=True, help="Let error messages quote records.")
@click.option("--max-rate", type=POSITIVE, help="Most records a second.")
@WithOptions(*SHOWN_OPTIONS)
def retry_command(
    target: str,
    jobs_root: str | None,
    manager: str,
    workers: int | None,
    broker: str | None,
    store: str | None,
    queue: str | None,
    wait_s: float | None,
    stall_s: float | None,
    retry_on: tuple[str, ...],
    attempts: int | None,
    include_records: bool,
    stats_s: float | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Run again what a run has rejected, with today's code.

    The ranges of the source that had rejects are run again, and OUT is replaced by a file, or a
    folder of parts, in which their outputs stand where they belong. Source and OUT must be what
    they were. Some of the records that had passed are compared first: if today's code makes
    something else of them, nothing is done. A retry that was killed goes on by the same command.

    JOB is the id or the name of a job that was submitted. Its retry is submitted, too: this prints
    its id, and coordinators drive it.

    Exit status: 0 for success, 1 for failure, 2 for wrong usage, 3 if records were rejected again.
    """
    show_warnings()
    if _is_submitted(target, jobs_root):
        here = (workers, wait_s, stall_s, stats_s, options["max_rate"], options["rejects"])
        with errors_printed(include_records):
            with usage_checked():
                if any(here) or options["rejects_with_records"] or options["restart"]:
                    raise ConfigurationError(
                        "the retry of a submitted job is submitted: --workers, --wait, --stall, "
                        "--stats, --max-rate, --rejects and --restart are for one that runs here"
                    )
                settings = overridden(Settings.from_env(os.environ), jobs_root=jobs_root)
                retry = retry_of(retry_on, attempts)
            import_retried(retry_on)
            by = Migrator(manager, settings=settings, retry=retry)
            _submit(by, target, options)
        return
    rejects = options["rejects"]
    if rejects == "-":
        rejects = options["rejects"] = "/dev/stdout"
    interrupts = Interrupts(target, leaves_something=True)
    with errors_printed(include_records, interrupts), interrupts:
        with usage_checked():
            check_fleet(broker, store, queue, workers)
            policy = ErrorPolicy.skip(options["max_errors"])
            check_asked_for(rejects, policy, with_records=options["rejects_with_records"])
            retry = retry_of(retry_on, attempts)
            settings = overridden(
                Settings.from_env(os.environ),
                broker_url=broker,
                store_url=store,
                queue=queue,
                worker_wait_s=wait_s,
                stall_s=stall_s,
            )
        import_retried(retry_on)
        migrator = Migrator(
            manager,
            workers=workers or (usable_cpus() if broker is None else None),
            broker_url=broker,
            settings=settings,
            retry=retry,
        )
        on_stderr = rejects is not None and is_stream(rejects)
        reported = ReportOptions(target, rejects, quiet, as_json, on_stderr, options["hold"])
        progress = ProgressOptions(stats_s, as_json, options["max_rate"])
        with closing(migrator), shown(None if quiet else progress) as bars:
            report = None
            try:
                report = migrator.retry(target, observers=(*bars, interrupts), **options)
            except Exception:
                if migrator.last_report is not None and migrator.last_report.exceeded:
                    tell(migrator.last_report.exceeded)
                raise
            finally:
                for bar in bars:
                    bar.close()
                if (ended := migrator.last_report or report) is not None:
                    print_report(ended, reported)
        if report.rejected:
            sys.exit(FINISHED_WITH_REJECTS)


def _is_submitted(name: str, jobs_root: str | None) -> bool:
    """Return whether a name is that of a submitted job, and not of the target of a run."""
    if (Path(name) / SPEC).is_file():
        return JobFolder(Path(name)).spec.terms is not None
    is_id = jobs_root is not None and os.sep not in name
    return is_id and not os.path.lexists(name) and kept_job(name) is None


def _submit(migrator: Migrator, name: str, options: Mapping[str, Any]) -> None:
    path = Path(os.path.abspath(name))
    is_folder = (path / SPEC).is_file()
    job = migrator.job(path.name, jobs=path.parent) if is_folder else migrator.job(name)
    names = ("max_errors", "accept_code", "hold", "backup")
    click.echo(job.retry(**{each: options[each] for each in names}).id)
