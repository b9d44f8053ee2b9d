"""Values as text that is the same in every process: constants, tables, types and objects.

Functions and classes of the user's packages have nodes of their own; the text of other values
refers to them, so that a change is named where it was made.
"""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import operator
import pathlib
import re
import string
import struct
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, ForwardRef, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo, ModelPrivateAttr
from pydantic_core import PydanticUndefined

from pyrmute_tasks.plans.fingerprint.bytecode import constant_text
from pyrmute_tasks.plans.fingerprint.nodes import Content, Nodes
from pyrmute_tasks.pydantic_internals import type_of_adapter

__all__ = ["Describer", "cell_value", "is_container", "is_plain", "state_of"]

_MAX_DEPTH: Final = 60


_REPRESENTED: Final = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    slice,
    bytearray,
)
_BASES: Final = (bool, int, float, complex, str, bytes)
_SEQUENCES: Final = (list, tuple, collections.deque)
_SETS: Final = (set, frozenset)
_MAPPINGS: Final = (dict, types.MappingProxyType, collections.ChainMap)
_ONLY_DOCUMENTS: Final = frozenset({"Doc", "WithJsonSchema", "Examples", "SkipJsonSchema"})
_TYPING: Final = ("typing", "typing_extensions", "types", "collections.abc", "_collections_abc")
_FIELD_PARTS: Final = (
    "annotation",
    "default",
    "default_factory",
    "alias",
    "validation_alias",
    "serialization_alias",
    "discriminator",
    "exclude",
    "exclude_if",
    "validate_default",
    "frozen",  # a dataclass's, as are the next ones
    "init",
    "init_var",
    "kw_only",
)


def is_container(value: Any) -> bool:
    """Return whether a value is a table."""
    return issubclass(type(value), (*_SEQUENCES, *_SETS, *_MAPPINGS))


def is_plain(value: Any) -> bool:
    """Return whether a value is a constant."""
    return constant_text(value) is not None or issubclass(
        type(value), (*_BASES, *_REPRESENTED, re.Pattern, enum.Enum)
    )


class Describer:
    """Describes values as text.

    Args:
        nodes: Finds the nodes of functions, classes and modules.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._open: list[int] = []  # being described; they may contain themselves
        self._cycles = 0  # how often one did
        self._known: dict[tuple[int, bool], tuple[object, Content]] = {}

    def value(self, value: Any, out: Content, *, outer: bool = False) -> None:
        """Describe a value.

        Args:
            value: Anything.
            out: The description to add to.
            outer: Whether to include the state of an object of a library's class, as for a field's
                constraint. Elsewhere the object may be a logger or a connection, which differs
                between processes.
        """
        text = constant_text(value)
        if text is not None:
            out.parts.append(text)
        elif type(value) is type and value.__module__ == "builtins":
            out.parts.append(value.__qualname__)  # a shortcut for most fields
        elif id(value) in self._open or len(self._open) > _MAX_DEPTH:
            self._cycles += 1
            out.add("itself" if id(value) in self._open else "deeper")
        else:
            out.extend(self._once(value, outer))

    def _once(self, value: Any, outer: bool) -> Content:
        """Describe a value as it was when first seen: steps may fill shared ones."""
        known = self._known.get((id(value), outer))
        if known is not None:
            return known[1]
        content = Content()
        cycles = self._cycles
        self._open.append(id(value))
        try:
            self._any(value, content, outer)
        finally:
            self._open.pop()
        if cycles == self._cycles:  # otherwise the text depends on where it started
            self._known[id(value), outer] = value, content  # with the value, to keep its id
        return content

    def _any(self, value: Any, out: Content, outer: bool) -> None:
        kind = type(value)
        node = self._nodes.of(value)
        if node is not None:
            out.refer(node)
        elif issubclass(kind, enum.Enum):
            self.kind(kind, out)
            out.add(str(getattr(value, "_name_", "")))
        elif issubclass(kind, re.Pattern):
            self.value((value.pattern, value.flags), out)
        elif issubclass(kind, _REPRESENTED) or kind.__module__ == "zoneinfo":
            self._represented(value, out)
        elif is_container(value):
            self._container(value, out, outer)
        elif not (self._code(value, out) or self._type(value, out)):
            self._object(value, out, outer)

    def all(self, values: Iterable[Any], out: Content, *, outer: bool = False) -> None:
        """Describe values in order."""
        out.add("(")
        for value in values:
            self.value(value, out, outer=outer)
        out.add(")")

    def named(self, values: Mapping[str, Any], out: Content, *, outer: bool = False) -> None:
        """Describe attributes, in any order."""
        out.add("{")
        for name in sorted(values, key=str):
            out.add(f"{name}:")
            self.value(values[name], out, outer=outer)
        out.add("}")

    def kind(self, kind: type, out: Content) -> None:
        """Describe a class by its name, or by reference if it has a node."""
        node = self._nodes.of(kind)
        if node is not None:
            out.refer(node)
        else:
            self.foreign(str(kind.__module__), kind.__qualname__, out)

    def foreign(self, module: str, name: str, out: Content) -> None:
        """Describe a name of a library or of Python."""
        out.add(f"{module}.{name}")
        library = self._nodes.library(module)
        if library is not None and library not in out.refs:
            out.refs.append(library)  # once: the text says which name is used

    # --- values -----------------------------------------------------------------------------

    def _represented(self, value: Any, out: Content) -> None:
        self.kind(type(value), out)
        text = repr(value)
        out.add("" if " at 0x" in text else text)

    def _container(self, value: Any, out: Content, outer: bool) -> None:
        kind = type(value)
        if kind in (list, tuple, set, frozenset, dict):
            out.add(kind.__name__)
        else:
            self.kind(kind, out)
        if issubclass(kind, _SETS):
            # The order of a set depends on its hashes, which differ between processes.
            items = []
            for item in set.copy(value) if issubclass(kind, set) else value:
                content = Content()
                self.value(item, content, outer=outer)
                items.append(content)
            for content in sorted(items, key=lambda content: content.order):
                out.extend(content)
        elif issubclass(kind, _MAPPINGS):
            for key, item in list(value.items()):
                self.value(key, out, outer=outer)
                out.add(":")
                self.value(item, out, outer=outer)
            if issubclass(kind, collections.defaultdict):
                self.value(value.default_factory, out)
        else:
            self.all(list(value), out, outer=outer)
            out.add(f"at most {getattr(value, 'maxlen', None)}")
        if self._nodes.owns(kind.__module__) and not issubclass(kind, tuple):
            self.named(state_of(value), out)
        out.add("end")

    def _code(self, value: Any, out: Content) -> bool:
        """Describe a callable without a node of its own."""
        for kinds, parts_of in _WRAPPERS:
            if _is(value, kinds):
                out.add(kinds.__name__)
                self.all(parts_of(value), out)
                return True
        if _is(value, (functools.partial, functools.partialmethod)):
            out.add("partial")
            self.all((value.func, value.args), out)
            self.named(value.keywords, out)
        elif _is(value, types.FunctionType):
            self._foreign_function(value, out)
        elif _is(value, types.ModuleType):
            self.foreign(value.__name__, "", out)
        elif type(value) in _BUILTIN_CODE:
            bound = getattr(value, "__self__", None)
            self.foreign(getattr(value, "__module__", None) or "builtins", value.__qualname__, out)
            self.value(None if _is(bound, types.ModuleType) else bound, out)
        elif hasattr(type(value), "cache_info") and hasattr(value, "__wrapped__"):
            out.add("cached")  # described by its function: the cache does not matter
            self.value(value.__wrapped__, out)
        else:
            return False
        return True

    def _foreign_function(self, function: types.FunctionType, out: Content) -> None:
        """Describe a library's function, and the user's functions that it holds."""
        module = str(function.__globals__.get("__name__", ""))
        self.foreign(module, function.__code__.co_qualname, out)
        kept = vars(function)
        registry: Any = kept.get("registry")
        if _is(registry, types.MappingProxyType):  # functools.singledispatch
            pairs = []
            for kind, implementation in registry.items():
                content = Content()
                self.kind(kind, content)
                self.value(implementation, content)
                pairs.append(content)
            for content in sorted(pairs, key=lambda content: content.order):
                out.extend(content)
            return
        for cell in function.__closure__ or ():
            self.value(cell_value(cell), out)
        if "__wrapped__" in kept:
            self.value(kept["__wrapped__"], out)
        if "raw_function" in kept:  # pydantic.validate_call reads the annotations
            self.named(kept["raw_function"].__annotations__, out, outer=True)

    # --- types ------------------------------------------------------------------------------

    def _type(self, value: Any, out: Content) -> bool:
        origin = get_origin(value) if type(value).__module__ in _TYPING else None
        if origin is not None:
            self.value(origin, out, outer=True)
            arguments = get_args(value)
            if origin is typing.Annotated:
                arguments = (arguments[0], *_without_documentation(arguments[1:]))
            self.all(arguments, out, outer=True)
        elif _is(value, type):
            self.kind(value, out)
        elif _is(value, ForwardRef):
            out.add(f"forward {value.__forward_arg__}")
        elif _is(value, typing.NewType):
            self.value(value.__supertype__, out, outer=True)
        elif _is(value, typing.TypeVar):
            out.add(f"variable {value.__name__}")
            self.all((value.__bound__, *value.__constraints__), out, outer=True)
        elif type(value).__name__ == "TypeAliasType":
            out.add(f"alias {value.__name__}")
            self.value(value.__value__, out, outer=True)
        elif type(value).__module__ in _TYPING:
            out.add(str(value))
        else:
            return False
        return True

    # --- objects ----------------------------------------------------------------------------

    def _object(self, value: Any, out: Content, outer: bool) -> None:
        kind = type(value)
        self.kind(kind, out)
        base = next((base for base in _BASES if issubclass(kind, base)), None)
        if base is not None:
            out.add(base.__repr__(value))
        if _is(value, FieldInfo):
            self.field(value, out)
        elif _is(value, ModelPrivateAttr):
            self.all((value.default, value.default_factory), out)
        elif _is(value, TypeAdapter):
            self.value(type_of_adapter(value), out, outer=True)
        elif _is(value, string.Template):
            out.add(value.template)
        elif _is(value, struct.Struct):
            out.add(value.format)
        elif kind.__module__ == "numpy" and hasattr(value, "tobytes"):
            out.add(str(getattr(value, "dtype", "")), value.tobytes().hex())
        elif (
            outer
            or _is(value, (BaseModel, types.SimpleNamespace))
            or self._nodes.owns(kind.__module__)
            or (dataclasses.is_dataclass(value) and kind.__module__.startswith("pydantic"))
        ):
            self.named(state_of(value), out, outer=outer)

    def field(self, info: FieldInfo, out: Content) -> None:
        """Describe a field, without its documentation."""
        for name in _FIELD_PARTS:
            part = getattr(info, name, None)
            if part is not None and part is not PydanticUndefined:
                out.add(f"{name}=")
                self.value(part, out, outer=True)
        self.all(_without_documentation(info.metadata), out, outer=True)


_WRAPPERS: Final[tuple[tuple[type, Callable[[Any], tuple[Any, ...]]], ...]] = (
    (types.MethodType, lambda value: (value.__func__, value.__self__)),
    (staticmethod, lambda value: (value.__func__,)),
    (classmethod, lambda value: (value.__func__,)),
    (property, lambda value: (value.fget, value.fset, value.fdel)),
    (functools.cached_property, lambda value: (value.func,)),
    (functools.singledispatchmethod, lambda value: (value.dispatcher,)),
    (operator.itemgetter, lambda value: value.__reduce__()[1:]),
    (operator.attrgetter, lambda value: value.__reduce__()[1:]),
    (operator.methodcaller, lambda value: value.__reduce__()[1:]),
)
_BUILTIN_CODE: Final = (
    types.BuiltinFunctionType,
    types.BuiltinMethodType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


def _is(value: Any, kinds: type | tuple[type, ...]) -> bool:
    """Like `isinstance`, without asking the object: a lazy one would start to load."""
    return issubclass(type(value), kinds)


def _without_documentation(metadata: Iterable[Any]) -> list[Any]:
    """Drop metadata that only documents a type."""
    return [
        note
        for note in metadata
        if not isinstance(note, str) and type(note).__name__ not in _ONLY_DOCUMENTS
    ]


def cell_value(cell: types.CellType) -> object:
    """Return the content of a closure's cell."""
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return ...


def state_of(value: Any) -> dict[str, Any]:
    """Return an object's attributes."""
    try:
        state = dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        state = {}
    for kind in reversed(type(value).__mro__):
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            try:
                state[name] = object.__getattribute__(value, name)
            except AttributeError:
                continue
    return {name: part for name, part in state.items() if not str(name).startswith("__")}
