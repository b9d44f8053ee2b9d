"""`pyrmute-tasks plan`: what a run will do, found out on a sample, as a table or as JSON."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyrmute_tasks.cli.errors import FINISHED_WITH_REJECTS, errors_printed, show_warnings
from pyrmute_tasks.cli.options import POSITIVE, manager_option, model_option
from pyrmute_tasks.dry_run import (
    SAMPLE,
    TIMEOUT_S,
    ChangeKind,
    DryRun,
    FieldChange,
    PlannedRoom,
    Timing,
)
from pyrmute_tasks.engine.error_policy import ErrorPolicy
from pyrmute_tasks.file_options import ByReference
from pyrmute_tasks.io.job_targets import is_parts
from pyrmute_tasks.io.output_place import check_output
from pyrmute_tasks.io.preflight import in_bytes
from pyrmute_tasks.migrator import Migrator

__all__ = ["plan", "render", "show_plan"]

_STDIN: Final = "/dev/stdin"
_STDOUT: Final = "/dev/stdout"
_FOUND: Final = 1
_WIDEST: Final = 100  # wider, rows are hard to follow
_MOST_CAUSES: Final = 10
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_ONE_PERCENT: Final = 0.01
_SIGNS: Final = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "−", ChangeKind.TYPE: "~"}


@click.command()
@click.argument("source", metavar="IN.jsonl", type=click.Path())
@click.argument("target", metavar="OUT.jsonl", type=click.Path())
@manager_option
@model_option
@click.option("--from", "from_version", required=True, help="Version of the records in IN.")
@click.option("--to", "to_version", required=True, help="Version of the records in OUT.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=SAMPLE,
    show_default=True,
    help="Records to run: the first, some evenly spread, and the last.",
)
@click.option(
    "--by-reference",
    type=click.Choice([way.value for way in ByReference]),
    default=ByReference.AUTO.value,
    show_default=True,
    help="Whether workers will read IN and write OUT themselves.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--timeout",
    "timeout_s",
    type=POSITIVE,
    default=TIMEOUT_S,
    show_default=True,
    help="Time limit of the sample in seconds.",
)
def plan(
    source: str,
    target: str,
    manager: str,
    name: str,
    from_version: str,
    to_version: str,
    sample: int,
    by_reference: str,
    as_json: bool,
    timeout_s: float,
) -> None:
    """Show what a run will do, by running a sample of IN; writes nothing.

    The path, each step's function, file and line, and the fields that change at each hop; records
    of the sample that fail, with a bound for all of IN; fields that get lost; the time of a record.
    Estimated from these: room for OUT, ranges, and the time with 1, 4, 16 and 64 workers. Of a
    pipe, or - for stdin, the sample are the first records, and nothing is known of the others.

    Exit status: 0 if nothing is in the way, 1 if records fail, OUT does not fit or there can be no
    plan, 2 for wrong usage.
    """
    show_warnings()
    with errors_printed(include_records=False):
        migrator = Migrator(manager, workers=1)  # none is started
        show_plan(
            migrator,
            source,
            target,
            name,
            from_version,
            to_version,
            sample=sample,
            by_reference=by_reference,
            as_json=as_json,
            timeout_s=timeout_s,
        )


def show_plan(
    migrator: Migrator,
    source: str,
    target: str,
    name: str,
    from_version: str,
    to_version: str,
    *,
    sample: int = SAMPLE,
    chunk_size: int | None = None,
    limit: int | None = None,
    by_reference: str = ByReference.AUTO.value,
    policy: ErrorPolicy | None = None,
    as_json: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> NoReturn:
    """Print the plan of a run, and exit with its status.

    Raises:
        PyrmuteTasksError: If there can be none.
    """
    policy = policy or ErrorPolicy()
    source = _STDIN if source == "-" else source
    target = _STDOUT if target == "-" else target
    if not is_parts(target):
        check_output(target, source=source)
    piped = open(source, "rb") if _is_pipe(source) else None  # noqa: SIM115  # read to its end or not, once
    report = migrator.dry_run(
        piped or source,
        target,
        name,
        from_version,
        to_version,
        sample=sample,
        chunk_size=chunk_size,
        limit=limit,
        by_reference=by_reference,
        on_error=policy,
        timeout_s=timeout_s,
    )
    if as_json:
        click.echo(report.to_json())
    else:
        render(report, Console())
    fits = report.room is None or report.room.fits
    sys.exit(_status(report, fits=fits, skips=policy.skips))


def _is_pipe(source: str) -> bool:
    try:
        mode = os.stat(source).st_mode
    except OSError:
        return False  # told where it is opened
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _status(report: DryRun, *, fits: bool, skips: bool) -> int:
    if not fits:
        return _FOUND
    if report.failed:
        return FINISHED_WITH_REJECTS if skips else _FOUND
    return 0


# --- the tables ---------------------------------------------------------------------------


def render(report: DryRun, console: Console) -> None:
    """Print a plan as tables."""
    width = min(console.width, _WIDEST)

    def show(*lines: Text | Table | str) -> None:
        for line in lines:
            console.print(Text(line) if isinstance(line, str) else line, width=width)

    show(_head(report), "", _path(report))
    show("", _facts(_sample(report)))
    if report.failures:
        show("", _failures(report))
    if report.losses:
        show("", _losses(report))
    show("", _facts(_room(report)))
    if report.timings:
        show("", _timings(report), _remark(report))


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for header in headers:
        table.add_column(header, overflow="fold", ratio=1 if header == headers[-1] else None)
    return table


def _facts(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _head(report: DryRun) -> str:
    size = "" if report.size_bytes is None else f" ({in_bytes(report.size_bytes)})"
    if report.total is None:
        ran = f"the first {_counted(report.records, 'record')} of a pipe"
    else:
        known = "" if report.is_whole else "about "
        ran = f"{report.records:,} of {known}{_counted(report.total, 'record')}"
    return (
        f"{report.name} {report.from_version} → {report.to_version}: ran {ran}{size} "
        f"in {report.seconds:.1f} s; wrote nothing"
    )


def _path(report: DryRun) -> Table:
    table = _table("hop", "step, and what changes")
    for hop in report.hops:
        step = Text(hop.function or "generated from the two models")
        if hop.file:
            step.append(f"  {_near(hop.file)}:{hop.line}", style="dim")
        table.add_row(Text(f"{hop.from_version} → {hop.to_version}"), step)
        for change in hop.changes:
            table.add_row("", Text(_change(change)))
    if not report.hops:
        table.add_row(Text(report.to_version), Text("no step: records are validated and written"))
    return table


def _near(file: str) -> str:
    """Return a file's path from here, if that is shorter."""
    try:
        return min(file, os.path.relpath(file), key=len)
    except OSError:  # the current directory has been removed
        return file


def _change(change: FieldChange) -> str:
    types = " → ".join(filter(None, (change.before, change.after)))
    return f"{_SIGNS[change.kind]} {change.field}: {types}"


def _sample(report: DryRun) -> Iterator[tuple[str, str]]:
    if not report.records:
        yield "failures", "nothing was run: there are no records"
        return
    sampled = f"{report.failed:,} of {report.records:,}"
    if report.is_whole:
        yield "failures", f"{sampled}, which are all"
    else:
        share = _percent(report.failed_at_most)
        yield "failures", f"{sampled}: under {share} at 95 % confidence"
    if not report.losses:
        yield "losses", "no field gets lost"
    yield "a record", f"{_duration(report.seconds_per_record)} in one process"


def _failures(report: DryRun) -> Table:
    table = _table("records", "under", "what fails")
    for failure in report.failures[:_MOST_CAUSES]:
        what = Text(failure.described)
        what.append(f"\nfirst: {failure.first}", style="dim")
        table.add_row(f"{failure.records:,}", _percent(failure.at_most), what)
    more = len(report.failures) - _MOST_CAUSES
    if more > 0:
        table.add_row("", "", Text(f"and {_counted(more, 'more cause')}"))
    return table


def _losses(report: DryRun) -> Table:
    table = _table("records", "lost field")
    for loss in report.losses:
        what = Text(f"{loss.field}: {loss.kind}")
        what.append(f"\nfirst: {loss.first}", style="dim")
        table.add_row(f"{loss.records:,}", what)
    return table


def _room(report: DryRun) -> Iterator[tuple[str, str]]:
    grows = f"{report.bytes_per_byte:.2f} bytes for each byte of the source"
    if report.room is None:
        yield "output", grows
        return
    room = report.room
    yield "output", f"about {in_bytes(room.likely_bytes)}, {grows}"
    yield "disk", _disk(room)
    if room.free_files is not None:
        yield "inodes", f"{room.free_files:,} free, {room.files:,} needed at most"
    yield "store", f"{in_bytes(room.store_bytes)} at most"


def _disk(room: PlannedRoom) -> str:
    free = f"{in_bytes(room.free_bytes)} free in {room.folder}"
    if room.likely_bytes > room.free_bytes:
        return f"does not fit: {free}"
    if room.most_bytes > room.free_bytes:
        return f"may not fit: {free}, and up to {in_bytes(room.most_bytes)} until ranges are joined"
    return f"fits: {free}"


def _timings(report: DryRun) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    called = "ranges" if report.by_reference else "chunks"
    for header in ("workers", "time", called):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for each in report.timings:
        shown = f"{each.workers:,}", _duration(each.seconds), f"{each.chunks:,}"
        table.add_row(*shown, _bound(each, called))
    return table


def _bound(timing: Timing, called: str) -> str:
    if timing.is_limit:
        return "the coordinator's limit"
    return f"fewer {called} than workers" if timing.chunks < timing.workers else ""


def _remark(report: DryRun) -> str:
    way = "by reference" if report.by_reference else "through the producer"
    return (
        "Estimated: the time of the sample for all bytes, divided among workers on processors like "
        f"this one, and no less than what the coordinator takes {way}; without starting workers."
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    """Return an upper bound, rounded up."""
    digits = 1 if share < 10 * _ONE_PERCENT else 0
    scale = 10**digits
    percent = -(-share * 100 * scale // 1) / scale
    return f"{percent:.{digits}f} %"


def _duration(seconds: float) -> str:
    if seconds >= _HOUR_S:
        return f"{seconds / _HOUR_S:,.1f} h"
    if seconds >= _MINUTE_S:
        return f"{seconds / _MINUTE_S:.1f} min"
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            break
    return f"{seconds * scale:.1f} {unit}"
