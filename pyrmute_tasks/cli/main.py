"""The command ``pyrmute-tasks``: imports only the command that is run."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import click

from pyrmute_tasks._version import __version__
from pyrmute_tasks.cli.start import imported

__all__ = ["COMMANDS", "Lazy", "LazyGroup", "main"]


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is imported when it is run.

    Attributes:
        module: The module, within this package.
        attribute: What the command is called there.
        summary: The line that the group's help has for it: the first of its own.
    """

    module: str
    attribute: str
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        module = importlib.import_module(f"pyrmute_tasks.cli.{self.module}")
        if self.module != "run":  # which imports a manager first
            imported()
        command: click.Command = getattr(module, self.attribute)
        return command


COMMANDS: Final[Mapping[str, Lazy]] = MappingProxyType(
    {
        "audit": Lazy(
            "audit",
            "audit_command",
            "Find steps that depend on more than their record, and fields that get lost.",
        ),
        "cancel": Lazy(
            "steer",
            "cancel_command",
            "Cancel a job: what it has written is removed, its history stays.",
        ),
        "coordinator": Lazy(
            "coordinator",
            "coordinator_command",
            "Drive the submitted jobs of a jobs root; other settings come from PYRMUTE_TASKS_* "
            "variables.",
        ),
        "diff": Lazy("models", "diff", "Compare the fields of two versions of a model."),
        "discard": Lazy(
            "jobs",
            "discard_command",
            "Remove a job, or what runs have left beside an output; outputs stay.",
        ),
        "export": Lazy(
            "models",
            "export",
            "Write the schemas of all models: JSON Schema, Avro, Protobuf or TypeScript.",
        ),
        "fingerprint": Lazy(
            "fingerprint",
            "fingerprint",
            "Show the fingerprint of a migration, as a tree of hashes.",
        ),
        "info": Lazy("models", "info", "List the models of a manager and their versions."),
        "jobs": Lazy(
            "job_list",
            "jobs_command",
            "List the submitted jobs, the newest first, and why they wait or have ended.",
        ),
        "pause": Lazy(
            "steer", "pause_command", "Pause a job, within seconds, until somebody resumes it."
        ),
        "plan": Lazy(
            "plan",
            "plan",
            "Show what a run will do, by running a sample of IN; writes nothing.",
        ),
        "publish": Lazy(
            "jobs", "publish_command", "Publish the output of a run or job with --hold."
        ),
        "rejects": Lazy(
            "job_report",
            "rejects_command",
            "Write the records that a job has rejected, so far or in the end, as JSON lines.",
        ),
        "report": Lazy(
            "job_report",
            "report_command",
            "Report what a job has done, so far or in the end.",
        ),
        "resume": Lazy(
            "steer",
            "resume_command",
            "Resume a job that is paused, was suspended, or has failed.",
        ),
        "retry": Lazy(
            "retry", "retry_command", "Run again what a run has rejected, with today's code."
        ),
        "run": Lazy("run", "run", "Migrate a file of JSON lines, in order."),
        "set": Lazy("steer", "set_command", "Change the limits of a job, also while it runs."),
        "status": Lazy(
            "job_status",
            "status_command",
            "Show how far a job is, who drives it, and why it waits.",
        ),
        "submit": Lazy(
            "submit", "submit", "Submit a job, which coordinators drive, and print its id."
        ),
        "validate": Lazy("models", "validate", "Check a JSON file against a version of a model."),
        "verify": Lazy(
            "jobs",
            "verify_command",
            "Prove again that an output is whole, and compare it with its digests.",
        ),
        "watch": Lazy(
            "job_status", "watch_command", "Watch jobs until they have ended, or hold their output."
        ),
        "worker": Lazy(
            "worker",
            "worker",
            "Start a worker of a fleet; other settings come from PYRMUTE_TASKS_* variables.",
        ),
    }
)


class LazyGroup(click.Group):
    """A group whose help imports none of its commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for an unknown name."""
        found = COMMANDS.get(cmd_name)
        return None if found is None else found.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their whole summaries; click's own method cuts them off."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyrmute-tasks")
def _cli() -> None:
    """Migrate stored records to newer versions of their pydantic models."""


def main() -> None:
    """Run the command line interface."""
    _cli(prog_name="pyrmute-tasks")
