"""`ModelVersion`, under pyrmute's module name."""

from pyrmute_tasks.versions import ModelVersion

__all__ = ["ModelVersion"]
