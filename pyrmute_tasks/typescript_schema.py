"""TypeScript exports: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.typescript_schema import (
        TypeScriptConfig,
        TypeScriptExporter,
        TypeScriptSchemaGenerator,
    )
except ModuleNotFoundError as _error:
    raise MissingExtraError(__name__) from _error

__all__ = ["TypeScriptConfig", "TypeScriptExporter", "TypeScriptSchemaGenerator"]
