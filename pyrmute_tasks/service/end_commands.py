"""The commands that users have for the end of their jobs: each is run at least once.

A command is run when the end is in the log, and noted when it has been run, by an empty file
``on-end.<epoch>`` in the job's folder. A coordinator that finds an
end without that note runs it: perhaps a second time, if another one has died between the two. To
run it at most once would mean to lose it there, and a message too many is better than none. A lock,
which ends with its process, keeps two coordinators from running it at a time.
"""

import logging
import os
import subprocess
import time
from typing import Final

from pyrmute_tasks.errors import OutputInUseError
from pyrmute_tasks.io.output_lock import held_lock
from pyrmute_tasks.jobs.entries import Ended
from pyrmute_tasks.jobs.folder import ON_END, JobFolder
from pyrmute_tasks.jobs.glance import glance_at
from pyrmute_tasks.logs import log

__all__ = ["is_due", "run_if_due"]

_MOST_S: Final = 60.0
_LATE_S: Final = 86400.0  # users without a coordinator for a day look at the list of jobs


def is_due(folder: JobFolder) -> bool:
    """Return whether a job has ended, and its command was not run yet.

    Raises:
        JobError: If its log is damaged.
        OSError: If it cannot be read.
    """
    return _due(folder) is not None


def run_if_due(folder: JobFolder) -> None:
    """Run the command for a job's end, unless that was done or another coordinator does it.

    Raises:
        JobError: If its log is damaged.
        PyrmuteTasksError: If its folder cannot be written.
        OSError: If it cannot be read.
    """
    if _due(folder) is None:
        return
    try:
        with held_lock(folder.path / ON_END, folder.spec.job):
            due = _due(folder)
            if due is None:
                return
            note, ended = due
            _run(folder, ended)
            folder.storage.create(note).close()
            folder.storage.sync_folder()
    except OutputInUseError:  # if the other coordinator dies, the command is still due
        return


def _due(folder: JobFolder) -> tuple[str, Ended] | None:
    """Return the name of the note that is missing, and the job's end; None if nothing is due."""
    if folder.spec.terms is None or not folder.spec.terms.on_end:
        return None
    found = glance_at(folder.storage)
    last = found.last if found is not None else None
    if last is None or not isinstance(last.entry, Ended) or time.time() - last.at > _LATE_S:
        return None
    note = f"{ON_END}.{last.epoch}"
    return None if note in folder.storage.names() else (note, last.entry)


def _run(folder: JobFolder, ended: Ended) -> None:
    spec, terms = folder.spec, folder.spec.terms
    assert terms is not None
    told = {
        "JOB_ID": spec.job,
        "JOB_NAME": terms.name,
        "JOB_RESULT": ended.result.value,
        "JOB_WHY": ended.why,
        "JOB_FOLDER": str(folder.path),
    }
    log(logging.INFO, "on_end", "the command for a job's end is run", job=spec.job)
    try:
        done = subprocess.run(  # noqa: S602  # it is a command of the shell, and allowed
            terms.on_end,
            shell=True,
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            timeout=_MOST_S,
            check=False,
        )
        trouble = f"it ended with status {done.returncode}" if done.returncode else ""
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # a NUL in it, too
        trouble = f"it could not be run ({type(error).__name__})"
    if trouble:
        log(logging.WARNING, "on_end_failed", trouble, job=spec.job)
