"""Batch migration of versioned pydantic models, in one process or on a fleet."""

import importlib
from typing import TYPE_CHECKING, Any, Final

from pyrmute_tasks._version import __version__

if TYPE_CHECKING:
    from pyrmute import AvroExporter as AvroExporter
    from pyrmute import AvroRecordSchema as AvroRecordSchema
    from pyrmute import AvroSchemaGenerator as AvroSchemaGenerator
    from pyrmute import JsonSchema as JsonSchema
    from pyrmute import JsonSchemaMode as JsonSchemaMode
    from pyrmute import MigrationManager as MigrationManager
    from pyrmute import ModelDiff as ModelDiff
    from pyrmute import ProtoExporter as ProtoExporter
    from pyrmute import Registry as Registry
    from pyrmute import SchemaConfig as SchemaConfig
    from pyrmute import SchemaManager as SchemaManager
    from pyrmute import TypeScriptConfig as TypeScriptConfig
    from pyrmute import TypeScriptExporter as TypeScriptExporter

    from pyrmute_tasks.aio import AsyncMigrator, AsyncStream
    from pyrmute_tasks.async_job_calls import AsyncSubmittedJob
    from pyrmute_tasks.audit import AuditReport
    from pyrmute_tasks.batch_migrator import BatchMigrator
    from pyrmute_tasks.dry_run import DryRun
    from pyrmute_tasks.engine.error_policy import ErrorPolicy, OnError
    from pyrmute_tasks.engine.events import (
        ChunkDelivered,
        ChunkDiscarded,
        ChunkResent,
        ChunkSettled,
        ChunkSubmitted,
        Event,
        FleetSeen,
        JobEnded,
        Observer,
        RecordIsolated,
        SlotsChanged,
        SourceBlocked,
        SourceOpened,
        Wait,
        WaitBegan,
        WorkerDeclined,
        WorkerGone,
    )
    from pyrmute_tasks.engine.job_report import JobReport, JobState
    from pyrmute_tasks.engine.job_spec import OnCodeMismatch
    from pyrmute_tasks.engine.pace import Throttle
    from pyrmute_tasks.engine.stream import Stream
    from pyrmute_tasks.engine.threaded_sources import in_thread
    from pyrmute_tasks.engine.window import Window
    from pyrmute_tasks.errors import (
        BrokerUnavailableError,
        CodeMismatchError,
        ConfigurationError,
        FleetError,
        FrameError,
        FrameTooLargeError,
        InvalidRecordError,
        InvalidVersionError,
        JobChangedError,
        JobError,
        JobExistsError,
        JobFailedError,
        JobFormatError,
        JobLogError,
        JobLostError,
        JobNotFoundError,
        LeaseLostError,
        ManagerImportError,
        MigrationError,
        MigratorClosedError,
        MissingExtraError,
        ModelNotFoundError,
        NoWorkersError,
        OutputInUseError,
        ProcessDiedError,
        ProofError,
        PyrmuteTasksError,
        RegistrationError,
        RemoteError,
        SignatureError,
        StalledError,
        StorageUnreachableError,
        StoreUnavailableError,
        UnsupportedValueError,
        VersionedModelError,
        WireError,
    )
    from pyrmute_tasks.failures import RecordFailure, RecordPlace, Stage, record_index
    from pyrmute_tasks.file_options import ByReference
    from pyrmute_tasks.hooks import HookSet, MetricsHook, MigrationHook
    from pyrmute_tasks.io.kept_jobs import ProvenJob, discard_job, publish_job, verify_job
    from pyrmute_tasks.jobs.terms import Priority
    from pyrmute_tasks.manager import ModelManager
    from pyrmute_tasks.migrator import Migrator
    from pyrmute_tasks.plans.nested_models import NestedModelInfo
    from pyrmute_tasks.plans.plan import MigrationPlan
    from pyrmute_tasks.plans.retry import Retry
    from pyrmute_tasks.pyrmute_adapter import Manager
    from pyrmute_tasks.records import RecordLike
    from pyrmute_tasks.registry import MigrationFunc, ModelData
    from pyrmute_tasks.service.handles import SubmittedJob
    from pyrmute_tasks.service.history import LoggedReport
    from pyrmute_tasks.service.status import JobStatus
    from pyrmute_tasks.settings import Compress, Settings
    from pyrmute_tasks.testing import (
        MigrationTestCase,
        MigrationTestCases,
        MigrationTestResult,
        MigrationTestResults,
    )
    from pyrmute_tasks.versions import ModelVersion, VersionLike

__all__ = [
    "AsyncMigrator",
    "AsyncStream",
    "AsyncSubmittedJob",
    "AuditReport",
    "BatchMigrator",
    "BrokerUnavailableError",
    "ByReference",
    "ChunkDelivered",
    "ChunkDiscarded",
    "ChunkResent",
    "ChunkSettled",
    "ChunkSubmitted",
    "CodeMismatchError",
    "Compress",
    "ConfigurationError",
    "DryRun",
    "ErrorPolicy",
    "Event",
    "FleetError",
    "FleetSeen",
    "FrameError",
    "FrameTooLargeError",
    "HookSet",
    "InvalidRecordError",
    "InvalidVersionError",
    "JobChangedError",
    "JobEnded",
    "JobError",
    "JobExistsError",
    "JobFailedError",
    "JobFormatError",
    "JobLogError",
    "JobLostError",
    "JobNotFoundError",
    "JobReport",
    "JobState",
    "JobStatus",
    "LeaseLostError",
    "LoggedReport",
    "Manager",
    "ManagerImportError",
    "MetricsHook",
    "MigrationError",
    "MigrationFunc",
    "MigrationHook",
    "MigrationPlan",
    "MigrationTestCase",
    "MigrationTestCases",
    "MigrationTestResult",
    "MigrationTestResults",
    "Migrator",
    "MigratorClosedError",
    "MissingExtraError",
    "ModelData",
    "ModelManager",
    "ModelNotFoundError",
    "ModelVersion",
    "NestedModelInfo",
    "NoWorkersError",
    "Observer",
    "OnCodeMismatch",
    "OnError",
    "OutputInUseError",
    "Priority",
    "ProcessDiedError",
    "ProofError",
    "ProvenJob",
    "PyrmuteTasksError",
    "RecordFailure",
    "RecordIsolated",
    "RecordLike",
    "RecordPlace",
    "RegistrationError",
    "RemoteError",
    "Retry",
    "Settings",
    "SignatureError",
    "SlotsChanged",
    "SourceBlocked",
    "SourceOpened",
    "Stage",
    "StalledError",
    "StorageUnreachableError",
    "StoreUnavailableError",
    "Stream",
    "SubmittedJob",
    "Throttle",
    "UnsupportedValueError",
    "VersionLike",
    "VersionedModelError",
    "Wait",
    "WaitBegan",
    "Window",
    "WireError",
    "WorkerDeclined",
    "WorkerGone",
    "__version__",
    "discard_job",
    "in_thread",
    "publish_job",
    "record_index",
    "verify_job",
]

# Where each name is. It is imported when it is first used, so that a program loads no more than
# it needs: Celery, kombu and redis take longer than all the rest together.
_MODULE_OF: Final = {
    "AsyncMigrator": "aio",
    "AsyncStream": "aio",
    "AsyncSubmittedJob": "async_job_calls",
    "AuditReport": "audit",
    "BatchMigrator": "batch_migrator",
    "BrokerUnavailableError": "errors",
    "ByReference": "file_options",
    "ChunkDelivered": "engine.events",
    "ChunkDiscarded": "engine.events",
    "ChunkResent": "engine.events",
    "ChunkSettled": "engine.events",
    "ChunkSubmitted": "engine.events",
    "CodeMismatchError": "errors",
    "Compress": "settings",
    "ConfigurationError": "errors",
    "DryRun": "dry_run",
    "ErrorPolicy": "engine.error_policy",
    "Event": "engine.events",
    "FleetError": "errors",
    "FleetSeen": "engine.events",
    "FrameError": "errors",
    "FrameTooLargeError": "errors",
    "HookSet": "hooks",
    "InvalidRecordError": "errors",
    "InvalidVersionError": "errors",
    "JobChangedError": "errors",
    "JobEnded": "engine.events",
    "JobError": "errors",
    "JobExistsError": "errors",
    "JobFailedError": "errors",
    "JobFormatError": "errors",
    "JobLogError": "errors",
    "JobLostError": "errors",
    "JobNotFoundError": "errors",
    "JobReport": "engine.job_report",
    "JobState": "engine.job_report",
    "JobStatus": "service.status",
    "LeaseLostError": "errors",
    "LoggedReport": "service.history",
    "Manager": "pyrmute_adapter",
    "ManagerImportError": "errors",
    "MetricsHook": "hooks",
    "MigrationError": "errors",
    "MigrationFunc": "registry",
    "MigrationHook": "hooks",
    "MigrationPlan": "plans.plan",
    "MigrationTestCase": "testing",
    "MigrationTestCases": "testing",
    "MigrationTestResult": "testing",
    "MigrationTestResults": "testing",
    "Migrator": "migrator",
    "MigratorClosedError": "errors",
    "MissingExtraError": "errors",
    "ModelData": "registry",
    "ModelManager": "manager",
    "ModelNotFoundError": "errors",
    "ModelVersion": "versions",
    "NestedModelInfo": "plans.nested_models",
    "NoWorkersError": "errors",
    "Observer": "engine.events",
    "OnCodeMismatch": "engine.job_spec",
    "OnError": "engine.error_policy",
    "OutputInUseError": "errors",
    "Priority": "jobs.terms",
    "ProcessDiedError": "errors",
    "ProofError": "errors",
    "ProvenJob": "io.kept_jobs",
    "PyrmuteTasksError": "errors",
    "RecordFailure": "failures",
    "RecordIsolated": "engine.events",
    "RecordLike": "records",
    "RecordPlace": "failures",
    "RegistrationError": "errors",
    "RemoteError": "errors",
    "Retry": "plans.retry",
    "Settings": "settings",
    "SignatureError": "errors",
    "SlotsChanged": "engine.events",
    "SourceOpened": "engine.events",
    "SourceBlocked": "engine.events",
    "Stage": "failures",
    "StalledError": "errors",
    "StorageUnreachableError": "errors",
    "StoreUnavailableError": "errors",
    "Stream": "engine.stream",
    "SubmittedJob": "service.handles",
    "Throttle": "engine.pace",
    "UnsupportedValueError": "errors",
    "VersionLike": "versions",
    "VersionedModelError": "errors",
    "Wait": "engine.events",
    "WaitBegan": "engine.events",
    "Window": "engine.window",
    "WireError": "errors",
    "WorkerDeclined": "engine.events",
    "WorkerGone": "engine.events",
    "discard_job": "io.kept_jobs",
    "in_thread": "engine.threaded_sources",
    "publish_job": "io.kept_jobs",
    "record_index": "failures",
    "verify_job": "io.kept_jobs",
}

# Names of pyrmute's that are pyrmute's here, too. They are in no `__all__`, so that without pyrmute
# `from pyrmute_tasks import *` and `help()` do without them.
_PYRMUTES: Final = frozenset(
    {
        "AvroExporter",
        "AvroRecordSchema",
        "AvroSchemaGenerator",
        "JsonSchema",
        "JsonSchemaMode",
        "MigrationManager",
        "ModelDiff",
        "ProtoExporter",
        "Registry",
        "SchemaConfig",
        "SchemaManager",
        "TypeScriptConfig",
        "TypeScriptExporter",
    }
)

if not TYPE_CHECKING:  # a checker would believe that every name exists

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        if name in _PYRMUTES:
            delegation = importlib.import_module(f"{__name__}.delegation")
            value = delegation.name_of_pyrmute("pyrmute", name)
        elif name in _MODULE_OF:
            value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # from now on it is found without coming here
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
