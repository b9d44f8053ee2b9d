"""Jobs that runs have left beside their targets: publishing, verifying and discarding them.

None of it needs a fleet, a manager, or the source.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pyrmute_tasks.errors import ConfigurationError, JobError, JobNotFoundError
from pyrmute_tasks.io.earlier_runs import real_target
from pyrmute_tasks.io.job_targets import target_of
from pyrmute_tasks.io.jsonl import source_errors
from pyrmute_tasks.io.output_lock import held_lock
from pyrmute_tasks.io.output_place import output_errors
from pyrmute_tasks.io.retried_job import RetriedJob, is_published, replace_retried
from pyrmute_tasks.jobs.driver import this_process
from pyrmute_tasks.jobs.folder import JobFolder, beside, beside_retry, discard
from pyrmute_tasks.jobs.output import Output, Proof
from pyrmute_tasks.jobs.publish import backup_path, publish
from pyrmute_tasks.jobs.spec import SPEC

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


def find_job(name: _PathLike) -> JobFolder:
    """Return the job that a run has left.

    Args:
        name: The run's target, or the job's own folder. Of a target that a retry is about to
            replace, the retry is returned.

    Raises:
        JobNotFoundError: If there is none.
        JobLogError: If its spec cannot be read.
    """
    return JobFolder(_paths_of(name)[0])


def publish_job(name: _PathLike, *, overwrite: bool = False, backup: bool = False) -> ProvenJob:
    """Publish the output of a job that was held, or that was killed while it published.

    Args:
        name: The target, or the job's folder.
        overwrite: Replace a target that exists; a retry replaces the one that it has mended.
        backup: Keep a target that is replaced, as ``<target>.<job>.backup``.

    Returns:
        The job.

    Raises:
        JobNotFoundError: If there is none.
        JobError: If it is published already, or its run has not come to its end.
        OutputInUseError: If a run is writing the target.
        ProofError: If the output is not whole; nothing is published.
        ConfigurationError: If the target exists and must not be replaced, or cannot be written.
    """
    found = find_job(name)
    target = target_of(found.spec)
    with output_errors(target.name), held_lock(target.path, found.spec.job):
        folder = JobFolder(found.path)
        view = folder.view()
        if folder.has_succeeded():
            raise JobError(f"{target.name} is published already")
        if view.opened is None or not (view.is_held or view.publishing):
            raise JobError(
                f"the run to {target.name} has not come to its end, and cannot be published: go on "
                "with it by the same command and --resume"
            )
        retried = RetriedJob(JobFolder(beside(target.path))) if folder.spec.parents else None
        if not is_published(folder, view, target):
            if retried is not None:  # what it replaces is the output that it has mended
                retried.compare()
            target.check(overwrite=overwrite or retried is not None)
        lease = folder.take(this_process(), view.opened.code)
        try:
            proof = publish(
                Output(folder),
                lease,
                target.publication(folder, None),
                overwrite=overwrite or retried is not None,
                backup=backup,
            )
        except BaseException:
            with contextlib.suppress(JobError, OSError):
                lease.let_go("it could not be published")
            raise
        if retried is None:
            folder.finish()
        else:
            replace_retried(folder, retried.folder.path)
    kept = backup_path(target.path, folder.spec.job)
    return ProvenJob(
        folder.spec.job,
        folder.spec.target,
        proof,
        is_published=True,
        backup=str(kept) if kept.exists() else "",
    )


def verify_job(name: _PathLike) -> ProvenJob:
    """Prove a job again, and compare its output with the digests, byte for byte.

    Args:
        name: The target, or the job's folder.

    Returns:
        The job.

    Raises:
        JobNotFoundError: If there is none.
        ProofError: If it is not proven; it names the first place.
        ConfigurationError: If the output cannot be read.
    """
    folder = find_job(name)
    target, output = target_of(folder.spec), Output(folder)
    is_published = folder.has_succeeded()
    with source_errors(target.name):
        if is_published:
            proof = output.prove(is_published=True)
            target.publication(folder, None).compare(output, proof)
        else:
            proof = output.verify()
    return ProvenJob(folder.spec.job, folder.spec.target, proof, is_published)


def discard_job(name: _PathLike) -> list[Path]:
    """Remove what runs have left for a target, but for the target itself.

    Args:
        name: The target, or the folder of one job, which alone is removed then.

    Returns:
        What was removed.

    Raises:
        JobNotFoundError: If there is nothing.
        OutputInUseError: If a run is writing the target.
        ConfigurationError: If something cannot be removed.
    """
    paths = _paths_of(name)
    with output_errors(name), contextlib.ExitStack() as stack:
        with contextlib.suppress(JobError):  # what cannot be read is removed, too
            spec = JobFolder(paths[0]).spec
            stack.enter_context(held_lock(Path(spec.target), spec.job))
        for path in paths:
            discard(path)
    return paths


def _paths_of(name: _PathLike) -> list[Path]:
    """Return the folders of the jobs that a name means, the newest first."""
    if (Path(name) / SPEC).is_file():
        return [Path(name)]
    try:
        real = real_target(name)
    except ConfigurationError:
        real = Path(os.path.abspath(name))
    found = [path for path in (beside_retry(real), beside(real)) if path.is_dir()]
    if not found:
        raise JobNotFoundError(
            f"there is no job of {os.fspath(name)}: a run leaves one in {beside(real)} if it is "
            "held, has rejects or was interrupted"
        )
    return found
