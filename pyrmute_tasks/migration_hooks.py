"""Hooks, under pyrmute's module name."""

from pyrmute_tasks.hooks import MetricsHook, MigrationHook

__all__ = ["MetricsHook", "MigrationHook"]
