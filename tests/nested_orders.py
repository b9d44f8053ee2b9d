"""Versions with models inside models and no written step of their own."""

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from pyrmute_tasks import ModelData, ModelManager

manager = ModelManager()


@manager.model("Line", "1.0.0")
class LineV1(BaseModel):
    product: str
    price: float


@manager.model("Line", "2.0.0")
class LineV2(BaseModel):
    product: str
    price: Decimal


@manager.migration("Line", "1.0.0", "2.0.0")
def exact_price(data: ModelData) -> ModelData:
    return {**data, "price": Decimal(str(data["price"]))}


@manager.model("Card", "1.0.0")
class CardV1(BaseModel):
    kind: Literal["card"]
    number: str


@manager.model("Card", "2.0.0", backward_compatible=True)
class CardV2(BaseModel):
    kind: Literal["card"]
    number: str
    verified: bool = False


class Cash(BaseModel):
    kind: Literal["cash"]


@manager.model("Order", "1.0.0")
class OrderV1(BaseModel):
    placed: dt.date
    lines: list[LineV1]
    payment: Annotated[CardV1 | Cash, Field(discriminator="kind")]
    gift: LineV1 | None = None


@manager.model("Order", "2.0.0", backward_compatible=True)
class OrderV2(BaseModel):
    placed: dt.date
    lines: list[LineV2]
    payment: Annotated[CardV2 | Cash, Field(discriminator="kind")]
    gift: LineV2 | None = None
    notes: list[str] = []


@manager.model("Order", "3.0.0")
class OrderV3(OrderV2):
    total: Decimal


@manager.migration("Order", "2.0.0", "3.0.0")
def add_total(data: ModelData) -> ModelData:
    return {**data, "total": sum(line["price"] for line in data["lines"])}


def order(index: int) -> dict[str, Any]:
    """Return an order in the form of version 1.0.0."""
    payment = {"kind": "card", "number": str(index)} if index % 2 else {"kind": "cash"}
    return {
        "placed": dt.date(2026, 1, 1 + index % 28),
        "lines": [{"product": f"p{n}", "price": 1.5 * n} for n in range(index % 5)]
        + [
            {"product": "last", "price": 0.1},
            {"product": "least", "price": 0.2},
        ],
        "payment": payment,
        "gift": {"product": "g", "price": 2.0} if index % 3 == 0 else None,
    }
