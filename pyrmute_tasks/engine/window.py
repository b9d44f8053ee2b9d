"""The window: how much of a job may be in flight, and the rule of its size."""

import math
from dataclasses import dataclass
from typing import Final

from pyrmute_tasks.errors import ConfigurationError

__all__ = ["Window"]

_MIN_CHUNKS: Final = 8
_MAX_CHUNKS: Final = 1024
_CHUNKS_PER_SLOT: Final = 4
_MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Window:
    """Upper bounds of the chunks and bytes that a job has in flight.

    Attributes:
        chunks: Chunks submitted and not yet delivered.
        size_bytes: Sum of the sizes of their inputs or, where they are larger, outcomes; sizes of
            pending outcomes are estimated from earlier ones. A single chunk larger than this still
            passes, alone.

    Raises:
        ConfigurationError: If either is not positive.
    """

    chunks: int = _MIN_CHUNKS
    size_bytes: int = _MAX_BYTES

    def __post_init__(self) -> None:
        if self.chunks < 1 or self.size_bytes < 1:
            raise ConfigurationError("a window must admit at least one chunk and one byte")

    @classmethod
    def for_slots(cls, slots: int, jobs: int = 1, weight: float = 1.0) -> "Window":
        """Return the default for each of `jobs` on an executor with `slots` slots.

        Four chunks a slot keep a slot busy while its last outcome travels, and let it run ahead of
        a sibling that is four times slower. Jobs share them, so that a new one does not wait for a
        window of each.

        Args:
            slots: Chunks that run at a time.
            jobs: Jobs that share them.
            weight: The share of this one, where others have 1; without others it has all.

        Returns:
            The window.
        """
        chunks = min(max(_CHUNKS_PER_SLOT * slots, _MIN_CHUNKS), _MAX_CHUNKS)
        if jobs == 1:
            return cls(chunks, _MAX_BYTES)
        shares = (math.ceil(whole * weight / jobs) for whole in (chunks, _MAX_BYTES))
        return cls(*map(min, (chunks, _MAX_BYTES), shares))

    def at_most(self, other: "Window") -> "Window":
        """Return a window with the smaller bounds of the two.

        Args:
            other: Another window.

        Returns:
            The smaller number of chunks, and the smaller size.
        """
        return Window(min(self.chunks, other.chunks), min(self.size_bytes, other.size_bytes))
