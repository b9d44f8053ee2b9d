"""Odd exceptions and odd values of users' steps and validators."""

import asyncio
import collections
import datetime
import enum
import types
from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticCustomError, PydanticOmit, PydanticUseDefault

__all__ = ["ERRORS", "EXITS", "RETURNS", "VALIDATION_ERRORS", "VALUES", "Color", "Unprintable"]


class OwnError(Exception):
    def __init__(self, code: int, text: str = "own") -> None:
        super().__init__(code, text)
        self.code = code


class OwnValueError(ValueError):
    def __str__(self) -> str:
        return "a text of its own"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("frozen")


class HoldsItself(Exception):
    __slots__ = ("itself",)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.itself = self


class OwnExit(BaseException):
    pass


def own_cause() -> None:
    error = ValueError("its own cause")
    raise error from error


def no_cause() -> None:
    try:
        raise KeyError("hidden")
    except KeyError:
        raise ValueError("without a cause") from None


def with_cause() -> None:
    empty: dict[str, int] = {}
    try:
        empty["missing"]
    except KeyError as error:
        raise OwnError(3) from error


def recurse() -> None:
    recurse()


def group() -> None:
    raise ExceptionGroup("two", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])


def undecodable() -> None:
    b"\xff".decode()


def no_file() -> None:
    raise FileNotFoundError(2, "No such file or directory", "gone.txt")


def noted() -> None:
    error = ValueError("with a note")
    error.add_note("look here")
    raise error


def raising(make: Callable[[], BaseException]) -> Callable[[], None]:
    def run() -> None:
        raise make()

    return run


ERRORS: Final[dict[str, Callable[[], Any]]] = {
    "ValueError": raising(lambda: ValueError("bad", 3)),
    "KeyError": raising(lambda: KeyError("k")),
    "StopIteration": raising(lambda: StopIteration(3)),
    "AssertionError": raising(AssertionError),
    "MemoryError": raising(MemoryError),
    "OwnError": raising(lambda: OwnError(7)),
    "OwnValueError": raising(lambda: OwnValueError("x")),
    "Unprintable": raising(lambda: Unprintable("x")),
    "Frozen": raising(lambda: Frozen("x")),
    "HoldsItself": raising(lambda: HoldsItself("x")),
    "its own cause": own_cause,
    "no cause": no_cause,
    "with a cause": with_cause,
    "recursion": recurse,
    "group": group,
    "undecodable": undecodable,
    "no file": no_file,
    "noted": noted,
}
"""What a step raises that is an error of its record."""

EXITS: Final[dict[str, Callable[[], Any]]] = {
    "exit 0": raising(lambda: SystemExit(0)),
    "exit 3": raising(lambda: SystemExit(3)),
    "exit text": raising(lambda: SystemExit("text")),
    "exit None": raising(SystemExit),
    "interrupt": raising(KeyboardInterrupt),
    "cancelled": raising(asyncio.CancelledError),
    "GeneratorExit": raising(GeneratorExit),
    "OwnExit": raising(lambda: OwnExit("own", 1)),
    "exit group": raising(lambda: BaseExceptionGroup("two", [OwnExit(), ValueError()])),
}
"""What a step leaves with that is no `Exception`."""

VALIDATION_ERRORS: Final[dict[str, Callable[[], Any]]] = {
    "omit": raising(PydanticOmit),
    "use default": raising(PydanticUseDefault),
    "custom": raising(lambda: PydanticCustomError("odd", "odd {what}", {"what": [1]})),
}
"""What means something to pydantic only."""


class Part(BaseModel):
    id: int = 0


class Sub(dict[str, Any]):
    pass


RETURNS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "None": lambda _: None,
    "list": lambda record: [record],
    "tuple": lambda record: (record,),
    "subclass": Sub,
    "ordered": collections.OrderedDict,
    "Mapping": types.MappingProxyType,
    "model": lambda record: Part(id=record.get("id", 0)),
    "text": lambda _: "text",
}
"""What a step returns in place of a new dict."""


class Color(enum.Enum):
    RED = 1


class Word(enum.StrEnum):
    RED = "red"


VALUES: Final[dict[str, Callable[[], Any]]] = {
    "enum": lambda: Color.RED,
    "text enum": lambda: Word.RED,
    "enum key": lambda: {Color.RED: 1, "red": 2},
    "text enum key": lambda: {Word.RED: 1, "blue": 2},
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"x"),
    "tuple": lambda: (1, (2,)),
    "floats": lambda: [float("nan"), float("-inf"), -0.0, 1e400],
    "set": lambda: {1},
    "deque": lambda: collections.deque([1], 3),
    "big": lambda: 2**70,
    "surrogate": lambda: "\ud800",
    "unnamed zone": lambda: datetime.timezone(datetime.timedelta(hours=1), ""),
    "none key": lambda: {None: 1, 1: 2, False: 3, 1.5: 4},
}
"""What a step puts into its record."""
