"""Versions whose steps leak a record's values in every way that a step can fail."""

import os
import time
from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, field_validator

from pyrmute_tasks import ModelData, ModelManager

__all__ = ["DEEDS", "HOP", "manager", "secret_record"]

HOP: Final = ("Secret", "1.0.0", "2.0.0")

manager = ModelManager()


class LeakyError(Exception):
    """Quotes everything, even when only its attributes are read."""

    def __init__(self, record: ModelData) -> None:
        self.record = record
        self.secret = record["secret"]
        super().__init__(f"cannot migrate {record}")


class Leaky:
    """Cannot be encoded for the wire, and its text is the record's."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Leaky({self.secret})"


@manager.model("Secret", "1.0.0")
class SecretV1(BaseModel):
    deed: str
    secret: str


@manager.model("Secret", "2.0.0")
class SecretV2(BaseModel):
    number: int = 0
    secret: str
    tags: str = ""

    @field_validator("tags")
    @classmethod
    def split(cls, tags: str) -> Any:
        # pydantic writes it all the same, with a warning that quotes it.
        return [tags, "tag"]

    @field_validator("secret")
    @classmethod
    def plausible(cls, secret: str) -> str:
        if secret.endswith("!"):
            raise ValueError(f"implausible secret {secret}")
        return secret


def raise_it(record: ModelData) -> ModelData:
    raise ValueError(f"cannot read {record['secret']}")


def raise_it_noted(record: ModelData) -> ModelData:
    error = KeyError(record["secret"])
    error.add_note(f"seen with {record['secret']}")
    raise error


def raise_it_chained(record: ModelData) -> ModelData:
    try:
        return {"secret": {}[record["secret"]]}
    except KeyError as error:
        raise LeakyError(record) from error


def return_what_no_wire_carries(record: ModelData) -> ModelData:
    return {"secret": Leaky(record["secret"])}


def take_too_long(record: ModelData) -> ModelData:
    secret = record["secret"]
    while secret:
        time.sleep(0.01)
    return record


def use_too_much_memory(record: ModelData) -> ModelData:
    raise MemoryError(record["secret"])


def exit_with(record: ModelData) -> ModelData:
    os._exit(len(record["secret"]) % 7 + 1)


DEEDS: Final[dict[str, Callable[[ModelData], Any]]] = {
    "raise": raise_it,
    "note": raise_it_noted,
    "chain": raise_it_chained,
    "object": return_what_no_wire_carries,
    "list": lambda record: [record["secret"]],
    "number": lambda record: {"number": record["secret"], "secret": "x"},
    "invalid": lambda record: {"secret": record["secret"] + "!"},
    "slow": take_too_long,
    "memory": use_too_much_memory,
    "exit": exit_with,
}


@manager.migration("Secret", "1.0.0", "2.0.0")
def disclose(record: ModelData) -> Any:
    deed = DEEDS.get(record["deed"])
    secret = record["secret"]
    return deed(record) if deed is not None else {"secret": secret, "tags": secret}


def secret_record(secret: str, deed: str = "") -> ModelData:
    return {"deed": deed, "secret": secret}
