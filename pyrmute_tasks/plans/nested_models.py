"""Which versioned models a model's fields hold."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from pyrmute_tasks.plans.field_shapes import Reader, Shape, fields_of
from pyrmute_tasks.registry import Registry
from pyrmute_tasks.versions import ModelVersion

__all__ = ["NestedModelInfo", "nested_models"]


@dataclass(frozen=True)
class NestedModelInfo:
    """A versioned model that another one holds.

    Attributes:
        name: The name it is registered under.
        version: Its version.
    """

    name: str
    version: ModelVersion


def nested_models(registry: Registry, model: type[BaseModel]) -> list[NestedModelInfo]:
    """Return the versioned models in the fields of `model`, each once.

    Those that are in turn in their fields are not among them.
    """
    reader = Reader(lambda held: registry.identify(held) is not None)
    seen: set[int] = set()
    found = (
        registry.identify(held)
        for name in fields_of(model)
        for held in _models_at(reader.field(model, name), seen)
    )
    return [NestedModelInfo(*known) for known in dict.fromkeys(found) if known is not None]


def _models_at(place: Shape, seen: set[int]) -> Iterator[type[BaseModel]]:
    if id(place) in seen:
        return
    seen.add(id(place))
    yield from place.models
    slots = [slot for slots in place.slots for slot in slots]
    for inner in (place.items, *slots, place.values):
        if inner is not None:
            yield from _models_at(inner, seen)
