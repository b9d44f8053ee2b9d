"""Choosing the member of a union that a value belongs to.

In order of preference: the only member; the one named by the discriminator, a field or a
function; the one that pydantic chooses when it validates the value as the union. If nothing
decides, because the value lacks the discriminator or is valid as no member, the first member
is chosen, as in pyrmute.

Validators and discriminator functions are the user's and are called here in addition: they
may modify their argument and raise anything. They get a copy, and an exception means that the
value is no such member.
"""

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, PydanticUserError, RootModel, TypeAdapter

from pyrmute_tasks.plans.field_shapes import Group, Shape, fields_of, keys_of, tags_of
from pyrmute_tasks.pydantic_internals import calls_users_code

__all__ = ["Chooser", "compile_chooser"]

Model: TypeAlias = type[BaseModel]

Chooser: TypeAlias = Callable[[Any], Model | None]
"""Returns the model that a value belongs to; None if there is none."""


def compile_chooser(source: Shape, target: Shape, partners: dict[Model, Model]) -> Chooser:
    """Compile the chooser of a value's model.

    Args:
        source: The old shape.
        target: The new shape. Its discriminator also tells the source's members apart if they have
            none of their own.
        partners: The target's model for each of the source's, if it differs.
    """
    models, only = source.models, _only_group(source)
    if len(models) == 1 and not (source.items or source.slots or source.values or source.others):
        return lambda _: models[0]
    validated = _ByValidating(source.annotation, models)
    if only is None or source.values:
        return validated
    if callable(only.key):
        return _by_function(only, validated)
    if only.key is not None:
        tagged = _tagged(only.key, source, target, partners)
        return _by_tag(*tagged, lambda _: models[0], lambda _: None) if tagged else validated
    borrowed = _only_group(target)
    if borrowed is None or not isinstance(borrowed.key, str):
        return validated
    tagged = _tagged(borrowed.key, source, target, partners)
    return _by_tag(*tagged, validated, validated) if tagged else validated


def _only_group(shape: Shape) -> Group | None:
    return shape.groups[0] if len(shape.groups) == 1 else None


def _tagged(
    key: str, source: Shape, target: Shape, partners: dict[Model, Model]
) -> tuple[list[str], dict[Any, Model]] | None:
    """Return the tag's key and the model of each tag; None if a tag belongs to several."""
    table: dict[Any, Model] = {}
    for model in source.models:
        for tag in tags_of(model, key) or tags_of(partners.get(model, model), key):
            try:
                if table.setdefault(tag, model) is not model:
                    return None
            except TypeError:
                continue  # not hashable, so not a literal
    keys = [key]
    for model in [*source.models, *target.models]:
        if key in fields_of(model):
            keys.extend(keys_of(fields_of(model)[key])[0])
    return list(dict.fromkeys(keys)), table


def _by_tag(
    keys: list[str], table: dict[Any, Model], untagged: Chooser, unknown: Chooser
) -> Chooser:
    def choose(value: Any) -> Model | None:
        if not isinstance(value, dict):
            return None
        for key in keys:
            if key in value:
                tag = value[key]
                break
        else:
            tag = None
        if tag is None:
            return untagged(value)
        try:
            return table[tag]
        except (KeyError, TypeError):
            return unknown(value)

    return choose


def _by_function(group: Group, validated: Chooser) -> Chooser:
    key: Any = group.key
    table = {member.tag: member.model for member in group.members}
    if len(table) < len(group.members):
        return validated  # a tag belongs to a union of several models
    first = group.members[0].model

    def choose(value: Any) -> Model | None:
        try:
            tag = key(_copied(value))
        except MemoryError:
            raise
        except Exception:
            return first  # no tag, for example because its key is missing
        try:
            return table.get(tag)
        except TypeError:
            return None  # not hashable, so no tag of a member

    return choose


class _ByValidating:
    """Chooses the model that pydantic makes when it validates a value as the union.

    Args:
        annotation: The union.
        models: Its members; the first one is the fallback.
    """

    def __init__(self, annotation: Any, models: list[Model]) -> None:
        self._annotation = annotation
        self._first = models[0]
        self._known = frozenset(models)

    def __call__(self, value: Any) -> Model | None:
        validate, takes_copy = self._validator
        try:
            found = validate(_copied(value) if takes_copy else value)
        except MemoryError:
            raise  # not the value's fault
        except Exception:
            return self._first
        while isinstance(found, RootModel) and type(found) not in self._known:
            found = found.root
        return type(found) if type(found) in self._known else None

    @cached_property
    def _validator(self) -> tuple[Callable[[Any], Any], bool]:
        # Not when compiling: an adapter is expensive and rarely needed.
        try:
            adapter = TypeAdapter(self._annotation, config={"arbitrary_types_allowed": True})
        except PydanticUserError:
            adapter = TypeAdapter(self._annotation)  # a model, which brings its own configuration
        return adapter.validate_python, calls_users_code(adapter)


def _copied(value: Any) -> Any:
    """Copy a value as deep as its containers go; keep parts that cannot be copied."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is dict:
        return {
            key: item if type(item) in _IMMUTABLE else _copied(item) for key, item in value.items()
        }
    if kind is list:
        return [item if type(item) in _IMMUTABLE else _copied(item) for item in value]
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None)})
