"""`ModelManager`, under pyrmute's module name."""

from pyrmute_tasks.manager import ModelManager

__all__ = ["ModelManager"]
