"""Generated steps for backward-compatible versions.

Records enter a backward-compatible version without a written step: fields keep their values,
models inside of them are migrated, missing fields get their defaults, and unknown keys stay.
The step is compiled once from the two models. A record with its fields under the expected keys
takes one merge of two dicts, plus work for values that change; any other record goes field by
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
    """Compile the step to a backward-compatible version.

    Args:
        registry: The registered models.
        name: The model's name.
        from_version: Where the step starts.
        to_version: Where it ends.
        compile_nested: Returns the function that migrates a nested record between two versions of
            its model, even while that is being compiled.

    Raises:
        ModelNotFoundError: If one of the versions is not registered.
    """
    source, target = registry.model(name, from_version), registry.model(name, to_version)
    compiler = ConverterCompiler(registry, compile_nested)
    kinds = issubclass(source, RootModel), issubclass(target, RootModel)
    if all(kinds):
        return _compile_root(compiler.field(source, target, "root"))
    if any(kinds):
        return _reject_root_mismatch(name, from_version, to_version)
    return _compile_record(source, target, compiler)


def _reject_root_mismatch(
    name: str, from_version: ModelVersion, to_version: ModelVersion
) -> MigrationFunc:
    def step(_: ModelData) -> ModelData:
        reason = (
            "Cannot auto-migrate between RootModel and BaseModel. Define an explicit "
            "migration function."
        )
        raise MigrationError(name, str(from_version), str(to_version), reason)

    return step


def _compile_root(converter: Converter | None) -> MigrationFunc:
    def step(record: ModelData) -> ModelData:
        if "root" not in record:
            reason = "RootModel data must contain 'root' key"
            raise MigrationError("RootModel", "unknown", "unknown", reason)
        value = record["root"]
        return {"root": value if converter is None or value is None else converter(value)}

    return step


# --- fields -------------------------------------------------------------------------------


_Path: TypeAlias = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the target, prepared for the step.

    Attributes:
        name: Its name, and the first key to look under.
        aliases: Other keys; of several, the record's first one wins.
        choices: Further keys; of several, the first one here wins.
        paths: Places in the values of other keys.
        owned: Keys that are consumed once the field is found.
        converter: Converter of its value; None to keep it.
        default: Its default; None if it has none.
        key: The key to put the default under.
    """

    name: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    paths: tuple[_Path, ...] = ()
    owned: frozenset[str] = frozenset()
    converter: Converter | None = None
    default: "_Default | None" = None
    key: str = ""

    @property
    def usual_key(self) -> str:
        """The key of the field in most records."""
        if self.default is not None:
            return self.key
        return next(iter((*self.aliases, *self.choices)), self.name)

    def find(self, record: ModelData) -> str | None:
        """Return the key of the field in `record`, or None."""
        if self.name in record:
            return self.name
        found = [key for key in self.aliases if key in record]
        if len(found) > 1:
            return next(key for key in record if key in found)
        return found[0] if found else next((key for key in self.choices if key in record), None)

    def find_deep(self, record: ModelData) -> _Path | None:
        """Return the path of the field into the values of other keys of `record`, or None."""
        return next((path for path in self.paths if _holds(record, path)), None)


@dataclass(frozen=True, slots=True)
class _Default:
    """A field's default: a value, or a factory called for each record."""

    value: Any = None
    make: Callable[[], Any] | None = None

    def get(self) -> Any:
        return self.value if self.make is None else self.make()


def _prepare(
    source: type[BaseModel], target: type[BaseModel], compiler: ConverterCompiler
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
                converter=compiler.field(source, target, name),
                default=default,
                key=key,
            )
        )
    return prepared


def _plain_aliases(info: FieldInfo) -> tuple[Any, ...]:
    return info.alias, info.serialization_alias, info.validation_alias


def _forbids(model: type[BaseModel], key: str, name: str, info: FieldInfo) -> bool:
    """Return whether the model rejects a default under `key`; validation sets it anyway."""
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    accepted = [*input_keys(name, info), *([name] if by_name else [])]
    return config.get("extra") == "forbid" and key not in accepted


def _default_of(info: FieldInfo) -> _Default | None:
    if info.default is not PydanticUndefined:
        return _Default(info.default, _copier(info.default))
    if info.default_factory is None or info.default_factory_takes_validated_data:
        # A factory that needs validated data is left to validation.
        return None
    return _Default(make=info.default_factory)  # type: ignore[arg-type]  # takes nothing, see above


_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None)})


def _copier(default: Any) -> Callable[[], Any] | None:
    """Return a function that copies a default for each record; None if pydantic shares it too."""
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
class _FastPath:
    """The expected keys of a record, prepared for the fast way.

    Attributes:
        template: The target's fields in order, with the defaults that can be shared.
        required: Keys that the record must have.
        unusual: Keys that the record must not have.
        converters: Converters of values, by key.
        makers: Factories of defaults, by key.
    """

    template: ModelData = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    unusual: set[str] = field(default_factory=set)
    converters: list[tuple[str, Converter]] = field(default_factory=list)
    makers: list[tuple[str, Callable[[], Any]]] = field(default_factory=list)


def _fast_path(fields: list[_Field]) -> _FastPath:
    shape = _FastPath()
    for item in fields:
        key = item.usual_key
        others = {item.name, *item.aliases, *item.choices, *(path[0] for path in item.paths)}
        if item.default is None and not item.owned:
            # New and without a default: usually absent from records.
            shape.unusual.add(item.name)
            continue
        shape.unusual.update(str(other) for other in others if other != key)
        if key in shape.template:
            shape.unusual.add(key)  # shared by two fields
        shape.template[key] = None
        if item.default is None:
            shape.required.add(key)
        elif item.default.make is None:
            shape.template[key] = item.default.value
        else:
            shape.makers.append((key, item.default.make))
        if item.converter is not None and key in item.owned:
            shape.converters.append((key, item.converter))
    return shape


def _compile_record(
    source: type[BaseModel], target: type[BaseModel], compiler: ConverterCompiler
) -> MigrationFunc:
    fields = _prepare(source, target, compiler)
    slow_path, shape = _compile_slow_path(fields), _fast_path(fields)
    template, converted, makers = shape.template, shape.converters, shape.makers
    required, unusual = frozenset(shape.required), frozenset(shape.unusual)

    def step(record: Any) -> ModelData:
        if (
            not isinstance(record, dict)  # a nested model's earlier step may return anything
            or not required.issubset(record)
            or (unusual and not unusual.isdisjoint(record))
        ):
            return slow_path(record)
        result = {**template, **record}
        for key, converter in converted:
            if key in record:
                value = record[key]
                if value is not None:
                    result[key] = converter(value)
        for key, make in makers:
            if key not in record:
                result[key] = make()
        return result

    return step


def _compile_slow_path(fields: list[_Field]) -> MigrationFunc:
    def step(record: ModelData) -> ModelData:
        result: ModelData = {}
        consumed: set[str] = set()
        deep: list[tuple[_Path, Converter]] = []
        for item in fields:
            key = item.find(record)
            if key is not None:
                value, converter = record[key], item.converter
                result[key] = value if value is None or converter is None else converter(value)
                consumed |= item.owned
                continue
            path = item.find_deep(record)
            if path is None:
                _set_default(result, item, record)
            elif item.converter is not None:
                deep.append((path, item.converter))
        result.update((key, value) for key, value in record.items() if key not in consumed)
        for path, converter in deep:
            if path[0] in result:
                result = _convert_at(result, path, converter)
        return result

    return step


def _set_default(result: ModelData, item: _Field, record: ModelData) -> None:
    if item.default is not None and item.key not in record:
        result[item.key] = item.default.get()
    elif item.default is not None:
        # The record has an undeclared value there, which stays and is added later.
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


def _convert_at(value: Any, path: _Path, converter: Converter) -> Any:
    """Return a copy of `value` with `converter` applied at `path`."""
    if not path:
        return value if value is None else converter(value)
    result: Any = list(value) if isinstance(value, tuple) else value.copy()
    result[path[0]] = _convert_at(value[path[0]], path[1:], converter)
    return tuple(result) if isinstance(value, tuple) else result
