"""The fingerprint: a hash tree of all code that decides a plan's results.

Each entry has a name: a model, a step, a function, a table, a library. Its hash covers its own
content, and it lists the entries it reaches; the root is a hash of all.
Two trees are compared entry by entry, so a difference is named where it was made.

The root is the same in every process, on every host and with every ``PYTHONHASHSEED``, also
when the module that holds the models is ``__main__`` in one process and imported in another:
names of modules and files are for messages only.

Functions are hashed by bytecode, not by source. A long-running worker holds the code it
imported, while the file may be newer; with the source it would claim migrations that it does
not have.
"""

import base64
import hashlib
import json
import platform
import sys
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from pydantic import BaseModel

from pyrmute_tasks.errors import FrameError
from pyrmute_tasks.plans.fingerprint.nodes import Node
from pyrmute_tasks.plans.fingerprint.packages import library_version
from pyrmute_tasks.plans.fingerprint.reachable import ReachedCode
from pyrmute_tasks.plans.fingerprint.sources import home_of, place_of
from pyrmute_tasks.plans.steps import Hop

__all__ = ["Entry", "FingerprintTree", "fingerprint_tree"]

_MAX_WIRE_BYTES: Final = 64 * 1024
_MAX_JSON_BYTES: Final = 4 * 1024 * 1024
_MAX_NAME: Final = 300
_ROOT_DIGITS: Final = 16
_HASH_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """One named part of a fingerprint tree.

    Attributes:
        name: Its name, ``"function orders.helpers.parse_date"``.
        place: Its place in the files, ``"orders/helpers.py:21"``; empty if unknown.
        hash: Hash of its own content, without the entries it reaches.
        reaches: Positions of the entries it refers to.
    """

    name: str
    place: str
    hash: str
    reaches: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.place else self.name


@dataclass(frozen=True, slots=True)
class FingerprintTree:
    """The fingerprint of a plan, with its named parts.

    Attributes:
        root: The fingerprint: a hash over all entries.
        entries: Steps, models, and the code they reach.
        tops: How many of the first entries belong to the plan itself; each of the others is
            reached from one of them.
    """

    root: str
    entries: tuple[Entry, ...]
    tops: int

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as values for JSON."""
        entries = [[e.name, e.place, e.hash, list(e.reaches)] for e in self.entries]
        return {"fingerprint": self.root, "tops": self.tops, "entries": entries}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Rebuild a tree from `to_dict`.

        Raises:
            FrameError: If it is something else.
        """
        try:
            entries = tuple(_entry(item, len(data["entries"])) for item in data["entries"])
            tops = data["tops"]
            _check(type(tops) is int and 0 <= tops <= len(entries))
            return cls(_text(data["fingerprint"]), entries, tops)
        except (LookupError, TypeError, ValueError):
            raise FrameError("this is not a fingerprint tree of this release") from None

    def to_wire(self) -> str:
        """Return the root and, if it is short enough, a space and the tree without places."""
        data = self.to_dict()
        for item in data["entries"]:
            item[1] = ""
        packed = base64.b85encode(zlib.compress(json.dumps(data).encode(), 9)).decode()
        return f"{self.root} {packed}" if len(packed) <= _MAX_WIRE_BYTES else self.root

    @classmethod
    def from_wire(cls, text: str) -> Self:
        """Decode a tree from `to_wire`. The text is not trusted.

        Raises:
            FrameError: If it is something else, or was too long to include the tree.
        """
        root, _, packed = text.partition(" ")
        if not packed or len(packed) > _MAX_WIRE_BYTES:
            raise FrameError("this is not a fingerprint tree")
        try:
            unpacker = zlib.decompressobj()
            plain = unpacker.decompress(base64.b85decode(packed), _MAX_JSON_BYTES)
            _check(not unpacker.unconsumed_tail)
            tree = cls.from_dict(json.loads(plain))
        except (ValueError, RecursionError, zlib.error):
            raise FrameError("this is not a fingerprint tree") from None
        if tree.root != root:
            raise FrameError("this is not a fingerprint tree")
        return tree


# --- building -----------------------------------------------------------------------------


def fingerprint_tree(
    subject: str, models: Iterable[type[BaseModel]], hops: Iterable[Hop], code: ReachedCode
) -> FingerprintTree:
    """Return the fingerprint tree of a plan.

    Args:
        subject: The plan's name and versions.
        models: The models it may meet; those in their fields are found from them.
        hops: The hops it may run.
        code: The captured code they reach.
    """
    code.complete()
    tops = [*_environment(subject, code), *(_hop(hop, code) for hop in hops)]
    tops += [node for node in map(code.of, models) if node is not None]
    order = _in_order(tops)
    positions = {node: position for position, node in enumerate(order)}
    root = hashlib.sha256()
    for node in order:
        name = _name(node) if node.kind in _NAMED or " " in node.name else ""
        refs = [positions[ref] for ref in node.refs]
        root.update(json.dumps([name, node.text, refs]).encode())
    for node in order:
        _find_home(node, code)
    entries = [
        Entry(
            _name(node),
            "" if node.module == "" or node.kind == "library" else _place(node),
            _hash(_name(node) if node.kind == "library" else node.text or ""),
            tuple(positions[ref] for ref in node.refs),
        )
        for node in order
    ]
    return FingerprintTree(
        root.hexdigest()[:_ROOT_DIGITS], tuple(entries), len(dict.fromkeys(tops))
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]


_NAMED: Final = ("python", "library", "plan", "step")


def _environment(subject: str, code: ReachedCode) -> list[Node]:
    python = f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]}"
    # What affects results by more than its version: how steps run and records are validated.
    return [
        Node("python", python, text=python),
        *filter(None, map(code.library, ("pydantic", "pyrmute_tasks"))),
        Node("plan", subject, text=""),
    ]


def _hop(hop: Hop, code: ReachedCode) -> Node:
    name = f"{hop.name} {hop.from_version} → {hop.to_version}"
    if hop.step is None or hop.step.generated:
        return Node("step", name, text="generated" if hop.step else "nothing")
    node = code.step(name, hop.step.function)
    if node.text is None:
        code.register({}, [(name, hop.step.function)])
        code.capture((), [hop.step.function])
        code.complete()
    if node.name == name and node.kind == "step":
        return node
    return Node("step", name, node.module, node.held, text="as another one", refs=[node])


def _in_order(tops: list[Node]) -> list[Node]:
    """Return the `tops` and then all nodes they reach, each once."""
    found = dict.fromkeys(tops)
    queue = deque(found)
    while queue:
        for ref in queue.popleft().refs:
            if ref not in found:
                found[ref] = None
                queue.append(ref)
    return list(found)


def _name(node: Node) -> str:
    if node.kind == "library":
        return f"library {node.name} {library_version(node.name)}".rstrip()
    return f"{node.kind} {node.name}"


def _find_home(node: Node, code: ReachedCode) -> None:
    """Name a constant by the module that defines it, not the one that uses it."""
    if node.kind in ("constant", "table", "object"):
        name = node.name.rpartition(".")[2]
        node.module = home_of(node.held, node.module, name, code.owns)
        node.name = f"{node.module}.{name}"


def _place(node: Node) -> str:
    name = getattr(node.held, "__qualname__", node.name)
    return place_of(node.held, node.module, name if isinstance(name, str) else node.name)


# --- reading ------------------------------------------------------------------------------


def _entry(item: Any, count: int) -> Entry:
    name, place, digest, reaches = item
    _check(all(type(ref) is int and 0 <= ref < count for ref in reaches))
    return Entry(_text(name), _text(place, empty=True), _text(digest), tuple(reaches))


def _text(value: Any, *, empty: bool = False) -> str:
    _check(type(value) is str and len(value) <= _MAX_NAME and bool(value or empty))
    return "".join(letter if letter.isprintable() else "?" for letter in value)


def _check(is_right: bool) -> None:
    if not is_right:
        raise ValueError
