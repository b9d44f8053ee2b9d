"""A hint about fields that may get lost, after a run."""

from typing import Any, Final

from pydantic_core import from_json

from pyrmute_tasks.cli.errors import tell
from pyrmute_tasks.pyrmute_adapter import load_manager

__all__ = ["tell_losses"]

_HINT_LINES: Final = 1000


def tell_losses(source: str, manager: str, name: str, from_version: str, to_version: str) -> None:
    """Print a hint about fields that may get lost; when the fleet is closed."""
    hop = name, from_version, to_version
    if not _may_lose(source, manager, *hop):
        return
    from pyrmute_tasks.cli.audit import losses_hint  # an audit's imports take a while

    hint = losses_hint(source, manager, *hop)
    if hint is not None:
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
            for _, line in zip(range(_HINT_LINES), file, strict=False):
                record: Any = from_json(line)
                if not record.keys() <= known or any(map(_is_deep, record.values())):
                    return True
    except Exception:
        return True
    return False


def _is_deep(value: object) -> bool:
    return isinstance(value, dict | list)
