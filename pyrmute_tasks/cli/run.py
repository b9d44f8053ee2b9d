"""`pyrmute-tasks run`: migrates a file of JSON lines."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import click

from pyrmute_tasks.cli.errors import (
    errors_printed,
    fail,
    show_warnings,
    tell,
    usage_checked,
    warnings_through,
)
from pyrmute_tasks.cli.interrupts import Interrupts
from pyrmute_tasks.cli.options import (
    BROKER_HELP,
    MANAGER_HELP,
    QUEUE_HELP,
    STORE_HELP,
    overridden,
)
from pyrmute_tasks.cli.run_report import ReportOptions, print_report
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.engine.error_policy import ErrorPolicy, OnError
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pace import Pace, Throttle
from pyrmute_tasks.engine.progress import ProgressBar, ProgressOptions
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.file_runs import ByReference
from pyrmute_tasks.io.earlier_runs import LogOptions, kept_job
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.not_lines import refuse_other_formats
from pyrmute_tasks.io.output_parts import is_parts
from pyrmute_tasks.io.output_place import check_output, is_stream
from pyrmute_tasks.io.range_source import find_sources
from pyrmute_tasks.io.rejects import check_rejects
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.registry import load_attribute
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.urls import hide_password
from pyrmute_tasks.versions import ModelVersion

__all__ = ["run"]

_STDOUT: Final = "/dev/stdout"
_FINISHED_WITH_REJECTS: Final = 3
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
  1    failed
  2    wrong usage
  3    finished, and records were skipped
  130  interrupted (128 and the number of the signal)
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", metavar="IN.jsonl", type=click.Path())
@click.argument("target", metavar="OUT.jsonl", type=click.Path())
@click.option("--manager", required=True, envvar="PYRMUTE_TASKS_MANAGER", help=MANAGER_HELP)
@click.option("--model", "name", required=True, help="Name of the model.")
@click.option("--from", "from_version", required=True, help="Version of the records in IN.")
@click.option("--to", "to_version", required=True, help="Version of the records in OUT.")
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
@click.option(
    "--chunk-size", type=click.IntRange(min=1), help="Records a chunk. [default: by size]"
)
@click.option(
    "--by-reference",
    type=click.Choice([way.value for way in ByReference]),
    default=ByReference.AUTO.value,
    show_default=True,
    help="Whether workers read IN and write OUT themselves; those of --broker need --root.",
)
@click.option(
    "--max-line-bytes",
    type=click.IntRange(min=1),
    help="Longest line, by reference; a longer one is its record's failure.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.jsonl if it exists.")
@click.option(
    "--keep-partial", is_flag=True, help="On failure, keep the partial output and print its path."
)
@click.option(
    "--retry-on",
    multiple=True,
    metavar="MODULE:CLASS",
    help="Retry a step that raises this exception, as builtins:ConnectionError; repeatable.",
)
@click.option(
    "--attempts", type=click.IntRange(min=1), help="Most runs of a step, with retries. [default: 4]"
)
@click.option("--wait", "wait_s", type=float, help="Seconds to wait for a first worker.")
@click.option(
    "--stall",
    "stall_s",
    type=float,
    help="Seconds in which nothing moves although workers are idle. [default: 60]",
)
@click.option(
    "--on-error",
    type=click.Choice([str(choice) for choice in OnError]),
    default=str(OnError.RAISE),
    show_default=True,
    help="End at the first record that fails, or leave such records out of OUT.",
)
@click.option(
    "--rejects", type=click.Path(), help="File for the records that are skipped, as JSON lines."
)
@click.option(
    "--rejects-with-records", is_flag=True, help="Write the records themselves there, too."
)
@click.option(
    "--max-errors",
    metavar="N|SHARE",
    help="Most records to skip: a number, or a share as 0.1%, from 1,000 records on.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the run that was killed, interrupted or failed."
)
@click.option("--restart", is_flag=True, help="Discard what an earlier run has left, and begin.")
@click.option("--accept-code", is_flag=True, help="Resume although models or steps have changed.")
@click.option("--no-log", is_flag=True, help="Keep no log; the run cannot be resumed then.")
@click.option("--include-records", is_flag=True, help="Let error messages quote records.")
@click.option(
    "--max-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Most records a second; they do not go by reference then.",
)
@click.option(
    "--throttle",
    metavar="MODULE:CALLABLE",
    help="Asked every second; nothing is sent while it returns a reason to wait, which is shown.",
)
@click.option(
    "--stats",
    "stats_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Write a line of progress every so often, and no bar. [default: 30 without a terminal]",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Write the report and lines of progress as JSON."
)
@click.option(
    "--quiet", "-q", is_flag=True, help="Print no progress, and no report but that of --json."
)
def run(
    source: str,
    target: str,
    manager: str,
    name: str,
    from_version: str,
    to_version: str,
    workers: int | None,
    broker: str | None,
    store: str | None,
    queue: str | None,
    chunk_size: int | None,
    by_reference: str,
    max_line_bytes: int | None,
    overwrite: bool,
    keep_partial: bool,
    retry_on: tuple[str, ...],
    attempts: int | None,
    wait_s: float | None,
    stall_s: float | None,
    on_error: str,
    rejects: str | None,
    rejects_with_records: bool,
    max_errors: str | None,
    resume: bool,
    restart: bool,
    accept_code: bool,
    no_log: bool,
    include_records: bool,
    max_rate: float | None,
    throttle: str | None,
    stats_s: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Migrate a file of JSON lines, in order.

    Without --broker a Valkey server and workers are started for this run and stopped after it.
    IN may be - for standard input. OUT may also be a pipe or a device such as /dev/stdout or -,
    which gets the lines as they are ready; so may the file of rejects.

    A run from a file to a file that goes through this process keeps a log in .OUT.jsonl.job until
    it has succeeded: if it is killed, or fails after ten seconds, the same command with --resume
    goes on. With --resume from the beginning, a run never goes by reference.

    By reference, IN may also be a folder or a pattern, whose files are read in sorted order, and
    OUT a folder, named with a slash at the end, which gets files part-00000.jsonl and so on.

    In a terminal a bar shows the progress, elsewhere a line every 30 seconds on standard error.
    """
    show_warnings()
    is_stdin = source == "-"
    target = _STDOUT if target == "-" else target
    rejects = _STDOUT if rejects == "-" else rejects
    is_streamed = is_stream(target)
    interrupts = Interrupts(target, keep_partial or is_streamed)
    with errors_printed(include_records, interrupts), interrupts:
        names = [] if is_stdin else find_sources(source)
        for path in names:
            check_source(path)
            refuse_other_formats(path, command_on_stdin(sys.argv, source))
        first = names[0] if names else None
        if not is_parts(target):
            check_output(target, source=first, overwrite=overwrite or resume)
        if rejects is not None:
            check_output(rejects, overwrite=overwrite or resume)
        with usage_checked():
            for version in (from_version, to_version):
                ModelVersion.of(version)
            logs = LogOptions(resume, restart, accept_code, not no_log)
            if is_streamed or is_stdin:
                logs.refuse_streams()
            policy = ErrorPolicy(OnError(on_error), max_errors)
            check_rejects(
                rejects,
                policy,
                source=sys.stdin.buffer if is_stdin else source,
                target=target,
                overwrite=overwrite or resume,
                with_records=rejects_with_records,
            )
            retry = _retry(retry_on, attempts)
            pace = Pace(max_rate, _throttle(throttle))
            settings = _fleet_settings(broker, store, queue, wait_s, stall_s)
            number = _workers(workers, broker)
        if resume and kept_job(target) is None:
            tell(f"there is nothing to resume for {target}: the run begins")
        migrator = Migrator(
            manager, workers=number, broker_url=broker, settings=settings, retry=retry
        )
        stdout_is_taken = is_streamed or (rejects is not None and is_stream(rejects))
        reported = ReportOptions(target, rejects, quiet, as_json, on_stderr=stdout_is_taken)
        shown = () if quiet else (_progress(stats_s, as_json, max_rate),)
        # Not entered: `run_file` starts the fleet once it holds the lock of the output.
        with closing(migrator), _reported(migrator, reported), _shown(shown):
            report = migrator.run_file(
                sys.stdin.buffer if is_stdin else source,
                target,
                name,
                from_version,
                to_version,
                chunk_size=chunk_size,
                by_reference=by_reference,
                max_line_bytes=max_line_bytes,
                overwrite=overwrite,
                keep_partial=keep_partial,
                observers=(interrupts, *shown),
                on_error=policy,
                rejects=rejects,
                rejects_with_records=rejects_with_records,
                resume=resume,
                restart=restart,
                accept_code=accept_code,
                log=not no_log,
                max_rate=pace.max_rate,
                throttle=pace.throttle,
            )
        _fail_if_it_did(report, include_records)
        if first is not None and not quiet:
            _tell_losses(first, manager, name, from_version, to_version)
        if report.rejected:
            sys.exit(_FINISHED_WITH_REJECTS)


def _fail_if_it_did(report: JobReport, include_records: bool) -> None:
    if report.failure is not None:
        if report.exceeded:
            tell(report.exceeded)
        fail(report.failure.exception(), include_records)


def command_on_stdin(argv: Sequence[str], source: str) -> str:
    """Return the command that does the same on standard input, without passwords."""
    words = ["-" if word == source else word for word in argv[1:]]
    words = [hide_password(word) if "://" in word else word for word in words]
    return shlex.join([os.path.basename(argv[0]), *words])


def _progress(stats_s: float | None, as_json: bool, max_rate: float | None) -> ProgressBar:
    return ProgressBar(options=ProgressOptions(stats_s, as_json, max_rate))


@contextlib.contextmanager
def _shown(bars: Sequence[ProgressBar]) -> Iterator[None]:
    """Write warnings above the bar, which ends with the block."""
    with contextlib.ExitStack() as stack:
        for bar in bars:
            stack.callback(bar.close)
            stack.enter_context(warnings_through(bar.say))
        yield


@contextlib.contextmanager
def _reported(migrator: Migrator, options: ReportOptions) -> Iterator[None]:
    """Print the job's report once it has ended, however it has."""
    try:
        yield
    finally:
        if migrator.last_report is not None:
            print_report(migrator.last_report, options)


def _tell_losses(source: str, manager: str, name: str, from_version: str, to_version: str) -> None:
    """Print a hint about fields that may get lost; when the fleet is closed."""
    from pyrmute_tasks.cli.audit import losses_hint  # an audit's imports take a while

    hint = losses_hint(source, manager, name, from_version, to_version)
    if hint is not None:
        tell(hint)


def _fleet_settings(
    broker: str | None,
    store: str | None,
    queue: str | None,
    wait_s: float | None,
    stall_s: float | None,
) -> Settings:
    if broker is None and (store is not None or queue is not None):
        raise ConfigurationError("--store and --queue need --broker: they name a running fleet")
    return overridden(
        Settings.from_env(os.environ),
        store_url=store,
        queue=queue,
        worker_wait_s=wait_s,
        stall_s=stall_s,
    )


def _workers(workers: int | None, broker: str | None) -> int | None:
    return usable_cpus() if workers is None and broker is None else workers


def _throttle(name: str | None) -> Throttle | None:
    if name is None:
        return None
    found = load_attribute(name)
    if not callable(found):
        raise ConfigurationError(f"'{name}' is no function that returns a reason to wait, or None")
    return found


def _retry(on: tuple[str, ...], attempts: int | None) -> Retry | None:
    for name in on:
        if ":" in name:  # others are refused below
            kind = load_attribute(name)
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise ConfigurationError(f"'{name}' is no class of exceptions that may be retried")
    if not on:
        if attempts is not None:
            raise ConfigurationError("--attempts needs --retry-on: nothing is retried without it")
        return None
    return Retry(on=on) if attempts is None else Retry(on=on, attempts=attempts)
