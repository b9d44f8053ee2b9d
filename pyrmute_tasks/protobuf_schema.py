"""Protobuf exports: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.protobuf_schema import ProtoExporter, ProtoSchemaGenerator
except ModuleNotFoundError as error:
    raise MissingExtraError(__name__) from error

__all__ = ["ProtoExporter", "ProtoSchemaGenerator"]
