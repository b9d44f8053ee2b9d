"""A generated step over a union whose old models have validators of any habit.

pyrmute takes every value for the first member, so what is right stands here.
"""

from typing import Any, Final

from pydantic import BaseModel, model_validator

__all__ = ["HOP", "MIGRATED", "Holder2", "records", "register"]

HOP: Final = ("Holder", "1.0.0", "2.0.0")


class Cat1(BaseModel):
    lives: int

    @model_validator(mode="before")
    @classmethod
    def take(cls, data: Any) -> Any:
        nothing: dict[str, int] = {}
        data["taken"] = data.pop("lives", None)
        if data["taken"] is None:
            raise ValueError("no cat")
        return {"lives": data["taken"] if "odd" not in data else nothing["odd"]}


class Dog1(BaseModel):
    legs: int

    @model_validator(mode="before")
    @classmethod
    def count(cls, data: Any) -> Any:
        data["legs"] += 1
        return data


class Cat2(BaseModel):
    lives: int
    purrs: bool = True


class Dog2(BaseModel):
    legs: int
    barks: bool = True


class Holder1(BaseModel):
    pet: Cat1 | Dog1


class Holder2(BaseModel):
    pet: Cat2 | Dog2


def register(manager: Any) -> None:
    """Register the models and the step."""
    for name, first, last in (
        ("Cat", Cat1, Cat2),
        ("Dog", Dog1, Dog2),
        ("Holder", Holder1, Holder2),
    ):
        manager.model(name, "1.0.0")(first)
        manager.model(name, "2.0.0", backward_compatible=True)(last)


def records() -> list[dict[str, Any]]:
    """Return the records, newly made each time."""
    return [{"pet": {"lives": 9}}, {"pet": {"legs": 4}}, {"pet": {"lives": 8, "odd": 1}}]


MIGRATED: Final = [
    {"pet": {"lives": 9, "purrs": True}},
    {"pet": {"legs": 4, "barks": True}},
    {"pet": {"lives": 8, "purrs": True, "odd": 1}},  # a KeyError: the first one's then
]
