"""Protobuf exports: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.protobuf_schema import ProtoExporter, ProtoSchemaGenerator
except ModuleNotFoundError as _error:
    raise MissingExtraError(__name__) from _error

__all__ = ["ProtoExporter", "ProtoSchemaGenerator"]
