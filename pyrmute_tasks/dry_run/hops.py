"""The hops of a plan: each step's place in the code, and the fields in which its models differ."""

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pyrmute_tasks.dry_run.report import ChangeKind, FieldChange, PlannedHop
from pyrmute_tasks.errors import ModelNotFoundError
from pyrmute_tasks.plans.field_shapes import fields_of
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.plans.steps import Step
from pyrmute_tasks.pyrmute_adapter import AdaptedStep, FleetManager

__all__ = ["field_changes", "planned_hops"]


def planned_hops(manager: FleetManager, plan: MigrationPlan) -> tuple[PlannedHop, ...]:
    """Return the hops of a plan, in order."""
    return tuple(_hop(manager, plan.name, step) for step in plan.steps)


def field_changes(before: type[BaseModel], after: type[BaseModel]) -> tuple[FieldChange, ...]:
    """Return the fields in which two models differ, in the order of their definition.

    Fields that get another type stand first, then those removed, then those added.
    """
    earlier, later = fields_of(before), fields_of(after)
    changed, removed = [], []
    for name, info in earlier.items():
        if name not in later:
            removed.append(FieldChange(name, ChangeKind.REMOVED, _shown(info.annotation), ""))
        elif later[name].annotation != info.annotation:
            types_ = _apart(info.annotation, later[name].annotation)
            changed.append(FieldChange(name, ChangeKind.TYPE, *types_))
    added = [
        FieldChange(name, ChangeKind.ADDED, "", _shown(info.annotation))
        for name, info in later.items()
        if name not in earlier
    ]
    return (*changed, *removed, *added)


def _hop(manager: FleetManager, name: str, step: Step) -> PlannedHop:
    models = list(_models(manager, name, step))
    changes = field_changes(*models) if len(models) == 2 else ()  # noqa: PLR2004  # both ends
    function, file, line = "", "", 0
    if isinstance(step, AdaptedStep):
        function = "migrate_data"  # of pyrmute, which does not expose the steps
    elif not step.generated:
        function, file, line = _place(step.function)
    return PlannedHop(str(step.from_version), str(step.to_version), function, file, line, changes)


def _models(manager: FleetManager, name: str, step: Step) -> Iterator[type[BaseModel]]:
    for version in (step.from_version, step.to_version):
        try:
            yield manager.get(name, version)
        except ModelNotFoundError:  # data can be migrated without a model
            return


def _place(function: Any) -> tuple[str, str, int]:
    """Return a function's name, file and line; of an object, those of its ``__call__``."""
    function = inspect.unwrap(function)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    for found in (function, getattr(function, "__func__", None), type(function).__call__):
        code = getattr(found, "__code__", None)
        if isinstance(code, types.CodeType):
            return name, code.co_filename, code.co_firstlineno
    return name, "", 0


def _apart(before: Any, after: Any) -> tuple[str, str]:
    """Return two types as texts; with their modules if they are called the same."""
    shown = _shown(before), _shown(after)
    return shown if shown[0] != shown[1] else (str(before), str(after))


def _shown(annotation: Any) -> str:
    """Return a type as it is written in the user's code, without modules."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "None"
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is typing.Annotated:
        return _shown(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_shown, arguments))
    if isinstance(annotation, list):  # the arguments of a Callable
        return f"[{', '.join(map(_shown, annotation))}]"
    name = getattr(origin or annotation, "__name__", None)
    shown = name if isinstance(name, str) else str(annotation)
    inner = ", ".join("…" if each is ... else _shown(each) for each in arguments)
    return f"{shown}[{inner}]" if inner else shown
