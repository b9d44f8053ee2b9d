"""Differences between versions: pyrmute's own, which the extra ``pyrmute`` installs."""

from pyrmute_tasks.errors import MissingExtraError

try:
    from pyrmute.model_diff import ModelDiff
except ModuleNotFoundError as _error:
    raise MissingExtraError(__name__) from _error

__all__ = ["ModelDiff"]
