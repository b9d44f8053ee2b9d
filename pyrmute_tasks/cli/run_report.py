"""The report of `pyrmute-tasks run`: as text, or as JSON."""

import json
import os
import shlex
import string
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import click

from pyrmute_tasks.cli.errors import tell
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.failures import describe_safely
from pyrmute_tasks.io.log_options import kept_job
from pyrmute_tasks.urls import hide_password

__all__ = ["ReportOptions", "command_with", "print_report"]

_MOST_CAUSES: Final = 5
_PLAIN: Final = f"{string.ascii_letters}{string.digits}/._-:".encode()


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What is reported of a run, and where.

    Attributes:
        target: The output, as the user named it.
        rejects: The file of rejects; None for none.
        quiet: Report only what is kept of a run that failed.
        as_json: Report one JSON object.
        on_stderr: Stdout is taken by outputs or rejects.
        is_held: The output is proven, and not published.
    """

    target: str
    rejects: str | None
    quiet: bool
    as_json: bool
    on_stderr: bool
    is_held: bool = False


def print_report(report: JobReport, options: ReportOptions) -> None:
    """Print the report of a run that has ended; of one that failed on stderr."""
    if options.as_json:
        _print(json.dumps(_as_fields(report, options), ensure_ascii=False), options)
    elif not options.quiet and report.state is JobState.SUCCEEDED:
        _print("\n".join(_as_lines(report, options)), options)
    elif not options.quiet:
        told = [f"{report.state} after {report.seconds:.2f} s", _counted(report.records, "record")]
        more = f"; {report.rejected:,} rejected" if report.rejected else ""
        if report.wasted_chunks:
            more += f"; {_counted(report.wasted_chunks, 'later chunk')} discarded"
        tell(f"{' and '.join(told)}{more}")
    if report.partial_path:
        tell(f"kept the output until then: {report.partial_path}")
    if report.backup_path and not options.quiet:
        tell(f"kept what was replaced: {report.backup_path}")
    if kept_job(options.target) is not None:
        _tell_next_step(report, options)


def command_with(arguments: Iterable[str]) -> str:
    """Return this command with other arguments, without passwords."""
    name = os.path.basename(sys.argv[0])
    program = ["python", "-m", "pyrmute_tasks"] if name == "__main__.py" else [name]
    words = [hide_password(word) if "://" in word else word for word in arguments]
    return " ".join(map(_quoted, [*program, *words]))


def _quoted(word: str) -> str:
    """Return a word for a shell; a name may hold line breaks, or bytes that are no text."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = (chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(escaped)}'"


def _tell_next_step(report: JobReport, options: ReportOptions) -> None:
    from pyrmute_tasks.cli.next_steps import next_step  # most runs leave nothing

    words = next_step(report, options.target)
    if words is not None and not (options.quiet and report.state is JobState.SUCCEEDED):
        why, arguments = words
        tell(f"{why}: {command_with(arguments)}")


def _as_lines(report: JobReport, options: ReportOptions) -> list[str]:
    earlier = f" ({report.restored:,} of them by earlier runs)" if report.restored else ""
    chunks = _counted(report.chunks, "chunk")
    workers = len(report.chunks_by_worker) or "none needed"
    lines = [
        f"output   {options.target}{' (held)' if options.is_held else ''}",
        f"records  {report.records:,}{earlier}",
        f"rate     {report.records_per_s:,.0f} records/s",
        f"time     {report.seconds:.2f} s",
        f"workers  {workers} ({chunks}, job {report.job})",
    ]
    if report.rejected:
        place = f" (see {options.rejects})" if options.rejects else ""
        lines.append(f"rejected {report.rejected:,}{place}")
        causes = list(report.rejected_by_cause.items())
        lines += [f"         {count:,} × {cause}" for cause, count in causes[:_MOST_CAUSES]]
        if len(causes) > _MOST_CAUSES:
            lines.append(f"         and {len(causes) - _MOST_CAUSES} more causes")
    return lines


def _as_fields(report: JobReport, options: ReportOptions) -> dict[str, object]:
    failure = report.failure
    return {
        "job": report.job,
        "state": report.state.value,
        "output": options.target,
        "records": report.records,
        "restored": report.restored,
        "rejected": report.rejected,
        "rejected_by_cause": dict(report.rejected_by_cause),
        "rejects": options.rejects,
        "seconds": round(report.seconds, 3),
        "records_per_s": round(report.records_per_s, 3),
        "chunks": report.chunks,
        "chunks_by_worker": dict(report.chunks_by_worker),
        "exceeded": report.exceeded or None,
        "failure": describe_safely(failure.exception()) if failure else None,
        "partial_path": report.partial_path or None,
        "backup_path": report.backup_path or None,
    }


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _print(text: str, options: ReportOptions) -> None:
    if options.on_stderr:
        tell(text)
        return
    try:
        click.echo(text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write this report to stdout: {error.strerror or error}; {options.target} is "
            "whole"
        ) from None
