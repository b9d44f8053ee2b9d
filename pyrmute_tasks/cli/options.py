"""Options shared by several commands."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:  # what needs no fleet needs no settings of one
    from pyrmute_tasks.settings import Settings

__all__ = [
    "BROKER_HELP",
    "MANAGER_HELP",
    "QUEUE_HELP",
    "STORE_HELP",
    "manager_option",
    "model_option",
    "overridden",
]

MANAGER_HELP: Final = "The manager: package.module:attribute or path/to/file.py:attribute."
BROKER_HELP: Final = "URL of a running fleet's broker."
STORE_HELP: Final = "URL of its store. [default: the broker, if it is Redis]"
QUEUE_HELP: Final = "Name of the queue."

manager_option: Final = click.option(
    "--manager", required=True, envvar="PYRMUTE_TASKS_MANAGER", help=MANAGER_HELP
)
model_option: Final = click.option("--model", "name", required=True, help="Name of the model.")


def overridden(settings: "Settings", **values: Any) -> "Settings":
    """Return `settings` with the values that are not None."""
    return replace(settings, **{name: value for name, value in values.items() if value is not None})
