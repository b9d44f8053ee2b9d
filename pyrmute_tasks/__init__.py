"""Batch migration of versioned pydantic models, in one process or on a fleet."""

from pyrmute_tasks._version import __version__
from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkSettled,
    ChunkSubmitted,
    Event,
    Observer,
    SlotsChanged,
)
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.engine.job_spec import OnCodeMismatch
from pyrmute_tasks.engine.pipeline import Window
from pyrmute_tasks.engine.threaded_sources import in_thread
from pyrmute_tasks.errors import (
    BrokerUnavailableError,
    CodeMismatchError,
    ConfigurationError,
    FleetError,
    FrameError,
    FrameTooLargeError,
    InvalidRecordError,
    InvalidVersionError,
    JobError,
    JobLostError,
    ManagerImportError,
    MigrationError,
    MigratorClosedError,
    ModelNotFoundError,
    NoWorkersError,
    OutputInUseError,
    ProcessDiedError,
    PyrmuteTasksError,
    RegistrationError,
    SignatureError,
    StalledError,
    StoreUnavailableError,
    UnsupportedValueError,
    VersionedModelError,
    WireError,
)
from pyrmute_tasks.hooks import MetricsHook, MigrationHook
from pyrmute_tasks.manager import ModelManager
from pyrmute_tasks.migrator import Migrator
from pyrmute_tasks.plans.nested_models import NestedModelInfo
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.registry import MigrationFunc, ModelData
from pyrmute_tasks.settings import Compress, Settings
from pyrmute_tasks.testing import (
    MigrationTestCase,
    MigrationTestResult,
    MigrationTestResults,
)
from pyrmute_tasks.versions import ModelVersion
from pyrmute_tasks.wire.remote_errors import RemoteError

__all__ = [
    "BrokerUnavailableError",
    "ChunkDelivered",
    "ChunkDiscarded",
    "ChunkSettled",
    "ChunkSubmitted",
    "CodeMismatchError",
    "Compress",
    "ConfigurationError",
    "Event",
    "FleetError",
    "FrameError",
    "FrameTooLargeError",
    "InvalidRecordError",
    "InvalidVersionError",
    "JobError",
    "JobLostError",
    "JobReport",
    "JobState",
    "ManagerImportError",
    "MetricsHook",
    "MigrationError",
    "MigrationFunc",
    "MigrationHook",
    "MigrationTestCase",
    "MigrationTestResult",
    "MigrationTestResults",
    "Migrator",
    "MigratorClosedError",
    "ModelData",
    "ModelManager",
    "ModelNotFoundError",
    "ModelVersion",
    "NestedModelInfo",
    "NoWorkersError",
    "Observer",
    "OnCodeMismatch",
    "OutputInUseError",
    "ProcessDiedError",
    "PyrmuteTasksError",
    "RegistrationError",
    "RemoteError",
    "Retry",
    "Settings",
    "SignatureError",
    "SlotsChanged",
    "StalledError",
    "StoreUnavailableError",
    "UnsupportedValueError",
    "VersionedModelError",
    "Window",
    "WireError",
    "__version__",
    "in_thread",
]
