"""A migration as far as producers need it: its name, its versions and its fingerprints.

A producer moves bytes; models and steps are the workers'. So a `MigrationPlan` is one, and so is
what the spec of a submitted job tells.
"""

import json
from dataclasses import dataclass
from typing import Protocol, Self

from pyrmute_tasks.errors import FrameError, JobLogError
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree

__all__ = ["DescribedMigration", "Migration"]


class Migration(Protocol):
    """A migration from one version of a model to another."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def from_version(self) -> object:
        """Version of the records."""

    @property
    def to_version(self) -> object:
        """Version of the outputs."""

    @property
    def fingerprint(self) -> str:
        """Root of the tree of fingerprints."""

    @property
    def fingerprint_tree(self) -> FingerprintTree:
        """The tree, to name what differs on a worker."""


@dataclass(frozen=True, slots=True)
class DescribedMigration:
    """A migration known by its description alone: none of its code is imported.

    Attributes:
        name: The model's name.
        from_version: Version of the records.
        to_version: Version of the outputs.
        fingerprint_tree: Its tree of fingerprints.
    """

    name: str
    from_version: str
    to_version: str
    fingerprint_tree: FingerprintTree

    @classmethod
    def of(cls, plan: tuple[str, str, str], code: str) -> Self:
        """Return the migration of a job's spec.

        Args:
            plan: Model, from and to version.
            code: The tree of fingerprints, as text.

        Raises:
            JobLogError: If the tree is not one of this release.
        """
        try:
            tree = FingerprintTree.from_dict(json.loads(code))
        except (ValueError, FrameError):
            raise JobLogError(
                f"the job of {' '.join(plan)} has no tree of fingerprints of this release: submit "
                "it again"
            ) from None
        return cls(*plan, tree)

    @property
    def fingerprint(self) -> str:
        """Root of the tree of fingerprints."""
        return self.fingerprint_tree.root
