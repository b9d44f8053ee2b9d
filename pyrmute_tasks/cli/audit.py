"""``pyrmute-tasks audit``: its options, and its report as tables."""

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pyrmute_tasks.audit import SAMPLE, TIMEOUT_S, AuditReport, Cause, Change, Finding, Loss, audit
from pyrmute_tasks.cli.options import POSITIVE, manager_option, model_option
from pyrmute_tasks.errors import PyrmuteTasksError
from pyrmute_tasks.failures import describe_safely

__all__ = ["audit_command", "render"]

_FOUND: Final = 1
_UNUSABLE: Final = 2
_INTERRUPTED: Final = 130
_WIDEST: Final = 100  # wider, rows are hard to follow
_WIDE: Final = 70
_ONE_PERCENT: Final = 0.01
_LOSS_MEANING: Final = (
    "lost fields: they do not affect the output; declare them, or remove them in a step"
)

_MEANING: Final = {
    Cause.NOT_DETERMINISTIC: "differs from call to call: a clock, random numbers, uuid4",
    Cause.PROCESS: "differs from process to process: order of a set, hash(), a process id",
    Cause.STATE: "depends on the records before it: a counter, a cache, a global",
    Cause.MUTATION: "modifies its input: copy it before changing it",
}


@click.command("audit")
@click.argument("source", metavar="IN.jsonl", type=click.Path())
@manager_option
@model_option
@click.option("--from", "from_version", required=True, help="Version of the records in IN.")
@click.option("--to", "to_version", required=True, help="Version to migrate them to.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=SAMPLE,
    show_default=True,
    help="Records to run: the first, the last, and some evenly spread between.",
)
@click.option("--all", "all_records", is_flag=True, help="Run all records; holds them in memory.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--include-records", is_flag=True, help="Show values of records as examples.")
@click.option(
    "--timeout",
    "timeout_s",
    type=POSITIVE,
    default=TIMEOUT_S,
    show_default=True,
    help="Time limit of the audit in seconds.",
)
def audit_command(
    source: str,
    manager: str,
    name: str,
    from_version: str,
    to_version: str,
    sample: int,
    all_records: bool,
    as_json: bool,
    include_records: bool,
    timeout_s: float,
) -> None:
    """Find steps that depend on more than their record, and fields that get lost.

    Runs a sample of IN.jsonl several times, in four processes; writes nothing. The exit status is
    0 if nothing is found, 1 if something is, 2 if the audit cannot run or every record fails.
    """
    try:
        report = audit(
            manager,
            source,
            name,
            from_version,
            to_version,
            sample=None if all_records else sample,
            include_records=include_records,
            timeout_s=timeout_s,
        )
    except KeyboardInterrupt:
        click.echo("interrupted; nothing was left behind", err=True)
        sys.exit(_INTERRUPTED)
    except PyrmuteTasksError as error:
        click.echo(f"error: {describe_safely(error)}", err=True)
        sys.exit(_UNUSABLE)
    if as_json:
        click.echo(report.to_json())
    else:
        render(report, Console())
    sys.exit(_status_of(report))


def _status_of(report: AuditReport) -> int:
    if not report.is_clean:
        return _FOUND
    return 0 if report.came_through or not report.records else _UNUSABLE


# --- the table ----------------------------------------------------------------------------


def render(report: AuditReport, console: Console) -> None:
    """Print a report as tables."""
    width = min(console.width, _WIDEST)

    def line(text: Text | str) -> None:
        console.print(Text(text) if isinstance(text, str) else text, width=width)

    def head(*headers: str) -> None:
        console.print(_table(width, *headers))
        line("─" * width)

    line(_head(report))
    line("")
    if report.findings:
        head("field", "what is wrong", "records", "first")
        for step, found in groupby(report.findings, lambda one: (one.step, one.where)):
            line(Text(step[0], style="bold") + Text(f"  {step[1]}" if step[1] else ""))
            console.print(_finding_rows(found, width))
        line("")
    if report.losses:
        head("lost field", "where it is lost", "records", "first")
        console.print(_loss_rows(report.losses, width))
        line("")
    for remark in _remarks(report):
        line(remark)


def _head(report: AuditReport) -> str:
    return (
        f"{report.name} {report.from_version} → {report.to_version}: ran {report.records:,} of "
        f"{report.total:,} records, each up to {report.runs} times in {report.processes} "
        f"processes, in {report.seconds:.1f} s"
    )


def _table(width: int, *headers: str) -> Table:
    """Return a table with fixed column widths, so that several look like one."""
    is_wide = width >= _WIDE
    table = Table(box=None, show_header=bool(headers), pad_edge=False, width=width)
    field, reason, records, first = headers or ("", "", "", "")
    table.add_column(field, overflow="fold", ratio=1)
    table.add_column(reason, overflow="fold", width=30 if is_wide else 16)
    table.add_column(records, justify="right", no_wrap=True, width=12 if is_wide else 7)
    table.add_column(first, justify="right", no_wrap=True, width=8 if is_wide else 6)
    return table


def _finding_rows(findings: Iterable[Finding], width: int) -> Table:
    table = _table(width)
    for finding in findings:
        field = Text(finding.field)
        if finding.example is not None:
            field += Text("\n{} | {}".format(*finding.example), style="dim")
        reason = str(finding.cause)
        if finding.change is not Change.VALUE:
            reason += f"\n({finding.change})"
        counts = f"{finding.records:,}", f"{finding.first_record:,}"
        table.add_row(Padding(field, (0, 0, 0, 2)), Text(reason), *counts)
    return table


def _loss_rows(losses: Iterable[Loss], width: int) -> Table:
    table = _table(width)
    for loss in losses:
        share = f" {_percent(loss.share):>5}" if width >= _WIDE else ""
        counts = f"{loss.records:,}{share}", f"{loss.first_record:,}"
        table.add_row(Text(loss.field), Text(str(loss.kind)), *counts)
    return table


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= _ONE_PERCENT else "<1%"


def _remarks(report: AuditReport) -> Iterator[str]:
    for failed in report.failures:
        records = "1 record fails" if failed.records == 1 else f"{failed.records:,} records fail"
        yield (
            f"{records} the same in every run: {failed.step} raises "
            f"{failed.error.rpartition('.')[2]}, first at record {failed.first_record:,}"
        )
    if report.not_compared:
        yield (
            f"{report.not_compared:,} runs of a record were left unfinished: what a step returned "
            "differs and cannot be pickled"
        )
    for cause in Cause:
        if any(finding.cause is cause for finding in report.findings):
            yield f"{cause}: {_MEANING[cause]}"
    if report.losses:
        yield _LOSS_MEANING
    if report.is_clean:
        if report.came_through:
            yield "nothing found"
        elif report.records:
            yield "nothing audited: no record came through"
        else:
            yield "nothing audited: there are no records"
