"""Options shared by several commands, and their checks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from pyrmute_tasks.cli.errors import usage_checked
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.registry import load_attribute, split_name

if TYPE_CHECKING:  # what needs no fleet needs no settings of one
    from pyrmute_tasks.plans.retry import Retry
    from pyrmute_tasks.settings import Settings

__all__ = [
    "BROKER_HELP",
    "CHUNK_OPTIONS",
    "ERROR_OPTIONS",
    "HOP_OPTIONS",
    "MANAGER_HELP",
    "MAX_RATE_OPTION",
    "OUTPUT_OPTIONS",
    "POSITIVE",
    "QUEUE_HELP",
    "RETRY_OPTIONS",
    "SHOWN_OPTIONS",
    "STORE_HELP",
    "WAITING_OPTIONS",
    "WithOptions",
    "check_fleet",
    "check_name",
    "import_retried",
    "job_argument",
    "jobs_option",
    "loglevel_option",
    "manager_option",
    "model_option",
    "overridden",
    "retry_of",
]


class _Positive(click.FloatRange):
    """A number above 0, and neither NaN nor infinity, which a range of floats takes."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a number above 0.", param, ctx)
        return float(found)


POSITIVE: Final = _Positive(min=0, min_open=True)
_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL")
MANAGER_HELP: Final = "The manager: package.module:attribute or path/to/file.py:attribute."
BROKER_HELP: Final = "URL of a running fleet's broker."
STORE_HELP: Final = "URL of its store. [default: the broker, if it is Redis]"
QUEUE_HELP: Final = "Name of the queue."


def check_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return an argument that names an object; a callback that imports nothing."""
    if value is not None:
        with usage_checked():
            split_name(value)
    return value


manager_option: Final = click.option(
    "--manager",
    required=True,
    envvar="PYRMUTE_TASKS_MANAGER",
    help=MANAGER_HELP,
    callback=check_name,
)
model_option: Final = click.option("--model", "name", required=True, help="Name of the model.")


# Of what a job is, for `run` and `submit`.
HOP_OPTIONS: Final = (
    manager_option,
    model_option,
    click.option("--from", "from_version", required=True, help="Version of the records in IN."),
    click.option("--to", "to_version", required=True, help="Version of the records in OUT."),
)
CHUNK_OPTIONS: Final = (
    click.option(
        "--chunk-size", type=click.IntRange(min=1), help="Records a chunk. [default: by size]"
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Migrate the first N records only."),
    click.option(
        "--by-reference",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Whether workers read IN and write OUT themselves; those of a running fleet need "
        "--root.",
    ),
    click.option(
        "--max-line-bytes",
        type=click.IntRange(min=1),
        help="Longest line, by reference; a longer one is its record's failure.",
    ),
)
OUTPUT_OPTIONS: Final = (
    click.option("--overwrite", is_flag=True, help="Replace OUT if it exists."),
    click.option(
        "--hold", is_flag=True, help="Prove the output, and leave it to `pyrmute-tasks publish`."
    ),
    click.option(
        "--backup", is_flag=True, help="Keep the OUT that is replaced, as OUT.JOB.backup."
    ),
)
RETRY_OPTIONS: Final = (
    click.option(
        "--retry-on",
        multiple=True,
        metavar="MODULE:CLASS",
        help="Retry a step that raises this exception, as builtins:ConnectionError; repeatable.",
    ),
    click.option(
        "--attempts",
        type=click.IntRange(min=1),
        help="Most runs of a step, with retries. [default: 4]",
    ),
)
ERROR_OPTIONS: Final = (
    click.option(
        "--on-error",
        type=click.Choice(["raise", "skip"]),
        default="raise",
        show_default=True,
        help="End at the first record that fails, or leave such records out of OUT.",
    ),
    click.option(
        "--max-errors",
        metavar="N|SHARE",
        help="Most records to skip: a number, or a share as 0.1%, from 1,000 records on.",
    ),
)
WAITING_OPTIONS: Final = (
    click.option("--wait", "wait_s", type=POSITIVE, help="Seconds to wait for a first worker."),
    click.option(
        "--stall",
        "stall_s",
        type=POSITIVE,
        help="Seconds in which nothing moves although workers are idle. [default: 60]",
    ),
)
SHOWN_OPTIONS: Final = (
    click.option(
        "--stats",
        "stats_s",
        type=POSITIVE,
        metavar="SECONDS",
        help="Write a line of progress every so often, and no bar. [default: 30 without a "
        "terminal]",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Write the report and lines of progress as JSON."
    ),
    click.option(
        "--quiet",
        "-q",
        is_flag=True,
        help="Print no progress, and no report but that of --json.",
    ),
)
MAX_RATE_OPTION: Final = click.option(
    "--max-rate",
    type=POSITIVE,
    help="Most records a second; they do not go by reference then.",
)

# Of submitted jobs.
loglevel_option: Final = click.option(
    "--loglevel",
    type=click.Choice(_LOG_LEVELS, case_sensitive=False),
    default="INFO",
    metavar="LEVEL",
    show_default=True,
    help="Least level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
)
jobs_option: Final = click.option(
    "--jobs",
    "jobs_root",
    envvar="PYRMUTE_TASKS_JOBS_ROOT",
    type=click.Path(),
    metavar="DIR",
    help="The jobs root: the directory of submitted jobs. [default: PYRMUTE_TASKS_JOBS_ROOT]",
)
job_argument: Final = click.argument("job", metavar="JOB")

Command = TypeVar("Command", bound=Callable[..., Any])


class WithOptions:
    """Adds declared options to a command, in their order.

    Args:
        declared: What click's `option` and `argument` return.
    """

    def __init__(self, *declared: Callable[[Any], Any]) -> None:
        self._declared = declared

    def __call__(self, command: Command) -> Command:
        """Return the command with the options."""
        for each in reversed(self._declared):
            command = each(command)
        return command


def retry_of(on: Sequence[str], attempts: int | None) -> "Retry | None":
    """Return which exceptions are retried; None for none.

    Raises:
        ConfigurationError: If the options make no sense, whatever can be imported.
    """
    if not on:
        if attempts is not None:
            raise ConfigurationError("--attempts needs --retry-on: nothing is retried without it")
        return None
    from pyrmute_tasks.plans.retry import Retry  # most runs retry nothing

    return Retry(on=on) if attempts is None else Retry(on=on, attempts=attempts)


def import_retried(names: Sequence[str]) -> None:
    """Check that names are those of exceptions that may be retried.

    Raises:
        ManagerImportError: If one cannot be imported.
        ConfigurationError: If one is something else.
    """
    for name in names:
        kind = load_attribute(name)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigurationError(f"'{name}' is no class of exceptions that may be retried")


def check_fleet(
    broker: str | None, store: str | None, queue: str | None, workers: int | None
) -> None:
    """Check that options mean one fleet: a running one, or one that is started.

    Raises:
        ConfigurationError: If they contradict each other.
    """
    if broker is None and (store is not None or queue is not None):
        raise ConfigurationError("--store and --queue need --broker: they name a running fleet")
    if broker is not None and workers is not None:
        raise ConfigurationError(
            "--workers is the size of a fleet that is started; that of --broker has its own"
        )


def overridden(settings: "Settings", **values: Any) -> "Settings":
    """Return `settings` with the values that are not None."""
    return replace(settings, **{name: value for name, value in values.items() if value is not None})
