"""Which member of a union a value is.

In order of preference: the only one there is; the one that the discriminator names, which
may be a field or a function; the one that pydantic takes the value for when it validates it
as the union. If nothing tells the members apart, because the discriminator is missing in
the value or the value is valid as none of them, it is the first, as in pyrmute.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError

from pyrmute_tasks.places import Group, Place, fields_of, keys_of, tags_of

__all__ = ["Chooser", "compile_chooser"]

Model: TypeAlias = type[BaseModel]

Chooser: TypeAlias = Callable[[Any], Model | None]
"""Says which model a value is; None if it is none."""


def compile_chooser(source: Place, target: Place, partners: dict[Model, Model]) -> Chooser:
    """Compile what says which model a value is.

    Args:
        source: The place as the value has it.
        target: The place as it will be. Its discriminator tells the source's members apart
            too, if they have none of their own.
        partners: What each of the source's models becomes, if it becomes another one.
    """
    models, only = source.models, _only_group(source)
    if len(models) == 1 and not (source.items or source.slots or source.values or source.others):
        return lambda _: models[0]
    validated = _by_validating(source.annotation, models)
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


def _only_group(place: Place) -> Group | None:
    return place.groups[0] if len(place.groups) == 1 else None


def _tagged(
    key: str, source: Place, target: Place, partners: dict[Model, Model]
) -> tuple[list[str], dict[Any, Model]] | None:
    """Return where the tag is, and which model each tag means; None if one means several."""
    table: dict[Any, Model] = {}
    for model in source.models:
        for tag in tags_of(model, key) or tags_of(partners.get(model, model), key):
            try:
                if table.setdefault(tag, model) is not model:
                    return None
            except TypeError:
                continue  # not hashable, so no literal
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
        return validated  # a tag means a union of several
    return lambda value: table.get(key(value))


def _by_validating(annotation: Any, models: list[Model]) -> Chooser:
    known = frozenset(models)
    adapters: list[TypeAdapter[Any]] = []

    def choose(value: Any) -> Model | None:
        if not adapters:
            # Not when compiling: an adapter is expensive, and few values come here.
            adapters.append(TypeAdapter(annotation))
        try:
            found = adapters[0].validate_python(value)
        except ValidationError:
            return models[0]
        while isinstance(found, RootModel) and type(found) not in known:
            found = found.root
        return type(found) if type(found) in known else None

    return choose
