"""Configuration of JSON schemas: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.schema_config import SchemaConfig
except ModuleNotFoundError as _error:
    raise MissingExtraError(__name__) from _error

__all__ = ["SchemaConfig"]
