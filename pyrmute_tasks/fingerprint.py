"""A hash of all that decides what a plan makes of a record.

It is the same in every process, on every host and with every ``PYTHONHASHSEED``, also
where the module that holds the models is ``__main__`` in one process and imported in
another: nothing in it is an address, a module's name, a file's name or a line's number.

Functions count by their bytecode, not by their source. A long-running worker holds the
code that it imported, while the file may hold newer code already; reading the source then
would make it claim migrations that it does not have. What a function calls is not followed.
"""

import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import pathlib
import re
import types
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final, ForwardRef, get_args, get_origin

import pydantic
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pyrmute_tasks._version import __version__
from pyrmute_tasks.places import fields_of
from pyrmute_tasks.steps import Hop

__all__ = ["fingerprint_of"]


def fingerprint_of(subject: str, models: Iterable[type[BaseModel]], hops: Iterable[Hop]) -> str:
    """Return the fingerprint of a plan.

    Args:
        subject: The plan's name and versions.
        models: The models it can meet; those in their fields are found from there.
        hops: The hops that running it can come to.
    """
    describer = _Describer()
    parts = [__version__, pydantic.VERSION, subject]
    for hop in hops:
        what = "nothing" if hop.step is None else "automatic"
        if hop.step is not None and not hop.step.automatic:
            what = describer.of(hop.step.function)
        parts.append(f"{hop.name} {hop.from_version} {hop.to_version} {what}")
    parts.extend(describer.of(model) for model in models)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


_ATOMS: Final = (str, bytes, int, float, complex, bool, type(None), type(...), range)
_VALUES: Final = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    uuid.UUID,
    pathlib.PurePath,
    re.Pattern,
)
_FIELD_PARTS: Final = (
    "annotation",
    "default",
    "default_factory",
    "alias",
    "validation_alias",
    "serialization_alias",
    "discriminator",
    "exclude",
    "validate_default",
    "metadata",
)
_HOOKS: Final = (
    "__init__",
    "__get_pydantic_core_schema__",
    "model_dump_json",
    "model_post_init",
    "model_validate",
)


class _Describer:
    """Describes values as text, the same in every process."""

    def __init__(self) -> None:
        self._described: dict[int, tuple[object, int]] = {}

    def of(self, value: Any, *, inner: bool = False) -> str:
        """Describe a value.

        Args:
            value: Anything.
            inner: Whether an object of an unknown class counts by its class alone. It may
                be a logger or a connection, and no two processes have the same.
        """
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}={self.of(value.value)}"
        if type(value) in _ATOMS or isinstance(value, _VALUES):
            return repr(value)
        if isinstance(value, (list, tuple, set, frozenset, dict, types.MappingProxyType)):
            return self._container(value, inner)
        if get_origin(value) is not None:
            return f"{self.of(get_origin(value))}[{self._all(get_args(value))}]"
        if id(value) in self._described:
            return f"#{self._described[id(value)][1]}"
        # Kept with its number, so that its id is not given to another object.
        self._described[id(value)] = (value, len(self._described))
        if isinstance(value, type):
            return self._class(value)
        return self._code_of(value) or self._object(value, inner)

    def _all(self, values: Iterable[Any], *, inner: bool = False) -> str:
        return ",".join(self.of(value, inner=inner) for value in values)

    def _container(self, value: Any, inner: bool) -> str:
        if isinstance(value, (dict, types.MappingProxyType)):
            pairs = (f"{self.of(k)}:{self.of(v, inner=inner)}" for k, v in value.items())
            return f"{{{','.join(pairs)}}}"
        if isinstance(value, (set, frozenset)):
            # In the order of the hashes, which no other process has; so without numbers.
            parts = sorted(_Describer().of(item, inner=inner) for item in value)
        else:
            parts = [self.of(item, inner=inner) for item in value]
        return f"{type(value).__name__}({','.join(parts)})"

    # --- code -----------------------------------------------------------------------------

    def _code_of(self, value: Any) -> str | None:
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, functools.partial):
            given = self._all((value.args, value.keywords), inner=True)
            return f"partial({self.of(value.func)},{given})"
        if isinstance(value, types.MethodType):
            return f"method({self.of(value.__self__)},{self.of(value.__func__)})"
        if isinstance(value, types.BuiltinFunctionType):
            return f"builtin {value.__qualname__}"
        wrapped = _wrapped(value)
        return None if wrapped is None else f"{type(value).__qualname__}({self.of(wrapped)})"

    def _function(self, function: types.FunctionType) -> str:
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        given = (function.__defaults__, function.__kwdefaults__, cells)
        return f"function({self.of(function.__code__)},{self._all(given, inner=True)})"

    def _code(self, code: types.CodeType) -> str:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        body = code.co_code.hex() + getattr(code, "co_exceptiontable", b"").hex()
        return f"code({body},{self._all(names)},{self.of(code.co_consts)})"

    # --- classes and objects --------------------------------------------------------------

    def _class(self, kind: type) -> str:
        name = f"class {kind.__qualname__}"
        if issubclass(kind, BaseModel):
            return f"{name}({self._model(kind)})"
        if issubclass(kind, enum.Enum):
            return f"{name}({self._all(kind)})"
        if kind.__module__ != "builtins":
            return f"{name}{self.of(vars(kind).get('__annotations__', {}))}"
        return name

    def _model(self, model: type[BaseModel]) -> str:
        config = {key: value for key, value in sorted(model.model_config.items()) if key != "title"}
        fields = [f"{name}({self._field(info)})" for name, info in fields_of(model).items()]
        decorators = model.__pydantic_decorators__
        validators = [
            f"{name}({self.of(found.info)},{self.of(getattr(found.func, '__func__', found.func))})"
            for kind in dataclasses.fields(decorators)
            for name, found in getattr(decorators, kind.name).items()
        ]
        hooks = [self.of(_own_code(model, name)) for name in _HOOKS]
        return f"{self.of(config)},{fields},{validators},{hooks}"

    def _field(self, info: FieldInfo) -> str:
        return self._all(getattr(info, part) for part in _FIELD_PARTS)

    def _object(self, value: Any, inner: bool) -> str:
        kind = type(value)
        if isinstance(value, BaseModel):
            return f"{self.of(kind)}{self.of(vars(value))}"
        if isinstance(value, FieldInfo):
            return f"field({self._field(value)})"
        if isinstance(value, ForwardRef):
            return f"forward {value.__forward_arg__}"
        if hasattr(value, "__value__"):
            return f"alias {value.__name__}({self.of(value.__value__)})"
        if kind.__module__ in ("typing", "typing_extensions"):
            return str(value)
        if inner and not dataclasses.is_dataclass(value):
            return f"a {kind.__qualname__}"
        state = self.of(_state(value), inner=True)
        return f"a {kind.__qualname__}({state},{self._methods(kind) if callable(value) else ''})"

    def _methods(self, kind: type) -> str:
        own = {name: code for name, code in vars(kind).items() if _is_code(code)}
        own["__call__"] = getattr(kind, "__call__", None)  # noqa: B004  # inherited perhaps
        return self.of(own)


def _wrapped(value: Any) -> object | None:
    """Return the function inside of a decorated one that is no function itself."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property):
        return value.func
    return getattr(value, "__wrapped__", None)


def _cell(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return ...


def _is_code(value: object) -> bool:
    return isinstance(value, (types.FunctionType, staticmethod, classmethod))


def _own_code(model: type[BaseModel], name: str) -> object:
    """Return the method that decides validation or writing, if it is not pydantic's own."""
    found: Callable[..., Any] | None = getattr(model, name, None)
    function = getattr(found, "__func__", found)
    module = getattr(function, "__module__", None) or ""
    return None if module.partition(".")[0] == "pydantic" else function


def _state(value: Any) -> dict[str, Any]:
    """Return an object's attributes."""
    state = dict(getattr(value, "__dict__", {}))
    for kind in reversed(type(value).__mro__):
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if hasattr(value, name):
                state[name] = getattr(value, name)
    if not state and type(value).__module__ in ("operator", "functools"):
        state["arguments"] = value.__reduce__()[1:]  # C objects such as an itemgetter
    return {name: part for name, part in state.items() if not name.startswith("__")}
