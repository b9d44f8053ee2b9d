"""Versioned models in the fields of other models."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from pyrmute_tasks.plans.field_shapes import Reader, Shape, fields_of
from pyrmute_tasks.registry import Registry
from pyrmute_tasks.versions import ModelVersion

__all__ = ["NestedModelInfo", "nested_models"]


@dataclass(frozen=True)
class NestedModelInfo:
    """A versioned model in a field of another one.

    Attributes:
        name: The name it is registered under.
        version: Its version.
    """

    name: str
    version: ModelVersion


def nested_models(registry: Registry, model: type[BaseModel]) -> list[NestedModelInfo]:
    """Return the versioned models in the fields of `model`, each once.

    Not those in the fields of nested models.
    """
    reader = Reader(lambda held: registry.identify(held) is not None)
    seen: set[int] = set()
    found = (
        registry.identify(held)
        for name in fields_of(model)
        for held in _models_in(reader.field(model, name), seen)
    )
    return [NestedModelInfo(*known) for known in dict.fromkeys(found) if known is not None]


def _models_in(shape: Shape, seen: set[int]) -> Iterator[type[BaseModel]]:
    if id(shape) in seen:
        return
    seen.add(id(shape))
    yield from shape.models
    slots = [slot for slots in shape.slots for slot in slots]
    for inner in (shape.items, *slots, shape.values):
        if inner is not None:
            yield from _models_in(inner, seen)
