"""Silent losses: fields of records that have no influence on the output.

Candidates are keys that no model declares: in the input for the source's model, in the last step's
output for the target's. Each is tested by running the record again without it. If the output
differs or fails, a step reads the key (a rename, a split, a deliberate ``del``), and it is not
lost.
"""

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel
from pydantic.fields import FieldInfo

from pyrmute_tasks.audit.compare import Frozen, differences, shown_key
from pyrmute_tasks.audit.passes import Seen, Walker
from pyrmute_tasks.audit.report import Loss, LossKind
from pyrmute_tasks.plans.field_shapes import Reader, Shape, fields_of, keys_of

__all__ = ["Ledger", "Trail", "Undeclared", "path_of", "sample_losses"]

Trail: TypeAlias = tuple[Any, ...]
"""Keys and indexes that lead to a value in a record."""

_UNKNOWN: Final = object()
_MOST_TRIES: Final = 12
_MOST_LINE_BYTES: Final = 64 * 1024


def path_of(trail: Trail) -> str:
    """Return a trail as a dotted path, with ``[]`` for an index."""
    parts = ["[]" if isinstance(key, int) else f".{shown_key(key)}" for key in trail]
    return "".join(parts).lstrip(".")


class Undeclared:
    """Finds the keys of records that their models do not declare.

    Args:
        by_name: Whether fields may also have their names and any alias as keys, as steps may read
            them, and not only those that validation finds.
    """

    def __init__(self, *, by_name: bool = False) -> None:
        self._by_name = by_name
        self._reader = Reader(lambda _: False)
        self._known: dict[type[BaseModel], dict[str, str]] = {}

    def find(self, record: Any, model: type[BaseModel], found: object = _UNKNOWN) -> list[Trail]:
        """Return the undeclared keys, at any depth.

        Args:
            record: The record.
            model: Its class.
            found: The validated record, if known: it identifies the member of a union.
                Otherwise a key counts if no member declares it.
        """
        if not issubclass(model, RootModel):
            return list(self._in_model(record, [model], found, ()))
        if not isinstance(record, dict) or "root" not in record:
            return []
        shape = self._reader.shape(model)
        return list(self._in_value(record["root"], shape, found, ("root",)))

    def _in_value(
        self, value: Any, shape: Shape | None, found: object, trail: Trail
    ) -> Iterator[Trail]:
        while isinstance(found, RootModel):
            found = found.root
        if isinstance(value, dict):
            yield from self._in_dict(value, shape, found, trail)
        elif isinstance(value, (list, tuple)):
            known = isinstance(found, (list, tuple)) and len(found) == len(value)
            for number, item in enumerate(value):
                inner = _item_shape(shape, number, len(value))
                one = found[number] if known else _UNKNOWN  # type: ignore[index]  # a list, as checked above
                yield from self._in_value(item, inner, one, (*trail, number))

    def _in_dict(
        self, value: dict[Any, Any], shape: Shape | None, found: object, trail: Trail
    ) -> Iterator[Trail]:
        if isinstance(found, BaseModel):
            yield from self._in_model(value, [type(found)], found, trail)
        elif found is _UNKNOWN and shape and shape.models and not (shape.others or shape.values):
            yield from self._in_model(value, shape.models, found, trail)
        elif isinstance(found, dict) or (shape and shape.values and not shape.models):
            for key, item in value.items():
                inner = found.get(key, _UNKNOWN) if isinstance(found, dict) else _UNKNOWN
                values = shape.values if shape else None
                yield from self._in_value(item, values, inner, (*trail, key))

    def _in_model(
        self, value: Any, models: list[type[BaseModel]], found: object, trail: Trail
    ) -> Iterator[Trail]:
        if not isinstance(value, dict):
            return
        fields = [(model, self._fields_by_key(model)) for model in models]
        keeps = any(model.model_config.get("extra") == "allow" for model in models)
        for key, item in value.items():
            declared = [(model, by_key[key]) for model, by_key in fields if key in by_key]
            if not declared:
                if not keeps:
                    yield (*trail, key)
                continue
            shapes = [self._reader.field(model, name) for model, name in declared if name]
            if shapes:
                shape = shapes[0] if len(shapes) == 1 else self._reader.join(shapes)
                inner = _UNKNOWN
                if isinstance(found, BaseModel):
                    inner = vars(found).get(declared[0][1], _UNKNOWN)
                yield from self._in_value(item, shape, inner, (*trail, key))

    def _fields_by_key(self, model: type[BaseModel]) -> dict[str, str]:
        """Return the field of each key; an empty name for a key that is only a part of one."""
        if model in self._known:
            return self._known[model]
        config = model.model_config
        by_name = self._by_name or any(
            config.get(option) for option in ("populate_by_name", "validate_by_name")
        )
        by_key = self._known[model] = {}
        for name, info in fields_of(model).items():
            for path in _alias_paths(info):
                by_key.setdefault(path, "")
            aliases = keys_of(info)[0] if self._by_name else _validated_keys(info)
            keys = [*aliases, *([name] if by_name or info.validation_alias is None else [])]
            by_key.update(dict.fromkeys(keys, name))
        return by_key


def _validated_keys(info: FieldInfo) -> list[str]:
    wanted = info.validation_alias
    choices = wanted.choices if isinstance(wanted, AliasChoices) else [wanted]
    return [choice for choice in choices if isinstance(choice, str)]


def _alias_paths(info: FieldInfo) -> list[str]:
    wanted = info.validation_alias
    choices = wanted.choices if isinstance(wanted, AliasChoices) else [wanted]
    return [str(choice.path[0]) for choice in choices if isinstance(choice, AliasPath)]


def _item_shape(shape: Shape | None, number: int, length: int) -> Shape | None:
    if shape is None:
        return None
    if shape.items is not None:
        return shape.items
    fitting = [slots for slots in shape.slots if len(slots) == length]
    return fitting[0][number] if len(fitting) == 1 else None


# --- the ledger ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Entry:
    kind: LossKind
    records: set[int] = field(default_factory=set)
    tries: int = 0
    is_read: bool = False


class Ledger:
    """Counts the fields that get lost.

    Args:
        source: The source's model; None if it has none.
        target: The target's model.
        walker: Runs records, to test the influence of a field.
        validate: Validates the last step's output.
    """

    def __init__(
        self,
        source: type[BaseModel] | None,
        target: type[BaseModel],
        walker: Walker,
        validate: Callable[[Any], Frozen],
    ) -> None:
        self._source = source
        self._target = target
        self._walker = walker
        self._validate = validate
        self._entries: dict[str, _Entry] = {}
        self._unstable: set[str] = set()
        self._before = Undeclared(by_name=True)
        self._behind = Undeclared()

    def add(self, seen: Seen) -> None:
        """Add the losses of one record."""
        record = self._walker.record(seen.record)
        ignored = self._behind.find(seen.data, self._target, seen.model)
        if self._source is not None:
            for trail in self._before.find(record, self._source):
                self._enter(LossKind.UNDECLARED, trail, seen, record)
        for trail in ignored:
            self._enter(LossKind.IGNORED, trail, seen, record)

    def _enter(self, kind: LossKind, trail: Trail, seen: Seen, record: Any) -> None:
        # An undeclared key that passes through all steps counts once.
        entry = self._entries.setdefault(path_of(trail), _Entry(kind))
        entry.records.add(seen.record)
        if not entry.is_read and entry.tries < _MOST_TRIES:
            entry.tries += 1
            entry.is_read = self._is_read(entry.kind, trail, seen, record)

    def _is_read(self, kind: LossKind, trail: Trail, seen: Seen, record: Any) -> bool:
        if kind is LossKind.IGNORED and self._is_changed(
            self._validate, lambda: _copied(seen.data), trail
        ):
            return True
        return _holds(record, trail) and self._is_changed(
            self._walker.result, lambda: self._walker.record(seen.record), trail
        )

    def _is_changed(
        self, run: Callable[[Any], Frozen], make: Callable[[], Any], trail: Trail
    ) -> bool:
        """Return whether leaving out a field changes more than a second run does."""
        once = run(make())
        found = {item.field for item in differences(once, run(_without(make(), trail)))}
        # Compare with a later run, so that a clock that moved on meanwhile shows here too.
        self._unstable |= {item.field for item in differences(once, run(make()))}
        return bool(found - self._unstable)

    def losses(self, positions: Sequence[int]) -> tuple[Loss, ...]:
        """Return the lost fields, those of most records first.

        Args:
            positions: The indexes of the sample's records in the source.
        """
        lost = [(path, entry) for path, entry in self._entries.items() if not entry.is_read]
        lost.sort(key=lambda item: (-len(item[1].records), item[0]))
        return tuple(_loss(path, entry.kind, entry.records, positions) for path, entry in lost)


def _loss(path: str, kind: LossKind, records: set[int], positions: Sequence[int]) -> Loss:
    share = len(records) / len(positions)
    return Loss(path, kind, len(records), share, positions[min(records)])


def _copied(data: Any) -> Any:
    try:
        return copy.deepcopy(data)
    except Exception:
        return data


def _holds(value: Any, trail: Trail) -> bool:
    for key in trail:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return False
    return True


def _without(value: Any, trail: Trail) -> Any:
    """Return a copy of `value` without the part at `trail`."""
    key, *rest = trail
    copied: Any = list(value) if isinstance(value, tuple) else value.copy()
    if rest:
        copied[key] = _without(value[key], tuple(rest))
    else:
        del copied[key]
    return tuple(copied) if isinstance(value, tuple) else copied


# --- without running steps ------------------------------------------------------------------


def sample_losses(
    lines: Iterable[bytes],
    source: type[BaseModel],
    target: type[BaseModel],
    *,
    within_s: float = 0.05,
) -> tuple[Loss, ...]:
    """Return the fields that neither model declares.

    Calls no step and no validator, so it is quick and has no side effects; only an audit tells
    whether a step reads such a field.

    Args:
        lines: JSON lines.
        source: The source's model.
        target: The target's.
        within_s: Time limit; lines read until then count.
    """
    ends = time.monotonic() + within_s
    search = Undeclared(by_name=True)
    seen: dict[str, set[int]] = {}
    count = 0
    for line in lines:
        if time.monotonic() > ends:
            break
        if len(line) > _MOST_LINE_BYTES:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            continue
        suspects = search.find(record, source)
        unknown = set(search.find(record, target)) if suspects else ()
        for trail in suspects:
            if trail in unknown:
                seen.setdefault(path_of(trail), set()).add(count)
        count += 1
    positions = range(count)
    ordered = sorted(seen.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(_loss(path, LossKind.UNDECLARED, found, positions) for path, found in ordered)
