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
        MissingExtraError,
        ModelNotFoundError,
        NoWorkersError,
        OutputInUseError,
        ProcessDiedError,
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
    from pyrmute_tasks.file_runs import ByReference
    from pyrmute_tasks.hooks import MetricsHook, MigrationHook
    from pyrmute_tasks.manager import ModelManager
    from pyrmute_tasks.migrator import Migrator
    from pyrmute_tasks.plans.nested_models import NestedModelInfo
    from pyrmute_tasks.plans.retry import Retry
    from pyrmute_tasks.registry import MigrationFunc, ModelData
    from pyrmute_tasks.settings import Compress, Settings
    from pyrmute_tasks.testing import (
        MigrationTestCase,
        MigrationTestCases,
        MigrationTestResult,
        MigrationTestResults,
    )
    from pyrmute_tasks.versions import ModelVersion

__all__ = [
    "BrokerUnavailableError",
    "ByReference",
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
    "StorageUnreachableError",
    "StoreUnavailableError",
    "UnsupportedValueError",
    "VersionedModelError",
    "Window",
    "WireError",
    "__version__",
    "in_thread",
]

# Where each name is. It is imported when it is first used, so that a program loads no more than
# it needs: Celery, kombu and redis take longer than all the rest together.
_MODULE_OF: Final = {
    "BrokerUnavailableError": "errors",
    "ByReference": "file_runs",
    "ChunkDelivered": "engine.events",
    "ChunkDiscarded": "engine.events",
    "ChunkSettled": "engine.events",
    "ChunkSubmitted": "engine.events",
    "CodeMismatchError": "errors",
    "Compress": "settings",
    "ConfigurationError": "errors",
    "Event": "engine.events",
    "FleetError": "errors",
    "FrameError": "errors",
    "FrameTooLargeError": "errors",
    "InvalidRecordError": "errors",
    "InvalidVersionError": "errors",
    "JobError": "errors",
    "JobLostError": "errors",
    "JobReport": "engine.job_report",
    "JobState": "engine.job_report",
    "ManagerImportError": "errors",
    "MetricsHook": "hooks",
    "MigrationError": "errors",
    "MigrationFunc": "registry",
    "MigrationHook": "hooks",
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
    "OutputInUseError": "errors",
    "ProcessDiedError": "errors",
    "PyrmuteTasksError": "errors",
    "RegistrationError": "errors",
    "RemoteError": "errors",
    "Retry": "plans.retry",
    "Settings": "settings",
    "SignatureError": "errors",
    "SlotsChanged": "engine.events",
    "StalledError": "errors",
    "StorageUnreachableError": "errors",
    "StoreUnavailableError": "errors",
    "UnsupportedValueError": "errors",
    "VersionedModelError": "errors",
    "Window": "engine.pipeline",
    "WireError": "errors",
    "in_thread": "engine.threaded_sources",
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
