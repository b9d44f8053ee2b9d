"""`pyrmute-tasks run`: migrates a file of JSON lines."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import click

from pyrmute_tasks.cli.errors import errors_printed, fail, show_warnings, tell
from pyrmute_tasks.cli.interrupts import Interrupts
from pyrmute_tasks.cli.next_steps import next_step
from pyrmute_tasks.cli.options import (
    BROKER_HELP,
    MANAGER_HELP,
    QUEUE_HELP,
    STORE_HELP,
    overridden,
)
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.engine.error_policy import ErrorPolicy, OnError
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.file_options import ByReference
from pyrmute_tasks.io.earlier_runs import LogOptions, kept_job
from pyrmute_tasks.io.job_targets import is_parts
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.output_place import check_output, is_stream
from pyrmute_tasks.io.range_source import find_sources
from pyrmute_tasks.io.rejects import check_rejects
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.settings import Settings

__all__ = ["fleet_settings", "reported_by", "run", "step_retry", "workers_of"]

_STDIN: Final = "/dev/stdin"
_STDOUT: Final = "/dev/stdout"
_FINISHED_WITH_REJECTS: Final = 3
_MOST_CAUSES: Final = 5


@click.command()
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
@click.option("--limit", type=click.IntRange(min=1), help="Migrate the first N records only.")
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
    "--hold", is_flag=True, help="Prove the output, and leave it to `pyrmute-tasks publish OUT`."
)
@click.option("--backup", is_flag=True, help="Keep the OUT that is replaced, as OUT.JOB.backup.")
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
@click.option("--dry-run", is_flag=True, help="Only show what the run will do, as `plan` does.")
@click.option("--include-records", is_flag=True, help="Let error messages quote records.")
@click.option("--quiet", "-q", is_flag=True, help="Print no progress bar and no report.")
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
    limit: int | None,
    by_reference: str,
    max_line_bytes: int | None,
    overwrite: bool,
    hold: bool,
    backup: bool,
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
    dry_run: bool,
    include_records: bool,
    quiet: bool,
) -> None:
    """Migrate a file of JSON lines, in order.

    Without --broker a Valkey server and workers are started for this run and stopped after it.
    OUT may also be a pipe or a device such as /dev/stdout or -, which gets the lines as they are
    ready; so may the file of rejects.

    A run from files to a file or a folder keeps a log in .OUT.jsonl.job until it has succeeded: if
    it is killed, or fails after ten seconds, the same command with --resume goes on. If records
    were skipped, the folder is kept, small, for `pyrmute-tasks retry OUT`.

    By reference, IN may also be a folder or a pattern, whose files are read in sorted order, and
    OUT a folder, named with a slash at the end, which gets files part-00000.jsonl and so on.

    Exit status: 0 for success, 1 for failure, 2 for wrong usage, 3 if records were skipped.
    """
    show_warnings()
    source = _STDIN if source == "-" else source
    target = _STDOUT if target == "-" else target
    rejects = _STDOUT if rejects == "-" else rejects
    is_streamed = is_stream(target)
    leaves_something = keep_partial or is_streamed
    interrupts = Interrupts(target, leaves_something)
    with errors_printed(include_records, interrupts), interrupts:
        names = find_sources(source)
        for path in names:
            check_source(path)
        logs = LogOptions(resume, restart, accept_code, not no_log)
        if is_streamed:
            logs.refuse_streams()
        if not is_parts(target):
            check_output(target, source=names[0], overwrite=overwrite or resume or hold)
        policy = ErrorPolicy(OnError(on_error), max_errors)
        check_rejects(
            rejects,
            policy,
            source=names[0],
            target=target,
            overwrite=overwrite or resume,
            with_records=rejects_with_records,
        )
        if resume and kept_job(target, is_published=True) is None:
            tell(f"there is nothing to resume for {target}: the run begins")
        migrator = Migrator(
            manager,
            workers=workers_of(workers, broker),
            broker_url=broker,
            settings=fleet_settings(broker, store, queue, wait_s, stall_s),
            retry=step_retry(retry_on, attempts),
        )
        if dry_run:
            from pyrmute_tasks.cli.plan import show_plan  # runs do without

            show_plan(
                migrator,
                source,
                target,
                name,
                from_version,
                to_version,
                chunk_size=chunk_size,
                limit=limit,
                by_reference=by_reference,
                policy=policy,
            )
        stdout_is_taken = is_streamed or (rejects is not None and is_stream(rejects))
        reported = reported_by(
            migrator, target, rejects, quiet, on_stderr=stdout_is_taken, held=hold
        )
        # Not entered: `run_file` starts the fleet once it holds the lock of the output.
        with closing(migrator), reported:
            report = migrator.run_file(
                source,
                target,
                name,
                from_version,
                to_version,
                chunk_size=chunk_size,
                limit=limit,
                by_reference=by_reference,
                max_line_bytes=max_line_bytes,
                overwrite=overwrite,
                hold=hold,
                backup=backup,
                keep_partial=keep_partial,
                observers=(interrupts,),
                progress=not quiet,
                on_error=policy,
                rejects=rejects,
                rejects_with_records=rejects_with_records,
                resume=resume,
                restart=restart,
                accept_code=accept_code,
                log=not no_log,
            )
        if report.failure is not None:
            if report.exceeded:
                tell(report.exceeded)
            fail(report.failure.exception(), include_records)
        if not quiet:
            _tell_losses(names[0], manager, name, from_version, to_version)
        if report.rejected:
            sys.exit(_FINISHED_WITH_REJECTS)


def _tell_losses(source: str, manager: str, name: str, from_version: str, to_version: str) -> None:
    """Print a hint about fields that may get lost; when the fleet is closed."""
    from pyrmute_tasks.cli.audit import losses_hint  # an audit's imports take a while

    hint = losses_hint(source, manager, name, from_version, to_version)
    if hint is not None:
        tell(hint)


def fleet_settings(
    broker: str | None,
    store: str | None,
    queue: str | None,
    wait_s: float | None,
    stall_s: float | None,
) -> Settings:
    """Return the settings of a command's fleet.

    Raises:
        ConfigurationError: If options of a running fleet are given without one.
    """
    if broker is None and (store is not None or queue is not None):
        raise ConfigurationError("--store and --queue need --broker: they name a running fleet")
    return overridden(
        Settings.from_env(os.environ),
        store_url=store,
        queue=queue,
        worker_wait_s=wait_s,
        stall_s=stall_s,
    )


def workers_of(workers: int | None, broker: str | None) -> int | None:
    """Return the size of the fleet to start; None for a running one."""
    return usable_cpus() if workers is None and broker is None else workers


def step_retry(on: tuple[str, ...], attempts: int | None) -> Retry | None:
    """Return which exceptions of steps are retried.

    Raises:
        ConfigurationError: If attempts are given, and no exception.
    """
    if not on:
        if attempts is not None:
            raise ConfigurationError("--attempts needs --retry-on: nothing is retried without it")
        return None
    return Retry(on=on) if attempts is None else Retry(on=on, attempts=attempts)


@contextlib.contextmanager
def reported_by(
    migrator: Migrator,
    target: str,
    rejects: str | None,
    quiet: bool,
    *,
    on_stderr: bool,
    held: bool = False,
) -> Iterator[None]:
    """Print the job's report on stdout, or its progress until a failure on stderr."""
    try:
        yield
    finally:
        report = migrator.last_report
        if report is not None and not quiet:
            if report.state is JobState.SUCCEEDED:
                _print_report(report, f"{target} (held)" if held else target, rejects, on_stderr)
            else:
                done = _counted(report.records, "record")
                later = _counted(report.wasted_chunks, "later chunk")
                skipped = f"{report.rejected:,} rejected; " if report.rejected else ""
                tell(
                    f"{report.state} after {report.seconds:.2f} s and {done}; "
                    f"{skipped}{later} discarded"
                )
        if report is not None and report.partial_path:
            tell(f"kept the output until then: {report.partial_path}")
        if report is not None and report.backup_path and not quiet:
            tell(f"kept what was replaced: {report.backup_path}")
        if report is not None and not (quiet and report.state is JobState.SUCCEEDED):
            step = next_step(report, target)
            if step is not None:
                tell(step)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _print_report(report: JobReport, target: str, rejects: str | None, on_stderr: bool) -> None:
    workers = len(report.chunks_by_worker)
    lines = [
        f"output   {target}",
        f"records  {report.records:,}"
        + (f" ({report.restored:,} of them by earlier runs)" if report.restored else ""),
        f"rate     {report.records_per_s:,.0f} records/s",
        f"time     {report.seconds:.2f} s",
        f"workers  {workers} ({_counted(report.chunks, 'chunk')}, job {report.job})",
    ]
    if report.rejected:
        lines.append(f"rejected {report.rejected:,}" + (f" (see {rejects})" if rejects else ""))
        causes = list(report.rejected_by_cause.items())
        lines += [f"         {count:,} × {cause}" for cause, count in causes[:_MOST_CAUSES]]
        if len(causes) > _MOST_CAUSES:
            lines.append(f"         and {len(causes) - _MOST_CAUSES} more causes")
    if on_stderr:
        tell("\n".join(lines))
        return
    try:
        click.echo("\n".join(lines))
    except OSError as error:
        raise ConfigurationError(
            f"cannot write this report to stdout: {error.strerror or error}; {target} is whole"
        ) from None
