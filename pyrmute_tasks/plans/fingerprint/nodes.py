"""Nodes of a fingerprint tree while it is built, and texts that refer to them."""

from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Content", "Node", "Nodes"]


@dataclass(slots=True, eq=False)
class Node:
    """A named part of the code that decides a plan's results.

    Attributes:
        kind: Its kind, such as ``"function"``.
        name: Its name, such as ``"orders.helpers.parse_date"``.
        module: The module that holds it.
        held: The object.
        by_position: Whether it is only called without keywords.
        text: Its description, without the nodes it refers to; None until it is described.
        refs: The nodes it refers to, in order.
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
        """Add the texts and references of another content."""
        self.parts += other.parts
        self.refs += other.refs

    @property
    def order(self) -> tuple[list[str], list[str]]:
        """Return a sort key, for contents without an order of their own."""
        return self.parts, [node.name for node in self.refs]


class Nodes(Protocol):
    """Finds nodes."""

    def of(self, value: Any) -> Node | None:
        """Return the node of a function, a class or a module, if it has one."""

    def library(self, module: str) -> Node | None:
        """Return the node of a module's library; None for the standard library."""

    def owns(self, module: str) -> bool:
        """Return whether a module is the user's own."""
