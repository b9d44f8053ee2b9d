"""Steps that nobody wrote.

When a version is registered as backward compatible, a record enters it without a written
step: fields keep their values, models inside of them are migrated, fields that the record
lacks get their defaults, and what the new model does not know stays. Such a step is
compiled from the two models once. A record that holds its fields under the expected keys
takes one merge of two dicts and work only for what changes; any other record goes field by
field, with the same result.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pyrmute_tasks.errors import MigrationError
from pyrmute_tasks.plans.converters import Converter, ConverterCompiler, NestedCompiler
from pyrmute_tasks.plans.field_shapes import fields_of, input_keys, keys_of
from pyrmute_tasks.registry import MigrationFunc, ModelData, Registry
from pyrmute_tasks.versions import ModelVersion

__all__ = ["compile_generated_step"]


def compile_generated_step(
    registry: Registry,
    name: str,
    from_version: ModelVersion,
    to_version: ModelVersion,
    compile_nested: NestedCompiler,
) -> MigrationFunc:
    """Compile the step between two versions of a model that nobody wrote.

    Args:
        registry: Where both versions are registered.
        name: The model's name.
        from_version: Where the step starts.
        to_version: Where it ends.
        compile_nested: Returns what migrates a nested record between two versions of its
            model, also while that itself is being compiled.

    Raises:
        ModelNotFoundError: If one of the versions is not registered.
    """
    source, target = registry.model(name, from_version), registry.model(name, to_version)
    changes = ConverterCompiler(registry, compile_nested)
    kinds = issubclass(source, RootModel), issubclass(target, RootModel)
    if all(kinds):
        return _compile_root(changes.field(source, target, "root"))
    if any(kinds):
        return _refuse(name, from_version, to_version)
    return _compile_record(source, target, changes)


def _refuse(name: str, from_version: ModelVersion, to_version: ModelVersion) -> MigrationFunc:
    def step(_: ModelData) -> ModelData:
        reason = (
            "Cannot auto-migrate between RootModel and BaseModel. Define an explicit "
            "migration function."
        )
        raise MigrationError(name, str(from_version), str(to_version), reason)

    return step


def _compile_root(change: Converter | None) -> MigrationFunc:
    def step(record: ModelData) -> ModelData:
        if "root" not in record:
            reason = "RootModel data must contain 'root' key"
            raise MigrationError("RootModel", "unknown", "unknown", reason)
        value = record["root"]
        return {"root": value if change is None or value is None else change(value)}

    return step


# --- fields -------------------------------------------------------------------------------


_Path: TypeAlias = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    """What is known about a field of the target when a step is compiled.

    Attributes:
        name: Its name; first of all a record may hold it under that.
        aliases: Other keys a record may hold it under; of several, the record's first.
        choices: Further ones; of several, the first of these.
        paths: Places in values of other keys a record may hold it at.
        owned: Keys that are consumed once the field is found.
        change: What migrates its value; None if nothing does.
        default: What makes its default; None if it has none.
        key: Where the default goes.
    """

    name: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    paths: tuple[_Path, ...] = ()
    owned: frozenset[str] = frozenset()
    change: Converter | None = None
    default: "_Default | None" = None
    key: str = ""

    @property
    def usual_key(self) -> str:
        """The key under which most records should hold the field."""
        if self.default is not None:
            return self.key
        return next(iter((*self.aliases, *self.choices)), self.name)

    def find(self, record: ModelData) -> str | None:
        """Return the key under which `record` holds the field, or None."""
        if self.name in record:
            return self.name
        found = [key for key in self.aliases if key in record]
        if len(found) > 1:
            return next(key for key in record if key in found)
        return found[0] if found else next((key for key in self.choices if key in record), None)

    def find_deep(self, record: ModelData) -> _Path | None:
        """Return where in the values of other keys `record` holds the field, or None."""
        return next((path for path in self.paths if _holds(record, path)), None)


@dataclass(frozen=True, slots=True)
class _Default:
    """A field's default: a value, or what makes a new one for each record."""

    value: Any = None
    make: Callable[[], Any] | None = None

    def get(self) -> Any:
        return self.value if self.make is None else self.make()


def _prepare(
    source: type[BaseModel], target: type[BaseModel], changes: ConverterCompiler
) -> list[_Field]:
    old = fields_of(source)
    owner: dict[str, str] = {}
    for name, info in old.items():
        owner.update(dict.fromkeys([name, *keys_of(info)[0]], name))
    prepared = []
    for name, info in fields_of(target).items():
        default, key = _default_of(info), info.serialization_alias or info.alias or name
        if default is not None and _forbids(target, key, name, info):
            default = None
        if name not in old:
            prepared.append(_Field(name, default=default, key=key))
            continue
        keys, paths = keys_of(old[name])
        mine = [other for other in keys if owner[other] == name and other != name]
        choices = [other for other in mine if other not in _plain_aliases(old[name])]
        prepared.append(
            _Field(
                name,
                aliases=tuple(other for other in mine if other not in choices),
                choices=tuple(choices),
                paths=tuple(paths),
                owned=frozenset(key for key, field in owner.items() if field == name),
                change=changes.field(source, target, name),
                default=default,
                key=key,
            )
        )
    return prepared


def _plain_aliases(info: FieldInfo) -> tuple[Any, ...]:
    return info.alias, info.serialization_alias, info.validation_alias


def _forbids(model: type[BaseModel], key: str, name: str, info: FieldInfo) -> bool:
    """Say whether a default under `key` is refused; validating sets it all the same."""
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    accepted = [*input_keys(name, info), *([name] if by_name else [])]
    return config.get("extra") == "forbid" and key not in accepted


def _default_of(info: FieldInfo) -> _Default | None:
    if info.default is not PydanticUndefined:
        return _Default(info.default, _copier(info.default))
    if info.default_factory is None or info.default_factory_takes_validated_data:
        # What needs validated data is left to validating, which has them.
        return None
    return _Default(make=info.default_factory)  # type: ignore[arg-type]  # takes nothing, as just asked


_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None)})


def _copier(default: Any) -> Callable[[], Any] | None:
    """Return what copies a default for each record; None if pydantic shares it too."""
    try:
        hash(default)
    except TypeError:
        pass
    else:
        return None
    if type(default) in (list, set) and {type(item) for item in default} <= _IMMUTABLE:
        return default.copy  # type: ignore[no-any-return]  # a list's or a set's
    if type(default) is dict and {type(item) for item in default.values()} <= _IMMUTABLE:
        return default.copy
    return lambda: copy.deepcopy(default)


# --- records ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Usual:
    """What the usual record looks like.

    Attributes:
        template: The target's fields in order, with defaults where they can be shared.
        required: Keys without which a record is not usual.
        unusual: Keys with which it is not.
        changes: What migrates the values of which keys.
        makers: What makes the defaults of which keys.
    """

    template: ModelData = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    unusual: set[str] = field(default_factory=set)
    changes: list[tuple[str, Converter]] = field(default_factory=list)
    makers: list[tuple[str, Callable[[], Any]]] = field(default_factory=list)


def _usual_shape(fields: list[_Field]) -> _Usual:
    shape = _Usual()
    for item in fields:
        key = item.usual_key
        others = {item.name, *item.aliases, *item.choices, *(path[0] for path in item.paths)}
        if item.default is None and not item.owned:
            # New and without a default: usually absent.
            shape.unusual.add(item.name)
            continue
        shape.unusual.update(str(other) for other in others if other != key)
        if key in shape.template:
            shape.unusual.add(key)  # two fields share it
        shape.template[key] = None
        if item.default is None:
            shape.required.add(key)
        elif item.default.make is None:
            shape.template[key] = item.default.value
        else:
            shape.makers.append((key, item.default.make))
        if item.change is not None and key in item.owned:
            shape.changes.append((key, item.change))
    return shape


def _compile_record(
    source: type[BaseModel], target: type[BaseModel], changes: ConverterCompiler
) -> MigrationFunc:
    fields = _prepare(source, target, changes)
    careful, shape = _compile_careful(fields), _usual_shape(fields)
    template, changed, makers = shape.template, shape.changes, shape.makers
    required, unusual = frozenset(shape.required), frozenset(shape.unusual)

    def step(record: Any) -> ModelData:
        if (
            not isinstance(record, dict)  # an earlier step of a nested model may return anything
            or not required.issubset(record)
            or (unusual and not unusual.isdisjoint(record))
        ):
            return careful(record)
        result = {**template, **record}
        for key, change in changed:
            if key in record:
                value = record[key]
                if value is not None:
                    result[key] = change(value)
        for key, make in makers:
            if key not in record:
                result[key] = make()
        return result

    return step


def _compile_careful(fields: list[_Field]) -> MigrationFunc:
    def step(record: ModelData) -> ModelData:
        result: ModelData = {}
        consumed: set[str] = set()
        deep: list[tuple[_Path, Converter]] = []
        for item in fields:
            key = item.find(record)
            if key is not None:
                value, change = record[key], item.change
                result[key] = value if value is None or change is None else change(value)
                consumed |= item.owned
                continue
            path = item.find_deep(record)
            if path is None:
                _set_default(result, item, record)
            elif item.change is not None:
                deep.append((path, item.change))
        result.update((key, value) for key, value in record.items() if key not in consumed)
        for path, change in deep:
            if path[0] in result:
                result = _change_at(result, path, change)
        return result

    return step


def _set_default(result: ModelData, item: _Field, record: ModelData) -> None:
    if item.default is not None and item.key not in record:
        result[item.key] = item.default.get()
    elif item.default is not None:
        # The record has something there that its model does not know: it comes in later.
        result.setdefault(item.key, None)


def _holds(value: Any, path: _Path) -> bool:
    for part in path:
        if not isinstance(value, (dict, list, tuple)):
            return False
        container: Any = value
        try:
            value = container[part]
        except (LookupError, TypeError):
            return False
    return True


def _change_at(value: Any, path: _Path, change: Converter) -> Any:
    """Return a copy of `value` in which `change` was applied at `path`."""
    if not path:
        return value if value is None else change(value)
    result: Any = list(value) if isinstance(value, tuple) else value.copy()
    result[path[0]] = _change_at(value[path[0]], path[1:], change)
    return tuple(result) if isinstance(value, tuple) else result
