"""`pyrmute-tasks run`: migrates a file of JSON lines; its options."""

from typing import Any, Final

import click

from pyrmute_tasks.cli.options import (
    BROKER_HELP,
    CHUNK_OPTIONS,
    ERROR_OPTIONS,
    HOP_OPTIONS,
    MAX_RATE_OPTION,
    OUTPUT_OPTIONS,
    QUEUE_HELP,
    RETRY_OPTIONS,
    SHOWN_OPTIONS,
    STORE_HELP,
    WAITING_OPTIONS,
    WithOptions,
    check_name,
)
from pyrmute_tasks.cli.run_job import run_job
from pyrmute_tasks.cli.run_options import RunOptions

__all__ = ["run"]

_EXAMPLES: Final = """\b
Examples:
  pyrmute-tasks run --manager my_app.models:manager --model User \\
      --from 1.0.0 --to 3.0.0 old.jsonl new.jsonl
  ... --on-error skip --rejects bad.jsonl --max-errors 0.1% old.jsonl new.jsonl
  ... --broker redis://queue.internal/0 --max-rate 5000 old.jsonl new.jsonl
  ... --resume old.jsonl new.jsonl
  gunzip -c old.jsonl.gz | pyrmute-tasks run ... - - | gzip > new.jsonl.gz

\b
Exit statuses:
  0    succeeded
  1    failed; also if a file or an import is not as it must be
  2    wrong usage: the arguments make no sense, whatever is there
  3    finished, and records were skipped
  130  interrupted (128 and the number of the signal)
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", metavar="IN.jsonl", type=click.Path())
@click.argument("target", metavar="OUT.jsonl", type=click.Path())
@WithOptions(*HOP_OPTIONS)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Worker processes to start. [default: CPUs]"
)
@click.option(
    "--broker",
    envvar="PYRMUTE_TASKS_BROKER_URL",
    help=BROKER_HELP + " Without one, a fleet is started for this run.",
)
@click.option("--store", help=STORE_HELP)
@click.option("--queue", help=QUEUE_HELP)
@WithOptions(*CHUNK_OPTIONS, *OUTPUT_OPTIONS)
@click.option(
    "--keep-partial", is_flag=True, help="On failure, keep the partial output and print its path."
)
@WithOptions(*RETRY_OPTIONS, *WAITING_OPTIONS, *ERROR_OPTIONS)
@click.option(
    "--rejects", type=click.Path(), help="File for the records that are skipped, as JSON lines."
)
@click.option(
    "--rejects-with-records", is_flag=True, help="Write the records themselves there, too."
)
@click.option(
    "--resume", is_flag=True, help="Go on with the run that was killed, interrupted or failed."
)
@click.option("--restart", is_flag=True, help="Discard what an earlier run has left, and begin.")
@click.option("--accept-code", is_flag=True, help="Resume although models or steps have changed.")
@click.option("--no-log", is_flag=True, help="Keep no log; the run cannot be resumed then.")
@click.option("--dry-run", is_flag=True, help="Only show what the run will do, as `plan` does.")
@click.option("--include-records", is_flag=True, help="Let error messages quote records.")
@MAX_RATE_OPTION
@click.option(
    "--throttle",
    metavar="MODULE:CALLABLE",
    callback=check_name,
    help="Asked every second; nothing is sent while it returns a reason to wait, which is shown.",
)
@WithOptions(*SHOWN_OPTIONS)
def run(**given: Any) -> None:
    """Migrate a file of JSON lines, in order.

    Without --broker a Valkey server and workers are started for this run and stopped after it.
    What takes less time than starting them, about a second, is done without them and without a
    log, unless --workers is given.

    IN may be - for standard input. OUT may also be a pipe or a device such as /dev/stdout or -,
    which gets the lines as they are ready; so may the file of rejects.

    A run from files to a file or a folder keeps a log in .OUT.jsonl.job until it has succeeded: if
    it is killed, or fails after ten seconds, the same command with --resume goes on. If records
    were skipped, the folder is kept, small, for `pyrmute-tasks retry OUT`.

    A file of 1 MiB or more goes by reference, if it can: workers read IN and write OUT themselves.
    By reference, IN may also be a folder or a pattern, whose files are read in sorted order, and
    OUT a folder, named with a slash at the end, which gets files part-00000.jsonl and so on.

    In a terminal a bar shows the progress, elsewhere a line every 30 seconds on standard error.
    """
    run_job(RunOptions(**given))
