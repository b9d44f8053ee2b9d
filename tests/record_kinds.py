"""Records of every accepted kind, for the tests and for docs/types.md."""

from collections import ChainMap, OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any

import attrs
from pydantic import BaseModel, RootModel, computed_field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("Order", "1.0.0")
class OrderV1(BaseModel):
    item: str
    placed: date
    tags: list[dict[str, int]] = []

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def label(self) -> str:
        return self.item.upper()


@manager.model("Order", "2.0.0")
class OrderV2(BaseModel, extra="forbid"):
    item: str
    placed: date
    tags: list[dict[str, int]]
    kinds: list[str]


@manager.migration("Order", "1.0.0", "2.0.0")
def note_kinds(data: ModelData) -> ModelData:
    """Record the type of a step's input, and modify it, as steps may."""
    data["kinds"] = [type(data).__name__, *(type(tag).__name__ for tag in data["tags"])]
    return data


@manager.model("Tags", "1.0.0")
class TagsV1(RootModel[list[str]]):
    pass


@manager.model("Tags", "2.0.0")
class TagsV2(RootModel[list[str]]):
    pass


@manager.migration("Tags", "1.0.0", "2.0.0")
def shout(data: ModelData) -> ModelData:
    return {"root": [tag.upper() for tag in data["root"]]}


class Record(dict[str, Any]):
    """A database driver's dict."""


@dataclass
class Tag:
    size: int


@dataclass
class OrderRow:
    item: str
    placed: date
    tags: list[Tag] = field(default_factory=list)


@pydantic_dataclass
class CheckedRow:
    item: str
    placed: date
    tags: list[Tag]


@attrs.define
class AttrsTag:
    size: int


@attrs.define
class AttrsRow:
    item: str
    placed: date
    tags: list[AttrsTag]


PLACED = date(2024, 2, 29)


def plain() -> dict[str, Any]:
    return {"item": "tea", "placed": PLACED, "tags": [{"size": 1}]}


# Each with what a step gets, for the table.
KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "`dict`": (plain, "the record itself"),
    "`OrderedDict`, `defaultdict`, `Counter`": (lambda: OrderedDict(plain()), "the record itself"),
    "another subclass of `dict`": (lambda: Record(plain()), "`dict(record)`"),
    "`Mapping`: `MappingProxyType`, `ChainMap`, `UserDict`, a row": (
        lambda: MappingProxyType(plain()),
        "`dict(record)`",
    ),
    "pydantic model": (lambda: OrderV1(**plain()), "`record.model_dump(round_trip=True)`"),
    "dataclass, also pydantic's": (
        lambda: OrderRow("tea", PLACED, [Tag(1)]),
        "`dataclasses.asdict(record)`",
    ),
    "class made by `attrs`": (
        lambda: AttrsRow("tea", PLACED, [AttrsTag(1)]),
        "`attrs.asdict(record)`",
    ),
}
OTHERS: dict[str, Callable[[], Any]] = {
    "a chain": lambda: ChainMap({"item": "tea"}, plain()),
    "a user's dict": lambda: UserDict(plain()),
    "a default dict": lambda: defaultdict(list, plain()),
    "pydantic's dataclass": lambda: CheckedRow("tea", PLACED, [Tag(1)]),
}
ALL = {**{name: make for name, (make, _) in KINDS.items()}, **OTHERS}
