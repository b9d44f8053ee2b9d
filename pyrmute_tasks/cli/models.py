"""The commands about models, which pyrmute's own command line runs: info, validate, diff, export.

pyrmute finds a manager by a configuration file. It is given one that names a factory of ours, and
the manager's name as its argument.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from pyrmute_tasks.cli.errors import errors_printed
from pyrmute_tasks.cli.options import MANAGER_HELP
from pyrmute_tasks.delegation import name_of_pyrmute
from pyrmute_tasks.errors import MissingExtraError
from pyrmute_tasks.pyrmute_adapter import load_pyrmutes_manager

__all__ = ["diff", "export", "info", "validate"]

_FACTORY: Final = f"{load_pyrmutes_manager.__module__}:{load_pyrmutes_manager.__name__}"


def _command(name: str, summary: str, usage: str) -> click.Command:
    """Return a command that passes its arguments to pyrmute's of the same name."""

    @click.command(
        name,
        help=f"{summary}\n\n\b\n{usage}\n\n"
        f"What 'pyrmute {name} --help' lists, but for --config. Needs the extra pyrmute.",
        context_settings={"ignore_unknown_options": True},
        options_metavar="--manager MANAGER",
    )
    @click.option(
        "-m", "--manager", required=True, envvar="PYRMUTE_TASKS_MANAGER", help=MANAGER_HELP
    )
    @click.argument("options", nargs=-1, type=click.UNPROCESSED)
    def command(manager: str, options: tuple[str, ...]) -> None:
        with errors_printed(include_records=False):
            run = _pyrmutes_commands(name)
            load_pyrmutes_manager(manager)  # its errors are better told here
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "pyrmute.toml"
            key, factory = json.dumps(manager), json.dumps(_FACTORY)
            config.write_text(
                f"[pyrmute.managers.{key}]\nmanager = {factory}\ninit_args = [{key}]\n",
                encoding="utf-8",
            )
            chosen = ["--", manager] if name == "info" else ["--manager", manager]
            run([name, *options, "--config", str(config), *chosen])

    return command


def _pyrmutes_commands(name: str) -> Callable[[list[str]], object]:
    try:
        commands: Callable[[list[str]], object] = name_of_pyrmute("pyrmute.cli.main", "app")
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        raise MissingExtraError(f"pyrmute-tasks {name}") from None
    return commands


info = _command("info", "List the models of a manager and their versions.", "pyrmute-tasks info")
validate = _command(
    "validate",
    "Check a JSON file against a version of a model.",
    "--data FILE --schema MODEL --version VERSION",
)
diff = _command(
    "diff",
    "Compare the fields of two versions of a model.",
    "--schema MODEL --from VERSION --to VERSION [--format markdown|json]",
)
export = _command(
    "export",
    "Write the schemas of all models: JSON Schema, Avro, Protobuf or TypeScript.",
    "--format json-schema|avro|protobuf|typescript --output FOLDER",
)
