"""The command that follows a run: it goes on, publishes its output, or retries its rejects."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.errors import JobError, JobNotFoundError
from pyrmute_tasks.io.kept_jobs import find_job

__all__ = ["next_step"]

_OF_RETRY: Final = ("--manager", "--broker", "--store", "--queue", "--workers")


def next_step(report: JobReport, target: str) -> tuple[str, list[str]] | None:
    """Return what can follow a run, and the arguments for it; None if it left nothing.

    Args:
        report: The run's report.
        target: Its target.
    """
    try:
        is_published = find_job(target).has_succeeded()
    except JobNotFoundError:
        return None
    except (JobError, OSError):  # it is damaged
        is_published = False
    if is_published:
        return "to retry what was rejected", ["retry", target, *_fleet_words(sys.argv)]
    if report.state is JobState.SUCCEEDED:
        return "to publish it", ["publish", target]
    given = [word for word in sys.argv[1:] if word not in ("--resume", "--restart")]
    return "to go on", [*given, *([] if given[:1] == ["retry"] else ["--resume"])]


def _fleet_words(argv: Sequence[str]) -> Iterator[str]:
    """Yield the options of a command that say which manager and fleet it uses."""
    for at, word in enumerate(argv):
        if word in _OF_RETRY:
            yield from argv[at : at + 2]
        elif word.split("=")[0] in _OF_RETRY:
            yield word
