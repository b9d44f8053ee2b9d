"""Which member of a union a value is.

In order of preference: the only one there is; the one that the discriminator names, which
may be a field or a function; the one that pydantic takes the value for when it validates it
as the union. If nothing tells the members apart, because the discriminator is missing in
the value or the value is valid as none of them, it is the first, as in pyrmute.

Validators and discriminating functions are the user's, and they are asked here besides: they
may modify what they get and raise what they like. They get a copy, and whatever they raise
means that the value is not what they look for.
"""

import copy
import enum
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, PydanticUserError, RootModel, TypeAdapter

from pyrmute_tasks.plans.field_shapes import Group, Shape, fields_of, keys_of, tags_of

__all__ = ["Chooser", "compile_chooser"]

Model: TypeAlias = type[BaseModel]

Chooser: TypeAlias = Callable[[Any], Model | None]
"""Says which model a value is; None if it is none."""


def compile_chooser(source: Shape, target: Shape, partners: dict[Model, Model]) -> Chooser:
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


def _only_group(place: Shape) -> Group | None:
    return place.groups[0] if len(place.groups) == 1 else None


def _tagged(
    key: str, source: Shape, target: Shape, partners: dict[Model, Model]
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
    first = group.members[0].model

    def choose(value: Any) -> Model | None:
        try:
            tag = key(_copied(value))
        except MemoryError:
            raise
        except Exception:
            return first  # there is no tag, as where the key of one is missing
        try:
            return table.get(tag)
        except TypeError:
            return None  # not hashable, so no tag of a member

    return choose


class _ByValidating:
    """Takes a value for what pydantic makes of it when it validates it as the union.

    Args:
        annotation: The union.
        models: Its members; the first is what a value is that is valid as none of them.
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
            raise  # it says nothing about the value
        except Exception:
            return self._first
        while isinstance(found, RootModel) and type(found) not in self._known:
            found = found.root
        return type(found) if type(found) in self._known else None

    @cached_property
    def _validator(self) -> tuple[Callable[[Any], Any], bool]:
        # Not when compiling: an adapter is expensive, and few values come here.
        try:
            adapter = TypeAdapter(self._annotation, config={"arbitrary_types_allowed": True})
        except PydanticUserError:
            adapter = TypeAdapter(self._annotation)  # a model, which has a configuration itself
        return adapter.validate_python, _hands_input_to_users(adapter.core_schema)


def _hands_input_to_users(schema: Any) -> bool:
    """Say whether validating runs functions of the user's, which may modify its input."""
    return any(map(_runs_users_code, _nodes(schema)))


def _runs_users_code(node: Mapping[str, Any]) -> bool:
    if node.get("type") == "enum":
        found = node["cls"]._missing_
        return found.__func__ is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]  # a bound classmethod
    flags = ("custom_init", "post_init", "default_factory_takes_data")
    functions = ("function", "discriminator")
    return any(map(node.get, flags)) or any(_is_users(node.get(key)) for key in functions)


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, Mapping):
            yield node
            pending.extend(item for key, item in node.items() if key not in _NOT_SCHEMAS)
        elif isinstance(node, (list, tuple)):
            pending.extend(node)


_NOT_SCHEMAS: Final = frozenset({"serialization", "metadata", "default", "expected"})


def _is_users(function: Any) -> bool:
    module = getattr(getattr(function, "func", function), "__module__", None) or ""
    return callable(function) and not module.startswith(("pydantic.", "pydantic_core."))


def _copied(value: Any) -> Any:
    """Copy a value as deep as containers go; what cannot be copied stays itself."""
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
