"""Configuration of JSON schemas: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.schema_config import SchemaConfig
except ModuleNotFoundError as error:
    raise MissingExtraError(__name__) from error

__all__ = ["SchemaConfig"]
