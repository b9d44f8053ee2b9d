"""`pyrmute-tasks submit`: submits a job from files to files."""

import json
import os
from typing import Any, Final

import click

from pyrmute_tasks.cli.errors import errors_printed, show_warnings, usage_checked
from pyrmute_tasks.cli.options import (
    CHUNK_OPTIONS,
    ERROR_OPTIONS,
    HOP_OPTIONS,
    MAX_RATE_OPTION,
    OUTPUT_OPTIONS,
    POSITIVE,
    QUEUE_HELP,
    RETRY_OPTIONS,
    WithOptions,
    import_retried,
    jobs_option,
    overridden,
    retry_of,
)
from pyrmute_tasks.engine.error_policy import ErrorPolicy, OnError
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.file_runs import NOT_FILES
from pyrmute_tasks.jobs.root import root_of
from pyrmute_tasks.jobs.terms import GIVE_UP_S, Priority
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.service.submitting import SubmitOptions
from pyrmute_tasks.settings import Settings

__all__ = ["submit"]

_TERMS: Final = ("after", "on_end", "give_up_s", "window", "why")
_EXAMPLES: Final = """\b
Examples:
  pyrmute-tasks submit --jobs /data/jobs --manager my_app.models:manager \\
      --model User --from 1.0.0 --to 3.0.0 old.jsonl new.jsonl
  ... --name users --priority high --why "release 3" old.jsonl new.jsonl
  ... --after users --on-error skip --max-errors 0.1% orders/ new-orders/
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", metavar="IN", type=click.Path())
@click.argument("target", metavar="OUT", type=click.Path())
@WithOptions(*HOP_OPTIONS)
@jobs_option
@click.option("--name", "label", default="", help="What people call the job, in place of its id.")
@click.option(
    "--priority",
    type=click.Choice([each.value for each in Priority]),
    default=Priority.NORMAL.value,
    show_default=True,
    help="Its priority among the jobs of the root.",
)
@click.option("--after", default="", metavar="JOB", help="Begin when this job has succeeded.")
@click.option(
    "--on-end",
    default="",
    metavar="CMD",
    help="Run by coordinators with --allow-on-end when the job has ended.",
)
@click.option(
    "--give-up",
    "give_up_s",
    type=POSITIVE,
    default=GIVE_UP_S,
    show_default=True,
    metavar="SECONDS",
    help="How long missing workers, servers or storage may hold it up.",
)
@click.option("--why", default="", metavar="TEXT", help="Why, for people; it is kept.")
@click.option("--queue", help=QUEUE_HELP)
@WithOptions(*OUTPUT_OPTIONS, *ERROR_OPTIONS, MAX_RATE_OPTION)
@click.option("--window", type=click.IntRange(min=1), help="Chunks in flight, at most.")
@WithOptions(*CHUNK_OPTIONS, *RETRY_OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="Print the job's id and folder as JSON.")
def submit(
    source: str,
    target: str,
    manager: str,
    name: str,
    from_version: str,
    to_version: str,
    jobs_root: str | None,
    label: str,
    queue: str | None,
    on_error: str,
    max_errors: str | None,
    retry_on: tuple[str, ...],
    attempts: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Submit a job, which coordinators drive, and print its id.

    Everything that `run` checks is checked now: manager, model, versions, IN, OUT, and room for
    it. Nothing is connected to. From then on the job is a folder of the jobs root, and coordinators
    (`pyrmute-tasks coordinator`) drive it, on any host that sees it; this process is needed no
    more. IN and OUT must be seen there under the same paths.

    IN may be a file, a folder or a pattern; OUT a file, or a folder, named with a slash at the end.

    Exit status: 0 for success, 1 for failure, 2 for wrong usage.
    """
    show_warnings()
    with errors_printed(include_records=False):
        with usage_checked():
            if "-" in (source, target):
                raise ConfigurationError(NOT_FILES)
            policy = ErrorPolicy(OnError(on_error), max_errors)
            settings = overridden(Settings.from_env(os.environ), queue=queue, jobs_root=jobs_root)
            root_of(settings.jobs_root)
            SubmitOptions(name=label, **{each: options[each] for each in _TERMS})
            retry = retry_of(retry_on, attempts)
        import_retried(retry_on)
        migrator = Migrator(manager, settings=settings, retry=retry)
        job = migrator.submit(
            source,
            target,
            name,
            from_version,
            to_version,
            name=label,
            on_error=policy,
            **options,
        )
        click.echo(json.dumps({"id": job.id, "folder": str(job.path)}) if as_json else job.id)
