"""Types of Avro schemas: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.avro_types import (
        AvroArraySchema,
        AvroDefaultValue,
        AvroEnumSchema,
        AvroField,
        AvroLogicalType,
        AvroMapSchema,
        AvroPrimitive,
        AvroRecordSchema,
        AvroSchema,
        AvroType,
        AvroUnion,
        CachedAvroEnumSchema,
    )
except ModuleNotFoundError as _error:
    raise MissingExtraError(__name__) from _error

__all__ = [
    "AvroArraySchema",
    "AvroDefaultValue",
    "AvroEnumSchema",
    "AvroField",
    "AvroLogicalType",
    "AvroMapSchema",
    "AvroPrimitive",
    "AvroRecordSchema",
    "AvroSchema",
    "AvroType",
    "AvroUnion",
    "CachedAvroEnumSchema",
]
