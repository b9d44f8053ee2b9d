"""`pyrmute-tasks run`: a file of JSON lines migrated into another."""

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, Self

import click

from pyrmute_tasks.cli.errors import errors_told, fail
from pyrmute_tasks.cli.options import (
    BROKER_HELP,
    MANAGER_HELP,
    QUEUE_HELP,
    STORE_HELP,
    overridden,
)
from pyrmute_tasks.engine.events import ChunkDelivered, Event
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.output_file import check_output, is_stream
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.settings import Settings

__all__ = ["run"]


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
@click.option("--chunk-size", type=click.IntRange(min=1), help="Records a task. [default: by size]")
@click.option("--overwrite", is_flag=True, help="Replace OUT.jsonl if it exists.")
@click.option(
    "--keep-partial", is_flag=True, help="On failure keep what was written, and tell where it is."
)
@click.option(
    "--retry-on",
    multiple=True,
    metavar="MODULE:CLASS",
    help="Run a step again that raises this, as in builtins:ConnectionError; may be repeated.",
)
@click.option(
    "--attempts", type=click.IntRange(min=1), help="How often it runs at most. [default: 4]"
)
@click.option("--wait", "wait_s", type=float, help="Seconds to wait for a first worker.")
@click.option("--include-records", is_flag=True, help="Let error messages quote records.")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar, no report.")
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
    overwrite: bool,
    keep_partial: bool,
    retry_on: tuple[str, ...],
    attempts: int | None,
    wait_s: float | None,
    include_records: bool,
    quiet: bool,
) -> None:
    """Migrate a file of JSON lines into another, in order.

    Without --broker a Valkey server and workers are started for this run and ended with it.
    OUT may also be a pipe or a device, as /dev/stdout, which gets the lines as they are ready.
    """
    is_streamed = is_stream(target)
    leaves_something = keep_partial or is_streamed
    with errors_told(include_records, leaves_something), _Interrupts() as interrupts:
        _check_source(source)
        check_output(target, source=source, overwrite=overwrite)
        migrator = Migrator(
            manager,
            workers=workers,
            settings=_fleet_settings(broker, store, queue, wait_s),
            retry=_retry(retry_on, attempts),
        )
        reported = _reported(migrator, target, quiet, on_stderr=is_streamed)
        # Not entered: `run_file` starts the fleet when it has the right to write the output.
        with closing(migrator), reported, _progress(source, quiet) as observers:
            report = migrator.run_file(
                source,
                target,
                name,
                from_version,
                to_version,
                chunk_size=chunk_size,
                overwrite=overwrite,
                keep_partial=keep_partial,
                observers=(interrupts, *observers),
            )
        if report.failure is not None:
            fail(report.failure.exception(), include_records)
        if not quiet:
            # Audits are its only neighbours: imported when the output is there.
            from pyrmute_tasks.cli.audit import losses_hint

            hint = losses_hint(source, manager, name, from_version, to_version)
            if hint is not None:
                click.echo(hint, err=True)


# --- details ----------------------------------------------------------------------------


def _fleet_settings(
    broker: str | None, store: str | None, queue: str | None, wait_s: float | None
) -> Settings | None:
    """Return the settings of a running fleet, or None to start one."""
    if broker is None:
        if store is not None or queue is not None:
            raise ConfigurationError("--store and --queue need --broker: they name a running fleet")
        return None
    env = Settings.from_env(os.environ)
    return overridden(
        env,
        broker_url=broker,
        store_url=store,
        queue=queue,
        worker_wait_s=wait_s,
    )


def _retry(on: tuple[str, ...], attempts: int | None) -> Retry | None:
    if not on:
        if attempts is not None:
            raise ConfigurationError("--attempts needs --retry-on: nothing is run again without it")
        return None
    return Retry(on=on) if attempts is None else Retry(on=on, attempts=attempts)


def _check_source(source: str) -> None:
    # Told before a fleet is started for it.
    try:
        with open(source, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"cannot read {source}: {error.strerror or error}") from None


class _Interrupts:
    """Turns Ctrl-C, SIGTERM and SIGHUP into one `KeyboardInterrupt` that cannot get lost.

    Python drops an exception that a signal handler raises while a finalizer or a weak
    reference's callback happens to run. So the signal is also noted, and told with the next
    event of the job: this is an `Observer`.
    """

    _SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._noted = False

    def __enter__(self) -> Self:
        self._earlier = {number: signal.signal(number, self._interrupt) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _interrupt(self, *_: object) -> None:
        # A second one must not interrupt the cleaning up after the first.
        if not self._noted:
            self._noted = True
            raise KeyboardInterrupt

    def __call__(self, event: Event, /) -> None:
        """Interrupt the job if that was asked for in vain."""
        if self._noted:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _progress(source: str, quiet: bool) -> Iterator[tuple[Any, ...]]:
    """Show a bar over the input's bytes, with the records delivered and their rate."""
    if quiet:
        yield ()
        return
    # A quiet run does without.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("migrating"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        total = os.path.getsize(source) or 1
        task = progress.add_task("", start=False, total=total, records=0, rate=0.0)
        records = 0

        def advance(event: Event, /) -> None:
            nonlocal records
            if not progress.tasks[0].started:
                progress.start_task(task)  # without the time in which the fleet starts
            if isinstance(event, ChunkDelivered):
                records += event.count
                elapsed = progress.tasks[0].elapsed or 0.0
                rate = records / elapsed if elapsed else 0.0
                progress.update(task, advance=event.size_bytes, records=records, rate=rate)

        yield (advance,)
        progress.update(task, completed=progress.tasks[0].total)


@contextlib.contextmanager
def _reported(migrator: Migrator, target: str, quiet: bool, *, on_stderr: bool) -> Iterator[None]:
    """Tell what the job has done: all of it on stdout, or how far it came on stderr."""
    try:
        yield
    finally:
        report = migrator.last_report
        if report is not None and not quiet:
            if report.state is JobState.SUCCEEDED:
                _print_report(report, target, on_stderr)
            else:
                click.echo(
                    f"{report.state} after {report.seconds:.2f} s and {report.records:,} records; "
                    f"chunks submitted in vain behind them: {report.wasted_chunks}",
                    err=True,
                )
        if report is not None and report.partial_path:
            click.echo(f"kept what was written before it: {report.partial_path}", err=True)


def _print_report(report: JobReport, target: str, on_stderr: bool) -> None:
    workers = len(report.chunks_by_worker)
    lines = (
        f"output   {target}",
        f"records  {report.records:,}",
        f"rate     {report.records_per_s:,.0f} records/s",
        f"time     {report.seconds:.2f} s",
        f"workers  {workers} ({report.chunks} chunks, job {report.job})",
    )
    click.echo("\n".join(lines), err=on_stderr)
