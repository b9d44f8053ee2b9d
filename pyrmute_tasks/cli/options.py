"""Options that several commands have."""

from dataclasses import replace
from typing import Any, Final

from pyrmute_tasks.settings import Settings

__all__ = ["BROKER_HELP", "MANAGER_HELP", "QUEUE_HELP", "STORE_HELP", "overridden"]

MANAGER_HELP: Final = "The manager: package.module:attribute or path/to/file.py:attribute."
BROKER_HELP: Final = "URL of the broker of a fleet that is running."
STORE_HELP: Final = "URL of its store; by default the broker, if that is Redis."
QUEUE_HELP: Final = "Name of the queue."


def overridden(settings: Settings, **values: Any) -> Settings:
    """Return `settings` with those values that are given."""
    return replace(settings, **{name: value for name, value in values.items() if value is not None})
