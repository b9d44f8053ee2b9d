"""Batch migration of versioned pydantic models, in one process or on a fleet."""

from pyrmute_tasks._version import __version__
from pyrmute_tasks.errors import (
    ConfigurationError,
    InvalidRecordError,
    InvalidVersionError,
    MigrationError,
    ModelNotFoundError,
    PyrmuteTasksError,
    RegistrationError,
    VersionedModelError,
)
from pyrmute_tasks.manager import ModelManager
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.registry import MigrationFunc, ModelData
from pyrmute_tasks.versions import ModelVersion

__all__ = [
    "ConfigurationError",
    "InvalidRecordError",
    "InvalidVersionError",
    "MigrationError",
    "MigrationFunc",
    "Migrator",
    "ModelData",
    "ModelManager",
    "ModelNotFoundError",
    "ModelVersion",
    "PyrmuteTasksError",
    "RegistrationError",
    "VersionedModelError",
    "__version__",
]
