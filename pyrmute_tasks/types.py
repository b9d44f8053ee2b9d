"""Types, under pyrmute's module name; those of schemas are pyrmute's own."""

from typing import TYPE_CHECKING, Any

from pyrmute_tasks.delegation import name_of_pyrmute
from pyrmute_tasks.plans.nested_models import NestedModelInfo
from pyrmute_tasks.registry import MigrationFunc, ModelData

if TYPE_CHECKING:
    from pyrmute.types import (
        DecoratedBaseModel,
        JsonSchema,
        JsonSchemaDefinitions,
        JsonSchemaGenerator,
        JsonSchemaMode,
        JsonValue,
        MigrationKey,
        MigrationMap,
        ModelMetadata,
        ModelName,
        SchemaTransformer,
        VersionedModels,
    )

__all__ = [
    "DecoratedBaseModel",
    "JsonSchema",
    "JsonSchemaDefinitions",
    "JsonSchemaGenerator",
    "JsonSchemaMode",
    "JsonValue",
    "MigrationFunc",
    "MigrationKey",
    "MigrationMap",
    "ModelData",
    "ModelMetadata",
    "ModelName",
    "NestedModelInfo",
    "SchemaTransformer",
    "VersionedModels",
]

if not TYPE_CHECKING:  # a checker would believe that every name exists

    def __getattr__(name: str) -> Any:
        """Import a name of pyrmute's when it is first used."""
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return name_of_pyrmute("pyrmute.types", name)
