"""A step that puts values of all types into its record, or fails oddly."""

import asyncio
from collections.abc import Callable
from typing import Any

from pyrmute_tasks import ModelData, ModelManager
from tests.wire_values import KEPT

manager = ModelManager()
HOP = ("Typed", "1.0.0", "2.0.0")


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def from_itself() -> BaseException:
    error = ValueError("round")
    error.__cause__ = error
    return error


ODD: dict[str, Callable[[], BaseException]] = {
    "wordless": lambda: Wordless("x"),
    "round": from_itself,
    "group": lambda: ExceptionGroup("several", [KeyError("k"), ValueError("v")]),
    "odd arguments": lambda: RuntimeError({1: (2, None)}, asyncio.CancelledError()),
}


@manager.migration(*HOP)
def fill(data: ModelData) -> ModelData:
    if "fail" in data:
        failure = ODD[data["fail"]]()
        raise failure
    inner: dict[str, Any] = {"a": 1}
    return {
        **data,
        "made": KEPT[data["name"]](),
        "twice": [inner, {"deep": inner}],
    }
