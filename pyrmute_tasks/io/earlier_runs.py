"""Earlier runs to the same target: finding their log, and refusing what cannot go on."""

import contextlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import (
    FrameError,
    JobChangedError,
    JobExistsError,
    JobLogError,
    printable,
)
from pyrmute_tasks.io.jsonl import source_errors
from pyrmute_tasks.io.log_options import WITH_LOG, LogOptions, kept_job, real_target
from pyrmute_tasks.io.passing_faults import when_back
from pyrmute_tasks.jobs.folder import JobFolder, discard
from pyrmute_tasks.jobs.spec import Difference, SourceFile, Spec, check_same, differences
from pyrmute_tasks.plans.fingerprint.differences import compare_trees
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree

__all__ = [
    "WITH_LOG",
    "LogOptions",
    "code_differences",
    "earlier_job",
    "kept_job",
    "real_target",
    "refuse_changed",
    "refuse_other",
    "source_change",
]

_MOST_DIFFERENCES: Final = 3


def earlier_job(
    path: Path, target: str | os.PathLike[str], options: LogOptions
) -> JobFolder | None:
    """Return the earlier run's job if it is resumed, and discard it if a new run begins.

    The caller holds the target's lock.

    Args:
        path: The job's folder.
        target: The target, as the user named it.
        options: What becomes of it.

    Raises:
        JobExistsError: If there is one, and neither `resume` nor `restart` is set.
        JobNotFoundError: If the folder is something else.
        JobLogError: If its log is damaged.
    """
    if not path.exists():
        return None
    if options.restart:
        discard(path)
        return None
    if options.resume:
        earlier = JobFolder(path)
        if not earlier.has_succeeded() or os.path.lexists(earlier.spec.target):
            return earlier
        discard(path)  # it was published, and the output is gone since
        return None
    with contextlib.suppress(JobLogError):
        if JobFolder(path).has_succeeded():
            discard(path)
            return None
    raise JobExistsError(
        f"an earlier run to {os.fspath(target)} has left its log in {path}: --resume goes on with "
        "it, --restart begins again (resume=True or restart=True in Python)"
    )


def refuse_other(spec: Spec, now: Spec, options: LogOptions) -> None:
    """Refuse to resume a job with another source, code or options.

    Raises:
        JobChangedError: If one was; it names the difference.
    """
    try:
        check_same(spec, now, accept_code=options.accept_code)
    except JobChangedError as error:
        hint = "--restart begins again"
        if spec.fingerprint != now.fingerprint and not options.accept_code:
            told = code_differences(spec.code, now.code)
            hint = f"{told}--accept-code goes on with the new code; {hint}"
        raise JobChangedError(f"{error}. {hint}") from None


def source_change(spec: Spec, *, waits: bool = False) -> Difference | None:
    """Return the first change of a job's source files; None if they are as they were.

    Args:
        spec: The job's spec.
        waits: Wait for storage that is away; see `when_back`.

    Raises:
        ConfigurationError: If one cannot be read any more.
    """
    found = []
    for each in spec.sources:
        look = partial(SourceFile.of, each.path)
        with source_errors(each.path):
            found.append(when_back(look) if waits else look())
    return next(iter(differences(spec, replace(spec, sources=tuple(found)))), None)


def refuse_changed(spec: Spec) -> None:
    """Refuse what was read of a source that is not as it was; waits for storage that is away.

    Raises:
        JobChangedError: If a file is not as it was.
        ConfigurationError: If one cannot be read any more.
    """
    changed = source_change(spec, waits=True)
    if changed is not None:
        raise JobChangedError(
            f"the source was changed while it was read: {changed}; nothing was published: "
            "migrate a copy that nobody writes to"
        )


def code_differences(before: str, now: str) -> str:
    """Return the first differences between two trees of fingerprints, each as a sentence.

    Args:
        before: The job's tree, as text.
        now: Today's.
    """
    try:
        then, today = (FingerprintTree.from_dict(json.loads(text)) for text in (before, now))
    except (ValueError, FrameError):  # of another release
        return ""
    told = [printable(each) for each in compare_trees(today, then)[:_MOST_DIFFERENCES]]
    return "".join(f"{each}. " for each in told)
