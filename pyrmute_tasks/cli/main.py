"""The command ``pyrmute-tasks``: parse, call, print."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, NoReturn, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pyrmute_tasks._version import __version__
from pyrmute_tasks.cli.audit import audit_command, losses_hint
from pyrmute_tasks.cli.fingerprint import fingerprint
from pyrmute_tasks.distributed.worker.service import create_worker_app, worker_arguments
from pyrmute_tasks.engine.events import ChunkDelivered, Event
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.errors import ConfigurationError, PyrmuteTasksError
from pyrmute_tasks.failures import describe_safely
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.output_file import check_output, is_stream
from pyrmute_tasks.local.executors import usable_cpus
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.settings import Settings

__all__ = ["main"]

_BY_SIGNAL: Final = 128  # a shell's status of what a signal ended, less the signal
_STDOUT: Final = "/dev/stdout"

_MANAGER_HELP: Final = "The manager: package.module:attribute or path/to/file.py:attribute."
_BROKER_HELP: Final = "URL of a running fleet's broker."
_STORE_HELP: Final = "URL of its store. [default: the broker, if it is Redis]"
_QUEUE_HELP: Final = "Name of the queue."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyrmute-tasks")
def _cli() -> None:
    """Migrate stored records to newer versions of their pydantic models."""


@_cli.command()
@click.argument("source", metavar="IN.jsonl", type=click.Path())
@click.argument("target", metavar="OUT.jsonl", type=click.Path())
@click.option("--manager", required=True, envvar="PYRMUTE_TASKS_MANAGER", help=_MANAGER_HELP)
@click.option("--model", "name", required=True, help="Name of the model.")
@click.option("--from", "from_version", required=True, help="Version of the records in IN.")
@click.option("--to", "to_version", required=True, help="Version of the records in OUT.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Worker processes to start. [default: CPUs]"
)
@click.option(
    "--broker",
    envvar="PYRMUTE_TASKS_BROKER_URL",
    help=_BROKER_HELP + " Without one, a fleet is started for this run.",
)
@click.option("--store", help=_STORE_HELP)
@click.option("--queue", help=_QUEUE_HELP)
@click.option(
    "--chunk-size", type=click.IntRange(min=1), help="Records a chunk. [default: by size]"
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
    overwrite: bool,
    keep_partial: bool,
    retry_on: tuple[str, ...],
    attempts: int | None,
    wait_s: float | None,
    stall_s: float | None,
    include_records: bool,
    quiet: bool,
) -> None:
    """Migrate a file of JSON lines, in order.

    Without --broker a Valkey server and workers are started for this run and stopped after it.
    OUT may also be a pipe or a device such as /dev/stdout or -, which gets the lines as they are
    ready.
    """
    target = _STDOUT if target == "-" else target
    is_streamed = is_stream(target)
    leaves_something = keep_partial or is_streamed
    interrupts = _Interrupts(target, leaves_something)
    with _errors_printed(include_records, interrupts), interrupts:
        check_source(source)
        check_output(target, source=source, overwrite=overwrite)
        migrator = Migrator(
            manager,
            workers=workers,
            settings=_fleet_settings(broker, store, queue, wait_s, stall_s),
            retry=_retry(retry_on, attempts),
        )
        reported = _reported(migrator, target, quiet, on_stderr=is_streamed)
        # Not entered: `run_file` starts the fleet once it holds the lock of the output.
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
            _fail(report.failure.exception(), include_records)
        if not quiet:
            hint = losses_hint(source, manager, name, from_version, to_version)
            if hint is not None:
                _tell(hint)


@_cli.command(context_settings={"ignore_unknown_options": True})
@click.option("--manager", help=_MANAGER_HELP)
@click.option("--broker", help=_BROKER_HELP)
@click.option("--store", help=_STORE_HELP)
@click.option("--queue", help=_QUEUE_HELP)
@click.option(
    "--concurrency", type=click.IntRange(min=1), help="Chunks to run at a time. [default: CPUs]"
)
@click.option("--name", help="Node name, unique in the fleet. [default: from pid and host]")
@click.option("--loglevel", default="INFO", show_default=True, help="Celery's log level.")
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(
    manager: str | None,
    broker: str | None,
    store: str | None,
    queue: str | None,
    concurrency: int | None,
    name: str | None,
    loglevel: str,
    celery_options: tuple[str, ...],
) -> None:
    """Start a worker of a fleet; other settings come from PYRMUTE_TASKS_* variables.

    Options after -- go to Celery's worker command.
    """
    with _errors_printed(include_records=False):
        settings = _overridden(
            Settings.from_env(os.environ),
            manager=manager,
            broker_url=broker,
            store_url=store,
            queue=queue,
        )
        app = create_worker_app(settings)
    node = name or f"pyrmute-{os.getpid()}@%h"
    arguments = worker_arguments(node, concurrency or usable_cpus(), loglevel)
    app.worker_main([*arguments, *celery_options])


_cli.add_command(fingerprint)
_cli.add_command(audit_command)


def main() -> None:
    """Run the command line interface."""
    _cli(prog_name="pyrmute-tasks")


# --- details ----------------------------------------------------------------------------


def _fleet_settings(
    broker: str | None,
    store: str | None,
    queue: str | None,
    wait_s: float | None,
    stall_s: float | None,
) -> Settings | None:
    """Return the settings of a running fleet, or None to start one."""
    if broker is None:
        if store is not None or queue is not None:
            raise ConfigurationError("--store and --queue need --broker: they name a running fleet")
        return None
    env = Settings.from_env(os.environ)
    return _overridden(
        env,
        broker_url=broker,
        store_url=store,
        queue=queue,
        worker_wait_s=wait_s,
        stall_s=stall_s,
    )


def _retry(on: tuple[str, ...], attempts: int | None) -> Retry | None:
    if not on:
        if attempts is not None:
            raise ConfigurationError("--attempts needs --retry-on: nothing is retried without it")
        return None
    return Retry(on=on) if attempts is None else Retry(on=on, attempts=attempts)


def _overridden(settings: Settings, **values: Any) -> Settings:
    return replace(settings, **{name: value for name, value in values.items() if value is not None})


@contextlib.contextmanager
def _errors_printed(
    include_records: bool, interrupts: "_Interrupts | None" = None
) -> Iterator[None]:
    """Print an error as one sentence on stderr and exit with its status, without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        _tell(f"interrupted{interrupts.left if interrupts else ''}")
        sys.exit(_BY_SIGNAL + ((interrupts.noted if interrupts else 0) or signal.SIGINT))
    except Exception as error:
        known = isinstance(error, PyrmuteTasksError) or hasattr(error, "record_index")
        if not known:
            raise  # a bug: a report of it needs the traceback
        _fail(error, include_records)


def _fail(error: BaseException, include_records: bool) -> NoReturn:
    text = describe_safely(error)
    if include_records:
        text += f"\n{_text_of(error)}"
    _tell(f"error: {text}")
    sys.exit(1)


def _tell(text: str) -> None:
    """Write to stderr; if that is full or gone, nobody can be told, and the work goes on."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's code
        return f"{type(error).__name__}, whose text cannot be read"


class _Interrupts:
    """Turns Ctrl-C, SIGTERM and SIGHUP into one `KeyboardInterrupt` that cannot get lost.

    Python drops an exception that a signal handler raises while a finalizer or a weak reference's
    callback runs. So the signal is also recorded, and raised at the next event of the job: this is
    an `Observer`. A signal that the parent process ignores, as nohup does with SIGHUP, stays
    ignored.

    Args:
        target: The output.
        leaves_something: Whether an incomplete output is kept.

    Attributes:
        noted: The signal received; 0 before.
    """

    _SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, target: str, leaves_something: bool) -> None:
        self.noted = 0
        self._target = target
        self._leaves_something = leaves_something
        self._found = _file_at(target)

    @property
    def left(self) -> str:
        """What the interrupt has left, for the message."""
        if _file_at(self._target) != self._found:  # it came when the file was there already
            return f"; {self._target} is whole"
        return "" if self._leaves_something else "; nothing was left behind"

    def __enter__(self) -> Self:
        self._earlier = {number: signal.getsignal(number) for number in self._SIGNALS}
        for number, handler in self._earlier.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, *_: object) -> None:
        # A second one must not interrupt the cleanup after the first.
        if not self.noted:
            self.noted = number
            raise KeyboardInterrupt

    def __call__(self, event: Event, /) -> None:
        """Interrupt the job if a signal's exception got lost."""
        if self.noted:
            raise KeyboardInterrupt


def _file_at(path: str) -> tuple[int, int] | None:
    """Return what tells a file from the one that replaces it; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _progress(source: str, quiet: bool) -> Iterator[tuple[Any, ...]]:
    """Show a progress bar over the input's bytes, with delivered records and their rate."""
    if quiet:
        yield ()
        return
    columns = (
        TextColumn("migrating"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=_console()) as progress:
        total = os.path.getsize(source) or 1
        task = progress.add_task("", start=False, total=total, records=0, rate=0.0)
        records = 0

        def advance(event: Event, /) -> None:
            nonlocal records
            if not progress.tasks[0].started:
                progress.start_task(task)  # without the time to start the fleet
            if isinstance(event, ChunkDelivered):
                records += event.count
                elapsed = progress.tasks[0].elapsed or 0.0
                rate = records / elapsed if elapsed else 0.0
                progress.update(task, advance=event.size_bytes, records=records, rate=rate)

        yield (advance,)
        progress.update(task, completed=progress.tasks[0].total)


def _console() -> Console:
    """Show the bar on stderr; if that is full or gone, the job goes on without."""
    stderr: Any = _Forgiving(sys.stderr)
    return Console(file=stderr) if sys.stderr is not None else Console(quiet=True)


class _Forgiving:
    """A text stream to which writing never fails."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _reported(migrator: Migrator, target: str, quiet: bool, *, on_stderr: bool) -> Iterator[None]:
    """Print the job's report on stdout, or its progress until a failure on stderr."""
    try:
        yield
    finally:
        report = migrator.last_report
        if report is not None and not quiet:
            if report.state is JobState.SUCCEEDED:
                _print_report(report, target, on_stderr)
            else:
                wasted = report.wasted_chunks
                later = "1 later chunk" if wasted == 1 else f"{wasted} later chunks"
                _tell(
                    f"{report.state} after {report.seconds:.2f} s and {report.records:,} records; "
                    f"{later} discarded"
                )
        if report is not None and report.partial_path:
            _tell(f"kept the output until then: {report.partial_path}")


def _print_report(report: JobReport, target: str, on_stderr: bool) -> None:
    workers = len(report.chunks_by_worker)
    lines = (
        f"output   {target}",
        f"records  {report.records:,}",
        f"rate     {report.records_per_s:,.0f} records/s",
        f"time     {report.seconds:.2f} s",
        f"workers  {workers} ({report.chunks} chunks, job {report.job})",
    )
    if on_stderr:
        _tell("\n".join(lines))
        return
    try:
        click.echo("\n".join(lines))
    except OSError as error:
        raise ConfigurationError(
            f"cannot write this report to stdout: {error.strerror or error}; {target} is whole"
        ) from None
