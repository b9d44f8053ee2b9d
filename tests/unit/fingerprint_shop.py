"""A package in which steps and validators reach code in every way, and changes to it.

`FILES` is the package. A `Change` replaces text in one of them; `ALTERING` says what each
change must be named, and `HARMLESS` has those that must stay unnoticed.
"""

from dataclasses import dataclass
from typing import Final

HELPERS: Final = '''
"""What steps use."""

import contextlib
import functools
import math
import operator
import re
import string
from functools import partial, singledispatch
from math import ceil as rounded

from shop import deep
from shop.tables import RATES, SCALE as FACTOR

GRAMS = 1000
RATIO = -0.0
LIMIT = float("nan")
FLAG = 1
MARK = "x"
UNUSED = 5
WORD = re.compile(r"\\w+", re.IGNORECASE)
LONG = re.compile("a" * 300)
GREETING = string.Template("Hi $name")
DEFAULTS = {"b": 1, "a": 2}
KINDS = {"p", "q", "r", "s", "t"}
PAIRS = (1, (2, frozenset({"x", "y", "z"})))
ACTIONS = {"up": lambda text: text.upper(), "down": str.lower}
ITSELF = {"self": None, "mark": 1}
ITSELF["self"] = ITSELF
pick = operator.itemgetter("name")
fixed = partial(int, base=10)
memo = {}


def logged(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call


def parse(text: str) -> str:
    """Parse."""
    # a comment
    cleaned = text.strip()
    return deep.shorten(cleaned)


@logged
def wrapped(text):
    return text + "w"


@functools.lru_cache
def cached(text):
    return text * 2


@contextlib.contextmanager
def opened(text):
    yield text


def remember(text, _memo={}):
    if text not in _memo:
        _memo[text] = len(_memo)
        memo[text] = 1
    return _memo[text]


def ping(count):
    return pong(count - 1) if count else 0


def pong(count):
    return ping(count - 1) if count else 1


def factorial(count):
    return count * factorial(count - 1) if count > 1 else 1


@singledispatch
def show(value):
    return "other"


@show.register
def _show_int(value: int):
    return "int"


@show.register
def _show_str(value: str):
    return "str"


def numbers(limit):
    total = sum(number * 3 for number in range(limit))
    return [item + 1 for item in range(total)]


def constants():
    return GRAMS, RATIO, LIMIT, FLAG, MARK, FACTOR, DEFAULTS, KINDS, PAIRS, ITSELF


def counter(first):
    zeta, beta = first, 2
    def step():
        return zeta + beta
    return step


counted = counter(5)


def checked(value, *, strict=True):
    return value in {"m", "n", "o"}


class Parser:
    """Parses."""

    table = {"one": 1}
    size = 4

    def __init_subclass__(cls, factor=1):
        cls.factor = factor

    def __init__(self, unit):
        self.unit = unit
        self.lock = object()

    def run(self, value):
        return self.change(value)

    def change(self, value):
        return value

    @property
    def half(self):
        return self.size / 2

    @staticmethod
    def plain(value):
        return [value]

    @classmethod
    def made(cls):
        return cls("g")


class Meta(type):
    def __call__(cls, *args):
        return super().__call__(*args)


class Child(Parser, factor=3):
    pass


class Special(metaclass=Meta):
    pass


PARSER = Child("kg")
'''

DEEP: Final = """
def shorten(text):
    return text[:10]


def late(value):
    return value


def unused(value):
    return value
"""

TABLES: Final = """
RATES = {"eur": 1.0, "usd": 1.1}
SCALE = 3
OTHER = {}
"""

LATE: Final = """
def later(value):
    return value + 1
"""

TYPES: Final = """
import dataclasses
import enum
from typing import Annotated, Generic, NamedTuple, TypeVar
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, field_validator
from pydantic_core import core_schema
from typing_extensions import TypedDict

T = TypeVar("T")


class Color(enum.Enum):
    RED = 1
    BLUE = 2

    @classmethod
    def _missing_(cls, value):
        return cls.RED


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0

    def length(self):
        return self.x


class Size(NamedTuple):
    width: int
    height: int = 2


class Options(TypedDict, total=False):
    fast: bool


class Special:
    def __init__(self, value):
        self.value = value

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return core_schema.no_info_plain_validator_function(convert)


def convert(value):
    return Special(value)


def positive(value):
    return abs(value)


def written(value):
    return f"{value}!"


Grams = Annotated[int, AfterValidator(positive), Field(ge=1, description="weight")]
Shown = Annotated[str, PlainSerializer(written)]


class Page(BaseModel, Generic[T]):
    items: list[T] = []


class Named(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def strip(cls, value):
        return value.strip()
"""

MODELS: Final = '''
import functools
from typing import Any, ClassVar
from pydantic import (
    BaseModel, ConfigDict, Field, PrivateAttr, computed_field, field_serializer, field_validator,
    model_validator,
)
from pyrmute_tasks import ModelManager
from . import helpers
from .helpers import *
from .helpers import parse as read, remember
from . import types

manager = ModelManager()


@manager.model("Item", "0.9.0")
class Item0(BaseModel):
    title: str


@manager.migration("Item", "0.9.0", "1.0.0")
def rename(first):
    return {"name": first["title"]}


@manager.model("Item", "1.0.0")
class Item1(BaseModel):
    name: str


@manager.model("Item", "2.0.0", backward_compatible=True)
class Item2(types.Named):
    """Document."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [1]})

    size: types.Grams = Field(1, title="Size", description="How large", examples=[1])
    color: types.Color = types.Color.RED
    point: types.Point | None = None
    extent: types.Size = types.Size(1)
    options: types.Options = {}
    special: types.Special | None = None
    shown: types.Shown = ""
    page: types.Page[types.Named] = types.Page[types.Named]()
    tags: list[str] = Field(default_factory=lambda: ["t"])
    label: str = Field("", alias="Label", max_length=9)
    limit: ClassVar[int] = 7
    _secret: int = PrivateAttr(default=1)

    @model_validator(mode="before")
    @classmethod
    def prepare(cls, data: Any) -> Any:
        return cls.normalised(data)

    @classmethod
    def normalised(cls, data):
        return dict(data)

    @field_validator("label")
    @classmethod
    def check_label(cls, value):
        return helpers.checked(value) and value or value

    @field_serializer("tags")
    def write_tags(self, value):
        return value

    @computed_field
    @property
    def half(self) -> float:
        return self.size / 2

    def model_post_init(self, context):
        self._secret = 2


@manager.model("Item", "3.0.0")
class Item3(Item2):
    final: str = ""


@manager.model("Item", "4.0.0")
class Item4(Item3):
    pass


def handlers(data):
    return ACTIONS["up"](data), pick(data), fixed(data), rounded(data), GREETING, LONG


@manager.migration("Item", "2.0.0", "3.0.0")
def add_final(data):
    """Document."""
    text = helpers.parse(data["name"])
    with opened(text) as found:
        text = wrapped(found) + cached(found) + read(found)
    remember(text)
    constants()
    result = [show(1), numbers(2), counted(), ping(3), factorial(2), handlers(data)]
    result += [WORD.match(text), helpers.RATES["eur"], PARSER.run(text), Special()]
    from shop.late import later
    return {**data, "final": later(1), "result": result}


class Step:
    def __init__(self, amount):
        self.amount = amount
        self.memo = {}

    def __call__(self, data):
        return {**data, "size": self.amount}


manager.migration("Item", "3.0.0", "4.0.0")(functools.partial(Step(2), ))


def unused(data):
    return data
'''

FILES: Final = {
    "__init__": "",
    "helpers": HELPERS,
    "deep": DEEP,
    "tables": TABLES,
    "late": LATE,
    "types": TYPES,
    "models": MODELS,
}


@dataclass(frozen=True)
class Change:
    """A change to the package.

    Attributes:
        title: What is changed.
        file: Where.
        old: What is replaced.
        new: By what.
        names: The expected names of the differences, each at least in part.
    """

    title: str
    file: str
    old: str
    new: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.title


def _change(title: str, file: str, old: str, new: str, *names: str) -> Change:
    return Change(title, file, old, new, names)


STEP2: Final = "step Item 2.0.0 → 3.0.0"
ITEM2: Final = "model Item 2.0.0"

ALTERING: Final = [
    _change("a step", "models", '"final": later(1)', '"final": later(2)', STEP2),
    _change("a helper", "helpers", "text.strip()", "text.lstrip()", "function shop.helpers.parse"),
    _change("a helper's helper", "deep", "[:10]", "[:11]", "function shop.deep.shorten"),
    _change("which helper an alias is", "models", "parse as read", "wrapped as read", STEP2),
    _change("a wrapped function", "helpers", '+ "w"', '+ "v"', "function shop.helpers.wrapped"),
    _change(
        "a decorator",
        "helpers",
        "return function(*args, **kwargs)",
        "return function(*args)",
        "shop.helpers.logged.<locals>.call",
    ),
    _change("a decorator taken away", "helpers", "@logged\n", "", "logged"),
    _change("a cached function", "helpers", "text * 2", "text * 3", "shop.helpers.cached"),
    _change("a context manager", "helpers", "yield text", "yield text + text", "helpers.opened"),
    _change("a memo's user", "helpers", "len(_memo)", "len(_memo) + 1", "helpers.remember"),
    _change(
        "one that calls another in turn", "helpers", "if count else 1", "if count else 2", "pong"
    ),
    _change("a recursive function", "helpers", "if count > 1", "if count > 2", "factorial"),
    _change("a dispatched function", "helpers", 'return "int"', 'return "i"', "_show_int"),
    _change(
        "what is dispatched",
        "helpers",
        "@show.register\ndef _show_str(value: str)",
        "@show.register\ndef _show_str(value: bytes)",
        STEP2,
    ),
    _change("a generator", "helpers", "number * 3", "number * 4", "helpers.numbers"),
    _change("a comprehension", "helpers", "item + 1", "item + 2", "helpers.numbers"),
    _change("a constant", "helpers", "GRAMS = 1000", "GRAMS = 1024", "constant shop.helpers.GRAMS"),
    _change("a minus before zero", "helpers", "RATIO = -0.0", "RATIO = 0.0", "shop.helpers.RATIO"),
    _change("no number", "helpers", 'float("nan")', "0.5", "shop.helpers.LIMIT"),
    _change("1 and True", "helpers", "FLAG = 1", "FLAG = True", "shop.helpers.FLAG"),
    _change("1 and 1.0", "helpers", "FLAG = 1", "FLAG = 1.0", "shop.helpers.FLAG"),
    _change("text and bytes", "helpers", 'MARK = "x"', 'MARK = b"x"', "shop.helpers.MARK"),
    _change("a constant of elsewhere", "tables", "SCALE = 3", "SCALE = 4", "FACTOR"),
    _change("a table", "tables", '"usd": 1.1', '"usd": 1.2', "table shop.tables.RATES"),
    _change("a table's order", "helpers", '"b": 1, "a": 2', '"a": 2, "b": 1', "helpers.DEFAULTS"),
    _change("a set", "helpers", '"s", "t"}', '"s"}', "table shop.helpers.KINDS"),
    _change("a set in a tuple", "helpers", '"y", "z"', '"y"', "shop.helpers.PAIRS"),
    _change("a table that holds itself", "helpers", '"mark": 1', '"mark": 2', "helpers.ITSELF"),
    _change("a constant turned table", "helpers", 'MARK = "x"', 'MARK = ["x"]', "helpers.MARK"),
    _change("a lambda in a table", "helpers", "text.upper()", "text.title()", "<lambda>"),
    _change("a pattern", "helpers", r"\w+", r"\w*", "constant shop.helpers.WORD"),
    _change("a pattern's flags", "helpers", ", re.IGNORECASE", "", "shop.helpers.WORD"),
    _change("the end of a long pattern", "helpers", '"a" * 300', '"a" * 299 + "b"', "helpers.LONG"),
    _change("a template", "helpers", "Hi $name", "Ho $name", "models.handlers"),
    _change("a getter", "helpers", 'itemgetter("name")', 'itemgetter("size")', "models.handlers"),
    _change("a partial", "helpers", "base=10", "base=16", "models.handlers"),
    _change("a library's function", "helpers", "ceil as", "floor as", "models.handlers"),
    _change("what a closure holds", "helpers", "counter(5)", "counter(6)", "counter.<locals>.step"),
    _change(
        "a closure's function", "helpers", "zeta + beta", "zeta - beta", "counter.<locals>.step"
    ),
    _change("which variable", "helpers", "zeta + beta", "zeta + zeta", "counter.<locals>.step"),
    _change("a default of a keyword", "helpers", "strict=True", "strict=False", "helpers.checked"),
    _change("a set in code", "helpers", '"m", "n", "o"', '"m", "n"', "helpers.checked"),
    _change("a method", "helpers", "return self.change(value)", "return value", "Parser.run"),
    _change(
        "an inherited method",
        "helpers",
        "        return value\n",
        "        return 1\n",
        "Parser.change",
    ),
    _change("a class's table", "helpers", '"one": 1', '"one": 2', "class shop.helpers.Parser"),
    _change("a class's constant", "helpers", "size = 4", "size = 5", "class shop.helpers.Parser"),
    _change("a property", "helpers", "self.size / 2", "self.size / 3", "Parser.half"),
    _change("a static method", "helpers", "return [value]", "return (value,)", "Parser.plain"),
    _change("a class method", "helpers", 'cls("g")', 'cls("h")', "Parser.made"),
    _change(
        "a subclass hook",
        "helpers",
        "cls.factor = factor",
        "cls.factor = 2 * factor",
        "init_subclass",
        "Child",
    ),
    _change("a class's argument", "helpers", "factor=3", "factor=4", "class shop.helpers.Child"),
    _change("a metaclass", "helpers", "super().__call__(*args)", "None", "Meta.__call__"),
    _change(
        "an object's state", "helpers", 'Child("kg")', 'Child("lb")', "object shop.helpers.PARSER"
    ),
    _change(
        "an import in a function", "late", "value + 1", "value + 2", "function shop.late.later"
    ),
    _change("a step's object", "models", "Step(2)", "Step(3)", "step Item 3.0.0 → 4.0.0"),
    _change("a step's method", "models", '"size": self.amount', '"size": 1', "Step.__call__"),
    _change("a field", "models", 'final: str = ""', 'final: str = "x"', "model Item 3.0.0"),
    _change(
        "a further field",
        "models",
        'final: str = ""',
        'final: str = ""\n    more: int = 0',
        "model Item 3.0.0",
    ),
    _change(
        "an inherited field",
        "types",
        "    name: str\n",
        "    name: str = ''\n",
        "model shop.types.Named",
    ),
    _change("an inherited validator", "types", "value.strip()", "value.lstrip()", "Named.strip"),
    _change("an alias", "models", 'alias="Label"', 'alias="label"', ITEM2),
    _change("a constraint", "models", "max_length=9", "max_length=8", ITEM2),
    _change("a constraint in an alias", "types", "ge=1", "ge=2", ITEM2),
    _change("a default factory", "models", '["t"]', '["u"]', "Item2.<lambda>"),
    _change("a config", "models", 'extra="ignore"', 'extra="forbid"', ITEM2),
    _change("a class variable", "models", "= 7", "= 8", ITEM2),
    _change(
        "a private attribute", "models", "PrivateAttr(default=1)", "PrivateAttr(default=2)", ITEM2
    ),
    _change("a root validator's mode", "models", 'mode="before"', 'mode="after"', ITEM2),
    _change(
        "what a validator calls", "models", "return dict(data)", "return data", "Item2.normalised"
    ),
    _change(
        "a validator's fields",
        "models",
        '@field_validator("label")',
        '@field_validator("shown")',
        ITEM2,
    ),
    _change(
        "a serializer",
        "models",
        "        return value\n\n    @comp",
        "        return []\n\n    @comp",
        "Item2.write_tags",
    ),
    _change("a computed field", "models", "self.size / 2", "self.size / 3", "Item2.half"),
    _change("a computed field's type", "models", "half(self) -> float", "half(self) -> int", ITEM2),
    _change(
        "what follows validation",
        "models",
        "self._secret = 2",
        "self._secret = 3",
        "model_post_init",
    ),
    _change(
        "a validator in a type", "types", "abs(value)", "-value", "function shop.types.positive"
    ),
    _change(
        "a serializer in a type", "types", "{value}!", "{value}?", "function shop.types.written"
    ),
    _change(
        "a core schema's function",
        "types",
        "return Special(value)",
        "return value",
        "types.convert",
    ),
    _change(
        "a core schema",
        "types",
        "_function(convert)",
        "_function(positive)",
        "get_pydantic_core_schema",
    ),
    _change("an enumeration", "types", "BLUE = 2", "BLUE = 3", "class shop.types.Color"),
    _change("what an enumeration lacks", "types", "cls.RED", "cls.BLUE", "Color._missing_"),
    _change("a dataclass's default", "types", "y: int = 0", "y: int = 1", "class shop.types.Point"),
    _change("a dataclass's type", "types", "x: int\n", "x: float\n", "class shop.types.Point"),
    _change("a dataclass's method", "types", "return self.x", "return self.y", "Point.length"),
    _change(
        "a named tuple",
        "types",
        "height: int = 2",
        "height: int = 3",
        ITEM2,
        "class shop.types.Size",
    ),
    _change("a typed dict", "types", "fast: bool", "fast: int", "class shop.types.Options"),
    _change(
        "what keys it must have", "types", "total=False", "total=True", "class shop.types.Options"
    ),
    _change(
        "a generic model", "types", "list[T] = []", "list[T] = [1]", ITEM2, "Page[Named]", "Page"
    ),
    _change(
        "a generic's argument",
        "models",
        "types.Page[types.Named]",
        "types.Page[str]",
        "Page[Named]",
        "Page[str]",
    ),
    _change("a version", "models", "0.9.0", "0.9.1"),
]

HARMLESS: Final = [
    _change("a comment", "helpers", "# a comment", "# another one\n    # on two lines"),
    _change("a docstring", "helpers", '"""Parse."""', '"""Parse a text, with care."""'),
    _change("no docstring", "helpers", '    """Parse."""\n', ""),
    _change("a class without a docstring", "helpers", '    """Parses."""\n', ""),
    _change("a step's docstring", "models", '"""Document."""', '"""Something else."""'),
    _change("a step without one", "models", '    """Document."""\n    text =', "    text ="),
    _change("a module's docstring", "helpers", '"""What steps use."""', ""),
    _change("other lines", "helpers", "GRAMS = 1000", "\n\n\nGRAMS = 1000"),
    _change("the name of a variable", "helpers", "cleaned", "a_text_that_is_clean"),
    _change("the name of a closure's variable", "helpers", "zeta", "alpha"),
    _change("the name of a step's argument", "models", "first", "given"),
    _change("a name in a comprehension", "helpers", "item + 1 for item in", "it + 1 for it in"),
    _change("an annotation of a helper", "helpers", "text: str) -> str", "text)"),
    _change("a constant that nobody uses", "helpers", "UNUSED = 5", "UNUSED = 6"),
    _change(
        "a function that nobody calls",
        "deep",
        "unused(value):\n    return value",
        "unused(value):\n    return 1",
    ),
    _change(
        "a function beside a step",
        "models",
        "def unused(data):\n    return data",
        "def unused(data):\n    return 1",
    ),
    _change("a table that nobody uses", "tables", "OTHER = {}", "OTHER = {1: 2}"),
    _change("a field's title", "models", 'title="Size"', 'title="Extent"'),
    _change("a field's description", "models", 'description="How large"', 'description="?"'),
    _change("a field's examples", "models", "examples=[1])", "examples=[2])"),
    _change("a description in a type", "types", 'description="weight"', 'description="mass"'),
    _change("a schema's extras", "models", '{"examples": [1]}', '{"examples": [2]}'),
    _change(
        "the order of methods",
        "helpers",
        '    table = {"one": 1}\n    size = 4',
        '    size = 4\n    table = {"one": 1}',
    ),
    _change(
        "a model beside",
        "models",
        "def unused",
        '@manager.model("E", "1.0.0")\nclass E(BaseModel):\n    pass\n\n\ndef unused',
    ),
    _change(
        "where a helper stands",
        "models",
        "from .helpers import parse as read, remember",
        "from .helpers import parse as read\nfrom shop.helpers import remember",
    ),
    _change("a set's order", "helpers", '{"p", "q", "r", "s", "t"}', '{"t", "s", "r", "q", "p"}'),
    _change("a set's order in code", "helpers", '{"m", "n", "o"}', '{"o", "n", "m"}'),
]
