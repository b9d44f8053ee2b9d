"""The code that models and steps reach, captured once, before the first record.

From each model and each step the search follows the functions, classes, tables and constants
named in code, through the modules of the user's own packages. Each is described at once, so
that a memo that fills up while records run changes nothing.
"""

import builtins
import functools
import importlib
import sys
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

from pydantic import BaseModel

from pyrmute_tasks.plans.fingerprint.bytecode import Body, Import, read_code
from pyrmute_tasks.plans.fingerprint.classes import describe_class
from pyrmute_tasks.plans.fingerprint.described import Describer, cell_value, is_container, is_plain
from pyrmute_tasks.plans.fingerprint.nodes import Content, Node
from pyrmute_tasks.plans.fingerprint.packages import OwnPackages, is_standard, library_of
from pyrmute_tasks.pydantic_internals import is_pydantics_module

__all__ = ["ReachedCode"]

_DEFERRED_ITEMS: Final = 200
"""Tables with more items are copied at once and described on demand."""

_MAY_TAKE_ANY: Final = frozenset({"getattr", "vars", "eval", "exec", "__dict__", "attrgetter"})
_NOTHING: Final = object()


# Above 250 lines: one search through one graph, whose state every method reads and extends.
class ReachedCode:
    """The models and steps of a manager, with all the code they reach.

    Args:
        packages: Names of further packages of the user's own, which hold neither a model nor a
            step.
    """

    def __init__(self, packages: Iterable[str] = ()) -> None:
        self._package_names = tuple(packages)
        self._lock = threading.RLock()
        self._models: dict[type[BaseModel], str] = {}
        self._steps: dict[object, tuple[str, Any]] = {}
        self._captured: dict[object, None] = {}  # models and steps already captured
        self._forget()

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...]]]:
        """Copy as an empty one: what a copied manager reaches is captured when it is used."""
        return type(self), (self._package_names,)

    def _forget(self) -> None:
        self._packages = OwnPackages(self._package_names)
        for module in self._modules():
            self._packages.add(module)
        self._nodes: dict[object, Node] = {}
        self._kept: list[object] = []  # keeps ids from being reused
        self._queue: list[Node] = []
        self._deferred: list[Node] = []
        self._missing: list[tuple[types.FunctionType, str]] = []
        self._unloaded: list[tuple[Node, types.FunctionType, Body, Import]] = []
        self._describer = Describer(self)

    def register(
        self, models: Mapping[type[BaseModel], str], steps: Iterable[tuple[str, Callable[..., Any]]]
    ) -> None:
        """Register models and steps for capturing, without looking at their code.

        Args:
            models: Models and their labels: ``"User 2.0.0"``.
            steps: Steps and their labels: ``"User 1.0.0 → 2.0.0"``.
        """
        with self._lock:
            self._models |= models
            for name, function in steps:
                self._steps.setdefault(_key_of_step(function), (name, function))
            added = [module for module in self._modules() if self._packages.add(module)]
            if added and self._nodes:
                # A new package is the user's own.
                self._forget()
                self._capture_again()

    def _modules(self) -> list[str]:
        modules = [model.__module__ for model in self._models]
        return modules + [_module_of(function) for _, function in self._steps.values()]

    def capture(
        self, models: Iterable[type[BaseModel]], steps: Iterable[Callable[..., Any]]
    ) -> None:
        """Capture the code that some models and steps reach, before they run.

        Code shared with models and steps captured later is described once, as it is now.
        """
        with self._lock:
            self._captured |= dict.fromkeys(models)
            self._captured |= dict.fromkeys(map(_key_of_step, steps))
            self._capture_again()

    def capture_all(self) -> None:
        """Capture the code that all known models and steps reach."""
        with self._lock:
            self._captured |= dict.fromkeys([*self._models, *self._steps])
            self._capture_again()

    def _capture_again(self) -> None:
        for each in self._captured:
            if each in self._steps:
                self.step(*self._steps[each])
            else:
                self.of(each)
        self._describe_pending()

    def complete(self) -> None:
        """Run the imports inside functions ahead of time, and describe postponed tables."""
        with self._lock:
            if any(name in function.__globals__ for function, name in self._missing):
                # Asked for while a module was half imported.
                self._forget()
                self._capture_again()
            while self._unloaded or self._deferred:
                self._load()
                put_off, self._deferred = self._deferred, []
                for node in put_off:
                    self._describe(node, self._describer.value)
                self._describe_pending()

    # --- nodes ------------------------------------------------------------------------------

    def step(self, name: str, function: Callable[..., Any]) -> Node:
        """Return the node of a step; if it serves several hops, that of the first."""
        key = _key_of_step(function)
        node = self._nodes.get(key)
        if node is None:
            name, _ = self._steps.get(key, (name, function))
            node = self._begin("step", name, _module_of(function), function, key)
            node.by_position = True
        return node

    def of(self, value: Any) -> Node | None:
        """Return the node of a function, a class or a module, if it has one."""
        node = self._nodes.get(id(value))
        kind = type(value)
        if node is not None or kind in _WITHOUT_NODE:
            return node
        if kind is types.FunctionType:
            if id(value) in self._steps:
                return self.step("", value)
            module = _module_of(value)
            if module in self._packages:
                name = f"{module}.{value.__code__.co_qualname}"
                return self._begin("function", name, module, value, id(value))
        elif issubclass(kind, type):
            return self._of_class(value)
        elif kind is types.ModuleType and value.__name__ in self._packages:
            return self._begin("module", value.__name__, value.__name__, value, id(value))
        return None

    def _of_class(self, kind: type) -> Node | None:
        module = str(kind.__module__)
        is_model = issubclass(kind, BaseModel) and not _is_pydantics_own(kind)
        if is_model and kind in self._models:
            return self._begin("model", self._models[kind], module, kind, id(kind))
        if is_model or module in self._packages:
            what = "model" if is_model else "class"
            return self._begin(what, f"{module}.{kind.__qualname__}", module, kind, id(kind))
        return None

    def library(self, module: str) -> Node | None:
        """Return the node of a module's library; None for the standard library."""
        if not module or is_standard(module) or module in self._packages:
            return None
        name = library_of(module)
        node = self._nodes.get(("library", name))
        if node is None:
            node = self._nodes["library", name] = Node("library", name, module, text="")
        return node

    def owns(self, module: str) -> bool:
        """Return whether a module is the user's own."""
        return module in self._packages

    def _begin(self, kind: str, name: str, module: str, held: Any, key: object) -> Node:
        node = Node(kind, name, module, held)
        self._nodes[key] = node
        self._kept.append(held)
        self._queue.append(node)
        return node

    # --- describing ---------------------------------------------------------------------------

    def _describe_pending(self) -> None:
        while self._queue:
            node = self._queue.pop()
            if is_container(node.held) and len(node.held) > _DEFERRED_ITEMS:
                node.held = _copy(node.held)
                self._deferred.append(node)
            elif type(node.held) is types.FunctionType:
                self._describe(node, functools.partial(self._function, node))
            elif node.kind in ("class", "model"):
                self._describe(node, self._class)
            elif node.kind == "module":
                self._describe(node, self._module)
            elif node.kind == "step":
                self._describe(node, self._object)
            else:
                self._describe(node, self._describer.value)

    def _describe(self, node: Node, describe: Callable[[Any, Content], None]) -> None:
        out = Content()
        try:
            describe(node.held, out)
        except Exception as error:  # the user's code may not even allow inspection
            out.add(f"unreadable {type(error).__name__}")
        node.text = "\0".join(out.parts)
        node.refs = out.refs

    def _class(self, kind: type, out: Content) -> None:
        describe_class(kind, self._describer, self, out)

    def _object(self, value: Any, out: Content) -> None:
        self._describer.value(value, out, outer=True)

    def _module(self, module: types.ModuleType, out: Content) -> None:
        """Describe a module whose attributes may all be used."""
        for name, value in sorted(vars(module).items()):
            home = getattr(value, "__module__", None)
            if not name.startswith("__") and (home == module.__name__ or is_container(value)):
                out.add(name)
                self._named(vars(module), module.__name__, name, out)

    # --- functions --------------------------------------------------------------------------

    def _function(self, node: Node, function: types.FunctionType, out: Content) -> None:
        body = read_code(function.__code__, by_position=node.by_position)
        out.add(body.text)
        self._describer.all((function.__defaults__, function.__kwdefaults__), out)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        self._describer.all([cell_value(cells[name]) for name in body.free if name in cells], out)
        self._describer.named(vars(function), out)
        for path in body.paths:
            self._path(function, path, body, out)
        for wanted in body.imports:
            self._import(node, function, body, wanted, out)

    def _path(
        self, function: types.FunctionType, path: tuple[str, ...], body: Body, out: Content
    ) -> None:
        """Follow a global name, and through modules the attributes read from it."""
        names = function.__globals__
        module = _module_of(function)
        name, *attributes = path
        if name not in names:
            if not hasattr(builtins, name):
                # It may be defined later: a module may ask for a plan while it is imported.
                self._missing.append((function, name))
            return
        value: Any = names[name]
        while type(value) is types.ModuleType and value.__name__ in self._packages:
            if not attributes:
                self._taken_of(value, body, out)
                return
            names, module = vars(value), value.__name__
            name, *attributes = attributes
            if name not in names:
                out.add(f"no {name}")
                return
            value = names[name]
        if type(value) is types.ModuleType and not is_standard(value.__name__):
            self._describer.foreign(value.__name__, ".".join(attributes), out)
            return
        self._named(names, module, name, out)

    def _taken_of(self, module: types.ModuleType, body: Body, out: Content) -> None:
        """Follow the attributes that code may read from a module it holds."""
        used = {name for path in body.paths for name in path} | body.attributes
        taken = sorted(name for name in body.attributes if name in vars(module))
        if _MAY_TAKE_ANY & used or not taken:
            self._describer.value(module, out)
        for name in taken:
            out.add(name)
            self._named(vars(module), module.__name__, name, out)

    def _named(self, names: Mapping[str, Any], module: str, name: str, out: Content) -> None:
        """Refer to a module's name."""
        value = names[name]
        kind = type(value)
        if _is(value, _WITH_NODE) or not (
            is_container(value) or is_plain(value) or self.owns(kind.__module__)
        ):
            self._describer.value(value, out)
            return
        # Equal constants of two modules may be one object in one process and two in another.
        key: Any = (module, name) if is_plain(value) else ("table", id(value))
        node = self._nodes.get(key)
        if node is None:
            what = "table" if is_container(value) else "constant" if is_plain(value) else "object"
            node = self._begin(what, f"{module}.{name}", module, value, key)
        out.refer(node)

    # --- imports inside of functions ---------------------------------------------------------

    def _import(
        self, node: Node, function: types.FunctionType, body: Body, wanted: Import, out: Content
    ) -> None:
        name = _absolute(function, wanted)
        if name not in self._packages:
            self._describer.foreign(name, "", out)
        elif name in sys.modules:
            self._imported(sys.modules[name], body, wanted, out)
        else:
            self._unloaded.append((node, function, body, wanted))

    def _imported(self, module: types.ModuleType, body: Body, wanted: Import, out: Content) -> None:
        for name in wanted[2]:
            value = vars(module).get(name, _NOTHING)
            if value is _NOTHING:
                value = sys.modules.get(f"{module.__name__}.{name}", _NOTHING)
            if name == "*" or value is _NOTHING:
                out.add(f"no {name}")
            elif type(value) is types.ModuleType and value.__name__ in self._packages:
                self._taken_of(value, body, out)
            else:
                self._named({name: value}, module.__name__, name, out)
        if not wanted[2]:
            self._taken_of(module, body, out)

    def _load(self) -> None:
        """Run the imports inside functions, as the first record would."""
        unloaded, self._unloaded = self._unloaded, []
        for node, function, body, wanted in unloaded:
            name = _absolute(function, wanted)
            out = Content()
            try:
                module = importlib.import_module(name)
                for part in wanted[2]:
                    if part not in vars(module) and hasattr(module, "__path__"):
                        importlib.import_module(f"{name}.{part}")
                self._imported(module, body, wanted, out)
            except Exception as error:  # the step will fail on it too
                out.add(f"import fails with {type(error).__name__}")
            node.text = "\0".join([node.text or "", *out.parts])
            node.refs += out.refs


_WITH_NODE: Final = (types.FunctionType, type, types.ModuleType)
_WITHOUT_NODE: Final = frozenset({str, int, float, bool, type(None), dict, list, tuple, set})


def _key_of_step(function: Any) -> object:
    # Others may reach a function too; an object's content is described with it.
    return id(function) if _is(function, types.FunctionType) else ("step", id(function))


def _is(value: Any, kinds: type | tuple[type, ...]) -> bool:
    return issubclass(type(value), kinds)


def _is_pydantics_own(kind: type) -> bool:
    """Return whether pydantic defines a class itself, rather than generating it for a user."""
    module = sys.modules.get(kind.__module__)
    return is_pydantics_module(kind.__module__) and kind.__name__ in vars(module or kind)


def _module_of(function: Any) -> str:
    """Return the module that holds a function's globals, or defines an object's class."""
    while not isinstance(function, types.FunctionType):
        inner = getattr(function, "__func__", None) or getattr(function, "func", None)
        if inner is None:
            kind = function if isinstance(function, type) else type(function)
            return str(kind.__module__)
        function = inner
    return str(function.__globals__.get("__name__", ""))


def _absolute(function: types.FunctionType, wanted: Import) -> str:
    name, level, _ = wanted
    if not level:
        return name
    package = function.__globals__.get("__package__")
    if not package:
        package = _module_of(function).rpartition(".")[0]
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - level + 1])
    return f"{base}.{name}" if name else base


def _copy(table: Any) -> Any:
    try:
        return table.copy()
    except (AttributeError, TypeError):
        return table
