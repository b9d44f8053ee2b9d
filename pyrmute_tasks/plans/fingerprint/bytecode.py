"""A function's bytecode, reduced to what affects its result, and the names it looks up.

Docstrings, line numbers, file names and names of local variables are left out. The rest is the
same with ``-O`` and ``-OO`` unless the code holds an ``assert`` or uses ``__debug__``, and the
same however often the code has run.
"""

import dis
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final, TypeAlias

__all__ = ["Body", "Import", "constant_text", "read_code"]

Import: TypeAlias = tuple[str, int, tuple[str, ...]]
"""An import inside of a function: the module's name, its relative level, the imported names."""

_FLAGS: Final = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
_LOOKS_UP_TEXT: Final = frozenset({"globals", "eval", "exec"})
_IDENTIFIER: Final = re.compile(r"[^\W\d]\w*")
_LOOKS_AT_LOCALS: Final = frozenset({"locals", "vars", "dir", "eval", "exec"})


def _ops(*names: str) -> frozenset[int]:
    return frozenset(dis.opmap[name] for name in names if name in dis.opmap)


_CONST: Final = frozenset(dis.hasconst)
_SMALL_INT: Final = _ops("LOAD_SMALL_INT")
_CLOSURE: Final = _ops("LOAD_CLOSURE", "MAKE_CELL")
_DEREF: Final = frozenset(dis.hasfree) - _CLOSURE
_LOCAL: Final = frozenset(dis.haslocal)
_GLOBAL: Final = _ops("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE: Final = _ops("LOAD_ATTR", "LOAD_METHOD")
_IMPORT: Final = _ops("IMPORT_NAME")
_JUMP: Final = frozenset(dis.hasjrel)
_BACKWARD: Final = frozenset(op for name, op in dis.opmap.items() if "BACKWARD" in name)
_STORE_NAME: Final = dis.opmap["STORE_NAME"]
_NOP: Final = dis.opmap["NOP"]
_CACHE: Final = 0
_NAMED: Final = frozenset(dis.hasname)
_NAMED_BITS: Final = {
    dis.opmap["LOAD_GLOBAL"]: 1,
    dis.opmap["LOAD_ATTR"]: int(sys.version_info >= (3, 12)),
    dis.opmap.get("LOAD_SUPER_ATTR", -1): 2,
}


@dataclass(frozen=True, slots=True)
class Body:
    """A function's behaviour, as far as its own code decides it.

    Attributes:
        text: The reduced bytecode.
        paths: Global names with the attributes read from them: ``("helpers", "parse")``.
        imports: The imports inside of the function.
        attributes: The names of all attributes read from anything.
        free: The names of the closure's variables, in the order of their use.
    """

    text: str
    paths: tuple[tuple[str, ...], ...]
    imports: tuple[Import, ...]
    attributes: frozenset[str]
    free: tuple[str, ...]


def read_code(code: CodeType, *, by_position: bool = False) -> Body:
    """Read a function's code, including the functions defined inside of it.

    Args:
        code: The code.
        by_position: Whether it is only called without keywords, so that the names of its
            parameters do not matter.
    """
    reader = _Reader()
    free: dict[str, object] = {name: object() for name in code.co_freevars}
    text = reader.text(code, free, by_position)
    used = sorted(free, key=lambda name: reader.order.get(free[name], len(free)))
    attributes = frozenset(reader.attributes)
    if any(path[0] in _LOOKS_UP_TEXT for path in reader.paths):
        names = (name for text in reader.texts for name in _IDENTIFIER.findall(text))
        reader.paths |= dict.fromkeys((name,) for name in names)
    return Body(text, tuple(reader.paths), tuple(reader.imports), attributes, tuple(used))


def constant_text(value: Any) -> str | None:
    """Describe a constant that is written the same in every process; None for any other value."""
    kind = type(value)
    if kind in _ATOMS:
        return f"{kind.__name__} {value!r}"
    return None


_ATOMS: Final = frozenset(
    {str, bytes, int, float, complex, bool, type(None), type(...), type(NotImplemented), range}
)


class _Reader:
    """Reads a code object and those inside of it."""

    def __init__(self) -> None:
        self.paths: dict[tuple[str, ...], None] = {}
        self.imports: dict[Import, None] = {}
        self.attributes: set[str] = set()
        self.order: dict[object, int] = {}  # of variables shared between functions, by first use
        self.texts: list[str] = []
        self._scopes = 0

    def text(self, code: CodeType, outer: Mapping[str, object], by_position: bool = False) -> str:
        self._scopes += 1
        scope = self._scopes
        variables = {name: object() for name in code.co_cellvars}
        variables |= {name: outer.get(name, name) for name in code.co_freevars}
        own = {name: f"{scope}.{at}" for at, name in enumerate(code.co_varnames[: _inputs(code)])}
        # A parameter in a closure is known by its position, other variables by their order.
        variables |= {name: own[name] for name in code.co_cellvars if name in own}
        instructions = self._instructions(code, variables)
        head = (
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags & _FLAGS,
            _parameters(code, by_position),
            code.co_varnames if _LOOKS_AT_LOCALS & set(code.co_names) else "",
        )
        return f"{head!r} [{instructions}]"

    def _instructions(self, code: CodeType, variables: Mapping[str, object]) -> str:
        """Return the instructions, with their arguments resolved."""
        slots = _slots(code)
        seen: dict[int, str] = {}
        recent: list[Any] = []  # constants
        path: tuple[str, ...] = ()
        lines: list[str] = []
        instructions = _without_docstring(code, _decoded(code))
        ordinals = _ordinals(instructions, len(code.co_code))
        for _, after, op, argument in instructions:
            if op == _NOP:
                continue
            if path and op not in _ATTRIBUTE:
                self.paths[path], path = None, ()
            what = str(argument)
            if op in _CONST:
                value = code.co_consts[argument]
                recent.append(value)
                what = seen.get(argument) or self._constant(value, variables)
                seen.setdefault(argument, f"={len(seen)}")
            elif op in _CLOSURE or (op in _LOCAL and code.co_nlocals <= argument < len(slots)):
                what = ""  # the code that uses it names the variable
            elif op in _DEREF:
                what = self._variable(variables[slots[argument]])
            elif op in _JUMP:
                target = after - 2 * argument if op in _BACKWARD else after + 2 * argument
                what = f"to {ordinals[target]}"
            elif op in _NAMED:
                bits = _NAMED_BITS.get(op, 0)  # flags in the argument, below the name's index
                name = code.co_names[argument >> bits]
                what = f"{argument & (1 << bits) - 1} {name}"
                path = self._name(name, op, path, recent)
            elif op in _SMALL_INT:
                recent.append(argument)
            lines.append(f"{op} {what}")
        lines += _handlers(code.co_exceptiontable, ordinals)
        return "; ".join(lines)

    def _name(
        self, name: str, op: int, path: tuple[str, ...], recent: list[Any]
    ) -> tuple[str, ...]:
        """Record a name that is looked up; return the path it begins or continues."""
        if op in _GLOBAL:
            return (name,)
        if op in _ATTRIBUTE:
            self.attributes.add(name)
            return (*path, name) if path else ()
        if op in _IMPORT:
            level, taken = recent[-2:]
            self.imports[name, level, tuple(taken or ())] = None
        return ()

    def _variable(self, variable: object) -> str:
        if isinstance(variable, str):
            return f"@{variable}"
        return f"@{self.order.setdefault(variable, len(self.order))}"

    def _constant(self, value: Any, variables: Mapping[str, object]) -> str:
        if isinstance(value, CodeType):
            return f"code {self.text(value, variables)}"
        if isinstance(value, tuple):
            return f"tuple ({', '.join(self._constant(item, variables) for item in value)})"
        if isinstance(value, frozenset):
            items = sorted(self._constant(item, variables) for item in value)
            return f"frozenset ({', '.join(items)})"
        if isinstance(value, str):
            self.texts.append(value)
        return constant_text(value) or type(value).__name__


def _decoded(code: CodeType) -> list[tuple[int, int, int, int]]:
    """Return the start, end, opcode and argument of each instruction."""
    raw = code.co_code
    found = []
    begin = argument = 0
    at = 0
    while at < len(raw):
        op, argument = raw[at], argument << 8 | raw[at + 1]
        at += 2
        if op == dis.EXTENDED_ARG:
            continue
        while at < len(raw) and raw[at] == _CACHE:
            at += 2
        found.append((begin, at, op, argument))
        begin, argument = at, 0
    return found


def _without_docstring(
    code: CodeType, instructions: list[tuple[int, int, int, int]]
) -> list[tuple[int, int, int, int]]:
    """Drop the instructions that set a class's docstring."""
    if code.co_flags & inspect.CO_OPTIMIZED:
        return instructions  # a function; its docstring is not an instruction
    for at, (_, _, op, argument) in enumerate(instructions):
        if op == _STORE_NAME and code.co_names[argument] == "__doc__":
            return instructions[: at - 1] + instructions[at + 1 :]
    return instructions


def _ordinals(instructions: list[tuple[int, int, int, int]], end: int) -> dict[int, int]:
    """Number the instructions by offset, without counting no-ops."""
    ordinals = {}
    count = 0
    for at, _, op, _ in instructions:
        ordinals[at] = count
        count += op != _NOP  # -OO puts one in a docstring's place
    ordinals[end] = count
    return ordinals


def _handlers(table: bytes, ordinals: Mapping[int, int]) -> Iterator[str]:
    """Yield the exception handlers and their ranges, from the compressed table."""
    values = []
    value = 0
    for byte in table:
        value = (value << 6) | (byte & 63)
        if not byte & 64:
            values.append(value)
            value = 0
    for first, length, target, depth in zip(*[iter(values)] * 4, strict=True):
        places = (ordinals[2 * place] for place in (first, first + length, target))
        yield f"except {' '.join(map(str, places))} {depth}"


def _inputs(code: CodeType) -> int:
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_argcount + code.co_kwonlyargcount + stars


def _parameters(code: CodeType, by_position: bool) -> tuple[str, ...]:
    """Return the names of the parameters that can be given by keyword."""
    first = code.co_posonlyargcount
    if by_position or code.co_name == "<lambda>":
        first = code.co_argcount
    return code.co_varnames[first : code.co_argcount + code.co_kwonlyargcount]


def _slots(code: CodeType) -> list[str]:
    """Return the names of all variables, in the order of their indexes in instructions."""
    cells = [name for name in code.co_cellvars if name not in code.co_varnames]
    return [*code.co_varnames, *cells, *code.co_freevars]
