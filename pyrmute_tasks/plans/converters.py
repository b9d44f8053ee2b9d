"""Converters of field values: migrate the versioned models inside of them.

A pair of shapes, the field's old one and its new one, is compiled into a `Converter`: a closure
that takes a value apart as far as models of another version can be in it. Without such models
there is no closure, and the value stays as it is.

The old type tells which model a value is; the new type tells, by the model's registered name,
which version it becomes.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic import BaseModel, RootModel

from pyrmute_tasks.plans.field_shapes import Reader, Shape, fields_of, input_keys, keys_of
from pyrmute_tasks.plans.unions import Chooser, compile_chooser
from pyrmute_tasks.pydantic_internals import extra_values
from pyrmute_tasks.registry import ModelData, Registry
from pyrmute_tasks.versions import ModelVersion

__all__ = ["Converter", "ConverterCompiler", "NestedCompiler"]

Converter: TypeAlias = Callable[[Any], Any]
"""Migrates the versioned models in a value, which is not None and is never modified."""

NestedCompiler: TypeAlias = Callable[
    [str, ModelVersion, ModelVersion], Callable[[ModelData], ModelData]
]
"""Returns the function that migrates a nested record between two versions of a model."""


class ConverterCompiler:
    """Compiles converters of field values.

    Args:
        registry: The registered models.
        compile_nested: Compiles the path of a nested model.
    """

    def __init__(self, registry: Registry, compile_nested: NestedCompiler) -> None:
        self._identify = registry.identify
        self._compile_nested = compile_nested
        self._reader = Reader(lambda model: registry.identify(model) is not None)
        self._compiled: dict[tuple[int, int], Converter | None] = {}
        self._on_dicts: dict[tuple[int, int], Converter] = {}  # for values that are dicts

    def field(
        self, source: type[BaseModel], target: type[BaseModel], name: str
    ) -> Converter | None:
        """Return the converter of a field's value; None if all values stay as they are.

        Args:
            source: The old model.
            target: The new model.
            name: The field's name in both.
        """
        if source is target:
            return None
        return self._converter(self._reader.field(source, name), self._reader.field(target, name))

    def _converter(self, source: Shape, target: Shape) -> Converter | None:
        pair = (id(source), id(target))
        if pair not in self._compiled:
            self._compiled[pair] = None
            if self._differs(source, target, set()):
                # A recursive type asks for its own converter while that is being compiled.
                self._compiled[pair] = _deferred(self._compiled, pair)
                self._compiled[pair] = self._compile(source, target)
        return self._compiled[pair]

    # --- whether a converter is needed ----------------------------------------------------

    def _differs(self, source: Shape, target: Shape, seen: set[tuple[int, int]]) -> bool:
        if (id(source), id(target)) in seen:
            return False
        seen.add((id(source), id(target)))
        for model, partner in self._partners(source, target):
            if self._identify(model) is not None:
                return True
            for name in _shared_fields(model, partner):
                old, new = self._reader.field(model, name), self._reader.field(partner, name)
                if self._differs(old, new, seen):
                    return True
        parts = [self._items(source, target), (source.values, target.values)]
        parts.extend(pair for pairs in _slots(source, target).values() for pair in pairs)
        return any(old and new and self._differs(old, new, seen) for old, new in parts)

    def _partners(
        self, source: Shape, target: Shape
    ) -> list[tuple[type[BaseModel], type[BaseModel]]]:
        """Pair the source's models with their versions in the target, unless they are the same."""
        # A single model may become a list of one; a validator makes it.
        targets = target.models or (target.items.models if target.items else [])
        pairs: list[tuple[type[BaseModel], type[BaseModel]]] = []
        for model in source.models:
            if model in targets:
                continue
            alike = [other for other in targets if self._name(other) == self._name(model)]
            if self._name(model) is None:
                # Without a name there is no way to tell several apart.
                rivals = [other for other in source.models if self._name(other) is None]
                alike = alike if len(alike) == len(rivals) == 1 else []
            pairs.extend((model, partner) for partner in alike[:1])
        return pairs

    def _name(self, model: type[BaseModel]) -> str | None:
        known = self._identify(model)
        return None if known is None else known[0]

    def _items(self, source: Shape, target: Shape) -> tuple[Shape | None, Shape | None]:
        """Return the item shapes of sequences whose slots do not match one by one."""
        items: list[Shape | None] = []
        for shape in (source, target):
            found = [shape.items] if shape.items else []
            found.extend(slot for slots in shape.slots for slot in slots)
            items.append(self._reader.join(found) if found else None)
        return items[0], items[1]

    # --- one shape ------------------------------------------------------------------------

    def _compile(self, source: Shape, target: Shape) -> Converter:
        converters = {
            model: converter
            for model, partner in self._partners(source, target)
            if (converter := self._model_converter(model, partner)) is not None
        }
        on_dict = self._dict_converter(source, target, converters)
        on_sequence = self._sequence_converter(source, target)
        if any(issubclass(model, RootModel) for model in converters):
            choose = compile_chooser(source, target, dict(self._partners(source, target)))
            return _with_root_models(choose, converters, on_dict, on_sequence)
        if on_sequence is None and on_dict is not None:
            self._on_dicts[id(source), id(target)] = on_dict
            return _dispatch_dict(on_dict, converters)
        if on_dict is None and on_sequence is not None and not converters:
            return on_sequence
        return _dispatch(on_dict or _unchanged, on_sequence or _unchanged, converters)

    def _model_converter(
        self, model: type[BaseModel], partner: type[BaseModel]
    ) -> Converter | None:
        old, new = self._identify(model), self._identify(partner)
        if old is None or new is None:
            return self._inner_converter(model, partner)
        migrate = self._compile_nested(old[0], old[1], new[1])
        wrap, unwrap = issubclass(model, RootModel), issubclass(partner, RootModel)
        return _root_converter(migrate, wrap, unwrap) if wrap or unwrap else migrate

    def _inner_converter(
        self, model: type[BaseModel], partner: type[BaseModel]
    ) -> Converter | None:
        """Convert the fields of a model that is not registered."""
        converters = [
            (key, converter)
            for name in _shared_fields(model, partner)
            if (converter := self.field(model, partner, name)) is not None
            for key in (name, *keys_of(fields_of(model)[name])[0])
        ]

        def convert(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            result = dict(value)
            for key, converter in converters:
                if value.get(key) is not None:
                    result[key] = converter(value[key])
            return result

        return convert if converters else None

    def _dict_converter(
        self, source: Shape, target: Shape, converters: dict[type[BaseModel], Converter]
    ) -> Converter | None:
        on_mapping: Converter | None = None
        if source.values and target.values:
            on_mapping = _each_value(self._converter(source.values, target.values))
        if not source.models:
            return on_mapping or self._lone_dict_converter(source, target)
        if not converters and on_mapping is None:
            return None
        if on_mapping is None and len(source.models) == 1:
            return next(iter(converters.values()))
        choose = compile_chooser(source, target, dict(self._partners(source, target)))
        return _by_choice(choose, converters, on_mapping or _unchanged)

    def _lone_dict_converter(self, source: Shape, target: Shape) -> Converter | None:
        """Convert a dict where the type has a list: a validator may wrap it."""
        old, new = self._items(source, target)
        if old is None or new is None or not old.models:
            return None
        return self._converter(old, new)

    def _sequence_converter(self, source: Shape, target: Shape) -> Converter | None:
        old, new = self._items(source, target)
        each = self._converter(old, new) if old and new else None
        on_dict = self._on_dicts.get((id(old), id(new)), each)
        by_length = {
            length: [self._converter(*pair) for pair in pairs]
            for length, pairs in _slots(source, target).items()
        }
        if by_length:
            return _each_slot(by_length, each)
        return _each_item(each, on_dict or each) if each else None


# --- closures -----------------------------------------------------------------------------


def _unchanged(value: Any) -> Any:
    return value


def _deferred(
    compiled: dict[tuple[int, int], Converter | None], pair: tuple[int, int]
) -> Converter:
    def convert(value: Any) -> Any:
        converter = compiled[pair]
        return value if converter is None else converter(value)

    return convert


def _shared_fields(model: type[BaseModel], partner: type[BaseModel]) -> list[str]:
    return [name for name in fields_of(model) if name in fields_of(partner)]


def _slots(source: Shape, target: Shape) -> dict[int, list[tuple[Shape, Shape]]]:
    """Pair the slots of tuples of the same length."""
    return {
        len(old): list(zip(old, new, strict=True))
        for old in source.slots
        for new in target.slots
        if len(old) == len(new)
    }


def _by_choice(
    choose: Chooser, converters: dict[type[BaseModel], Converter], on_mapping: Converter
) -> Converter:
    def convert(value: Any) -> Any:
        model = choose(value)
        if model is None:
            return on_mapping(value)
        converter = converters.get(model)
        return value if converter is None else converter(value)

    return convert


def _root_converter(migrate: Converter, wrap: bool, unwrap: bool) -> Converter:
    """Migrate a nested root model: its steps get the same input as for a whole record."""

    def convert(value: Any) -> Any:
        result = migrate({"root": value} if wrap else value)
        return result.get("root") if unwrap else result

    return convert


def _with_root_models(
    choose: Chooser,
    converters: dict[type[BaseModel], Converter],
    on_dict: Converter | None,
    on_sequence: Converter | None,
) -> Converter:
    rest = _dispatch(on_dict or _unchanged, on_sequence or _unchanged, converters)

    def convert(value: Any) -> Any:
        model = None if isinstance(value, BaseModel) else choose(value)
        converter = converters.get(model) if model is not None else None
        return rest(value) if converter is None else converter(value)

    return convert


def _each_value(converter: Converter | None) -> Converter | None:
    if converter is None:
        return None
    return lambda value: {
        key: item if item is None else converter(item) for key, item in value.items()
    }


def _each_item(converter: Converter, on_dict: Converter) -> Converter:
    """Convert the items of a list or tuple; `on_dict` converts a dict as `converter` does."""

    def convert(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        items = [
            on_dict(item) if type(item) is dict else item if item is None else converter(item)
            for item in value
        ]
        return tuple(items) if isinstance(value, tuple) else items

    return convert


def _each_slot(by_length: dict[int, list[Converter | None]], each: Converter | None) -> Converter:
    rest = _each_item(each, each) if each else _unchanged

    def convert(value: Any) -> Any:
        converters = by_length.get(len(value)) if isinstance(value, (list, tuple)) else None
        if converters is None:
            return rest(value)
        items = [
            item if item is None or converter is None else converter(item)
            for item, converter in zip(value, converters, strict=True)
        ]
        return tuple(items) if isinstance(value, tuple) else items

    return convert


def _dispatch_dict(on_dict: Converter, converters: dict[type[BaseModel], Converter]) -> Converter:
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return on_dict(value)
        return _of_instance(value, converters) if isinstance(value, BaseModel) else value

    return convert


def _dispatch(
    on_dict: Converter, on_sequence: Converter, converters: dict[type[BaseModel], Converter]
) -> Converter:
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return on_dict(value)
        if isinstance(value, BaseModel):
            return _of_instance(value, converters)
        return on_sequence(value)

    return convert


def _of_instance(value: BaseModel, converters: dict[type[BaseModel], Converter]) -> Any:
    """Convert a model instance: an earlier version's default, or a step's output."""
    converter = converters.get(type(value))
    if converter is None:
        return value
    if isinstance(value, RootModel):
        return converter(value.root)
    held = {
        next(iter(input_keys(name, info)), name): vars(value)[name]
        for name, info in fields_of(type(value)).items()
        if name in vars(value)
    }
    return converter({**held, **extra_values(value)})
