"""Values of every type that a record may hold, for the tests and for docs/types.md."""

import enum
import ipaddress
import math
import pathlib
import re
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pydantic
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel
from pydantic_core import TzInfo, Url


class Colour(enum.Enum):
    RED = "red"
    CRIMSON = "red"  # noqa: PIE796  # an alias
    ODD = (1, "odd")


class Name(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


class Guessing(enum.Enum):
    ONE = 1

    @classmethod
    def _missing_(cls, _: object) -> "Guessing":
        raise AssertionError("code of the class ran")


class Point(NamedTuple):
    x: float
    y: float = 0.0


Pair = namedtuple("Pair", "left right")  # this kind, too


class Marked(NamedTuple):
    tags: list[str]


@dataclass
class Plain:
    name: str
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name.upper()  # running it again would be seen on what follows


@dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    inner: Any = None


@dataclass
class Caching:
    name: str

    @cached_property
    def upper(self) -> str:
        return self.name.upper()


T = TypeVar("T")


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str
    size: int = 1
    _hidden: int = PrivateAttr(5)


class Box(BaseModel, Generic[T]):
    item: T


IntBox = Box[int]


class Names(RootModel[list[str]]):
    pass


class SubText(str):
    __slots__ = ()


class SubDict(dict[str, Any]):
    pass


class Unknown:
    def __eq__(self, other: object) -> bool:
        return type(other) is Unknown

    __hash__ = None  # type: ignore[assignment]  # as a class with __eq__ has it


def caching() -> Caching:
    made = Caching("a")
    assert made.upper == "A"
    return made


def changed(name: str) -> Plain:
    made = Plain(name)
    made.name = name
    return made


def model() -> Model:
    made = Model.model_validate({"name": "a", "more": [1]})
    made._hidden = 7
    return made


NEW_YORK = ZoneInfo("America/New_York")

#: What each type is called in the table, and what makes one value of it.
KEPT: dict[str, Callable[[], Any]] = {
    "`None`": lambda: None,
    "`bool`": lambda: True,
    "`int`": lambda: 5,
    "`int` of any size": lambda: -(2**200),
    "`float`": lambda: -0.0,
    "`float`: `inf`, `nan`": lambda: math.inf,
    "`complex`": lambda: complex(-0.0, 2),
    "`str`": lambda: "text",
    "`str` with lone surrogates": lambda: "a\ud800",
    "`bytes`": lambda: b"\x00\xff",
    "`bytearray`": lambda: bytearray(b"ab"),
    "`list`": lambda: [1, "a"],
    "`dict`": lambda: {"a": 1},
    "`dict` with any keys": lambda: {1: 2, (3, "x"): None, Colour.RED: 1, "red": 2},
    "`tuple`": lambda: (1, "a"),
    "`set`, `frozenset`": lambda: {1, frozenset({2})},
    "`range`": lambda: range(1, 9, 3),
    "`slice`": lambda: slice(1, None, 2),
    "`collections.deque`": lambda: deque([1, [2]], maxlen=3),
    "`collections.OrderedDict`": lambda: OrderedDict(b=1, a=[2]),
    "`collections.defaultdict` of a builtin": lambda: defaultdict(list, a=[1]),
    "`collections.Counter`": lambda: Counter(b=2, a=-1),
    "`datetime`": lambda: datetime(2024, 2, 29, 1, 2, 3, 4),
    "`datetime` with `UTC`": lambda: datetime(2024, 2, 29, tzinfo=UTC),
    "`datetime` with `ZoneInfo`, `fold`": lambda: datetime(
        2013, 11, 3, 1, 30, tzinfo=NEW_YORK, fold=1
    ),
    "`datetime` of pydantic (`TzInfo`)": lambda: datetime(2013, 1, 1, tzinfo=TzInfo(-18000)),
    "`date`, `time`, `timedelta`": lambda: [date.max, time(1, fold=1, tzinfo=UTC), timedelta.min],
    "`timezone`": lambda: timezone(timedelta(hours=2)),
    "`timezone` with a name": lambda: timezone(timedelta(hours=2), "CEST"),
    "`timezone` with an empty name": lambda: timezone(timedelta(hours=2), ""),
    "`ZoneInfo`": lambda: NEW_YORK,
    "`Decimal`": lambda: Decimal("-0.00"),
    "`Fraction`": lambda: Fraction(-1, 3),
    "`UUID`": lambda: uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe),
    "`ipaddress.IPv4Address`, `IPv6Address`": lambda: [
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_address("fe80::1%eth0"),
    ],
    "`ipaddress.IPv4Network`, `IPv6Network`": lambda: [
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("fe80::/16"),
    ],
    "`ipaddress.IPv4Interface`, `IPv6Interface`": lambda: [
        ipaddress.ip_interface("10.0.0.1/8"),
        ipaddress.ip_interface("fe80::1/16"),
    ],
    "`Path`": lambda: pathlib.Path("a") / "\udcff",
    "`PurePosixPath`, `PureWindowsPath`": lambda: [
        pathlib.PurePosixPath("/a"),
        pathlib.PureWindowsPath("c:/a"),
    ],
    "`re.Pattern`": lambda: [re.compile("(?i)a+", re.MULTILINE), re.compile(b"a")],
    "`Enum` member": lambda: [Colour.RED, Colour.CRIMSON, Colour.ODD, Guessing.ONE],
    "`StrEnum`, `IntEnum` member": lambda: [Name.RED, Level.HIGH],
    "`Flag`, `IntFlag`, also combined": lambda: [
        Right.READ,
        Right.READ | Right.WRITE,
        Right(0),
        Bits.ONE | Bits.TWO,
        Bits(9),
    ],
    "`NamedTuple`, `namedtuple`": lambda: [Point(1.0), Pair(1, [2]), Marked(["a"])],
    "dataclass": lambda: [changed("a"), Frozen("a", [1])],
    "pydantic model": model,
    "pydantic generic model, `RootModel`": lambda: [IntBox(item=1), Names(["a"])],
    "`AnyUrl`, `HttpUrl`, …": lambda: [
        pydantic.HttpUrl("https://user:pw@example.org/a?b#c"),
        pydantic.AnyUrl("x://y"),
    ],
    "`PostgresDsn` and other DSNs": lambda: pydantic.PostgresDsn("postgres://u:p@a:1,b:2/c"),
    "`pydantic_core.Url`": lambda: Url("https://example.org"),
    "`SecretStr`, `SecretBytes`": lambda: [pydantic.SecretStr("s"), pydantic.SecretBytes(b"s")],
    "`ByteSize`": lambda: pydantic.ByteSize(5),
}


def shared() -> list[Any]:
    inner = {"a": [1]}
    return [inner, inner]


KEPT["one object in two places"] = shared


def round_trip() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


REFUSED: dict[str, Callable[[], Any]] = {
    "a container within itself": round_trip,
    "`memoryview`": lambda: memoryview(b"a"),
    "subclass of `str`, `int`, `float`": lambda: SubText("a"),
    "subclass of `list`, `dict`": lambda: SubDict(a=1),
    "`defaultdict` of another factory": lambda: defaultdict(SubDict),
    "dataclass with cached properties": caching,
    "instance of another class": Unknown,
    "an exception": lambda: ValueError("a"),
    "a class, a function": lambda: Unknown,
    "a generator, a lock, an open file": lambda: (number for number in range(0)),
}
