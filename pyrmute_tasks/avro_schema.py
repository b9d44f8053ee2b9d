"""Avro exports: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.avro_schema import AvroExporter, AvroSchemaGenerator
except ModuleNotFoundError as error:
    raise MissingExtraError(__name__) from error

__all__ = ["AvroExporter", "AvroSchemaGenerator"]
