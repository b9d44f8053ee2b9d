"""The run of `pyrmute-tasks run`: checks, execution and messages."""

import gc
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from pyrmute_tasks.cli.errors import (
    FINISHED_WITH_REJECTS,
    errors_printed,
    fail,
    show_warnings,
    tell,
    usage_checked,
)
from pyrmute_tasks.cli.interrupts import Interrupts
from pyrmute_tasks.cli.losses import tell_losses
from pyrmute_tasks.cli.options import check_fleet, import_retried, overridden, retry_of
from pyrmute_tasks.cli.run_options import RunOptions
from pyrmute_tasks.cli.run_report import ReportOptions, command_with, print_report
from pyrmute_tasks.cli.shown import shown
from pyrmute_tasks.engine.batch_arguments import usable_cpus
from pyrmute_tasks.engine.error_policy import ErrorHandling, ErrorPolicy, OnError
from pyrmute_tasks.engine.events import Observer
from pyrmute_tasks.engine.job_report import JobReport
from pyrmute_tasks.engine.pace import FULL_SPEED, Pace, Throttle
from pyrmute_tasks.engine.progress import ProgressOptions
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.log_options import LogOptions, kept_job
from pyrmute_tasks.io.not_lines import refuse_other_formats
from pyrmute_tasks.io.output_place import check_output, is_stream
from pyrmute_tasks.pyrmute_adapter import load_manager
from pyrmute_tasks.registry import load_attribute
from pyrmute_tasks.small_runs import SmallRun
from pyrmute_tasks.versions import ModelVersion

if TYPE_CHECKING:
    from pyrmute_tasks.migrator import Migrator
    from pyrmute_tasks.plans.retry import Retry
    from pyrmute_tasks.settings import Settings

__all__ = ["run_job"]


@dataclass(frozen=True, slots=True)
class _Checked:
    """What the arguments come to."""

    policy: ErrorPolicy
    retry: "Retry | None"
    pace: Pace


def run_job(options: RunOptions) -> None:
    """Run the command, and exit with its status."""
    show_warnings()
    is_streamed = is_stream(options.into)
    interrupts = Interrupts(options.into, options.keep_partial or is_streamed)
    with errors_printed(options.include_records, interrupts), interrupts:
        checked = _checked(options, is_streamed)
        names = [] if options.is_stdin else _sources(options)
        _check_files(options, names, checked.policy)
        if options.dry_run:
            _show_plan(options, checked)
        if options.resume and kept_job(options.into) is None:
            tell(f"there is nothing to resume for {options.into}: the run begins")
        progress = ProgressOptions(options.stats_s, options.as_json, options.max_rate)
        with _Reported(options) as reported, shown(None if options.quiet else progress) as bars:
            observers: tuple[Observer, ...] = (*bars, interrupts)  # it may raise: the bar first
            if not (
                _may_be_small(options, checked) and _run_here(options, checked, reported, observers)
            ):
                _run_on_fleet(options, checked, reported, observers)
        report = reported.report
        assert report is not None
        _fail_if_it_did(report, options.include_records)
        if names and not options.quiet:
            hop = options.name, options.from_version, options.to_version
            tell_losses(names[0], options.manager, *hop)
        if report.rejected:
            sys.exit(FINISHED_WITH_REJECTS)


# --- checks -------------------------------------------------------------------------------------


def _sources(options: RunOptions) -> list[str]:
    names = [options.source]
    if not _is_file(options.source):
        from pyrmute_tasks.io.range_source import find_sources  # a file is found without

        names = find_sources(options.source)
    on_stdin = command_with("-" if word == options.source else word for word in sys.argv[1:])
    for name in names:
        check_source(name)
        refuse_other_formats(name, f"| {on_stdin}")
    return names


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _is_folder(target: str) -> bool:
    return target.endswith("/") or os.path.isdir(target)


def _checked(options: RunOptions, is_streamed: bool) -> _Checked:
    """Check the arguments, and what they name in modules, before anything is started."""
    with usage_checked():
        for version in (options.from_version, options.to_version):
            ModelVersion.of(version)
        policy = ErrorPolicy(OnError(options.on_error), options.max_errors)
        retry = retry_of(options.retry_on, options.attempts)
        pace = Pace(options.max_rate)
        check_fleet(options.broker, options.store, options.queue, options.workers)
        _check_log(options, is_streamed)
        if options.rejects or options.rejects_with_records:
            from pyrmute_tasks.io.rejects import check_asked_for  # most runs have none

            with_records = options.rejects_with_records
            check_asked_for(options.rejects_path, policy, with_records=with_records)
    import_retried(options.retry_on)
    return _Checked(policy, retry, replace(pace, throttle=_throttle(options.throttle)))


def _check_log(options: RunOptions, is_streamed: bool) -> None:
    """Check the options of the log, and what needs one or goes by reference."""
    logs = LogOptions(options.resume, options.restart, options.accept_code, not options.no_log)
    is_plain = options.by_reference == "auto" and not (options.hold or options.backup)
    if is_plain and not options.into.endswith("/"):
        if is_streamed or options.is_stdin:
            logs.refuse_streams()
        return
    from pyrmute_tasks.file_options import ByReference, FileOptions  # a small run does without

    checked = FileOptions(
        source=options.source,
        target=options.into,
        chunk_size=options.chunk_size,
        limit=options.limit,
        hold=options.hold,
        backup=options.backup,
        by_reference=ByReference(options.by_reference),
        log=logs,
    )
    if is_streamed or options.is_stdin:
        checked.refuse_streams()


def _check_files(options: RunOptions, names: list[str], policy: ErrorPolicy) -> None:
    """Check that files can be written, and that no two of them are visibly the same."""
    into, path = options.into, options.rejects_path
    if not _is_folder(into):
        source = names[0] if names else None
        with usage_checked() if into == options.source else nullcontext():
            check_output(into, source=source, overwrite=options.replaces or options.hold)
    if path is None:
        return
    from pyrmute_tasks.io.rejects import check_rejects  # as above

    with usage_checked() if path in (into, options.source) else nullcontext():
        check_rejects(
            path,
            policy,
            source=sys.stdin.buffer if options.is_stdin else options.source,
            target=into,
            overwrite=options.replaces,
        )


def _fleet_settings(options: RunOptions) -> "Settings":
    from pyrmute_tasks.settings import Settings  # a small run does without

    return overridden(
        Settings.from_env(os.environ),
        broker_url=options.broker,
        store_url=options.store,
        queue=options.queue,
        worker_wait_s=options.wait_s,
        stall_s=options.stall_s,
    )


def _throttle(name: str | None) -> Throttle | None:
    if name is None:
        return None
    found = load_attribute(name)
    if not callable(found):
        raise ConfigurationError(f"'{name}' is no function that returns a reason to wait, or None")
    return found


# --- the run ------------------------------------------------------------------------------------


def _may_be_small(options: RunOptions, checked: _Checked) -> bool:
    """Whether nothing in the arguments needs a fleet or a log."""
    return (
        options.workers is None
        and options.broker is None
        and options.by_reference != "always"
        and not (options.resume or options.restart or options.hold or options.backup)
        and checked.pace == FULL_SPEED
        and _is_file(options.source)
        and not _is_folder(options.into)
        and kept_job(options.into) is None
    )


def _run_here(
    options: RunOptions, checked: _Checked, reported: "_Reported", observers: Sequence[Observer]
) -> bool:
    """Run without a fleet; False if it takes one."""
    manager = load_manager(options.manager)
    gc.freeze()  # what was imported stays, and the fork need not look at it
    gc.enable()
    hop = options.name, options.from_version, options.to_version
    plan = manager.plan(*hop, observe=bool(manager.hooks))
    plan.target  # noqa: B018  # raise for a missing target before anything is started
    small = SmallRun(
        source=options.source,
        target=options.into,
        plan=plan if checked.retry is None else plan.with_retry(checked.retry),
        hooks=manager.hooks,
        chunk_size=options.chunk_size,
        limit=options.limit,
        overwrite=options.overwrite,
        keep_partial=options.keep_partial,
        errors=ErrorHandling.of(checked.policy, None),
        rejects=options.rejects_path,
        rejects_with_records=options.rejects_with_records,
        observers=observers,
    )
    try:
        return small.run()
    finally:
        reported.report = small.report


def _show_plan(options: RunOptions, checked: _Checked) -> NoReturn:
    """Show what the run will do, and exit with the plan's status."""
    from pyrmute_tasks.cli.plan import show_plan  # runs do without

    show_plan(
        _migrator(options, checked),
        options.source,
        options.into,
        options.name,
        options.from_version,
        options.to_version,
        chunk_size=options.chunk_size,
        limit=options.limit,
        by_reference=options.by_reference,
        policy=checked.policy,
        as_json=options.as_json,
    )


def _run_on_fleet(
    options: RunOptions, checked: _Checked, reported: "_Reported", observers: Sequence[Observer]
) -> None:
    gc.enable()
    migrator = _migrator(options, checked)
    # Not entered: `run_file` starts the fleet once it holds the lock of the output.
    with closing(migrator):
        try:
            migrator.run_file(
                sys.stdin.buffer if options.is_stdin else options.source,
                options.into,
                options.name,
                options.from_version,
                options.to_version,
                chunk_size=options.chunk_size,
                limit=options.limit,
                by_reference=options.by_reference,
                max_line_bytes=options.max_line_bytes,
                overwrite=options.overwrite,
                hold=options.hold,
                backup=options.backup,
                keep_partial=options.keep_partial,
                observers=observers,
                on_error=checked.policy,
                rejects=options.rejects_path,
                rejects_with_records=options.rejects_with_records,
                resume=options.resume,
                restart=options.restart,
                accept_code=options.accept_code,
                log=not options.no_log,
                max_rate=checked.pace.max_rate,
                throttle=checked.pace.throttle,
            )
        finally:
            reported.report = migrator.last_report


# --- messages ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reported:
    """Prints the report of a run once it has ended, however it has; a context manager."""

    options: RunOptions
    report: JobReport | None = None

    def __enter__(self) -> "_Reported":
        return self

    def __exit__(self, *_: object) -> None:
        if self.report is None:
            return
        options = self.options
        rejects = options.rejects_path
        taken = is_stream(options.into) or (rejects is not None and is_stream(rejects))
        print_report(
            self.report,
            ReportOptions(
                options.into,
                rejects,
                options.quiet,
                options.as_json,
                on_stderr=taken,
                is_held=options.hold,
            ),
        )


def _fail_if_it_did(report: JobReport, include_records: bool) -> None:
    if report.failure is not None:
        if report.exceeded:
            tell(report.exceeded)
        fail(report.failure.exception(), include_records)


def _migrator(options: RunOptions, checked: _Checked) -> "Migrator":
    from pyrmute_tasks.migrator import Migrator  # a small run does without

    with usage_checked():
        settings = _fleet_settings(options)
    return Migrator(
        options.manager,
        workers=options.workers or (None if options.broker else usable_cpus()),
        broker_url=options.broker,
        settings=settings,
        retry=checked.retry,
    )
