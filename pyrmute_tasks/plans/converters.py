"""Versioned models inside of values, found when compiling and migrated when running.

Compiling a pair of places, what a value was and what it becomes, gives a `Converter`: a
closure that takes a value apart as far as models of another version can be in it. Where
there are none there is no closure, and the value is passed on as it is.

Which model a value is, its old type says; which version it becomes, the new type says by
the model's registered name.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic import BaseModel, RootModel

from pyrmute_tasks.plans.field_shapes import Reader, Shape, fields_of, input_keys, keys_of
from pyrmute_tasks.plans.unions import Chooser, compile_chooser
from pyrmute_tasks.registry import ModelData, Registry
from pyrmute_tasks.versions import ModelVersion

__all__ = ["Converter", "ConverterCompiler", "NestedCompiler"]

Converter: TypeAlias = Callable[[Any], Any]
"""Migrates what is versioned in a value; the value is not None and is never modified."""

NestedCompiler: TypeAlias = Callable[
    [str, ModelVersion, ModelVersion], Callable[[ModelData], ModelData]
]
"""Returns what migrates a nested record between two versions of a model."""


class ConverterCompiler:
    """Compiles changes of values.

    Args:
        registry: Where models are registered.
        compile_nested: What compiles the path of a nested model.
    """

    def __init__(self, registry: Registry, compile_nested: NestedCompiler) -> None:
        self._identify = registry.identify
        self._compile_nested = compile_nested
        self._reader = Reader(lambda model: registry.identify(model) is not None)
        self._compiled: dict[tuple[int, int], Converter | None] = {}
        self._on_dicts: dict[tuple[int, int], Converter] = {}  # what these do with a dict

    def field(
        self, source: type[BaseModel], target: type[BaseModel], name: str
    ) -> Converter | None:
        """Return the change of a field's value; None if all values stay as they are.

        Args:
            source: The model that has the old values.
            target: The model that gets the new ones.
            name: The field's name in both.
        """
        if source is target:
            return None
        return self._change(self._reader.field(source, name), self._reader.field(target, name))

    def _change(self, source: Shape, target: Shape) -> Converter | None:
        pair = (id(source), id(target))
        if pair not in self._compiled:
            self._compiled[pair] = None
            if self._differs(source, target, set()):
                # A recursive type asks for its own change while that is being compiled.
                self._compiled[pair] = _forward(self._compiled, pair)
                self._compiled[pair] = self._compile(source, target)
        return self._compiled[pair]

    # --- is there anything to do ----------------------------------------------------------

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
        """Pair the source's models with what they become, unless that is the same."""
        # One may become a list of one, which a validator makes.
        targets = target.models or (target.items.models if target.items else [])
        pairs: list[tuple[type[BaseModel], type[BaseModel]]] = []
        for model in source.models:
            if model in targets:
                continue
            alike = [other for other in targets if self._name(other) == self._name(model)]
            if self._name(model) is None:
                # Without a name there is nothing to tell several of them apart.
                rivals = [other for other in source.models if self._name(other) is None]
                alike = alike if len(alike) == len(rivals) == 1 else []
            pairs.extend((model, partner) for partner in alike[:1])
        return pairs

    def _name(self, model: type[BaseModel]) -> str | None:
        known = self._identify(model)
        return None if known is None else known[0]

    def _items(self, source: Shape, target: Shape) -> tuple[Shape | None, Shape | None]:
        """Return what the items of sequences are where slots do not match one by one."""
        items: list[Shape | None] = []
        for place in (source, target):
            found = [place.items] if place.items else []
            found.extend(slot for slots in place.slots for slot in slots)
            items.append(self._reader.join(found) if found else None)
        return items[0], items[1]

    # --- one place ------------------------------------------------------------------------

    def _compile(self, source: Shape, target: Shape) -> Converter:
        changes = {
            model: change
            for model, partner in self._partners(source, target)
            if (change := self._model_change(model, partner)) is not None
        }
        on_dict = self._dict_change(source, target, changes)
        on_sequence = self._sequence_change(source, target)
        if any(issubclass(model, RootModel) for model in changes):
            choose = compile_chooser(source, target, dict(self._partners(source, target)))
            return _with_root_models(choose, changes, on_dict, on_sequence)
        if on_sequence is None and on_dict is not None:
            self._on_dicts[id(source), id(target)] = on_dict
            return _dispatch_dict(on_dict, changes)
        if on_dict is None and on_sequence is not None and not changes:
            return on_sequence
        return _dispatch(on_dict or _unchanged, on_sequence or _unchanged, changes)

    def _model_change(self, model: type[BaseModel], partner: type[BaseModel]) -> Converter | None:
        old, new = self._identify(model), self._identify(partner)
        if old is None or new is None:
            return self._inner_change(model, partner)
        run = self._compile_nested(old[0], old[1], new[1])
        wrap, unwrap = issubclass(model, RootModel), issubclass(partner, RootModel)
        return _root_change(run, wrap, unwrap) if wrap or unwrap else run

    def _inner_change(self, model: type[BaseModel], partner: type[BaseModel]) -> Converter | None:
        """Converter what is inside of a model that nobody registered."""
        changes = [
            (key, change)
            for name in _shared_fields(model, partner)
            if (change := self.field(model, partner, name)) is not None
            for key in (name, *keys_of(fields_of(model)[name])[0])
        ]

        def run(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            result = dict(value)
            for key, change in changes:
                if value.get(key) is not None:
                    result[key] = change(value[key])
            return result

        return run if changes else None

    def _dict_change(
        self, source: Shape, target: Shape, changes: dict[type[BaseModel], Converter]
    ) -> Converter | None:
        on_mapping: Converter | None = None
        if source.values and target.values:
            on_mapping = _each_value(self._change(source.values, target.values))
        if not source.models:
            return on_mapping or self._lone_dict_change(source, target)
        if not changes and on_mapping is None:
            return None
        if on_mapping is None and len(source.models) == 1:
            return next(iter(changes.values()))
        choose = compile_chooser(source, target, dict(self._partners(source, target)))
        return _by_choice(choose, changes, on_mapping or _unchanged)

    def _lone_dict_change(self, source: Shape, target: Shape) -> Converter | None:
        """Converter a dict that stands where the type has a list: a validator may wrap it."""
        old, new = self._items(source, target)
        if old is None or new is None or not old.models:
            return None
        return self._change(old, new)

    def _sequence_change(self, source: Shape, target: Shape) -> Converter | None:
        old, new = self._items(source, target)
        each = self._change(old, new) if old and new else None
        on_dict = self._on_dicts.get((id(old), id(new)), each)
        by_length = {
            length: [self._change(*pair) for pair in pairs]
            for length, pairs in _slots(source, target).items()
        }
        if by_length:
            return _each_slot(by_length, each)
        return _each_item(each, on_dict or each) if each else None


# --- closures -----------------------------------------------------------------------------


def _unchanged(value: Any) -> Any:
    return value


def _forward(compiled: dict[tuple[int, int], Converter | None], pair: tuple[int, int]) -> Converter:
    def run(value: Any) -> Any:
        change = compiled[pair]
        return value if change is None else change(value)

    return run


def _shared_fields(model: type[BaseModel], partner: type[BaseModel]) -> list[str]:
    return [name for name in fields_of(model) if name in fields_of(partner)]


def _slots(source: Shape, target: Shape) -> dict[int, list[tuple[Shape, Shape]]]:
    """Pair the slots of tuples that have the same length."""
    return {
        len(old): list(zip(old, new, strict=True))
        for old in source.slots
        for new in target.slots
        if len(old) == len(new)
    }


def _by_choice(
    choose: Chooser, changes: dict[type[BaseModel], Converter], on_mapping: Converter
) -> Converter:
    def run(value: Any) -> Any:
        model = choose(value)
        if model is None:
            return on_mapping(value)
        change = changes.get(model)
        return value if change is None else change(value)

    return run


def _root_change(run: Converter, wrap: bool, unwrap: bool) -> Converter:
    """Migrate a nested root model: steps see it as they see a record of it."""

    def change(value: Any) -> Any:
        result = run({"root": value} if wrap else value)
        return result.get("root") if unwrap else result

    return change


def _with_root_models(
    choose: Chooser,
    changes: dict[type[BaseModel], Converter],
    on_dict: Converter | None,
    on_sequence: Converter | None,
) -> Converter:
    rest = _dispatch(on_dict or _unchanged, on_sequence or _unchanged, changes)

    def run(value: Any) -> Any:
        model = None if isinstance(value, BaseModel) else choose(value)
        change = changes.get(model) if model is not None else None
        return rest(value) if change is None else change(value)

    return run


def _each_value(change: Converter | None) -> Converter | None:
    if change is None:
        return None
    return lambda value: {
        key: item if item is None else change(item) for key, item in value.items()
    }


def _each_item(change: Converter, on_dict: Converter) -> Converter:
    """Converter the items of a list or tuple; `on_dict` is what `change` does with a dict."""

    def run(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        items = [
            on_dict(item) if type(item) is dict else item if item is None else change(item)
            for item in value
        ]
        return tuple(items) if isinstance(value, tuple) else items

    return run


def _each_slot(by_length: dict[int, list[Converter | None]], each: Converter | None) -> Converter:
    rest = _each_item(each, each) if each else _unchanged

    def run(value: Any) -> Any:
        changes = by_length.get(len(value)) if isinstance(value, (list, tuple)) else None
        if changes is None:
            return rest(value)
        items = [
            item if item is None or change is None else change(item)
            for item, change in zip(value, changes, strict=True)
        ]
        return tuple(items) if isinstance(value, tuple) else items

    return run


def _dispatch_dict(on_dict: Converter, changes: dict[type[BaseModel], Converter]) -> Converter:
    def run(value: Any) -> Any:
        if isinstance(value, dict):
            return on_dict(value)
        return _of_instance(value, changes) if isinstance(value, BaseModel) else value

    return run


def _dispatch(
    on_dict: Converter, on_sequence: Converter, changes: dict[type[BaseModel], Converter]
) -> Converter:
    def run(value: Any) -> Any:
        if isinstance(value, dict):
            return on_dict(value)
        if isinstance(value, BaseModel):
            return _of_instance(value, changes)
        return on_sequence(value)

    return run


def _of_instance(value: BaseModel, changes: dict[type[BaseModel], Converter]) -> Any:
    """Converter a model object, which an earlier version had as a default or a step returned."""
    change = changes.get(type(value))
    if change is None:
        return value
    if isinstance(value, RootModel):
        return change(value.root)
    held = {
        next(iter(input_keys(name, info)), name): vars(value)[name]
        for name, info in fields_of(type(value)).items()
        if name in vars(value)
    }
    return change({**held, **(value.__pydantic_extra__ or {})})
