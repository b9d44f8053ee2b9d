"""Jobs that runs have left, and submitted ones: publishing, verifying and discarding them.

None of it needs a fleet, a manager, or the source.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pyrmute_tasks.errors import (
    ConfigurationError,
    JobError,
    JobNotFoundError,
    printable,
)
from pyrmute_tasks.io.discarding import discard_submitted, read_job, refuse_driven
from pyrmute_tasks.io.earlier_runs import real_target
from pyrmute_tasks.io.job_targets import target_of
from pyrmute_tasks.io.jsonl import source_errors
from pyrmute_tasks.io.output_lock import held_lock
from pyrmute_tasks.io.output_place import output_errors
from pyrmute_tasks.io.retried_job import (
    RetriedJob,
    is_published,
    replace_retried,
    retried_by,
)
from pyrmute_tasks.jobs.driver import this_process, this_user
from pyrmute_tasks.jobs.entries import Note
from pyrmute_tasks.jobs.folder import JobFolder, beside, beside_retry, discard
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.log import epochs
from pyrmute_tasks.jobs.output import Output, Proof
from pyrmute_tasks.jobs.publish import backup_path, publish
from pyrmute_tasks.jobs.root import JobsRoot, is_job_name
from pyrmute_tasks.jobs.spec import SPEC
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import (
    Want,
    check_reason,
    locked,
    read_submitted,
    unknown_wish,
    write_wish,
)

__all__ = ["ProvenJob", "discard_job", "find_job", "publish_job", "verify_job"]

_PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ProvenJob:
    """A job whose output is proven.

    Attributes:
        job: Its id.
        target: Its target.
        proof: What was proven.
        is_published: Whether the target is that output; else it is in the job's folder.
        backup: Where the replaced target is; empty if none was kept.
    """

    job: str
    target: str
    proof: Proof
    is_published: bool
    backup: str = ""


def find_job(name: _PathLike, *, jobs: _PathLike | None = None) -> JobFolder:
    """Return the job that a run has left, or that was submitted.

    Args:
        name: The run's target, or the job's own folder. Of a target that a retry is about to
            replace, the retry is returned. Of a submitted job also its id, the beginning of it,
            or its name.
        jobs: The jobs root in which submitted jobs are looked for; None for none.

    Raises:
        JobNotFoundError: If there is none.
        JobLogError: If its spec cannot be read.
    """
    return JobFolder(_paths_of(name, jobs)[0])


def publish_job(
    name: _PathLike,
    *,
    overwrite: bool = False,
    backup: bool = False,
    jobs: _PathLike | None = None,
    why: str = "",
) -> ProvenJob:
    """Publish the output of a job that was held, or that was killed while it published.

    This process does it. Its log tells who wished that, where, when and why. If this process is
    killed in it, a coordinator goes on with a job that was submitted.

    Args:
        name: The target, or the job's folder; of a submitted job also its id or name.
        overwrite: Replace a target that exists; a retry replaces the one that it has mended, and a
            submitted job what it was submitted to replace.
        backup: Keep a target that is replaced, as ``<target>.<job>.backup``.
        jobs: The jobs root in which submitted jobs are looked for; None for none.
        why: The reason, for people.

    Returns:
        The job.

    Raises:
        JobNotFoundError: If there is none.
        JobError: If it is published already, was cancelled, or its run has not come to its end.
        OutputInUseError: If a run is writing the target.
        ProofError: If the output is not whole; nothing is published.
        ConfigurationError: If the target exists and must not be replaced, or cannot be written.
    """
    check_reason(why)
    found = find_job(name, jobs=jobs)
    target, terms = target_of(found.spec), found.spec.terms
    _refuse_unfinished(found, "publish")
    lock = held_lock(target.path, found.spec.job, ended=found.spec.job)
    with output_errors(target.name), lock:
        folder = JobFolder(found.path)
        view = folder.view()
        if folder.has_succeeded():
            raise JobError(f"{target.name} is published already")
        if view.opened is None or not (view.is_held or view.publishing):
            raise JobError(_not_whole(folder))
        _refuse_cancelled(folder, view)
        refuse_driven(folder, view)
        retried = retried_by(folder)
        overwrite = overwrite or retried is not None or (terms is not None and terms.overwrite)
        if not is_published(folder, view, target):
            if retried is not None:  # what it replaces is the output that it has mended
                retried.compare()
            target.check(overwrite=overwrite)
        lease = folder.take(this_process(), view.opened.code, after=_newest(folder))
        try:
            with lease.beating():
                _wish_to_publish(folder, lease, why)
                proof = publish(
                    Output(folder),
                    lease,
                    target.publication(folder, None),
                    overwrite=overwrite,
                    backup=backup or (terms is not None and terms.backup),
                    deciding=partial(_deciding, folder, lease),
                )
        except BaseException:
            with contextlib.suppress(JobError, OSError):
                note = Note.HELD if view.is_held else Note.STOPPED
                lease.let_go("it could not be published", note)
            raise
        _finish(folder, retried)
    kept = backup_path(target.path, folder.spec.job)
    return ProvenJob(
        folder.spec.job,
        folder.spec.target,
        proof,
        is_published=True,
        backup=str(kept) if kept.exists() else "",
    )


def _wish_to_publish(folder: JobFolder, lease: Lease, why: str) -> None:
    """Log who wishes the output to be published; for a submitted job write the wish, too.

    Raises:
        JobError: If somebody has cancelled it meanwhile, or drives it now.
        ConfigurationError: If this user may not steer it.
    """
    with locked(folder.path):
        want = _refuse_cancelled(folder, lease.view)
        want = replace(want, wish=Wish.PUBLISH).made_by(this_user(), why, lease.view.changed_at)
        lease.log.beat()  # raises if another process has taken the job: no wish is written then
        if folder.spec.terms is not None:
            write_wish(folder.storage, want)
        lease.log.log(want.as_entry())
        lease.log.commit()


def verify_job(name: _PathLike, *, jobs: _PathLike | None = None) -> ProvenJob:
    """Prove a job again, and compare its output with the digests, byte for byte.

    Args:
        name: The target, or the job's folder; of a submitted job also its id or name.
        jobs: The jobs root in which submitted jobs are looked for; None for none.

    Returns:
        The job.

    Raises:
        JobNotFoundError: If there is none.
        JobError: If it was submitted, and has no whole output yet.
        ProofError: If it is not proven; it names the first place.
        ConfigurationError: If the output cannot be read.
    """
    folder = find_job(name, jobs=jobs)
    target, output = target_of(folder.spec), Output(folder)
    is_published = folder.has_succeeded()
    _refuse_unfinished(folder, "verify")
    with source_errors(target.name):
        if is_published:
            proof = output.prove(is_published=True)
            target.publication(folder, None).compare(output, proof)
        else:
            proof = output.verify()
    return ProvenJob(folder.spec.job, folder.spec.target, proof, is_published)


def discard_job(name: _PathLike, *, jobs: _PathLike | None = None, why: str = "") -> list[Path]:
    """Remove what runs have left for a target, but for the target itself.

    Who discarded a submitted job, where, when and why is noted in its jobs root for 30 days.

    Args:
        name: The target, or the folder of one job, which alone is removed then; so is a submitted
            job, with its history, that is named by id or name.
        jobs: The jobs root in which submitted jobs are looked for; None for none.
        why: The reason, for people.

    Returns:
        What was removed.

    Raises:
        JobNotFoundError: If there is nothing.
        JobError: If somebody drives the job, or another one retries its rejects.
        OutputInUseError: If a run is writing the target.
        ConfigurationError: If something cannot be removed.
    """
    check_reason(why)
    paths = _paths_of(name, jobs)
    shown = paths[0] if is_job_name(paths[0].name) else name  # of a run, as the user named it
    with output_errors(shown), contextlib.ExitStack() as stack:
        folder = read_job(paths[0])  # a damaged one is removed, too
        if _is_submitted(paths[0], folder):
            discard_submitted(paths[0], folder, why)
            return paths
        if folder is not None:
            stack.enter_context(held_lock(Path(folder.spec.target), folder.spec.job))
        for path in paths:
            discard(path)
    return paths


def _is_submitted(path: Path, folder: JobFolder | None) -> bool:
    """Return whether a job was submitted, by its spec or, without one, by its folder's name."""
    return is_job_name(path.name) if folder is None else folder.spec.terms is not None


@contextlib.contextmanager
def _deciding(folder: JobFolder, lease: Lease) -> Iterator[None]:
    """Keep users from changing their wishes while it is logged that the output will appear."""
    with locked(folder.path):
        want = _refuse_cancelled(folder, lease.view)
        if want.wish is Wish.PAUSE:
            raise JobError(f"{printable(want.who)} has paused job {folder.spec.job} meanwhile")
        yield


def _refuse_cancelled(folder: JobFolder, view: JobView) -> Want:
    """Return the wishes in force; refuse a submitted job that is cancelled, or may be."""
    job, last = folder.spec.job, Want.of_logged(view.wished)
    if folder.spec.terms is None:
        return last
    found = read_submitted(folder.storage, last)
    if view.publishing is not None:
        return found.want  # its output may be there already
    if found.problem:  # it may say that the job is cancelled
        raise JobError(f"job {job} cannot be published: {unknown_wish(found.problem)}")
    if found.want.wish is Wish.CANCEL:
        raise JobError(f"{printable(found.want.who)} has cancelled job {job}")
    return found.want


def _refuse_unfinished(folder: JobFolder, what: str) -> None:
    """Refuse a submitted job that has no whole output; a run is refused by its target's lock."""
    if folder.spec.terms is None or folder.has_succeeded():
        return
    view = folder.view()
    if not (view.is_held or view.publishing):
        raise JobError(f"job {folder.spec.job} has nothing to {what}: it is {view.state}")


def _newest(folder: JobFolder) -> int:
    return max(epochs(folder.storage), default=0)


def _not_whole(folder: JobFolder) -> str:
    spec = folder.spec
    return (
        f"the run to {spec.target} has not come to its end, and cannot be published: go on with it "
        "by the same command and --resume"
    )


def _finish(folder: JobFolder, retried: RetriedJob | None) -> None:
    """Remove what is not kept of a published job: all but its history, or all of it."""
    if folder.spec.terms is not None:
        folder.keep_history()
    elif retried is not None:
        replace_retried(folder, retried.folder.path)
    else:
        folder.finish()


def _paths_of(name: _PathLike, jobs: _PathLike | None) -> list[Path]:
    """Return the folders of the jobs that a name means, the newest first."""
    if (Path(name) / SPEC).is_file():
        return [Path(name)]
    try:
        real = real_target(name)
    except ConfigurationError:
        real = Path(os.path.abspath(name))
    found = [path for path in (beside_retry(real), beside(real)) if path.is_dir()]
    if not found and jobs and os.sep not in os.fspath(name):
        root = JobsRoot(jobs)
        path = root.path / name
        is_id = is_job_name(path.name) and os.path.lexists(path / SPEC)
        return [path if is_id else root.find(os.fspath(name)).path]  # also if it is damaged
    if not found:
        raise JobNotFoundError(
            f"there is no job of {os.fspath(name)}: a run leaves one in {beside(real)} if it is "
            "held, has rejects or was interrupted"
        )
    return found
