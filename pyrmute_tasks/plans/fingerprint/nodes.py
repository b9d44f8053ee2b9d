"""What has a name in a fingerprint tree while it is found: nodes, and texts that refer to them."""

from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Content", "Node", "Nodes"]


@dataclass(slots=True, eq=False)
class Node:
    """Something that decides what a plan makes of a record, and has a name.

    Attributes:
        kind: Such as ``"function"``.
        name: Such as ``"orders.helpers.parse_date"``.
        module: The module that holds it.
        held: The object.
        by_position: Whether it is called without keywords only.
        text: What it is itself, without what it refers to; None until that was looked at.
        refs: What it refers to, in order.
    """

    kind: str
    name: str
    module: str = ""
    held: Any = None
    by_position: bool = False
    text: str | None = None
    refs: "list[Node]" = field(default_factory=list)


@dataclass(slots=True)
class Content:
    """A text with references."""

    parts: list[str] = field(default_factory=list)
    refs: list[Node] = field(default_factory=list)

    def add(self, *texts: str) -> None:
        """Add text."""
        self.parts.extend(texts)

    def refer(self, node: Node) -> None:
        """Add a reference."""
        self.parts.append("→")
        self.refs.append(node)

    def extend(self, other: "Content") -> None:
        """Add another content."""
        self.parts += other.parts
        self.refs += other.refs

    @property
    def order(self) -> tuple[list[str], list[str]]:
        """By which contents are sorted that come in no order of their own."""
        return self.parts, [node.name for node in self.refs]


class Nodes(Protocol):
    """Knows what has a node of its own."""

    def of(self, value: Any) -> Node | None:
        """Return the node of a function, a class or a module, if it has one."""

    def library(self, module: str) -> Node | None:
        """Return the node of the library that a module belongs to; None for Python's own."""

    def owns(self, module: str) -> bool:
        """Say whether a module is the user's own."""
