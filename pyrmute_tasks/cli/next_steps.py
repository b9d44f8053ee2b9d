"""The command that follows a run: it goes on, publishes its output, or retries its rejects."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.errors import JobError, JobNotFoundError
from pyrmute_tasks.io.kept_jobs import find_job
from pyrmute_tasks.urls import hide_password

__all__ = ["next_step"]

_OF_RETRY: Final = ("--manager", "--broker", "--store", "--queue", "--workers")


def next_step(report: JobReport, target: str) -> str | None:
    """Return what can follow a run, as a sentence with a command; None if it left nothing.

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
        words = ["retry", target, *_fleet_words(sys.argv)]
        return f"to retry what was rejected: {_command(words)}"
    if report.state is JobState.SUCCEEDED:
        return f"to publish it: {_command(['publish', target])}"
    given = [word for word in sys.argv[1:] if word not in ("--resume", "--restart")]
    begun = [] if given[:1] == ["retry"] else ["--resume"]
    return f"to go on: {_command([*given, *begun])}"


def _command(words: Sequence[str]) -> str:
    """Return a command of this program, without passwords."""
    shown = [hide_password(word) if "://" in word else word for word in words]
    return shlex.join([os.path.basename(sys.argv[0]), *shown])


def _fleet_words(argv: Sequence[str]) -> Iterator[str]:
    """Yield the options of a command that say which manager and fleet it uses."""
    for at, word in enumerate(argv):
        if word in _OF_RETRY:
            yield from argv[at : at + 2]
        elif word.split("=")[0] in _OF_RETRY:
            yield word
