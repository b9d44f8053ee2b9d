"""The commands about models that pyrmute's command line runs: info, validate, diff, export.

pyrmute finds a manager by a configuration file. It is given one that names a function of ours, and
the manager's name as its argument.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from pyrmute_tasks.cli.errors import errors_printed
from pyrmute_tasks.cli.options import MANAGER_HELP, check_name
from pyrmute_tasks.delegation import name_of_pyrmute
from pyrmute_tasks.errors import MissingExtraError
from pyrmute_tasks.pyrmute_adapter import load_pyrmutes_manager

__all__ = ["DelegatedCommand", "diff", "export", "info", "validate"]

_LOADER: Final = f"{load_pyrmutes_manager.__module__}:{load_pyrmutes_manager.__name__}"


class DelegatedCommand(click.Command):
    """A command that passes its arguments to pyrmute's command of the same name.

    Args:
        name: The command's name.
        summary: What it does.
        usage: Its options, for its help.
    """

    def __init__(self, name: str, summary: str, usage: str = "") -> None:
        self._name = name
        manager = click.Option(
            ["-m", "--manager"],
            required=True,
            envvar="PYRMUTE_TASKS_MANAGER",
            help=MANAGER_HELP,
            callback=check_name,
        )
        super().__init__(
            name,
            callback=self._run,
            params=[manager, click.Argument(["options"], nargs=-1, type=click.UNPROCESSED)],
            help=f"{summary}\n\nIts options are those of 'pyrmute {name}', but for --config; "
            f"pyrmute runs it, which the extra pyrmute installs.\n\n{usage}",
            context_settings={"ignore_unknown_options": True},
            options_metavar="--manager MANAGER",
        )

    def _run(self, manager: str, options: tuple[str, ...]) -> None:
        with errors_printed(include_records=False):
            run = self._pyrmutes()
            load_pyrmutes_manager(manager)  # pyrmute would report its errors less well
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "pyrmute.toml"
            name, loader = json.dumps(manager), json.dumps(_LOADER)
            config.write_text(
                f"[pyrmute.managers.{name}]\nmanager = {loader}\ninit_args = [{name}]\n",
                encoding="utf-8",
            )
            chosen = ["--", manager] if self._name == "info" else ["--manager", manager]
            run([self._name, *options, "--config", str(config), *chosen])

    def _pyrmutes(self) -> Callable[[list[str]], object]:
        used_by = f"pyrmute-tasks {self._name}"
        try:
            run: Callable[[list[str]], object] = name_of_pyrmute("pyrmute.cli.main", "app", used_by)
        except ModuleNotFoundError as error:
            if error.name != "typer":
                raise
            raise MissingExtraError(used_by, "typer") from None
        return run


info: DelegatedCommand = DelegatedCommand(
    "info", "List the models of a manager and their versions."
)
validate: DelegatedCommand = DelegatedCommand(
    "validate",
    "Check a JSON file against a version of a model.",
    "--data FILE --schema MODEL --version VERSION",
)
diff: DelegatedCommand = DelegatedCommand(
    "diff",
    "Compare the fields of two versions of a model.",
    "--schema MODEL --from VERSION --to VERSION [--format markdown|json]",
)
export: DelegatedCommand = DelegatedCommand(
    "export",
    "Write the schemas of all models: JSON Schema, Avro, Protobuf or TypeScript.",
    "--format json-schema|avro|protobuf|typescript --output FOLDER",
)
