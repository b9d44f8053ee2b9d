"""``pyrmute-tasks fingerprint``: a migration's fingerprint, and differences to another one."""

import json
import sys
from pathlib import Path

import click

from pyrmute_tasks.cli.options import manager_option, model_option
from pyrmute_tasks.errors import ConfigurationError, FrameError, PyrmuteTasksError
from pyrmute_tasks.manager import ModelManager
from pyrmute_tasks.plans.fingerprint.differences import compare_trees
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
from pyrmute_tasks.pyrmute_adapter import load_manager

__all__ = ["fingerprint"]


@click.command()
@manager_option
@model_option
@click.option("--from", "from_version", help="Version of the records. [default: the lowest]")
@click.option("--to", "to_version", help="Version to migrate them to. [default: the highest]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for --compare elsewhere.")
@click.option(
    "--compare",
    metavar="FILE",
    type=click.Path(),
    help="Compare with a file written by --json; - is stdin.",
)
def fingerprint(
    manager: str,
    name: str,
    from_version: str | None,
    to_version: str | None,
    as_json: bool,
    compare: str | None,
) -> None:
    """Show the fingerprint of a migration, as a tree of hashes.

    Workers whose tree differs decline a job. --compare prints the differences to another tree; the
    exit status is 1 if there are any, 2 if a tree cannot be read.
    """
    if as_json and compare is not None:
        raise click.UsageError("--json and --compare exclude each other: use one at a time")
    try:
        tree = _tree(manager, name, from_version, to_version)
        other = _read(compare) if compare is not None else None
    except PyrmuteTasksError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if other is not None:
        _print_differences(tree, other)
    elif as_json:
        click.echo(json.dumps(tree.to_dict(), indent=1))
    else:
        _print(tree)


def _tree(
    manager: str, name: str, from_version: str | None, to_version: str | None
) -> FingerprintTree:
    found = load_manager(manager)
    if isinstance(found, ModelManager):
        versions = found.list_versions(name)
        from_version = from_version or str(versions[0])
        to_version = to_version or str(versions[-1])
    if from_version is None or to_version is None:
        raise ConfigurationError("--from and --to are needed for a manager of pyrmute's")
    return found.plan(name, from_version, to_version).fingerprint_tree


def _read(path: str) -> FingerprintTree:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        return FingerprintTree.from_dict(json.loads(text))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError, FrameError):
        called = "stdin" if path == "-" else path
        raise ConfigurationError(
            f"{called} was not written by 'pyrmute-tasks fingerprint --json' of this release"
        ) from None


def _print_differences(tree: FingerprintTree, other: FingerprintTree) -> None:
    if tree.root == other.root:
        click.echo(f"the same: {tree.root}")
        return
    click.echo(f"here {tree.root}, there {other.root}")
    for difference in compare_trees(tree, other):
        click.echo(f"  {difference}")
    sys.exit(1)


def _print(tree: FingerprintTree) -> None:
    """Print each entry below the first one that reaches it."""
    click.echo(f"fingerprint {tree.root}")
    shown: set[int] = set(range(tree.tops))
    for top in range(tree.tops):
        stack = [(top, 1)]
        while stack:
            at, depth = stack.pop()
            entry = tree.entries[at]
            click.echo(f"{entry.hash}  {'  ' * depth}{entry}")
            below = [ref for ref in dict.fromkeys(entry.reaches) if ref not in shown]
            shown.update(below)
            stack += [(ref, depth + 1) for ref in reversed(below)]
