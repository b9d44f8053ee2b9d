"""Publishing: prove that a job's output is whole, make it, and give it the target's name.

The order is: prove, make the output under a name of its own, log `publishing`, rename, log `end`.
Who takes over from any of these points begins with the proof again, and finds out whether the
target is there already.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from pyrmute_tasks.errors import ConfigurationError, LeaseLostError, ProofError
from pyrmute_tasks.jobs.entries import Ended, JobResult, Publishing, Settled
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.names import short_name
from pyrmute_tasks.jobs.output import Output, Proof
from pyrmute_tasks.jobs.storage import FolderStorage

__all__ = ["Publication", "backup_path", "publish"]


class Publication(Protocol):
    """One way to publish: a file, or a folder of parts."""

    @property
    def target(self) -> Path:
        """The target, no link."""

    def temp(self, lease: Lease) -> Path:
        """Return where this epoch makes the output; the name must tell the epoch."""

    def compare(self, output: Output, proof: Proof) -> None:
        """Compare the target with the digests of the job's outputs, byte for byte.

        Raises:
            ProofError: If it differs, with the first place.
            OSError: If it cannot be read.
        """

    def places(self, output: Output) -> Iterator[tuple[Settled, Path, int]]:
        """Yield the ranges of the published output, with the file and offset of their outputs."""

    def is_there(self, output: Output, proof: Proof) -> bool:
        """Return whether the target is the job's output.

        Raises:
            ProofError: If it is not, with the first place.
            OSError: If it cannot be read.
        """

    def check(self, *, overwrite: bool) -> None:
        """Check that the output may appear.

        Raises:
            ConfigurationError: If the target exists and must not be replaced.
        """

    def remove_temps(self, keep: Path) -> None:
        """Remove what other epochs have made, so that a frozen one finds nothing to rename."""

    def make(self, output: Output, lease: Lease, proof: Proof) -> None:
        """Make the output durably at `temp`.

        Raises:
            ProofError: If what it is made of is not what was settled.
            OSError: If it cannot be written.
        """

    def appear(self, lease: Lease, *, overwrite: bool, backup: Path | None) -> None:
        """Give it the target's name.

        Args:
            lease: The right to drive the job.
            overwrite: Replace a target that exists.
            backup: The name that a replaced target gets; None to remove it.

        Raises:
            FileNotFoundError: If what was made is gone.
            FileExistsError: If the target exists and must not be replaced.
            OSError: If it cannot be renamed.
        """

    def clean(self) -> None:
        """Remove what replacing the target has left, now that the output is there."""


def backup_path(target: Path, job: str) -> Path:
    """Return the name that a target gets when a job replaces it."""
    return target.with_name(f"{short_name(target.name)}.{job}.backup")


def publish(
    output: Output,
    lease: Lease,
    publication: Publication,
    *,
    overwrite: bool = False,
    backup: bool = False,
    deciding: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Proof:
    """Publish a job's output, and end the job.

    Args:
        output: The job's output.
        lease: The right to drive the job; its log is closed at the end.
        publication: The way to publish it.
        overwrite: Replace a target that exists.
        backup: Keep a replaced target; see `backup_path`.
        deciding: Entered while it is logged that the output will appear, after which the job
            cannot be cancelled; raises if it is.

    Raises:
        ProofError: If the output is not whole; nothing is published.
        ConfigurationError: If the target exists and must not be replaced.
        LeaseLostError: If another process drives the job now.
        OSError: If it cannot be written.
    """
    lease.log.commit()
    proof = output.prove()
    target, temp = publication.target, publication.temp(lease)
    was_published = _is_published(output, lease, proof, publication)
    publication.remove_temps(keep=temp)
    if not was_published:
        publication.check(overwrite=overwrite)
        publication.make(output, lease, proof)
    with deciding():
        lease.log.log(Publishing(proof.length, proof.digest, temp.name))
        lease.log.commit()
    if not was_published:
        try:
            kept = backup_path(target, output.folder.spec.job) if backup else None
            publication.appear(lease, overwrite=overwrite, backup=kept)
        except FileNotFoundError:
            raise LeaseLostError(
                f"{temp} was removed: another process drives this job now"
            ) from None
        except FileExistsError:
            raise ConfigurationError(
                f"cannot write {target}: another process has created it"
            ) from None
    FolderStorage(target.parent).sync_folder()
    publication.clean()
    result = JobResult.SUCCEEDED_WITH_REJECTS if proof.rejected else JobResult.SUCCEEDED
    lease.log.log(Ended(result, proof.records, proof.outputs, proof.rejected))
    lease.log.commit()
    lease.log.close()
    return proof


def _is_published(output: Output, lease: Lease, proof: Proof, publication: Publication) -> bool:
    """Return whether an earlier epoch renamed the output and only failed to log the end."""
    before = lease.view.publishing
    if before is None or before.digest != proof.digest:
        return False
    try:
        return publication.is_there(output, proof)
    except (OSError, ProofError):
        return False
