"""A hint about fields that may get lost, after a run."""

from itertools import islice
from typing import Any, Final

from pydantic_core import from_json

from pyrmute_tasks.cli.errors import tell
from pyrmute_tasks.pyrmute_adapter import load_manager

__all__ = ["tell_losses"]

_LINES: Final = 1000
_RECORDS: Final = 300
_FIELDS: Final = 3


def tell_losses(source: str, manager: str, name: str, from_version: str, to_version: str) -> None:
    """Print a hint about fields that may get lost; when the fleet is closed."""
    hop = name, from_version, to_version
    hint = _hint(source, manager, *hop) if _may_lose(source, manager, *hop) else ""
    if hint:
        tell(hint)


def _may_lose(source: str, manager: str, name: str, from_version: str, to_version: str) -> bool:
    """Return whether the first records have fields that neither version declares, or nested ones.

    Most small files have none, and importing an audit takes longer than migrating them.
    """
    try:
        found = load_manager(manager)
        models = found.get(name, from_version), found.get(name, to_version)
        known = {field for model in models for field in model.model_fields}
        with open(source, "rb") as file:
            for _, line in zip(range(_LINES), file, strict=False):
                record: Any = from_json(line)
                if not record.keys() <= known or any(map(_is_deep, record.values())):
                    return True
    except Exception:
        return True
    return False


def _hint(source: str, manager: str, name: str, from_version: str, to_version: str) -> str:
    """Return the hint; empty if no field of the first records may get lost.

    Runs no steps or validators, and takes some milliseconds.
    """
    from pyrmute_tasks.audit.ledger import sample_losses  # an audit's imports take a while
    from pyrmute_tasks.audit.sample import read_lines

    try:
        found = load_manager(manager)
        models = found.get(name, from_version), found.get(name, to_version)
        losses = sample_losses(islice(read_lines(source), _RECORDS), *models)
    except Exception:
        return ""  # the job has succeeded; a failure here must not change that
    if not losses:
        return ""
    fields = ", ".join(loss.field for loss in losses[:_FIELDS])
    more = f" and {len(losses) - _FIELDS} more" if len(losses) > _FIELDS else ""
    return (
        f"hint: neither version declares these fields of some records: {fields}{more}; to see "
        f"whether they get lost: pyrmute-tasks audit --manager {manager} --model {name} "
        f"--from {from_version} --to {to_version} {source}"
    )


def _is_deep(value: object) -> bool:
    return isinstance(value, dict | list)
