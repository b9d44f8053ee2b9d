"""The errors that pyrmute has too, under pyrmute's module name."""

from pyrmute_tasks.errors import (
    InvalidVersionError,
    MigrationError,
    ModelNotFoundError,
    VersionedModelError,
)

__all__ = ["InvalidVersionError", "MigrationError", "ModelNotFoundError", "VersionedModelError"]
